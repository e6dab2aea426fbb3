"""Whether a recording contains a given programme, from its beginning to its end. Pure numpy."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WINDOW_SECONDS = 0.02
SIMILAR = 0.6
"""Correlation of a 20 ms window that counts as the same sound; µ-law at 8 kHz keeps speech well above it."""

ENOUGH = 0.9
AUDIBLE = 0.05
"""A window belongs to the judgement if its level is at least this share of the programme's loudest."""

Sound = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hearing:
    """The one lag that fits the whole recording best, and the share of audible windows that match at it.

    `onset_seconds` is where in the recording the programme's first matching window begins; None where nothing matches.
    """

    heard: bool
    lag_seconds: float
    coverage: float
    onset_seconds: float | None


def heard(recording: NDArray[np.int16], programme: NDArray[np.int16], *, rate: int) -> Hearing:
    """Return whether the programme (both mono at `rate`) was to be heard.

    One lag for all windows: with a free lag, 20 ms of a wrong programme would match somewhere too.
    """
    nothing = Hearing(heard=False, lag_seconds=0.0, coverage=0.0, onset_seconds=None)
    if not len(recording) or not len(programme) or not np.any(recording) or not np.any(programme):
        return nothing
    there, wanted = recording.astype(np.float64), programme.astype(np.float64)
    lag = _lag(there, wanted)
    matches, audible = _matches(there, wanted, lag, max(1, int(rate * WINDOW_SECONDS)))
    if not audible.any():
        return nothing
    coverage = float(np.mean(matches[audible]))
    matching = np.flatnonzero(matches & audible)
    onset = (int(matching[0]) * int(rate * WINDOW_SECONDS) + lag) / rate if len(matching) else None
    return Hearing(heard=coverage >= ENOUGH, lag_seconds=lag / rate, coverage=coverage, onset_seconds=onset)


def _lag(there: Sound, wanted: Sound) -> int:
    size = 1 << (len(there) + len(wanted) - 1).bit_length()
    product = np.fft.rfft(there, size) * np.conj(np.fft.rfft(wanted, size))
    correlation = np.fft.irfft(product, size)
    best = int(np.argmax(correlation))
    return best if best < len(there) else best - size


def _matches(there: Sound, wanted: Sound, lag: int, window: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    count = len(wanted) // window
    aligned = np.zeros(count * window)
    start, end = max(0, -lag), min(count * window, len(there) - lag)
    if end > start:
        aligned[start:end] = there[start + lag : end + lag]
    left, right = wanted[: count * window].reshape(count, window), aligned.reshape(count, window)
    level, other = np.linalg.norm(left, axis=1), np.linalg.norm(right, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        similar = np.nan_to_num(np.sum(left * right, axis=1) / (level * other))
    return similar >= SIMILAR, level >= AUDIBLE * level.max(initial=0.0)
