"""The microphone in the room: it hears the horn, weaker and later, and the judge still knows the programme."""

import numpy as np
import pytest
from numpy.typing import NDArray

from simulators.hearing import heard
from simulators.room import at_microphone

RATE = 8000


def speech(seed: int) -> NDArray[np.int16]:
    """Return something like speech: syllables of changing pitch and loudness, with pauses."""
    random = np.random.default_rng(seed)
    parts: list[NDArray[np.float64]] = []
    while sum(len(part) for part in parts) < 4 * RATE:
        length = int(random.uniform(0.1, 0.3) * RATE)
        time = np.arange(length) / RATE
        pitch = random.uniform(90, 180) * (1 + random.uniform(-0.3, 0.3) * time)
        voice = sum(np.sin(2 * np.pi * pitch * k * time + random.uniform(0, 6)) / k for k in range(1, 12))
        parts += [voice * np.hanning(length) * 4000, np.zeros(int(random.uniform(0.02, 0.08) * RATE))]
    return np.concatenate(parts)[: 4 * RATE].astype(np.int16)


@pytest.mark.parametrize("place", ["speaker-01", "speaker-02", "speaker-03", "speaker-04"])
def test_the_programme_is_heard_in_the_room_and_another_is_not(place: str) -> None:
    there = at_microphone(speech(1), RATE, metres=15, seed=7, place=place)
    found = heard(there, speech(1), rate=RATE)
    assert found.heard
    assert found.lag_seconds == pytest.approx(15 / 343, abs=0.001)
    assert not heard(there, speech(2), rate=RATE).heard


def test_a_horn_that_is_silent_leaves_noise_in_which_nothing_is_heard() -> None:
    there = at_microphone(np.zeros(4 * RATE, dtype=np.int16), RATE, metres=15, seed=7, place="speaker-01")
    assert np.std(there) == pytest.approx(6, abs=0.5)
    assert not heard(there, speech(1), rate=RATE).heard


def test_the_level_sinks_with_the_distance() -> None:
    near, far = (at_microphone(speech(1), RATE, metres=metres, seed=7, place="x") for metres in (10, 100))
    assert np.std(near.astype(float)) > 5 * np.std(far.astype(float))


def test_the_same_seed_and_place_give_the_same_and_others_do_not() -> None:
    def once(seed: int, place: str) -> bytes:
        return at_microphone(speech(1), RATE, metres=15, seed=seed, place=place).tobytes()

    assert once(7, "a") == once(7, "a")
    assert len({once(7, "a"), once(8, "a"), once(7, "b")}) == 3
