"""The questions that are answered from samples: pages, exports, buckets, availability, groups, completeness.

Each is answered over one snapshot of tail and segments, in bounded memory however long the time asked for.
"""

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from contract.catalog import PRESENCE, report_seconds
from hub.devices import DeviceKey, NodeKey
from hub.storage.availability import CLAIM_LOOKBACK_MS, intervals, silences
from hub.storage.books import Books
from hub.storage.buckets import EXACT_EDGES_MS, buckets, edges_of, mean_of, one_after_another, rolled_edges
from hub.storage.long_questions import LongQuestions
from hub.storage.order import CONFLICT_BIT
from hub.storage.questions import Questions, Snapshot, wanted
from hub.storage.rollups import DAY_MS, MINUTES_MS
from hub.storage.samples_as_rows import rows_of, values_of
from hub.storage.sealing import walk
from hub.storage.segments import Kind
from hub.storage.timeseries import HISTORICAL_BIT, Buckets, Completeness, Interval, Raw, Rows

PIECE_ROWS = 500_000
"""Of an export, so many rows are in memory at a time."""

RAW_AT_ONCE_MS = 30 * DAY_MS


class EmbeddedQuestions:
    """Answers as the port promises them; `snapshot` gives tail and segments as they are now."""

    def __init__(
        self, books: Books, questions: Questions, snapshot: Callable[[], AbstractContextManager[Snapshot]]
    ) -> None:
        self._books = books
        self._questions = questions
        self._snapshot = snapshot
        self._long = LongQuestions(questions, self.holds)
        self._hold_of = np.empty(0, dtype=np.int64)

    def raw(self, key: DeviceKey, metric: str, start: int, end: int, most: int) -> Raw:
        series = self._books.numbers(key, metric)
        found: list[pa.Table] = []
        with self._snapshot() as snapshot:
            for low, high in _windows(snapshot, series, start, end):
                rows = self._questions.samples(snapshot, wanted(series, low, high, [0] * len(series)))
                found.append(rows.slice(0, most - sum(map(len, found))))
                if sum(map(len, found)) >= most:
                    break
        if not found:
            return Raw(at=[], value=[], quality=[], flags=[])
        rows = pa.concat_tables(found)
        flags = rows["flags"].to_numpy() & ~np.uint8(CONFLICT_BIT)
        return Raw(
            at=rows["at"].to_pylist(),
            value=values_of(rows),
            quality=rows["quality"].to_pylist(),
            flags=flags.tolist(),
        )

    def export(
        self, start: int, end: int, groups: Collection[str] | None = None, metrics: Collection[str] | None = None
    ) -> Iterator[Rows]:
        names = self._books.all_series()
        chosen = sorted(
            ((one.key, one.metric), number)
            for number, one in enumerate(names, start=1)
            if (groups is None or one.key.group in groups) and (metrics is None or one.metric in metrics)
        )
        ranked = [[number for _, number in same] for _, same in itertools.groupby(chosen, key=lambda each: each[0])]
        with self._snapshot() as snapshot:
            counts = self._questions.counts(snapshot, wanted([number for _, number in chosen], start, end))
            for several, low, high in _export_pieces(ranked, counts, start, end):
                series = [number for same in several for number in same]
                rank = [place for place, same in enumerate(several) for _ in same]
                rows = self._questions.samples(snapshot, wanted(series, low, high, rank))
                if rows.num_rows:
                    yield rows_of(rows, names)

    def buckets(self, key: DeviceKey, metric: str, start: int, end: int, count: int, hold_ms: int) -> Buckets:
        series = self._books.numbers(key, metric)
        edges = edges_of(start, end, count)
        rolled = hold_ms == _hold_ms(metric) and len(series) <= 1
        if rolled and end - start > EXACT_EDGES_MS and (end - start) // count >= MINUTES_MS:
            edges = rolled_edges(start, end, count)
        with self._snapshot() as snapshot:
            if rolled and self._long.has(snapshot, edges):
                return self._long.spans(snapshot, [series], edges).of(0)
            found = []
            for first, last in _runs(edges, RAW_AT_ONCE_MS):
                what = wanted(series, int(edges[first]) - hold_ms, int(edges[last]), [0] * len(series))
                rows = walk(self._questions.samples(snapshot, what), np.empty(0, dtype=np.int64))
                some = edges[first : last + 1]
                found.append(buckets(rows.at, rows.value, rows.good, edges=some, hold_ms=hold_ms))
        return one_after_another(found)

    def availability(
        self, devices: Collection[DeviceKey], start: int, end: int
    ) -> Mapping[DeviceKey, Sequence[Interval]]:
        nodes = {node: number for number, node in enumerate(sorted({one.of_node for one in devices}))}
        streams = {
            number: nodes[one.key.of_node]
            for number, one in enumerate(self._books.all_series(), start=1)
            if not one.key.device and one.key.of_node in nodes
        }
        claimed = {
            one: self._books.numbers(DeviceKey(one.group, one.node, ""), PRESENCE + one.device) for one in devices
        }
        with self._snapshot() as snapshot:
            heard = self._long.heard(snapshot, streams, start, end)
            series = [number for several in claimed.values() for number in several]
            claims = self._long.claims(snapshot, series, start - CLAIM_LOOKBACK_MS, end)
        silent = {node: silences(heard.get(number, []), start, end) for node, number in nodes.items()}
        return {
            one: intervals(
                sorted(claim for number in several for claim in claims[number]), silent[one.of_node], start, end
            )
            for one, several in claimed.items()
        }

    def by_group(self, metric: str, start: int, end: int, count: int, hold_ms: int) -> Mapping[str, Buckets]:
        devices: dict[DeviceKey, list[int]] = {}
        for number, one in enumerate(self._books.all_series(), start=1):
            if one.metric == metric:
                devices.setdefault(one.key, []).append(number)
        keys = sorted(devices)
        edges = rolled_edges(start, end, count)
        by_group = {
            group: [place for place, _ in several]
            for group, several in itertools.groupby(enumerate(keys), key=lambda each: each[1].group)
        }
        rolled = hold_ms == _hold_ms(metric) and (end - start) // count >= MINUTES_MS
        with self._snapshot() as snapshot:
            if rolled and self._long.has(snapshot, edges):
                spans = self._long.spans(snapshot, [devices[key] for key in keys], edges)
                return {group: spans.mean_of(several) for group, several in by_group.items()}
        exact = [self.buckets(key, metric, start, end, count, hold_ms) for key in keys]
        return {group: mean_of([exact[place] for place in several]) for group, several in by_group.items()}

    def completeness(self, node: NodeKey, start: int, end: int) -> Completeness:
        own = [(one.key.device, n) for n, one in enumerate(self._books.all_series(), 1) if one.key.of_node == node]
        samples = historical = conflicts = records = 0
        with self._snapshot() as snapshot:
            for _, of_device in itertools.groupby(sorted(own), key=lambda each: each[0]):
                series = [number for _, number in of_device]
                for low in range(start, end, RAW_AT_ONCE_MS):
                    what = wanted(series, low, min(low + RAW_AT_ONCE_MS, end))
                    rows = self._questions.samples(snapshot, what)
                    flags = rows["flags"].to_numpy()
                    samples += rows.num_rows
                    historical += int(np.count_nonzero(flags & HISTORICAL_BIT))
                    conflicts += int(np.count_nonzero(flags & CONFLICT_BIT))
                    records += len(np.unique(rows["at"].to_numpy()))
        quarantined, void = self._books.missing(node, start, end)
        return Completeness(
            samples=samples,
            records=records,
            historical=historical,
            conflicts=conflicts,
            quarantined=quarantined,
            void=void,
        )

    def holds(self, series: NDArray[np.int32]) -> NDArray[np.int64]:
        """Return how long a value of each series counts as current (ms)."""
        names = self._books.all_series()
        if len(self._hold_of) <= len(names):
            hold_of = {metric: _hold_ms(metric) for metric in {one.metric for one in names}}
            self._hold_of = np.array([0, *(hold_of[one.metric] for one in names)], dtype=np.int64)
        return self._hold_of[series]


