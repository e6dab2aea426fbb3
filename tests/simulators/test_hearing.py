"""The judge of recordings: silence, noise, the wrong programme and half a programme must fail."""

import numpy as np
import pytest
from numpy.typing import NDArray

from simulators.hearing import heard
from simulators.rtp_recording import ULAW

RATE = 8000
Sound = NDArray[np.int16]


def speech(seed: int, seconds: float = 4.0) -> Sound:
    """Return something like speech: syllables of changing pitch and loudness, with pauses."""
    random = np.random.default_rng(seed)
    parts: list[NDArray[np.float64]] = []
    while sum(len(part) for part in parts) < seconds * RATE:
        length = int(random.uniform(0.1, 0.3) * RATE)
        time = np.arange(length) / RATE
        pitch = random.uniform(90, 180) * (1 + random.uniform(-0.3, 0.3) * time)
        voice = sum(np.sin(2 * np.pi * pitch * k * time + random.uniform(0, 6)) / k for k in range(1, 12))
        parts += [voice * np.hanning(length) * 4000, np.zeros(int(random.uniform(0.02, 0.08) * RATE))]
    return np.concatenate(parts)[: int(seconds * RATE)].astype(np.int16)


PROGRAMME = speech(1)


def delayed(sound: Sound, samples: int) -> Sound:
    return np.concatenate([np.zeros(samples, dtype=np.int16), sound])


def quantised(sound: Sound) -> Sound:
    nearest = np.abs(ULAW[None, :].astype(np.int32) - sound[:, None].astype(np.int32)).argmin(axis=1)
    return np.asarray(ULAW[nearest])


def with_a_packet_lost(sound: Sound) -> Sound:
    cut = sound.copy()
    cut[8000:8160] = 0
    return cut


@pytest.mark.parametrize(
    "recording",
    [
        PROGRAMME,
        (PROGRAMME * 0.2).astype(np.int16),
        delayed(PROGRAMME, 1234),
        quantised(PROGRAMME),
        with_a_packet_lost(PROGRAMME),
        PROGRAMME[160:],
    ],
    ids=["itself", "soft", "late", "mu-law", "one packet lost", "first packet lost"],
)
def test_the_programme_is_heard(recording: Sound) -> None:
    assert heard(recording, PROGRAMME, rate=RATE).heard


@pytest.mark.parametrize(
    "recording",
    [
        np.zeros(32_000, dtype=np.int16),
        np.zeros(0, dtype=np.int16),
        np.random.default_rng(3).normal(0, 5000, 32_000).astype(np.int16),
        speech(2),
        PROGRAMME[: int(len(PROGRAMME) * 0.7)],
        PROGRAMME[::-1].copy(),
    ],
    ids=["silence", "nothing", "noise", "another programme", "cut off", "backwards"],
)
def test_what_is_not_the_programme_is_not_heard(recording: Sound) -> None:
    assert not heard(recording, PROGRAMME, rate=RATE).heard


def test_the_onset_says_where_the_programme_begins() -> None:
    found = heard(delayed(PROGRAMME, 4000), PROGRAMME, rate=RATE)
    assert found.lag_seconds == pytest.approx(0.5)
    assert found.onset_seconds == pytest.approx(0.5, abs=0.06)
