"""How loud people hear a sound, and the gain that makes all announcements equally loud. Pure numpy."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TARGET_LUFS = -16.0
"""Speech for horns outdoors, louder than EBU R128's -23 for broadcast, as streaming speech is."""

CEILING = 10 ** (-1.0 / 20)
"""Peaks stay 1 dB below full scale."""

MOST_GAIN_DB = 30.0
SILENCE_LUFS = -70.0
"""Absolute gate of ITU-R BS.1770-4; below it there is nothing to level."""

Sound = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Biquad:
    b: tuple[float, float, float]
    a: tuple[float, float, float]


def loudness(sound: Sound, rate: int) -> float:
    """Return the integrated loudness in LUFS of a mono sound in [-1, 1] (ITU-R BS.1770-4); -inf for silence."""
    block, step = int(0.4 * rate), int(0.1 * rate)
    if len(sound) < block:
        sound = np.pad(sound, (0, block - len(sound)))
    weighted = _k_weighted(sound, rate)
    energy = np.concatenate([[0.0], np.cumsum(weighted**2)])
    starts = np.arange(0, len(sound) - block + 1, step)
    power = (energy[starts + block] - energy[starts]) / block
    with np.errstate(divide="ignore"):
        levels = -0.691 + 10 * np.log10(power)
    loud = levels > SILENCE_LUFS
    if not loud.any():
        return float("-inf")
    relative = -0.691 + 10 * np.log10(np.mean(power[loud])) - 10.0
    kept = power[loud & (levels > relative)]
    return float(-0.691 + 10 * np.log10(np.mean(kept)))


def levelled(sound: Sound, rate: int) -> Sound | None:
    """Return the sound at TARGET_LUFS, as far as the ceiling and MOST_GAIN_DB allow; None if it is silent."""
    measured = loudness(sound, rate)
    if not np.isfinite(measured):
        return None
    gain = 10 ** (min(TARGET_LUFS - measured, MOST_GAIN_DB) / 20)
    peak = float(np.max(np.abs(sound)))
    return sound * min(gain, CEILING / peak)


def _k_weighted(sound: Sound, rate: int) -> Sound:
    """Return the sound behind the two filters of BS.1770-4, annex 1, applied to its spectrum piece by piece.

    Each piece is filtered together with the second before it: by then the filters have forgotten what was earlier (the
    slower one, a high-pass at 38 Hz, has a time constant of 4 ms).
    """
    piece, before = 60 * rate, rate
    size = 1 << (2 * (piece + before) - 1).bit_length()  # padded, so that the end does not run into the beginning
    z = np.exp(-2j * np.pi * np.fft.rfftfreq(size))
    response = np.ones_like(z)
    for stage in (_shelf(rate), _high_pass(rate)):
        response *= (stage.b[0] + stage.b[1] * z + stage.b[2] * z**2) / (
            stage.a[0] + stage.a[1] * z + stage.a[2] * z**2
        )
    weighted = np.empty_like(sound)
    for start in range(0, len(sound), piece):
        first, end = max(0, start - before), min(len(sound), start + piece)
        filtered = np.fft.irfft(np.fft.rfft(sound[first:end], size) * response, size)
        weighted[start:end] = filtered[start - first : end - first]
    return weighted


def _shelf(rate: int) -> _Biquad:
    # The standard gives coefficients for 48 kHz; these are the analogue parameters that yield them there.
    k, gain = np.tan(np.pi * 1681.974450955533 / rate), 3.999843853973347
    q, high = 0.7071752369554196, 10 ** (gain / 20)
    band = high**0.4996667741545416
    norm = 1 + k / q + k * k
    return _Biquad(
        b=((high + band * k / q + k * k) / norm, 2 * (k * k - high) / norm, (high - band * k / q + k * k) / norm),
        a=(1.0, 2 * (k * k - 1) / norm, (1 - k / q + k * k) / norm),
    )


def _high_pass(rate: int) -> _Biquad:
    k, q = np.tan(np.pi * 38.13547087602444 / rate), 0.5003270373238773
    norm = 1 + k / q + k * k
    return _Biquad(b=(1.0, -2.0, 1.0), a=(1.0, 2 * (k * k - 1) / norm, (1 - k / q + k * k) / norm))
