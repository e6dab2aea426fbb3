"""The process that decodes: what comes out in each form, what is refused, and that nothing of it is the agent's."""

import asyncio
import subprocess
import sys
import wave
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge.audio import AudioUnreadable, Decoder, Encoding, Form, last_words
from edge.audio_worker import decoded, reason

Samples = NDArray[np.int16]


def written(path: Path, sound: Samples, rate: int = 8000) -> Path:
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(sound.astype("<i2").tobytes())
    return path


def linear(code: int) -> int:
    """Return the 16-bit value of a µ-law code, by the formula of G.711."""
    code = ~code & 0xFF
    magnitude = (((code & 0x0F) << 3) + 0x84 << ((code >> 4) & 7)) - 0x84
    return -magnitude if code & 0x80 else magnitude


async def whole(parts: list[tuple[Path, int]], form: Form) -> bytes:
    with await Decoder().decoded(parts, form) as sound:
        return await sound.read(0, sound.length)


async def test_a_file_comes_out_in_the_form_that_was_asked_for(tmp_path: Path) -> None:
    file = written(tmp_path / "a.wav", np.array([1, -2, 300, 0] * 100, dtype=np.int16))
    forms = [Form(encoding=encoding, rate=8000) for encoding in Encoding]
    big, mu, little = await asyncio.gather(*(whole([(file, 50)], form) for form in forms))
    assert big[:8] == b"\x00\x01\xff\xfe\x01\x2c\x00\x00"
    assert little[:8] == b"\x01\x00\xfe\xff\x2c\x01\x00\x00"
    assert [linear(code) for code in mu[:4]] == pytest.approx([1, -2, 300, 0], abs=8)
    assert (len(big), len(mu), len(little)) == (800, 400, 800)


async def test_files_follow_one_another_without_a_gap_at_another_rate(tmp_path: Path) -> None:
    one = written(tmp_path / "one.wav", np.full(16_000, 5000, dtype=np.int16), rate=32_000)
    two = written(tmp_path / "two.wav", np.full(4000, -5000, dtype=np.int16))
    raw = await whole([(one, 500), (two, 500)], Form(encoding=Encoding.L16, rate=8000))
    sound = np.frombuffer(raw, dtype=">i2").astype(np.int32)
    assert len(sound) == pytest.approx(8000, abs=40)
    assert set(sound[100:3900]) <= set(range(4990, 5011))
    assert set(sound[4100:7900]) == {-5000}


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "Invalid data"),
        (b"RIFF\x24\x00\x00\x00WAVEfmt ", "Invalid data"),
        (b"ffconcat version 1.0\nfile other.wav\n", "."),
        (b"#EXTM3U\n#EXTINF:1,\nother.wav\n", "."),
    ],
    ids=["nothing", "half a header", "concat playlist", "hls playlist"],
)
async def test_what_is_no_sound_is_refused_with_words(tmp_path: Path, raw: bytes, words: str) -> None:
    written(tmp_path / "other.wav", np.full(4000, 9000, dtype=np.int16))
    (tmp_path / "a").write_bytes(raw)
    with pytest.raises(AudioUnreadable, match=words):
        await whole([(tmp_path / "a", 500)], Form(encoding=Encoding.L16, rate=8000))


async def test_one_that_sounds_longer_than_ordered_is_refused(tmp_path: Path) -> None:
    file = written(tmp_path / "a.wav", np.zeros(16_000, dtype=np.int16))
    with pytest.raises(AudioUnreadable, match=r"a\.wav sounds longer than the 1 s ordered"):
        await whole([(file, 1000)], Form(encoding=Encoding.L16, rate=8000))
    assert await whole([(file, 2000)], Form(encoding=Encoding.L16, rate=8000))


async def test_a_folder_that_is_gone_is_unreadable_audio(tmp_path: Path) -> None:
    with pytest.raises(AudioUnreadable, match="no room"):
        await whole([(tmp_path / "gone" / "a", 500)], Form(encoding=Encoding.L16, rate=8000))


def test_every_code_of_mu_law_survives_a_round_trip(tmp_path: Path) -> None:
    values = [linear(code) for code in range(256)]
    file = written(tmp_path / "a.wav", np.array(values, dtype=np.int16))
    assert [linear(code) for code in b"".join(decoded(file, "PCMU", 8000, 100))] == values


def test_mu_law_of_silence_and_of_the_loudest(tmp_path: Path) -> None:
    file = written(tmp_path / "a.wav", np.array([0, -32_768, 32_767], dtype=np.int16))
    assert b"".join(decoded(file, "PCMU", 8000, 100)) == b"\xff\x00\x80"


@given(st.lists(st.integers(-32_768, 32_767), min_size=1, max_size=50))
def test_mu_law_is_as_near_as_its_segment_allows(values: list[int]) -> None:
    encoder = av.CodecContext.create("pcm_mulaw", "w")
    assert isinstance(encoder, av.AudioCodecContext)
    encoder.sample_rate, encoder.layout, encoder.format = 8000, "mono", "s16"
    frame = av.AudioFrame.from_ndarray(np.array([values], dtype=np.int16), format="s16", layout="mono")
    frame.sample_rate = 8000
    codes = b"".join(bytes(packet) for packet in encoder.encode(frame))
    for value, code in zip(values, codes, strict=True):
        off = abs(linear(code) - value)
        assert off <= max(4, abs(value) // 16 + 8) or abs(value) > 32_124


async def test_a_process_that_talks_without_end_is_heard_to_its_last_words() -> None:
    stream = asyncio.StreamReader()
    stream.feed_data(b"x" * 100_000 + b"\n" + b"a last\x1b word\n")
    stream.feed_eof()
    assert await last_words(stream) == "a last? word"


@pytest.mark.parametrize(
    ("words", "word"),
    [
        ("cannot open audio device a (No such file or directory)", "not_found"),
        ("cannot open audio device a (Device or resource busy)", "busy"),
        ("cannot open audio device a (Permission denied)", "failed"),
    ],
)
def test_what_alsa_says_of_a_device_is_told_apart(words: str, word: str) -> None:
    assert reason(words) == word


def test_the_agent_that_speaks_holds_neither_a_decoder_nor_numpy() -> None:
    asked = "import sys, edge.announcer, edge.rtp; print([one for one in ('av', 'numpy') if one in sys.modules])"
    told = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
