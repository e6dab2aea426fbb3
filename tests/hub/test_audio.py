"""What becomes of uploaded and spoken sound before anybody hears it; hostile files hurt nothing but their worker."""

import errno
import hashlib
import io
import subprocess
import sys
import wave
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub import audio
from hub.audio import AudioRefused, AudioStore
from hub.loudness import CEILING, TARGET_LUFS, loudness
from hub.sound_format import demuxer

RATE = 16_000


def wav(seconds: float, *, level: float = 0.3, rate: int = RATE, channels: int = 1) -> bytes:
    sound = level * 32_767 * np.sin(2 * np.pi * 440 * np.arange(int(rate * seconds)) / rate)
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(channels)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(np.repeat(sound.astype("<i2"), channels).tobytes())
    return file.getvalue()


def samples(path: Path) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    with av.open(str(path)) as container:
        assert container.streams.audio[0].rate == RATE
        assert container.streams.audio[0].layout.name == "mono"
        return np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)]) / 32_768


@pytest.fixture
def store(tmp_path: Path) -> AudioStore:
    return AudioStore(tmp_path / "audio")


@pytest.mark.parametrize("level", [0.01, 0.9])
async def test_a_file_becomes_levelled_mono_flac_known_by_its_digest(store: AudioStore, level: float) -> None:
    programme = await store.from_file(wav(2, level=level, rate=44_100, channels=2))
    path = store.path(programme.sha256)
    assert path is not None
    assert hashlib.sha256(path.read_bytes()).hexdigest() == programme.sha256
    assert path.stat().st_size == programme.bytes
    assert programme.duration_ms == pytest.approx(2000, abs=2)
    assert loudness(samples(path), RATE) == pytest.approx(TARGET_LUFS, abs=0.2)


async def test_the_same_sound_is_kept_once(store: AudioStore, tmp_path: Path) -> None:
    first = await store.from_file(wav(1))
    assert await store.from_file(wav(1)) == first
    assert len(list((tmp_path / "audio").iterdir())) == 1


async def test_ten_minutes_pass_and_a_second_more_does_not(store: AudioStore) -> None:
    assert (await store.from_file(wav(600, rate=8000))).duration_ms == 600_000
    with pytest.raises(AudioRefused) as caught:
        await store.from_file(wav(601, rate=8000))
    assert caught.value.code == "too_long"


