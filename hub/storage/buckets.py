"""A series in spans of time: how often, between what, and its mean weighted by time. Pure numpy.

Spans are given by their edges: `count` + 1 instants, each span from one edge up to the next.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hub.storage.rollups import HOURS_MS, MINUTES_MS
from hub.storage.timeseries import Buckets

EXACT_EDGES_MS = 40 * 86_400_000
"""Spans of a longer time have edges that are whole hours or 5 minutes, and are made of rollups."""

Instants = NDArray[np.int64]
Numbers = NDArray[np.float64]


def edges_of(start: int, end: int, count: int, grain: int = 1) -> Instants:
    """Return the edges of `count` spans that hold [start, end), as equal as whole multiples of `grain` allow."""
    edges = (start + np.arange(count + 1, dtype=np.int64) * (end - start) // count) // grain * grain
    edges[-1] = -(-end // grain) * grain
    return edges


def rolled_edges(start: int, end: int, count: int) -> Instants:
    """Return the edges of `count` spans that hold [start, end): whole hours where they last 2 h, else 5 minutes."""
    return edges_of(start, end, count, HOURS_MS if (end - start) // count >= 2 * HOURS_MS else MINUTES_MS)


def buckets(at: Instants, value: Numbers, good: NDArray[np.bool_], *, edges: Instants, hold_ms: int) -> Buckets:
    """Return the spans of samples in time order, those before the first edge being carried in.

    A good value stands from its instant until the next sample, at most `hold_ms`; a bad one stands for nothing and ends
    the one before it.
    """
    count, end = len(edges) - 1, edges[-1]
    until = np.minimum(np.append(at[1:], end), at + hold_ms)
    span = np.where(good, np.maximum(until - at, 0), 0).astype(np.float64)
    # Integral and coverage are straight lines between the points where a value begins and ends to stand.
    points = np.stack([at, at + span.astype(np.int64)], axis=1).ravel().astype(np.float64)
    covered = np.diff(_at_edges(edges, points, span))
    integral = np.diff(_at_edges(edges, points, np.where(good, value, 0.0) * span))
    inside = good & (at >= edges[0]) & (at < end)
    which = np.searchsorted(edges, at[inside], side="right") - 1
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
    columns = {"count": counts, "minimum": low, "maximum": high, "mean": mean, "first": first, "last": last}
    return _told(edges, {**columns, "covered": covered})


@dataclass(frozen=True, slots=True, kw_only=True)
class Spans:
    """Buckets of several owners as columns, a row for each owner; NaN for nothing."""

    edges: Instants
    count: Numbers
    minimum: Numbers
    maximum: Numbers
    mean: Numbers
    first: Numbers
    last: Numbers
    covered: Numbers

    def of(self, owner: int) -> Buckets:
        """Return one owner's buckets."""
        return _told(self.edges, {name: getattr(self, name)[owner] for name in _COLUMNS})

    def mean_of(self, owners: Sequence[int]) -> Buckets:
        """Return the mean over some owners, each counting once wherever it measured."""
        return _mean(self.edges, {name: getattr(self, name)[owners] for name in _COLUMNS})


_COLUMNS = ("count", "minimum", "maximum", "mean", "first", "last", "covered")


def spans_of(rollups: Mapping[str, Numbers], owner: Instants, owners: int, edges: Instants) -> Spans:
    """Return the spans of each owner from its rollups, in time order, none of which crosses an edge.

    `rollups` has columns at, count, minimum, maximum, first, last, integral and covered (ms), NaN for nothing.
    """
    count = len(edges) - 1
    at = rollups["at"]
    inside = (at >= edges[0]) & (at < edges[-1])
    column = {name: one[inside] for name, one in rollups.items()}
    where = owner[inside] * count + np.searchsorted(edges, column["at"], side="right") - 1
    cells = owners * count

    def total(name: str) -> Numbers:
        return np.bincount(where, weights=column[name], minlength=cells).astype(np.float64)

    low, high = np.full(cells, np.nan), np.full(cells, np.nan)
    first, last = np.full(cells, np.nan), np.full(cells, np.nan)
    some = column["count"] > 0
    of_some = where[some]
    np.fmin.at(low, of_some, column["minimum"][some])
    np.fmax.at(high, of_some, column["maximum"][some])
    first[of_some[::-1]] = column["first"][some][::-1]
    last[of_some] = column["last"][some]
    covered = total("covered")
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(covered > 0, total("integral") / covered, np.nan)
    found = {
        "count": total("count"),
        "minimum": low,
        "maximum": high,
        "mean": mean,
        "first": first,
        "last": last,
        "covered": covered,
    }
    return Spans(edges=edges, **{name: one.reshape(owners, count) for name, one in found.items()})


def one_after_another(parts: Sequence[Buckets]) -> Buckets:
    """Return spans that follow one another as one answer."""
    return Buckets(**{name: [one for part in parts for one in getattr(part, name)] for name in Buckets.__slots__})


def mean_of(devices: Sequence[Buckets]) -> Buckets:
    """Return the mean over some devices' buckets of the same spans, each device counting once wherever it measured."""
    columns = {name: np.array([getattr(one, name) for one in devices], dtype=np.float64) for name in _COLUMNS[:-1]}
    columns["covered"] = np.array([one.covered_seconds for one in devices], dtype=np.float64) * 1000
    return _mean(np.array([*devices[0].at, 0], dtype=np.int64), columns)


def _mean(edges: Instants, columns: Mapping[str, Numbers]) -> Buckets:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of a bucket in which no device measured
        means = {name: np.nanmean(columns[name], axis=0) for name in ("mean", "first", "last")}
        low, high = np.nanmin(columns["minimum"], axis=0), np.nanmax(columns["maximum"], axis=0)
    sums = {name: columns[name].sum(axis=0) for name in ("count", "covered")}
    return _told(edges, {**means, **sums, "minimum": low, "maximum": high})


def _told(edges: Instants, columns: Mapping[str, Numbers]) -> Buckets:
    return Buckets(
        at=edges[:-1].tolist(),
        count=columns["count"].astype(np.int64).tolist(),
        minimum=_or_none(columns["minimum"]),
        maximum=_or_none(columns["maximum"]),
        mean=_or_none(columns["mean"]),
        first=_or_none(columns["first"]),
        last=_or_none(columns["last"]),
        covered_seconds=(columns["covered"] / 1000).tolist(),
    )


def _at_edges(edges: Instants, points: Numbers, gained: Numbers) -> Numbers:
    if not len(points):
        return np.zeros(len(edges))
    total = np.concatenate([[0.0], np.cumsum(gained)])
    # Before its span a sum has what came earlier; after it, this much more.
    sums = np.stack([total[:-1], total[1:]], axis=1).ravel()
    at_edges: Numbers = np.interp(edges.astype(np.float64), points, sums)
    return at_edges


def _or_none(numbers: Numbers) -> list[float | None]:
    return [float(one) if np.isfinite(one) else None for one in numbers]
