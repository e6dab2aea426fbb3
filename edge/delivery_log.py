"""Records on their way to the hub, safe across a power cut: the store between measuring and sending.

One SQLite file per UTC day holds records; `log.db` beside them holds what outlives days: the log's id, how often the
agent started, aliases, bdSeq. Telemetry waits in memory for the next group commit (an SD card written at every reading
is soon a dead SD card); an event is committed before it is sent, and takes everything pending with it.
"""

import logging
import secrets
import sqlite3
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Self

from contract import sparkplug_pb2
from contract.catalog import INSTRUMENT, QUALITY
from contract.clock import Clock
from contract.metrics import DataType, Instrument, Metric, Quality, Sample
from contract.payload import read_properties, read_value
from contract.positions import Lineage, Position, RangeSet, difference
from edge.messages import Record, record_metrics

log = logging.getLogger(__name__)

KEEP_DAYS = 60
"""Monitoring stations must keep 60 days (Circular 10/2021/TT-BTNMT on data loggers)."""

MOST_PENDING = 50_000
"""Records kept in memory while the disk refuses them; the oldest go first."""

_LOG_SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS aliases (
    alias INTEGER PRIMARY KEY,
    stream TEXT NOT NULL,
    name TEXT NOT NULL,
    datatype INTEGER NOT NULL,
    UNIQUE (stream, name, datatype)
) STRICT;
"""

# Epochs are UInt64 with 32 random low bits and the agent's starts above them; SQLite's integers end at 2^63, which the
# count of starts reaches in no lifetime.
_DAY_SCHEMA = """
CREATE TABLE IF NOT EXISTS origin (log_id TEXT PRIMARY KEY) STRICT;
CREATE TABLE IF NOT EXISTS records (
    epoch INTEGER NOT NULL,
    stream TEXT NOT NULL,
    offset INTEGER NOT NULL,
    at INTEGER NOT NULL,
    event INTEGER NOT NULL,
    metrics BLOB NOT NULL,
    PRIMARY KEY (epoch, stream, offset)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX IF NOT EXISTS instants ON records (stream, at);
CREATE TABLE IF NOT EXISTS spans (
    epoch INTEGER NOT NULL,
    stream TEXT NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    PRIMARY KEY (epoch, stream, first)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS newest (
    alias INTEGER PRIMARY KEY,
    epoch INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    metric BLOB NOT NULL
) STRICT;
"""

Newest = tuple[int, int, bytes]
"""Epoch, offset and encoded metric of the newest logged sample of an alias."""


class DeliveryLog:
    """What this box measured and has not yet been told to forget. Open it with `with`; one process at a time."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._folder = folder
        self._clock = clock
        self._lock = threading.Lock()
        self._pending: list[Record] = []
        self._pending_instants: set[tuple[str, int]] = set()
        self._offsets: dict[str, int] = {}
        self._held: dict[Lineage, RangeSet] = {}
        self._newest: dict[int, Newest] = {}
        self._aliases: dict[tuple[str, str, DataType], int] = {}
        self._days: dict[str, sqlite3.Connection] = {}
        self._refused = False

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._facts = self._open("log.db", _LOG_SCHEMA)
        self.log_id = self._fact("log_id", secrets.token_hex(8))
        starts = int(self._fact("starts", "0")) + 1
        self.epoch = (starts << 32) | secrets.randbits(32)
        self._remember(starts=starts, log_id=self.log_id)
        for alias, stream, name, datatype in self._facts.execute("SELECT alias, stream, name, datatype FROM aliases"):
            self._aliases[stream, name, DataType(datatype)] = alias
        for day in self._files():
            self._load(day)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.commit()
        except sqlite3.Error as exc:
            log.error("the delivery log in %s could not be written at the end: %s", self._folder, exc)
        for connection in (*self._days.values(), self._facts):
            connection.close()

    @property
    def held(self) -> Mapping[Lineage, RangeSet]:
        """What is on disk, as positions."""
        return self._held

    @property
    def pending(self) -> int:
        """How many records wait for the next commit."""
        return len(self._pending)

    def closed(self, most: int) -> dict[Lineage, RangeSet]:
        """Return what is held of at most so many earlier epochs, oldest first."""
        epochs = sorted({lineage.epoch for lineage in self._held if lineage.epoch != self.epoch})[:most]
        chosen = [lineage for lineage in self._held if lineage.epoch in set(epochs)]
        return {lineage: self._held[lineage] for lineage in sorted(chosen, key=lambda one: (one.epoch, one.stream))}

    def alias(self, stream: str, name: str, datatype: DataType) -> int:
        """Return the alias of a metric, given once and on disk before it is used; never given to another metric.

        Numbers start at a random multiple of 2^20: a hub that missed a birth then knows no such alias, instead of
        storing under a wrong name.
        """
        known = self._aliases.get((stream, name, datatype))
        if known is not None:
            return known
        with self._lock, self._facts:
            number = max(self._aliases.values(), default=(secrets.randbits(20) << 20)) + 1
            self._facts.execute("INSERT INTO aliases VALUES (?, ?, ?, ?)", (number, stream, name, int(datatype)))
            self._aliases[stream, name, datatype] = number
        return number

    def known(self, stream: str) -> list[tuple[str, DataType]]:
        """Return every metric this stream ever had, by name and datatype."""
        return [(name, datatype) for (whose, name, datatype) in self._aliases if whose == stream]

    def next_bdseq(self) -> int:
        """Return a bdSeq, 0-255, for the next CONNECT, on disk already (topics-nbirth-bdseq-increment)."""
        number = (int(self._fact("bdseq", "-1")) + 1) % 256
        self._remember(bdseq=number)
        return number

    def append(self, stream: str, at: int, samples: Sequence[Sample], known: Mapping[str, Metric]) -> Record:
        """Give the samples of one read a position; they are in memory until the next commit.

        Records of one stream have distinct instants: on an exact collision the whole record moves by 1 ms, again until
        it is free. It is never compared with the last instant, since a clock set back would drag an hour along.
        """
        while (stream, at) in self._pending_instants or self._taken(stream, at):
            at += 1
        lineage = Lineage(self.log_id, self.epoch, stream)
        event = any(known[sample.metric].event for sample in samples if sample.metric in known)
        metrics = record_metrics(stream, at, samples, known, self.alias)
        offset = self._offsets.get(stream, 0)
        self._offsets[stream] = offset + 1
        record = Record(lineage=lineage, offset=offset, at=at, metrics=metrics, event=event)
        with self._lock:
            self._pending.append(record)
            self._pending_instants.add((stream, at))
        for metric in sparkplug_pb2.Payload.FromString(metrics).metrics:
            self._newest[metric.alias] = (self.epoch, offset, metric.SerializeToString())
        return record

    def commit(self) -> None:
        """Write everything pending, fsynced; blocks. What a disk refuses stays pending, within bounds, and raises."""
        with self._lock:
            pending, self._pending = self._pending, []
        days: dict[str, list[Record]] = {}
        for record in pending:
            days.setdefault(_day(record.at), []).append(record)
        written: list[Record] = []
        try:
            for day, records in days.items():
                self._write(day, records)
                written += records
        except sqlite3.Error as exc:
            self._keep(pending[-MOST_PENDING:], set(map(id, written)), exc)
            raise
        finally:
            with self._lock:
                self._pending_instants -= {(one.lineage.stream, one.at) for one in written}
        if self._refused and written:
            self._refused = False
            log.warning("the delivery log in %s can be written again", self._folder)

    def read(self, lineage: Lineage, first: int, last: int, most_bytes: int) -> list[Record]:
        """Return consecutive records from `first` on, at least one if any is held, up to `most_bytes`; blocks.

        The list ends early where instants go back or a record is missing, so that it can be sent as one message.
        """
        found: list[Record] = []
        for day in self._files():
            with closing(sqlite3.connect(self._folder / day)) as connection:
                rows = connection.execute(
                    "SELECT offset, at, event, metrics FROM records"
                    " WHERE epoch = ? AND stream = ? AND offset BETWEEN ? AND ? ORDER BY offset LIMIT 2000",
                    (lineage.epoch, lineage.stream, first, last),
                )
                found += [
                    Record(lineage=lineage, offset=offset, at=at, metrics=metrics, event=bool(event))
                    for offset, at, event, metrics in rows
                ]
        found.sort(key=lambda record: record.offset)
        return _sendable(found, most_bytes)

    def newest(self, stream: str, metric: Metric) -> tuple[Sample, Position] | None:
        """Return the newest logged sample of a metric and where it stands."""
        alias = self._aliases.get((stream, metric.name, metric.datatype))
        logged = self._newest.get(alias) if alias is not None else None
        if logged is None:
            return None
        epoch, offset, raw = logged
        wire = sparkplug_pb2.Payload.Metric.FromString(raw)
        flags = read_properties(wire)
        sample = Sample(
            metric=metric.name,
            at=wire.timestamp,
            value=None if wire.is_null else read_value(wire, metric.datatype),
            quality=Quality(int(str(flags.get(QUALITY, int(Quality.GOOD))))),
            instrument=Instrument(int(str(flags.get(INSTRUMENT, 0)))),
        )
        return sample, Position(self.log_id, epoch, stream, offset)

    def forget(self, lineage: Lineage, first: int, last: int) -> None:
        """Stop claiming records that are on no disk any more."""
        with self._lock:
            self._held = difference(self._held, {lineage: RangeSet([(first, last)])})

    def expire(self, committed: Mapping[Lineage, RangeSet]) -> None:
        """Unlink day files older than KEEP_DAYS of which everything is committed; blocks."""
        today = self._clock.now_ms()
        for day in self._files():
            if day >= f"{_day(today - KEEP_DAYS * 86_400_000)}.db":
                break
            spans = self._spans(day)
            if all(committed.get(lineage, RangeSet()).covers(ranges) for lineage, ranges in spans.items()):
                self._unlink(day)
                with self._lock:
                    self._held = difference(self._held, spans)

    def _unlink(self, day: str) -> None:
        connection = self._days.pop(day, None)
        if connection is not None:
            connection.close()
        for suffix in ("", "-wal", "-shm"):
            (self._folder / f"{day}{suffix}").unlink(missing_ok=True)

    def _files(self) -> list[str]:
        return sorted(path.name for path in self._folder.glob("????-??-??.db"))

    def _open(self, name: str, schema: str) -> sqlite3.Connection:
        """Return a connection that fsyncs each commit; a file that is no database is set aside, never overwritten."""
        path = self._folder / name
        try:
            return _connect(path, schema)
        except sqlite3.DatabaseError as exc:
            if isinstance(exc, sqlite3.OperationalError):
                raise
            aside = path.with_suffix(f".broken-{self._clock.now_ms()}")
            log.error("%s is damaged (%s); set aside as %s, a new one begins", path, exc, aside.name)
            path.rename(aside)
            for suffix in ("-wal", "-shm"):
                path.with_name(name + suffix).unlink(missing_ok=True)
            return _connect(path, schema)

    def _load(self, day: str) -> None:
        origin = self._connection(day).execute("SELECT log_id FROM origin").fetchone()
        if origin is not None and origin[0] != self.log_id:
            log.error("%s belongs to log %s, not to %s: set aside", self._folder / day, origin[0], self.log_id)
            self._days.pop(day).close()
            (self._folder / day).rename(self._folder / f"{day}.of-{origin[0]}")
            return
        for lineage, ranges in self._spans(day).items():
            self._held[lineage] = self._held.get(lineage, RangeSet()) | ranges
        for alias, epoch, offset, metric in self._days[day].execute("SELECT alias, epoch, offset, metric FROM newest"):
            known = self._newest.get(alias)
            if known is None or (epoch, offset) > known[:2]:
                self._newest[alias] = (epoch, offset, metric)

    def _spans(self, day: str) -> dict[Lineage, RangeSet]:
        spans: dict[Lineage, list[tuple[int, int]]] = {}
        for epoch, stream, first, last in self._connection(day).execute("SELECT epoch, stream, first, last FROM spans"):
            spans.setdefault(Lineage(self.log_id, epoch, stream), []).append((first, last))
        return {lineage: RangeSet(ranges) for lineage, ranges in spans.items()}

    def _connection(self, day: str) -> sqlite3.Connection:
        if day not in self._days:
            self._days[day] = self._open(day, _DAY_SCHEMA)
        return self._days[day]

    def _taken(self, stream: str, at: int) -> bool:
        day = f"{_day(at)}.db"
        if day not in self._days:
            return False
        # A connection of its own: the writer's would make the event loop wait for an fsync.
        with closing(sqlite3.connect(self._folder / day)) as reader:
            row = reader.execute("SELECT 1 FROM records WHERE stream = ? AND at = ?", (stream, at)).fetchone()
        return row is not None

    def _write(self, day: str, records: Sequence[Record]) -> None:
        connection = self._connection(f"{day}.db")
        spans = _spans_of(records)
        newest: dict[int, Newest] = {}
        for record in records:
            for metric in sparkplug_pb2.Payload.FromString(record.metrics).metrics:
                newest[metric.alias] = (record.lineage.epoch, record.offset, metric.SerializeToString())
        with self._lock, connection:
            connection.execute("INSERT OR IGNORE INTO origin VALUES (?)", (self.log_id,))
            connection.executemany(
                "INSERT INTO records VALUES (?, ?, ?, ?, ?, ?)",
                [(r.lineage.epoch, r.lineage.stream, r.offset, r.at, int(r.event), r.metrics) for r in records],
            )
            for lineage, first, last in spans:
                grown = connection.execute(
                    "UPDATE spans SET last = ? WHERE epoch = ? AND stream = ? AND last = ?",
                    (last, lineage.epoch, lineage.stream, first - 1),
                )
                if grown.rowcount == 0:
                    connection.execute(
                        "INSERT INTO spans VALUES (?, ?, ?, ?)", (lineage.epoch, lineage.stream, first, last)
                    )
            connection.executemany(
                "INSERT INTO newest VALUES (?, ?, ?, ?) ON CONFLICT (alias) DO UPDATE"
                " SET epoch = excluded.epoch, offset = excluded.offset, metric = excluded.metric",
                [(alias, *values) for alias, values in newest.items()],
            )
        with self._lock:
            held = dict(self._held)  # replaced, not changed: the event loop may be walking it
            for lineage, first, last in spans:
                held[lineage] = held.get(lineage, RangeSet()).add(first, last)
            self._held = held

    def _keep(self, pending: Sequence[Record], written: set[int], exc: sqlite3.Error) -> None:
        with self._lock:
            self._pending = [record for record in pending if id(record) not in written] + self._pending
        if not self._refused:
            self._refused = True
            log.error("the delivery log in %s cannot be written: %s; records wait in memory", self._folder, exc)

    def _fact(self, name: str, default: str) -> str:
        row = self._facts.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return default if row is None else str(row[0])

    def _remember(self, **facts: object) -> None:
        with self._lock, self._facts:
            self._facts.executemany(
                "INSERT INTO facts VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                [(name, str(value)) for name, value in facts.items()],
            )


def _connect(path: Path, schema: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, check_same_thread=False, timeout=5)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.executescript(schema)
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _day(at: int) -> str:
    """Return the UTC day of an instant; what no calendar holds goes to its nearest end."""
    try:
        return datetime.fromtimestamp(max(at, 0) / 1000, UTC).strftime("%Y-%m-%d")
    except (OverflowError, ValueError, OSError):
        return "9999-12-31"


def _spans_of(records: Iterable[Record]) -> list[tuple[Lineage, int, int]]:
    offsets: dict[Lineage, list[tuple[int, int]]] = {}
    for record in records:
        offsets.setdefault(record.lineage, []).append((record.offset, record.offset))
    return [(lineage, first, last) for lineage, found in offsets.items() for first, last in RangeSet(found)]


def _sendable(records: Sequence[Record], most_bytes: int) -> list[Record]:
    if not records:
        return []
    size = len(records[0].metrics)
    for count, (before, after) in enumerate(pairwise(records), start=1):
        size += len(after.metrics)
        if after.offset != before.offset + 1 or after.at <= before.at or size > most_bytes:
            return list(records[:count])
    return list(records)