def _hold_ms(metric: str) -> int:
    return report_seconds(metric) * 1000


def _windows(snapshot: Snapshot, series: Sequence[int], start: int, end: int) -> Iterator[tuple[int, int]]:
    """Return [start, end) in windows of ever more days of those that have segments; the tail's may lie in any."""
    if not series:
        return
    days = sorted({one.day for one in snapshot.meeting(Kind.SAMPLES, min(series), max(series), start, end)})
    low, place, size = start, 0, 1
    while place + size < len(days):
        high = days[place + size] * DAY_MS
        yield low, high
        low, place, size = high, place + size, size * 2
    yield low, end


def _runs(edges: NDArray[np.int64], most_ms: int) -> Iterator[tuple[int, int]]:
    """Return runs of spans, as their first and last edge, that last at most so long, or are a single span."""
    first = 0
    while first < len(edges) - 1:
        last = max(int(np.searchsorted(edges, edges[first] + most_ms, side="right")) - 1, first + 1)
        yield first, last
        first = last


def _export_pieces(
    ranked: Sequence[Sequence[int]], counts: Mapping[int, int], start: int, end: int
) -> Iterator[tuple[Sequence[Sequence[int]], int, int]]:
    """Return whole series together as long as they are few rows; a long series in several spans of time."""
    together: list[Sequence[int]] = []
    total = 0
    for same in ranked:
        rows = sum(counts.get(number, 0) for number in same)
        if total and total + rows > PIECE_ROWS:
            yield together, start, end
            together, total = [], 0
        if rows > PIECE_ROWS:
            cuts = edges_of(start, end, -(-rows // PIECE_ROWS)).tolist()
            for low, high in itertools.pairwise(cuts):
                yield [same], low, high
        elif rows:
            together.append(same)
            total += rows
    if together:
        yield together, start, end
