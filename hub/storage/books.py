"""What both stores keep in SQLite beside the samples: series, ledger, floors, voids, events, quarantine."""

import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from contract.metrics import DataType
from contract.positions import EMPTY, Lineage, RangeSet
from hub.devices import DeviceKey, NodeKey
from hub.storage.database import open_database
from hub.storage.timeseries import Batch, EventRow, PutAside, Quarantined, StoreUnavailable, Void

Write = Callable[[sqlite3.Connection], None]

_QUARANTINE = 'id, "group", node, device, log, epoch, first, last, metric, at, received_at, reason, samples, payload'


@dataclass(frozen=True, slots=True)
class Series:
    """One metric of one device, in one datatype: what samples are numbered by."""

    key: DeviceKey
    metric: str
    datatype: DataType


class Books:
    """The file `store.db`. Open it with `with`.

    `commit` and `write` are called by one thread at a time each; questions and `series` by any. `last_word` is said
    within every transaction, when all else of it is written; what it raises undoes the transaction.
    """

    def __init__(self, path: Path, last_word: Write | None = None) -> None:
        self.path = path
        self._last_word = last_word
        self._lock = threading.Lock()  # of what is in memory, and of the reader
        self._writing = threading.Lock()
        self._all: list[Series] = []
        self._numbers: dict[Series, int] = {}
        self._by_metric: dict[tuple[DeviceKey, str], list[int]] = {}
        self._saved = 0
        self._ledger: dict[NodeKey, dict[Lineage, RangeSet]] = {}
        self._floors: dict[NodeKey, dict[str, frozenset[int]]] = {}

    def __enter__(self) -> Self:
        self._database = open_database(self.path, "store")
        self._reader = open_database(self.path, "store")
        for number, *key, metric, datatype in self._database.execute(
            'SELECT id, "group", node, device, metric, datatype FROM series ORDER BY id'
        ):
            if number != len(self._all) + 1:
                raise sqlite3.DatabaseError(f"{self.path}: series {len(self._all) + 1} is missing; restore a backup")
            self._know(Series(DeviceKey(*key), metric, DataType(datatype)))
        self._saved = len(self._all)
        for group, node, record, epoch, stream, first, last in self._database.execute("SELECT * FROM ledger"):
            known = self._ledger.setdefault(NodeKey(group, node), {})
            lineage = Lineage(record, epoch, stream)
            known[lineage] = known.get(lineage, EMPTY).add(first, last)
        for group, node, record, epoch in self._database.execute("SELECT * FROM floors"):
            of_node = self._floors.setdefault(NodeKey(group, node), {})
            of_node[record] = of_node.get(record, frozenset()) | {epoch}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Whoever still asks in a thread is answered first: SQLite crashes where a file is closed under a question.
        with self._writing, self._lock:
            self._database.close()
            self._reader.close()

    def series(self, key: DeviceKey, metric: str, datatype: DataType) -> int:
        """Return the number of a series, from 1; a new one is kept with the next commit."""
        one = Series(key, metric, datatype)
        known = self._numbers.get(one)
        if known is not None:
            return known
        with self._lock:
            return self._know(one)

    def named(self, number: int) -> Series:
        """Return the series of a number."""
        return self._all[number - 1]

    def all_series(self) -> Sequence[Series]:
        """Return every series, number 1 first."""
        with self._lock:
            return list(self._all)

    def numbers(self, key: DeviceKey, metric: str) -> Sequence[int]:
        """Return the numbers a metric of a device has: one, or more where its datatype changed."""
        with self._lock:
            return list(self._by_metric.get((key, metric), ()))

    def commit(self, batch: Batch, also: Write) -> None:
        """Write the batch's books and whatever `also` writes in one durable transaction, or raise StoreUnavailable."""
        with self._lock:
            unsaved = list(enumerate(self._all[self._saved :], start=self._saved + 1))
            ledger, floors = self._after(batch)

        def write(database: sqlite3.Connection) -> None:
            database.executemany(
                "INSERT INTO series VALUES (?, ?, ?, ?, ?, ?)",
                [
                    (number, one.key.group, one.key.node, one.key.device, one.metric, int(one.datatype))
                    for number, one in unsaved
                ],
            )
            also(database)
            _write(database, batch, ledger)

        self.write(write)
        with self._lock:
            self._saved += len(unsaved)
            for node, lineages in ledger.items():
                self._ledger.setdefault(node, {}).update(lineages)
            for one in batch.floors:
                of_node = self._ledger.get(one.node, {})
                for lineage in [each for each in of_node if each.log == one.log and each.epoch in one.over]:
                    del of_node[lineage]
            for node, of_log in floors.items():
                self._floors.setdefault(node, {}).update(of_log)

    def write(self, what: Write) -> None:
        """Run `what` in one durable transaction; raise StoreUnavailable with nothing written."""
        with self._writing:
            try:
                self._database.execute("BEGIN IMMEDIATE")
                what(self._database)
                if self._last_word is not None:
                    self._last_word(self._database)
                self._database.execute("COMMIT")
            except BaseException as exc:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                if isinstance(exc, sqlite3.Error):
                    raise StoreUnavailable(f"{self.path}: {exc}") from exc
                raise

    def read(self, sql: str, values: Sequence[object] | Mapping[str, object] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of a question; raise StoreUnavailable."""
        with self._lock:
            try:
                return self._reader.execute(sql, values).fetchall()
            except sqlite3.Error as exc:
                raise StoreUnavailable(f"{self.path}: {exc}") from exc

    def ledger(self, node: NodeKey) -> Mapping[Lineage, RangeSet]:
        with self._lock:
            return dict(self._ledger.get(node, {}))

    def floors(self, node: NodeKey) -> Mapping[str, frozenset[int]]:
        with self._lock:
            return dict(self._floors.get(node, {}))

    def voids(self, node: NodeKey, most: int) -> Sequence[Void]:
        rows = self.read(
            'SELECT log, epoch, stream, first, last, at FROM voids WHERE "group" = ? AND node = ?'
            " ORDER BY id DESC LIMIT ?",
            (node.group, node.node, most),
        )
        return [
            Void(node=node, lineage=Lineage(record, epoch, stream), first=first, last=last, at=at)
            for record, epoch, stream, first, last, at in rows
        ]

    def quarantined(self, after: int, most: int, node: NodeKey | None = None) -> Sequence[Quarantined]:
        where, values = "id > ?", [after]
        of_node = () if node is None else (node.group, node.node)
        if node is not None:
            where += ' AND "group" = ? AND node = ?'
        rows = self.read(
            f"SELECT {_QUARANTINE} FROM quarantine WHERE {where} ORDER BY id LIMIT ?",  # noqa: S608 - no value is in it
            (*values, *of_node, most),
        )
        return [_quarantined(row) for row in rows]

    def put_aside(self, node: NodeKey) -> Sequence[PutAside]:
        rows = self.read(
            'SELECT reason, sum(samples), max(received_at) AS newest FROM quarantine WHERE "group" = ? AND node = ?'
            " GROUP BY reason ORDER BY newest DESC",
            (node.group, node.node),
        )
        return [PutAside(reason=reason, samples=samples, newest=newest) for reason, samples, newest in rows]

    def events(self, after: int, metric: str, most: int) -> Sequence[EventRow]:
        rows = self.read(
            'SELECT id, "group", node, device, metric, at, received_at, value, log, epoch, "offset" FROM events'
            " WHERE metric = ? AND id > ? ORDER BY id LIMIT ?",
            (metric, after, most),
        )
        return [
            EventRow(
                id=number,
                key=DeviceKey(group, node, device),
                metric=name,
                at=at,
                received_at=received_at,
                value=value,
                lineage=Lineage(record, epoch, device) if record is not None else None,
                offset=offset,
            )
            for number, group, node, device, name, at, received_at, value, record, epoch, offset in rows
        ]

    def held_back(self) -> tuple[int, int]:
        """Return how many samples are in quarantine, and how many events are kept."""
        ((quarantined, events),) = self.read(
            "SELECT (SELECT coalesce(sum(samples), 0) FROM quarantine), (SELECT count(*) FROM events)"
        )
        return quarantined, events

    def missing(self, node: NodeKey, start: int, end: int) -> tuple[int, int]:
        """Return how many samples of a node went into quarantine, and how many positions were void, in [start, end)."""
        where = '"group" = :group AND node = :node'
        ((quarantined, void),) = self.read(
            f"SELECT (SELECT coalesce(sum(samples), 0) FROM quarantine"  # noqa: S608 - no value is in it
            f" WHERE {where} AND received_at >= :start AND received_at < :end),"
            f" (SELECT coalesce(sum(last - first + 1), 0) FROM voids WHERE {where} AND at >= :start AND at < :end)",
            {"group": node.group, "node": node.node, "start": start, "end": end},
        )
        return quarantined, void

    def forget(self, before: int) -> None:
        """Let go of events, quarantine and void ranges the hub learnt before an instant (ms)."""

        def write(database: sqlite3.Connection) -> None:
            database.execute("DELETE FROM events WHERE received_at < ?", (before,))
            database.execute("DELETE FROM quarantine WHERE received_at < ?", (before,))
            database.execute("DELETE FROM voids WHERE at < ?", (before,))

        self.write(write)

    def _know(self, one: Series) -> int:
        known = self._numbers.get(one)
        if known is not None:
            return known
        self._all.append(one)
        number = self._numbers[one] = len(self._all)
        self._by_metric.setdefault((one.key, one.metric), []).append(number)
        return number

    def _after(
        self, batch: Batch
    ) -> tuple[dict[NodeKey, dict[Lineage, RangeSet]], dict[NodeKey, dict[str, frozenset[int]]]]:
        ledger: dict[NodeKey, dict[Lineage, RangeSet]] = {}
        for node, lineage, first, last in batch.committed:
            of_node = ledger.setdefault(node, {})
            known = of_node.get(lineage) or self._ledger.get(node, {}).get(lineage, EMPTY)
            of_node[lineage] = known.add(first, last)
        floors: dict[NodeKey, dict[str, frozenset[int]]] = {}
        for one in batch.floors:
            of_log = floors.setdefault(one.node, {})
            stood = of_log.get(one.log, self._floors.get(one.node, {}).get(one.log, frozenset()))
            of_log[one.log] = (stood - set(one.over)) | {one.floor}
        return ledger, floors


def _write(database: sqlite3.Connection, batch: Batch, ledger: Mapping[NodeKey, Mapping[Lineage, RangeSet]]) -> None:
    for node, lineages in ledger.items():
        for lineage, ranges in lineages.items():
            where = (node.group, node.node, lineage.log, lineage.epoch, lineage.stream)
            database.execute(
                'DELETE FROM ledger WHERE "group" = ? AND node = ? AND log = ? AND epoch = ? AND stream = ?', where
            )
            database.executemany("INSERT INTO ledger VALUES (?, ?, ?, ?, ?, ?, ?)", [(*where, *one) for one in ranges])
    for raised in batch.floors:
        log = (raised.node.group, raised.node.node, raised.log)
        for table in ("ledger", "floors"):
            database.executemany(
                f'DELETE FROM {table} WHERE "group" = ? AND node = ? AND log = ? AND epoch = ?',  # noqa: S608
                [(*log, epoch) for epoch in raised.over],
            )
        database.execute("INSERT OR IGNORE INTO floors VALUES (?, ?, ?, ?)", (*log, raised.floor))
    database.executemany(
        'INSERT OR IGNORE INTO voids ("group", node, log, epoch, stream, first, last, at)'
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (one.node.group, one.node.node, one.lineage.log, one.lineage.epoch, one.lineage.stream, *_span(one))
            for one in batch.voids
        ],
    )
    database.executemany(
        'INSERT INTO events ("group", node, device, metric, at, received_at, value, log, epoch, "offset")'
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [_event_row(one) for one in batch.events],
    )
    database.executemany(
        'INSERT INTO quarantine ("group", node, device, log, epoch, first, last, metric, at, received_at,'
        " reason, samples, payload) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [_quarantine_row(one) for one in batch.quarantined],
    )
    database.executemany("DELETE FROM quarantine WHERE id = ?", [(number,) for number in batch.released])


def _span(one: Void) -> tuple[int, int, int]:
    return one.first, one.last, one.at


def _event_row(one: EventRow) -> tuple[object, ...]:
    position = (None, None) if one.lineage is None else (one.lineage.log, one.lineage.epoch)
    value = None if one.value is None else str(one.value)
    key = one.key
    return (key.group, key.node, key.device, one.metric, one.at, one.received_at, value, *position, one.offset)


def _quarantine_row(one: Quarantined) -> tuple[object, ...]:
    position = (None, None) if one.lineage is None else (one.lineage.log, one.lineage.epoch)
    return (
        one.key.group,
        one.key.node,
        one.key.device,
        *position,
        one.first,
        one.last,
        one.metric,
        one.at,
        one.received_at,
        one.reason,
        one.samples,
        one.payload,
    )


def _quarantined(row: Sequence[Any]) -> Quarantined:
    number, group, node, device, record, epoch, first, last, metric, at, received_at, reason, samples, payload = row
    return Quarantined(
        id=number,
        key=DeviceKey(group, node, device),
        lineage=Lineage(record, epoch, device) if record is not None else None,
        first=first,
        last=last,
        metric=metric,
        at=at,
        received_at=received_at,
        reason=reason,
        samples=samples,
        payload=payload,
    )
