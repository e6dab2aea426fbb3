"""The store that needs no other server: SQLite takes commits, Parquet segments are the body, DuckDB answers questions.

A batch is one SQLite transaction: its samples as one compressed Arrow table in the inbox, ledger ranges, events,
quarantine. The tail is the inbox as immutable Arrow tables in memory, rebuilt at start. Sealing writes the tail into
segments and, in one transaction, names them and empties the inbox; merging and retention change the list alike. Each
question is answered over one snapshot of tail and segments.
"""

import logging
import shutil
import sqlite3
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow as pa

from contract.metrics import DataType
from contract.positions import Lineage, RangeSet
from hub.devices import DeviceKey, NodeKey
from hub.storage.books import Books
from hub.storage.embedded_questions import EmbeddedQuestions
from hub.storage.merging import merge, overlapping
from hub.storage.newest_values import COLUMNS, NewestValues
from hub.storage.questions import Questions, Snapshot
from hub.storage.rollups import DAY_MS, HOURS_MS
from hub.storage.samples_as_rows import rows_of
from hub.storage.sealing import parts, seal
from hub.storage.segments import Kind, Segment, Segments, list_segments
from hub.storage.tail import FIRST_ROW, SCHEMA, joined, packed, table_of, unpacked
from hub.storage.timeseries import (
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
MINUTES_DAYS = 40
"""The tail is sealed when it has so many rows, or in the first call of `tend` in an hour. Rollups of 5 minutes, which
may be larger than the samples they are made of, are kept for so many days."""


class EmbeddedStore:
    """A TimeSeries in one folder. Open it with `with`. `retention_days` None keeps everything."""

    name = "embedded"

    def __init__(
        self,
        folder: Path,
        *,
        retention_days: int | None = None,
    ) -> None:
        self._folder = folder
        self._retention_days = retention_days
        self._books = Books(folder / "store.db")
        self._segments = Segments(folder / "segments")
        self._questions = Questions(folder / "segments", folder / "spill")
        self._answers = EmbeddedQuestions(self._books, self._questions, self._snapshot)
        self._lock = threading.Lock()  # of all below: what a snapshot is taken of
        self._sealing: tuple[pa.Table, ...] = ()
        self._tail: tuple[pa.Table, ...] = ()
        self._newest_values = NewestValues()
        self._marks = _Marks(commits=0, received=0, generation=0, merged=0, minutes=0)
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
        return self._answers.raw(key, metric, start, end, most)

    def export(
        self, start: int, end: int, groups: Collection[str] | None = None, metrics: Collection[str] | None = None
    ) -> Iterator[Rows]:
        return self._answers.export(start, end, groups, metrics)

    def buckets(self, key: DeviceKey, metric: str, start: int, end: int, count: int, hold_ms: int) -> Buckets:
        return self._answers.buckets(key, metric, start, end, count, hold_ms)

    def availability(
        self, devices: Collection[DeviceKey], start: int, end: int
    ) -> Mapping[DeviceKey, Sequence[Interval]]:
        return self._answers.availability(devices, start, end)

    def by_group(self, metric: str, start: int, end: int, count: int, hold_ms: int) -> Mapping[str, Buckets]:
        return self._answers.by_group(metric, start, end, count, hold_ms)

    def completeness(self, node: NodeKey, start: int, end: int) -> Completeness:
        return self._answers.completeness(node, start, end)

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

    def tend(self, now_ms: int) -> None:
        try:
            self._forget(now_ms)
            if self._seal_is_due(now_ms):
                self._seal()
            self._merge(now_ms // DAY_MS)
        except (OSError, pa.ArrowException) as exc:
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

    @contextmanager
    def _snapshot(self) -> Iterator[Snapshot]:
        with ExitStack() as held:
            with self._lock:
                minutes_from = self._marks.minutes * DAY_MS
                snapshot = Snapshot((*self._sealing, *self._tail), self._segments.listed, minutes_from)
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
                new, lasts = seal(
                    self._sealing,
                    self._segments,
                    self._questions,
                    marks.generation,
                    self._answers.holds,
                    minutes_from=marks.minutes * DAY_MS,
                )

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
            self._change(group, merge(group, self._segments, generation), {"generation": generation})
        self._change((), (), {"merged": today})
        if groups:
            log.info("merged segments of %d days", len({group[0].day for group in groups}))

    def _forget(self, now_ms: int) -> None:
        """Let go of days beyond retention, counted from the newest sample where the clock is ahead of that."""
        listed = self._segments.listed
        if not listed:
            return
        today = min(now_ms // DAY_MS, max(one.day for one in listed) + 1)
        minutes = max(today - MINUTES_DAYS, self._marks.minutes)
        old = [one for one in listed if one.kind is Kind.MINUTES and one.day < minutes]
        if old:
            self._change(old, (), {"minutes": minutes})
        if self._retention_days is None:
            return
        first_day = today - self._retention_days
        gone = [one for one in self._segments.listed if one.day < first_day]
        if first_day == self._first_day and not gone:
            return
        self._change(gone, (), {}, expired=first_day * DAY_MS)
        self._books.forget(first_day * DAY_MS)
        with self._lock:
            self._first_day = first_day
            self._read_last_values()
            for table in (*self._sealing, *self._tail):
                self._newest_values.take(table)
        if gone:
            log.info("%d segments are older than %d days and are gone", len(gone), self._retention_days)

    def _change(
        self, gone: Sequence[Segment], new: Sequence[Segment], marks: Mapping[str, int], *, expired: int | None = None
    ) -> None:
        def write(database: sqlite3.Connection) -> None:
            list_segments(database, gone, new)
            database.executemany("INSERT OR REPLACE INTO marks VALUES (?, ?)", marks.items())
            if expired is not None:
                database.execute("DELETE FROM last_values WHERE at < ?", (expired,))

        try:
            self._books.write(write)
        except BaseException:
            self._segments.discard(new)
            raise
        with self._lock:
            self._segments.replace(gone, new)
            self._marks = replace(self._marks, **marks)


@dataclass(slots=True)
class _Marks:
    """Commits: how many, and the newest instant of receipt; the last generation; the day last merged on; the first day
    with rollups of 5 minutes.
    """

    commits: int
    received: int
    generation: int
    merged: int
    minutes: int


_KEEP_LAST = """
    INSERT INTO last_values VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (series) DO UPDATE SET at = excluded.at,
    number = excluded.number, integer = excluded.integer, text = excluded.text, quality = excluded.quality,
    flags = excluded.flags WHERE excluded.at >= last_values.at
"""


def _keep_marks(database: sqlite3.Connection, marks: _Marks) -> None:
    values = [(name, getattr(marks, name)) for name in _Marks.__slots__]
    database.executemany("INSERT OR REPLACE INTO marks VALUES (?, ?)", values)
