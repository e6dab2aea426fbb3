"""The store that is an InfluxDB 2.x: samples in one bucket, the books copied into another.

A batch's samples first, until the server said 204 to all it will ever take; then the books, whose transaction commits
here when their copy has its 204; only then may positions be acknowledged. A batch half written before a crash is sent
again by the edge nodes, under the same keys.
"""

import logging
import sqlite3
import threading
import time
from array import array
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from contract.catalog import Kind
from contract.metrics import DataType, Value
from contract.payload import Payload, WireMetric, encode
from contract.positions import Lineage, RangeSet
from hub.devices import DeviceKey, NodeKey
from hub.storage import flux
from hub.storage.books import Books, Write
from hub.storage.database import open_database
from hub.storage.influx_answers import Refusal, Verdict, sift
from hub.storage.influx_books import BOOKS, SHARD_END, BooksCopy, CopyUnreadable
from hub.storage.influx_questions import InfluxQuestions
from hub.storage.influx_rolling import Rolling, marks_of
from hub.storage.influx_server import NANOSECONDS, InfluxServer
from hub.storage.line_protocol import Place, Written, conflict, names, place, write
from hub.storage.rollups import DAY_MS
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

LINES = 5_000
"""Lines of samples a request; a hundred thousand bytes or so."""

MOST_LATE = 1_000
MOST_LATE_DEVICES = 20
MOST_LATE_MS = 86_400_000
"""A commit that may replace more samples than this, of more devices or more time, is not compared with those."""

AHEAD_MS = 300_000
"""How far a sample's instant may be ahead of its arrival."""

TENDING_SECONDS = 50.0
HOURS_AT_ONCE = 100
"""Rolling up goes on for so long a minute; so many hours of edge nodes are then noted as done at once."""

RECEIVED, COMMITS, OURS = "newest_received", "commits", "influxdb"
"""Marks in the books: of the newest commit, how many there were, and whose books these are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Which server, as whom, and how long to wait for it. `retention_days` None keeps for ever."""

    url: str
    org: str
    token: str = field(repr=False)
    bucket: str = "readings"
    delivery_bucket: str = "delivery"
    rollup_bucket: str = "rollups"
    retention_days: int | None = None
    write_seconds: float = 10.0
    query_seconds: float = 60.0


