"""The store that needs no other server: SQLite takes commits, Parquet segments are the body, DuckDB answers questions.

A batch is one SQLite transaction: its samples as one compressed Arrow table in the inbox, ledger ranges, events,
quarantine. The tail is the inbox as immutable Arrow tables in memory, rebuilt at start. Sealing writes the tail into
segments and, in one transaction, names them and empties the inbox; merging and retention change the list alike. Each
question is answered over one snapshot of tail and segments.
"""

import itertools
import logging
import shutil
import sqlite3
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from contract.catalog import PRESENCE, report_seconds
from contract.metrics import DataType
from contract.positions import Lineage, RangeSet
from hub.devices import DeviceKey, NodeKey
from hub.storage.availability import CLAIM_LOOKBACK_MS, intervals, silences
from hub.storage.books import Books
from hub.storage.buckets import EXACT_EDGES_MS, buckets, edges_of, mean_of, one_after_another, rolled_edges
from hub.storage.long_questions import LongQuestions
from hub.storage.merging import merge, overlapping
from hub.storage.newest_values import COLUMNS, NewestValues
from hub.storage.order import CONFLICT_BIT
from hub.storage.questions import Questions, Snapshot, wanted
from hub.storage.rollups import HOURS_MS, MINUTES_MS
from hub.storage.samples_as_rows import rows_of, values_of
from hub.storage.sealing import parts, seal, walk
from hub.storage.segments import DAY_MS, Kind, Segment, Segments, list_segments
from hub.storage.tail import FIRST_ROW, SCHEMA, joined, packed, table_of, unpacked
from hub.storage.timeseries import (
    HISTORICAL_BIT,
    Batch,
    Buckets,
    Completeness,
    EventRow,
    Interval,
    PutAside,
    Quarantined,
    Raw,
    Rows,
    Stats,
    StoreUnavailable,
    Void,
)

log = logging.getLogger(__name__)

SEAL_ROWS = 4_000_000
SEAL_EVERY_MS = HOURS_MS
"""The tail is sealed when it has so many rows, or in the first call of `tend` in an hour."""

PIECE_ROWS = 500_000
"""Of an export, so many rows are in memory at a time."""

RAW_AT_ONCE_MS = 30 * DAY_MS


