"""Loudness as ITU-R BS.1770-4 measures it."""

import numpy as np
import pytest

from hub.loudness import CEILING, TARGET_LUFS, levelled, loudness


@pytest.mark.parametrize("rate", [16_000, 48_000])
def test_a_full_scale_kilohertz_reads_minus_three(rate: int) -> None:
    # BS.1770-4: a 0 dBFS 997 Hz sine on one front channel indicates -3.01 LKFS.
    sine = np.sin(2 * np.pi * 997 * np.arange(rate * 5) / rate)
    assert loudness(sine, rate) == pytest.approx(-3.01, abs=0.1)


def test_pauses_are_gated_out() -> None:
    rate = 16_000
    sine = 0.1 * np.sin(2 * np.pi * 997 * np.arange(rate * 5) / rate)
    with_pauses = np.concatenate([sine, np.zeros(rate * 10), sine])
    assert loudness(with_pauses, rate) == pytest.approx(loudness(sine, rate), abs=0.3)


def test_soft_and_loud_come_out_alike_and_never_clip() -> None:
    rate = 16_000
    sine = np.sin(2 * np.pi * 500 * np.arange(rate * 3) / rate)
    for gain in (0.02, 0.2, 1.0):
        level = levelled(sine * gain, rate)
        assert level is not None
        assert loudness(level, rate) == pytest.approx(TARGET_LUFS, abs=0.1)
        assert np.max(np.abs(level)) <= CEILING + 1e-9


def test_silence_cannot_be_levelled() -> None:
    assert levelled(np.zeros(16_000), 16_000) is None
