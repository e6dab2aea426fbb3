"""What the readings in InfluxDB amount to in each hour, in a bucket of their own: long questions read that instead.

An hour of an edge node is rolled up when it is over, and again whenever a sample of it, or one that stands into it,
came later. Which hours still owe that stands in the books, so a crash owes it too; what is owed is read from samples.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from contract.catalog import report_seconds
from contract.metrics import Quality
from hub.devices import DeviceKey, NodeKey
from hub.storage.buckets import spans_of
from hub.storage.flux import Points
from hub.storage.influx_samples import numbers
from hub.storage.line_protocol import Place
from hub.storage.rollups import HOURS_MS, Walk, roll
from hub.storage.timeseries import INSTRUMENT_BITS, Buckets

SETTLING_MS = 300_000
"""So long after an hour is over it is rolled up: later samples are few, and make it due again."""

MOST_HOLD_MS = 3_600_000
"""The longest a value of any metric stands; what is older reaches into no hour."""

UNTIL, SINCE, OWED = "rolled until", "rolled since", "owed "
"""Marks in the books: hours in [since, until) are rolled up, but those of a node that are owed."""

Span = tuple[int, int]

_COLUMNS = ("count", "minimum", "maximum", "first", "last", "integral", "covered")
_SUFFIXES = {f"__{name}": name for name in _COLUMNS}

Samples = Mapping[tuple[DeviceKey, str], tuple[Place, pa.Table]]
"""Of each series, by device and metric: where it stands, and its samples in time order."""


@dataclass(frozen=True, slots=True, order=True)
class Owed:
    """An hour (start in ms) of an edge node that is to be rolled up."""

    hour: int
    node: NodeKey

    @property
    def mark(self) -> str:
        """Return its mark in the books. Ids have no blank."""
        return f"{OWED}{self.hour} {self.node.group} {self.node.node}"

    @classmethod
    def read(cls, mark: str) -> "Owed":
        """Return what a mark says."""
        hour, group, node = mark.removeprefix(OWED).split(" ")
        return cls(int(hour), NodeKey(group, node))


def hold_ms(metric: str) -> int:
    """Return how long a value of a metric stands in rollups."""
    return min(report_seconds(metric) * 1000, MOST_HOLD_MS)


def owed_by(samples: Iterable[tuple[NodeKey, int]], until: int) -> set[Owed]:
    """Return the hours before `until` that samples, by node and instant, change: their own and the one after."""
    hours = {(node, at // HOURS_MS * HOURS_MS) for node, at in samples if at < until}
    return {Owed(each, node) for node, hour in hours for each in (hour, hour + HOURS_MS) if each < until}


def lines(samples: Samples, start: int, end: int) -> str:
    """Return the rollups of [start, end) as line protocol, from samples from MOST_HOLD_MS before."""
    made = []
    for (_, metric), (here, table) in samples.items():
        for row in _rolled(table, metric, start, end).to_pylist():
            fields = [f"{here.name}__{name}={row[name]!r}" for name in _COLUMNS if row[name] is not None]
            fields[0] += "i"  # a count
            made.append(f"{here.head} {','.join(fields)} {row['at']}\n")
    return "".join(made)


def fields_of(place: Place) -> list[str]:
    """Return the names of the fields in which a series' rollups stand."""
    return [place.field + suffix for suffix in _SUFFIXES]


def from_points(place: Place, points: Callable[[str], Points | None]) -> dict[str, NDArray[np.float64]]:
    """Return the rollups of a series as columns, from the points of their fields."""
    count = points(f"{place.field}__count")
    at = count.at if count is not None else np.empty(0, dtype=np.int64)
    columns = {"at": at.astype(np.float64)}
    for suffix, name in _SUFFIXES.items():
        laid = np.full(len(at), np.nan)
        told = points(place.field + suffix)
        if told is not None:
            laid[np.searchsorted(at, told.at)] = told.value.to_numpy(zero_copy_only=False).astype(np.float64)
        columns[name] = laid
    return columns


def from_samples(table: pa.Table, metric: str, start: int, end: int) -> dict[str, NDArray[np.float64]]:
    """Return the rollups of [start, end) as columns, from samples from MOST_HOLD_MS before."""
    rows = _rolled(table, metric, start, end)
    return {name: rows[name].to_numpy(zero_copy_only=False).astype(np.float64) for name in ("at", *_COLUMNS)}


def in_spans(parts: Sequence[Mapping[str, NDArray[np.float64]]], edges: NDArray[np.int64]) -> Buckets:
    """Return a series in spans whose edges are whole hours, from its rollups in any order."""
    whole = {name: np.concatenate([one[name] for one in parts]) for name in ("at", *_COLUMNS)}
    order = np.argsort(whole["at"], kind="stable")
    rollups = {name: one[order] for name, one in whole.items()}
    return spans_of(rollups, np.zeros(len(order), dtype=np.int64), 1, edges).of(0)


def spans(
    start: int, end: int, rolled: tuple[int, int], owed: Iterable[int]
) -> tuple[list[int], list[tuple[int, int]]]:
    """Return the hours of [start, end) that are rolled up and not owed, and the spans that must be read as samples."""
    since, until = rolled
    missing = set(owed)
    good: list[int] = []
    raw: list[Span] = []
    for hour in range(start, end, HOURS_MS):
        if since <= hour < until and hour not in missing:
            good.append(hour)
        elif raw and raw[-1][1] == hour:
            raw[-1] = (raw[-1][0], hour + HOURS_MS)
        else:
            raw.append((hour, hour + HOURS_MS))
    return good, raw


def _rolled(table: pa.Table, metric: str, start: int, end: int) -> pa.Table:
    value = numbers(table)
    measuring = (table["flags"].to_numpy() & INSTRUMENT_BITS) == 0
    size = table.num_rows
    rows = roll(
        Walk(
            series=np.zeros(size, dtype=np.int32),
            at=table["at"].to_numpy(),
            value=value,
            good=(table["quality"].to_numpy() == int(Quality.GOOD)) & measuring & ~np.isnan(value),
            text=pa.nulls(size, pa.string()),
            hold=np.full(size, hold_ms(metric), dtype=np.int64),
        ),
        HOURS_MS,
    )
    at, some = rows["at"].to_numpy(), rows["covered"].to_numpy() + rows["count"].to_numpy() > 0
    return rows.filter(pa.array(some & (at >= start) & (at < end)))