class EmbeddedStore:
    """A TimeSeries in one folder. Open it with `with`. `retention_days` None keeps everything."""

    name = "embedded"

    def __init__(
        self,
        folder: Path,
        *,
        retention_days: int | None = None,
        memory_limit: str = "256MB",
        threads: int = 2,
        hold_ms: Callable[[str], int] = lambda metric: report_seconds(metric) * 1000,
    ) -> None:
        self._folder = folder
        self._retention_days = retention_days
        self._hold_ms = hold_ms
        self._books = Books(folder / "store.db")
        self._segments = Segments(folder / "segments")
        self._questions = Questions(folder / "segments", folder / "spill", memory_limit=memory_limit, threads=threads)
        self._long = LongQuestions(self._questions, self._holds)
        self._hold_of = np.empty(0, dtype=np.int64)
        self._lock = threading.Lock()  # of all below: what a snapshot is taken of
        self._sealing: tuple[pa.Table, ...] = ()
        self._tail: tuple[pa.Table, ...] = ()
        self._newest_values = NewestValues()
        self._marks = _Marks(commits=0, received=0, generation=0, merged=0)
        self._inbox = 0
        self._next_row = FIRST_ROW
        self._oldest_received: int | None = None
        self._first_day: int | None = None
        self._counted: tuple[object, int, int] | None = None

    def __enter__(self) -> Self:
        self._books.__enter__()
        marks = dict(self._books.read("SELECT name, value FROM marks"))
        self._marks = _Marks(**{name: int(marks.get(name, 0)) for name in _Marks.__slots__})
        self._segments.load(self._books.read("SELECT * FROM segments"))
        shutil.rmtree(self._folder / "spill", ignore_errors=True)
        self._questions.open()
        self._read_last_values()
        tables = []
        for number, received_at, blob in self._books.read("SELECT id, received_at, samples FROM inbox ORDER BY id"):
            table = unpacked(blob, self._next_row)
            self._took_in(table, number, received_at)
            tables.append(table)
        if tables:
            self._tail = (pa.concat_tables(tables).combine_chunks(),)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._books.__exit__(kind, error, trace)
        self._questions.close()

    def series(self, key: DeviceKey, metric: str, datatype: DataType) -> int:
        return self._books.series(key, metric, datatype)

    def commit(self, batch: Batch, received_at: int) -> None:
        table = table_of(batch, self._next_row)
        number = self._inbox

        def write(database: sqlite3.Connection) -> None:
            nonlocal number
            cursor = database.execute(
                "INSERT INTO inbox (received_at, rows, samples) VALUES (?, ?, ?)",
                (received_at, table.num_rows, packed(table)),
            )
            number = cursor.lastrowid or 0

        self._books.commit(batch, write)
        with self._lock:
            self._took_in(table, number, received_at)
            if table.num_rows:
                self._tail = joined((*self._tail, table))

    def ledger(self, node: NodeKey) -> Mapping[Lineage, RangeSet]:
        return self._books.ledger(node)

    def floors(self, node: NodeKey) -> Mapping[str, frozenset[int]]:
        return self._books.floors(node)

    def voids(self, node: NodeKey, most: int) -> Sequence[Void]:
        return self._books.voids(node, most)

    def quarantined(self, after: int, most: int, node: NodeKey | None = None) -> Sequence[Quarantined]:
        return self._books.quarantined(after, most, node)

    def put_aside(self, node: NodeKey) -> Sequence[PutAside]:
        return self._books.put_aside(node)

    def events(self, after: int, metric: str, most: int) -> Sequence[EventRow]:
        return self._books.events(after, metric, most)

    def newest_received(self) -> int:
        return self._marks.received

    def last(self, group: str | None = None) -> Rows:
        with self._lock:
            found = self._newest_values.table()
        names = self._books.all_series()
        if group is not None:
            within = np.array([False] + [one.key.group == group for one in names])
            found = found.filter(pa.array(within[found["series"].to_numpy()]))
        return rows_of(found, names)

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
        rolled = hold_ms == self._hold_ms(metric) and len(series) <= 1
        if rolled and end - start > EXACT_EDGES_MS and (end - start) // count >= MINUTES_MS:
            edges = rolled_edges(start, end, count)
        with self._snapshot() as snapshot:
            if rolled and not (edges % MINUTES_MS).any():
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
        if hold_ms != self._hold_ms(metric) or (end - start) // count < MINUTES_MS:
            exact = [self.buckets(key, metric, start, end, count, hold_ms) for key in keys]
            return {group: mean_of([exact[place] for place in several]) for group, several in by_group.items()}
        with self._snapshot() as snapshot:
            spans = self._long.spans(snapshot, [devices[key] for key in keys], edges)
        return {group: spans.mean_of(several) for group, several in by_group.items()}

    def stats(self) -> Stats:
        quarantined, events = self._books.held_back()
        with self._snapshot() as snapshot:
            now, commits = (self._next_row, self._marks.generation), self._marks.commits
            if self._counted is None or self._counted[0] != now:
                tail = list(parts(snapshot.tail, snapshot.segments, self._questions))
                self._counted = (now, sum(one.fresh for one in tail), sum(one.conflicts for one in tail))
            _, fresh, conflicts = self._counted
        return Stats(
            samples=fresh + sum(one.fresh for one in snapshot.segments),
            conflicts=conflicts + sum(one.conflicts for one in snapshot.segments),
            quarantined=quarantined,
            events=events,
            series=len(self._books.all_series()),
            commits=commits,
            bytes_on_disk=sum(one.stat().st_size for one in self._folder.glob("store.db*"))
            + sum(one.bytes for one in snapshot.segments),
            unsealed=sum(map(len, snapshot.tail)),
            segments=len(snapshot.segments),
        )

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

    def tend(self, now_ms: int) -> None:
        try:
            self._forget(now_ms)
            if self._seal_is_due(now_ms):
                self._seal()
            self._merge(now_ms // DAY_MS)
        except OSError as exc:
            raise StoreUnavailable(f"{self._segments.folder}: {exc}; nothing is lost, it is tried again") from exc

    def _took_in(self, table: pa.Table, number: int, received_at: int) -> None:
        self._inbox = number
        self._next_row += table.num_rows
        self._newest_values.take(table)
        self._marks.commits += 1
        self._marks.received = max(self._marks.received, received_at)
        if self._oldest_received is None:
            self._oldest_received = received_at

    def _read_last_values(self) -> None:
        rows = self._books.read(f"SELECT {', '.join(COLUMNS)} FROM last_values")  # noqa: S608 - no value is in it
        columns = [list(one) for one in zip(*rows, strict=True)] if rows else [[] for _ in COLUMNS]
        arrays = [pa.array(one, SCHEMA.field(name).type) for one, name in zip(columns, COLUMNS, strict=True)]
        self._newest_values = NewestValues()
        self._newest_values.take(pa.table(arrays, names=list(COLUMNS)))

    def _holds(self, series: NDArray[np.int32]) -> NDArray[np.int64]:
        names = self._books.all_series()
        if len(self._hold_of) <= len(names):
            hold_of = {metric: self._hold_ms(metric) for metric in {one.metric for one in names}}
            self._hold_of = np.array([0, *(hold_of[one.metric] for one in names)], dtype=np.int64)
        return self._hold_of[series]

    @contextmanager
    def _snapshot(self) -> Iterator[Snapshot]:
        with ExitStack() as held:
            with self._lock:
                snapshot = Snapshot((*self._sealing, *self._tail), self._segments.listed)
                held.enter_context(self._segments.reading(snapshot.segments))
            yield snapshot

    def _seal_is_due(self, now_ms: int) -> bool:
        with self._lock:
            rows, oldest = sum(map(len, self._tail)), self._oldest_received
        return rows >= SEAL_ROWS or (oldest is not None and oldest // SEAL_EVERY_MS < now_ms // SEAL_EVERY_MS)

    def _seal(self) -> None:
        with self._lock:
            self._sealing, self._tail = self._tail, ()
            upto, oldest, self._oldest_received = self._inbox, self._oldest_received, None
            marks = replace(self._marks, generation=self._marks.generation + 1)
        new: list[Segment] = []
        try:
            lasts = pa.table([pa.array([], SCHEMA.field(name).type) for name in COLUMNS], names=list(COLUMNS))
            if self._sealing:
                new, lasts = seal(self._sealing, self._segments, self._questions, marks.generation, self._holds)

            def write(database: sqlite3.Connection) -> None:
                list_segments(database, (), new)
                database.execute("DELETE FROM inbox WHERE id <= ?", (upto,))
                database.executemany(_KEEP_LAST, zip(*(lasts[name].to_pylist() for name in COLUMNS), strict=True))
                _keep_marks(database, marks)

            self._books.write(write)
        except BaseException:
            self._segments.discard(new)
            with self._lock:
                self._tail, self._sealing = (*self._sealing, *self._tail), ()
                self._oldest_received = oldest
            raise
        with self._lock:
            self._segments.replace((), new)
            self._sealing = ()
            self._marks.generation = marks.generation
        log.info("sealed %d samples in %d files", sum(one.fresh for one in new), len(new))

    def _merge(self, today: int) -> None:
        if self._marks.merged == today:
            return
        groups = list(overlapping(self._segments.listed, today))
        for group in groups:
            generation = self._marks.generation + 1
            self._change(group, merge(group, self._segments, generation), generation=generation)
        self._change((), (), merged=today)
        if groups:
            log.info("merged segments of %d days", len({group[0].day for group in groups}))

    def _forget(self, now_ms: int) -> None:
        """Let go of days beyond retention, counted from the newest sample where the clock is ahead of that."""
        listed = self._segments.listed
        if self._retention_days is None or not listed:
            return
        today = min(now_ms // DAY_MS, max(one.day for one in listed) + 1)
        first_day = today - self._retention_days
        gone = [one for one in listed if one.day < first_day]
        if first_day == self._first_day and not gone:
            return
        self._change(gone, (), expired=first_day * DAY_MS)
        self._books.forget(first_day * DAY_MS)
        with self._lock:
            self._first_day = first_day
            self._read_last_values()
            for table in (*self._sealing, *self._tail):
                self._newest_values.take(table)
        if gone:
            log.info("%d segments are older than %d days and are gone", len(gone), self._retention_days)

    def _change(
        self,
        gone: Sequence[Segment],
        new: Sequence[Segment],
        *,
        generation: int | None = None,
        merged: int | None = None,
        expired: int | None = None,
    ) -> None:
        def write(database: sqlite3.Connection) -> None:
            list_segments(database, gone, new)
            for name, value in (("generation", generation), ("merged", merged)):
                if value is not None:
                    database.execute("INSERT OR REPLACE INTO marks VALUES (?, ?)", (name, value))
            if expired is not None:
                database.execute("DELETE FROM last_values WHERE at < ?", (expired,))

        try:
            self._books.write(write)
        except BaseException:
            self._segments.discard(new)
            raise
        with self._lock:
            self._segments.replace(gone, new)
            self._marks.generation = generation if generation is not None else self._marks.generation
            self._marks.merged = merged if merged is not None else self._marks.merged


@dataclass(slots=True)
class _Marks:
    """Of all commits: how many, and the newest instant of receipt. The last generation, and the day last merged on."""

    commits: int
    received: int
    generation: int
    merged: int


_KEEP_LAST = """
    INSERT INTO last_values VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (series) DO UPDATE SET at = excluded.at,
    number = excluded.number, integer = excluded.integer, text = excluded.text, quality = excluded.quality,
    flags = excluded.flags WHERE excluded.at >= last_values.at
"""


def _keep_marks(database: sqlite3.Connection, marks: _Marks) -> None:
    values = [(name, getattr(marks, name)) for name in _Marks.__slots__]
    database.executemany("INSERT OR REPLACE INTO marks VALUES (?, ?)", values)


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
