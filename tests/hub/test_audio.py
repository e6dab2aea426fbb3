"""What becomes of uploaded and spoken sound before anybody hears it; hostile files hurt nothing but their worker."""

import hashlib
import io
import wave
from pathlib import Path

import av
import numpy as np
import pytest

from hub import audio
from hub.audio import AudioRefused, AudioStore
from hub.loudness import CEILING, TARGET_LUFS, loudness

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
