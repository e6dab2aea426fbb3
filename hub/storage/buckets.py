"""A series in equal spans of time: how often, between what, and its mean weighted by time. Pure numpy."""

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hub.storage.timeseries import Buckets

Instants = NDArray[np.int64]
Numbers = NDArray[np.float64]


def buckets(
    at: Instants, value: Numbers, good: NDArray[np.bool_], *, start: int, end: int, count: int, hold_ms: int
) -> Buckets:
    """Return `count` spans of [start, end) from samples in time order, those before `start` being carried in.

    A good value stands from its instant until the next sample, at most `hold_ms`; a bad one stands for nothing and ends
    the one before it.
    """
    edges = np.linspace(start, end, count + 1)
    until = np.minimum(np.append(at[1:], np.int64(end)), at + hold_ms)
    span = np.where(good, np.maximum(until - at, 0), 0).astype(np.float64)
    # Integral and coverage are straight lines between the points where a value begins and ends to stand.
    points = np.stack([at, at + span.astype(np.int64)], axis=1).ravel().astype(np.float64)
    covered = np.diff(_at_edges(edges, points, span))
    integral = np.diff(_at_edges(edges, points, np.where(good, value, 0.0) * span))
    inside = good & (at >= start) & (at < end)
    which = np.minimum(((at[inside] - start) * count) // max(end - start, 1), count - 1)
    values = value[inside]
    counts = np.bincount(which, minlength=count)
    low, high = np.full(count, np.inf), np.full(count, -np.inf)
    np.minimum.at(low, which, values)
    np.maximum.at(high, which, values)
    first, last = np.full(count, np.nan), np.full(count, np.nan)
    first[which[::-1]] = values[::-1]
    last[which] = values
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(covered > 0, integral / covered, np.nan)
    return Buckets(
        at=[int(edge) for edge in edges[:-1]],
        count=counts.tolist(),
        minimum=_or_none(low),
        maximum=_or_none(high),
        mean=_or_none(mean),
        first=_or_none(first),
        last=_or_none(last),
        covered_seconds=(covered / 1000).tolist(),
    )


def _at_edges(edges: Numbers, points: Numbers, gained: Numbers) -> Numbers:
    if not len(points):
        return np.zeros_like(edges)
    total = np.concatenate([[0.0], np.cumsum(gained)])
    # Before its span a sum has what came earlier; after it, this much more.
    sums = np.stack([total[:-1], total[1:]], axis=1).ravel()
    at_edges: Numbers = np.interp(edges, points, sums)
    return at_edges


def _or_none(numbers: Numbers) -> list[float | None]:
    return [float(one) if np.isfinite(one) else None for one in numbers]


def mean_of(devices: Sequence[Buckets]) -> Buckets:
    """Return the mean over some devices' buckets of the same spans, each device counting once wherever it measured."""

    def column(name: str) -> Numbers:
        return np.array([getattr(one, name) for one in devices], dtype=np.float64)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of a bucket in which no device measured
        mean, first, last = (np.nanmean(column(name), axis=0) for name in ("mean", "first", "last"))
        low, high = np.nanmin(column("minimum"), axis=0), np.nanmax(column("maximum"), axis=0)
    return Buckets(
        at=devices[0].at,
        count=column("count").sum(axis=0).astype(np.int64).tolist(),
        minimum=_or_none(low),
        maximum=_or_none(high),
        mean=_or_none(mean),
        first=_or_none(first),
        last=_or_none(last),
        covered_seconds=column("covered_seconds").sum(axis=0).tolist(),
    )