class InfluxStore:
    """A TimeSeries on a server, with its books in one folder. Open it with `with`; the server need not be there yet.

    `kind_of` says what a device is when the first of its series is made: its measurement for ever after.
    """

    def __init__(self, folder: Path, settings: Settings, kind_of: Callable[[DeviceKey], Kind | None]) -> None:
        self._path = folder / "store.db"
        self._settings = settings
        self._kind_of = kind_of
        self._server = InfluxServer(
            url=settings.url,
            org=settings.org,
            token=settings.token,
            write_seconds=settings.write_seconds,
            query_seconds=settings.query_seconds,
        )
        self._books = Books(self._path, self._say_to_the_copy)
        self._places: list[Place] = []
        self._placing = threading.Lock()
        self._questions = InfluxQuestions(
            self._ask, settings.bucket, settings.rollup_bucket, self._books, self._places, self._told_of
        )
        self._booking = threading.Lock()  # of a change of the books, until it is settled
        self._rolling = Rolling(self._questions.of_node, self._put_rollups, {})
        self._newest = array("q")
        self._adopting = threading.Lock()
        self._adopted = False
        self._unsettled = False
        self._announced = 0
        self._received = 0
        self._commits = 0
        self._version = ""

    def __enter__(self) -> Self:
        with closing(open_database(self._path, "store")) as database:
            self._copy = BooksCopy(database)
            try:
                self._adopt(database)
            except StoreUnavailable as exc:
                log.error("InfluxDB is not to be had at the start, acknowledgements are held: %s", exc)
        self._books.__enter__()
        marks = dict(self._books.read("SELECT name, value FROM marks"))
        self._received, self._commits = (marks.get(one, 0) for one in (RECEIVED, COMMITS))
        self._rolling = Rolling(self._questions.of_node, self._put_rollups, marks)
        self._books.write(self._copy.watch)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._books.__exit__(kind, error, trace)
        self._server.__exit__(kind, error, trace)

    @property
    def name(self) -> str:
        return f"influxdb {self._version}".strip()

    def series(self, key: DeviceKey, metric: str, datatype: DataType) -> int:
        number = self._books.series(key, metric, datatype)
        if self._adopted and number > len(self._places):
            self._place_new()
        return number

    def commit(self, batch: Batch, received_at: int) -> None:
        self._ready()
        self._announce()
        refused = self._store_samples(batch, received_at)
        if refused:
            batch = replace(batch, quarantined=[*batch.quarantined, *refused])

        with self._booking:
            changed = self._rolling.changed_by(batch, lambda number: self._books.named(number).key.of_node)
            owed = dict.fromkeys(changed, self._commits + 1)
            marks = {RECEIVED: max(received_at, self._received), COMMITS: self._commits + 1, OURS: 1}
            self._unsettled = True
            self._books.commit(batch, _marks({**marks, **marks_of(owed)}))
            self._settled()
            self._rolling.note(owed)
            self._received = max(self._received, received_at)
            self._commits += 1

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

    def last(self, group: str | None = None) -> Rows:
        self._ready()
        return self._questions.last(group)

    def raw(self, key: DeviceKey, metric: str, start: int, end: int, most: int) -> Raw:
        self._ready()
        return self._questions.raw(key, metric, start, end, most)

    def export(
        self, start: int, end: int, groups: Collection[str] | None = None, metrics: Collection[str] | None = None
    ) -> Iterator[Rows]:
        self._ready()
        return self._questions.export(start, end, groups, metrics)

    def buckets(self, key: DeviceKey, metric: str, start: int, end: int, count: int, hold_ms: int) -> Buckets:
        self._ready()
        return self._questions.buckets(key, metric, start, end, count, hold_ms)

    def availability(
        self, devices: Collection[DeviceKey], start: int, end: int
    ) -> Mapping[DeviceKey, Sequence[Interval]]:
        self._ready()
        return self._questions.availability(devices, start, end)

    def by_group(self, metric: str, start: int, end: int, count: int, hold_ms: int) -> Mapping[str, Buckets]:
        self._ready()
        return self._questions.by_group(metric, start, end, count, hold_ms)

    def completeness(self, node: NodeKey, start: int, end: int) -> Completeness:
        self._ready()
        return self._questions.completeness(node, start, end)

    def stats(self) -> Stats:
        self._ready()
        samples, conflicts = self._questions.counts(self._commits)
        quarantined, events = self._books.held_back()
        own = sum(one.stat().st_size for one in self._path.parent.glob(f"{self._path.name}*"))
        return Stats(
            samples=samples,
            conflicts=conflicts,
            quarantined=quarantined,
            events=events,
            series=len(self._books.all_series()),
            commits=self._commits,
            bytes_on_disk=own
            + self._server.bytes_on_disk(
                self._settings.bucket, self._settings.rollup_bucket, self._settings.delivery_bucket
            ),
        )

    def newest_received(self) -> int:
        return self._received

    def tend(self, now_ms: int) -> None:
        self._ready()
        if self._settings.retention_days is not None:
            with self._booking:
                if self._unsettled:
                    return
                self._books.forget(now_ms - self._settings.retention_days * DAY_MS)
                self._settled()
        self._plan_hours(now_ms)
        began = time.monotonic()
        while self._rolling.owed and not self._unsettled and time.monotonic() - began < TENDING_SECONDS:
            self._roll()

    def _plan_hours(self, now_ms: int) -> None:
        nodes = {one.key.of_node for one in self._books.all_series()}
        with self._booking:
            plan = self._rolling.plan(now_ms, nodes, self._commits)
            if plan is not None and not self._unsettled:
                self._keep(plan.marks)
                self._rolling.follow(plan)

    def _roll(self) -> None:
        some = sorted(self._rolling.owed.items())[:HOURS_AT_ONCE]
        self._rolling.roll(some)
        with self._booking:
            if not self._unsettled:
                done = self._rolling.settled(some)
                self._keep({}, gone=[one.mark for one in done])
                self._rolling.forget(done)

    def _keep(self, marks: Mapping[str, int], gone: Sequence[str] = ()) -> None:
        self._unsettled = True
        self._books.write(_marks(marks, gone))
        self._settled()

    def _put_rollups(self, lines: str) -> None:
        answer = self._server.write(self._settings.rollup_bucket, lines)
        if answer.verdict is not Verdict.STORED:
            raise StoreUnavailable(f"bucket {self._settings.rollup_bucket!r}: {answer.message}")

    def _ask(self, question: str) -> bytes:
        return self._server.ask(question)

    def _told_of(self, nodes: Collection[NodeKey]) -> tuple[int, int, Collection[int]]:
        return self._rolling.told(nodes)

    def _ready(self) -> None:
        """Return once the books are known to be what the bucket holds; raise StoreUnavailable."""
        if self._adopted:
            return
        with self._adopting:
            if not self._adopted:
                self._adopt(None)

    def _adopt(self, database: sqlite3.Connection | None) -> None:
        """Read the copy of the books, and make the books of a connection that; without one they must be that already.

        Series have numbers that others hold while the hub runs, so the books can be made anew at a start only.
        """
        delivery, keep = self._settings.delivery_bucket, self._settings.retention_days
        self._version = self._server.version()
        seconds = keep * 86_400 if keep else 0
        self._server.provide({self._settings.bucket: seconds, self._settings.rollup_bucket: seconds, delivery: 0})
        asked = flux.span(delivery, 0, SHARD_END) + flux.where(_measurement=BOOKS)
        asked += ' |> filter(fn: (r) => r._value != "")'  # a row that is gone is not worth its way
        asked += ' |> keep(columns: ["_time", "_measurement", "_field", "_value"])'
        try:
            copied = self._copy.read(flux.tables(self._server.ask(asked)))
        except (flux.FluxRefused, CopyUnreadable) as exc:
            raise StoreUnavailable(f"bucket {delivery!r} of {self._settings.url}: {exc}") from exc
        ask = self._books.read if database is None else database.execute
        if not self._copy.same(ask, copied):
            if database is None:
                raise StoreUnavailable(
                    f"the books in bucket {delivery!r} are not those of {self._path}: restart the hub, which makes them"
                    " anew from the bucket"
                )
            log.warning("InfluxDB: %s is made anew from bucket %r", self._path, delivery)
            with database:
                database.execute("BEGIN IMMEDIATE")
                self._copy.replace(database, copied)
        self._copy.adopt(copied)
        rows = copied.of("series")
        missing = [number for number in range(1, len(rows) + 1) if number not in rows or not all(copied.places[number])]
        if missing:
            raise StoreUnavailable(f"bucket {delivery!r}: series {missing[0]} is not whole; restore it from a backup")
        for number in sorted(rows):
            _, group, node, device, _, datatype = rows[number]
            key = DeviceKey(group, node, device)
            self._places.append(place(key, DataType(datatype), *copied.places[number]))
        self._announced = len(rows)
        received = next((one[1] for one in copied.of("marks").values() if one[0] == RECEIVED), 0)
        # Nothing is known of each series' newest instant but that no sample came from further ahead.
        self._newest.extend([received + AHEAD_MS] * len(rows))
        self._adopted = True
        self._place_new()

    def _place_new(self) -> None:
        with self._placing:
            for one in self._books.all_series()[len(self._places) :]:
                where = names(one.key, one.metric, one.datatype, self._kind_of(one.key))
                self._newest.append(np.iinfo(np.int64).min)
                self._places.append(place(one.key, one.datatype, *where))

    def _announce(self) -> None:
        """Write where new series stand before their first sample is, so that they never stand elsewhere."""
        every = self._books.all_series()[: len(self._places)]
        lines = []
        for number in range(self._announced + 1, len(every) + 1):
            one, here = every[number - 1], self._places[number - 1]
            row = (number, one.key.group, one.key.node, one.key.device, one.metric, int(one.datatype))
            lines.append(self._copy.announced(number, row, here.measurement, here.field))
        for first in range(0, len(lines), LINES):
            self._to_delivery("".join(lines[first : first + LINES]))
        self._announced = len(every)

    def _store_samples(self, batch: Batch, received_at: int) -> list[Quarantined]:
        """Send a batch's samples and return what the server will never take; what is too old already is counted."""
        if not batch.samples:
            return []
        written = write(batch, self._places, self._newest, most_late=MOST_LATE)
        notes = [conflict(self._places[series - 1], at) for series, at in self._conflicts(written)]
        if notes:
            self._server.write(self._settings.bucket, "".join(notes))
        records, expired = written.records, 0
        if self._settings.retention_days is not None:
            oldest = received_at - self._settings.retention_days * DAY_MS
            records = [one for one in records if one.at >= oldest]
            expired = sum(len(one.fields) for one in written.records) - sum(len(one.fields) for one in records)
        refused = sift(records, lambda lines: self._server.write(self._settings.bucket, lines), LINES)
        expired += sum(one.expired for one in refused)
        if expired:
            log.warning("%d samples were older than InfluxDB keeps; they are not stored", expired)
        return [self._aside(one, batch, received_at) for one in refused if not one.expired]

    def _conflicts(self, written: Written) -> set[tuple[int, int]]:
        """Return the keys whose value differs from the one that is stored, as far as that is looked up."""
        found = set(written.conflicts)
        late: dict[DeviceKey, list[tuple[int, int, Value]]] = {}
        for one in written.late:
            late.setdefault(self._books.named(one[0]).key, []).append(one)
        if len(written.late) > MOST_LATE or len(late) > MOST_LATE_DEVICES:
            return found
        for key, each in late.items():
            first, last = min(at for _, at, _ in each), max(at for _, at, _ in each)
            if last - first > MOST_LATE_MS:
                continue
            metrics = {series: self._books.named(series).metric for series, _, _ in each}
            before = self._questions.stood(key, set(metrics.values()), first, last + 1)
            for series, at, told in each:
                if before.get((metrics[series], at), told) != told:
                    found.add((series, at))
        return found

    def _aside(self, refusal: Refusal, batch: Batch, received_at: int) -> Quarantined:
        """Return a refused sample as it goes into quarantine: whole, as a message that names it."""
        one, at = self._books.named(refusal.series), refusal.record.at
        log.warning("InfluxDB will not take %s of %s: %s", one.metric, one.key, refusal.message)
        told: Value = None
        for column in (batch.numbers, batch.integers, batch.texts):
            told = next(
                (
                    each
                    for series, instant, each in zip(column.series, column.at, column.value, strict=True)
                    if (series, instant) == (refusal.series, at)
                ),
                told,
            )
        metric = WireMetric(name=one.metric, at=at, datatype=one.datatype, value=told)
        return Quarantined(
            key=one.key,
            reason=f"refused by the store: {refusal.message}",
            payload=encode(Payload(at=at, metrics=(metric,))),
            received_at=received_at,
            samples=1,
            metric=one.metric,
            at=at,
        )

    def _say_to_the_copy(self, database: sqlite3.Connection) -> None:
        if self._adopted:
            lines = self._copy.changes(database)
            if lines:
                self._to_delivery(lines)

    def _to_delivery(self, lines: str) -> None:
        answer = self._server.write(self._settings.delivery_bucket, lines, NANOSECONDS)
        if answer.verdict is not Verdict.STORED:
            raise StoreUnavailable(
                f"bucket {self._settings.delivery_bucket!r} does not take the ledger: {answer.message}; it must keep"
                " for ever and have no schema"
            )

    def _settled(self) -> None:
        self._copy.settle()
        self._unsettled = False


def _marks(marks: Mapping[str, int], gone: Sequence[str] = ()) -> Write:
    def write(database: sqlite3.Connection) -> None:
        database.executemany("INSERT OR REPLACE INTO marks VALUES (?, ?)", marks.items())
        database.executemany("DELETE FROM marks WHERE name = ?", [(one,) for one in gone])

    return write