async def test_a_playlist_cannot_make_the_hubs_own_files_sound(
    store: AudioStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FFmpeg would follow it: a text file names others, and the worker runs where the hub runs."""
    (tmp_path / "private.wav").write_bytes(wav(1))
    monkeypatch.setenv("PYTHONPATH", str(Path.cwd()))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AudioRefused) as caught:
        await store.from_file(b"ffconcat version 1.0\nfile private.wav\n")
    assert caught.value.code == "unreadable"


def encoded(container: str, codec: str, rate: int = RATE) -> bytes:
    """Return a second of sound in a container."""
    sink = io.BytesIO()
    with av.open(sink, "w", format=container) as out:
        stream: Any = out.add_stream(codec, rate=rate)
        stream.layout = "mono"
        resampler = av.AudioResampler(format=stream.format.name, layout="mono", rate=rate)
        tone = (20_000 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)).astype("<i2")
        fifo = av.AudioFifo()
        frame = av.AudioFrame.from_ndarray(tone[None], format="s16", layout="mono")
        frame.rate = rate
        for one in resampler.resample(frame):
            fifo.write(one)
        while (piece := fifo.read(stream.codec_context.frame_size or 1024)) is not None:
            out.mux(stream.encode(piece))
        out.mux(stream.encode(None))
    return sink.getvalue()


@pytest.mark.parametrize(
    ("container", "codec", "known"),
    [
        ("wav", "pcm_s16le", "wav"),
        ("flac", "flac", "flac"),
        ("ogg", "libopus", "ogg"),
        ("mp3", "libmp3lame", "mp3"),
        ("mp4", "aac", "mov"),
        ("adts", "aac", "aac"),
        ("aiff", "pcm_s16be", "aiff"),
        ("caf", "pcm_s16le", "caf"),
        ("webm", "libopus", "matroska"),
        ("w64", "pcm_s16le", "w64"),
        ("asf", "pcm_s16le", "asf"),
    ],
)
async def test_what_people_have_on_their_phones_is_known_by_its_bytes_and_decoded(
    store: AudioStore, container: str, codec: str, known: str
) -> None:
    raw = encoded(container, codec, 48_000 if codec == "libopus" else RATE)
    assert demuxer(raw) == known
    assert (await store.from_file(raw)).duration_ms == pytest.approx(1000, abs=150)


@given(st.binary(max_size=64))
def test_any_bytes_are_some_container_or_none(raw: bytes) -> None:
    assert demuxer(raw) in {
        None,
        "flac",
        "ogg",
        "mp3",
        "caf",
        "amr",
        "matroska",
        "asf",
        "w64",
        "wav",
        "aiff",
        "mov",
        "aac",
    }


@pytest.mark.parametrize(
    "hostile",
    [
        b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
        b"#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:1,\nhttp://127.0.0.1:1/x.ts\n",
        b"[playlist]\nFile1=http://127.0.0.1:1/\n",
        b"v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=audio 9 RTP/AVP 0\n",
        b"RIFF\x00\x00\x00\x00WAVE" + b"\x00" * 40,
        b"fLaC" + b"\xff" * 4096,
        b"OggS" + bytes(range(256)) * 16,
        b"\x1a\x45\xdf\xa3" + b"\xff" * 4096,
        b"\x00\x00\x00\x20ftypM4A " + b"\x00\x00\x00\x00moov" * 500,
    ],
)
async def test_a_file_that_is_no_sound_is_refused_whatever_it_names(store: AudioStore, hostile: bytes) -> None:
    with pytest.raises(AudioRefused) as caught:
        await store.from_file(hostile)
    assert caught.value.code in {"unreadable", "empty", "too_slow"}


def test_the_decoders_process_can_open_neither_file_nor_network() -> None:
    script = """
import socket
from hub.sound_worker import confine
confine()
for attempt in (lambda: open('/etc/hostname'), lambda: socket.socket(), lambda: open('/tmp/x', 'w')):
    try:
        attempt()
    except OSError as exc:
        print(exc.errno)
"""
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True)
    assert told.stdout.split() == [str(errno.EMFILE)] * 3


async def test_a_worker_that_hangs_is_killed_at_its_deadline(
    store: AudioStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audio, "WORKER_DEADLINE", 0.01)
    with pytest.raises(AudioRefused) as caught:
        await store.from_file(wav(1))
    assert caught.value.code == "too_slow"


async def test_text_is_spoken_levelled_and_kept(store: AudioStore) -> None:
    pytest.importorskip("espeakng_loader", reason="the voice is not installed: pip install 'smart-hamlet[speech]'")
    programme = await store.from_text("Kính thưa bà con, nước đang lên.")
    path = store.path(programme.sha256)
    assert path is not None
    assert 1500 < programme.duration_ms < 6000
    # The peaks of a voice meet the ceiling before its loudness meets the target.
    assert np.max(np.abs(samples(path))) == pytest.approx(CEILING, abs=0.001)
    assert loudness(samples(path), RATE) > TARGET_LUFS - 6
    assert (await store.from_text("Bà con sơ tán ngay.")).sha256 != programme.sha256


async def test_without_the_voice_the_way_out_is_named(
    store: AudioStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "espeakng_loader.py").write_text("raise ImportError", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(AudioRefused, match=r"pip install 'smart-hamlet\[speech\]'") as caught:
        await store.from_text("Xin chào")
    assert caught.value.code == "no_voice"


@pytest.mark.parametrize("name", ["", "../hub.db", "0" * 63, "A" * 64, "0" * 64 + "\n"])
async def test_only_digests_name_files(store: AudioStore, tmp_path: Path, name: str) -> None:
    await store.from_file(wav(1))
    (tmp_path / "audio" / f"{name.strip()}.flac").parent.mkdir(parents=True, exist_ok=True)
    assert store.path(name) is None
