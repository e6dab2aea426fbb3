"""The store that needs no other server: SQLite takes commits, Arrow holds the tail, DuckDB answers questions.

A batch is one SQLite transaction: its samples as one compressed Arrow table, ledger ranges, events, quarantine. The
tail, all of it as Arrow tables in memory, is rebuilt from the inbox at start; DuckDB, in memory and bounded, answers
over a snapshot of it.
"""

import io
import logging
import sqlite3
import threading
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import duckdb
import numpy as np
import pyarrow as pa

from contract.metrics import DataType, Quality, Value
from contract.positions import EMPTY, Lineage, RangeSet
from hub.devices import DeviceKey, NodeKey
from hub.storage.buckets import buckets
from hub.storage.database import open_database
from hub.storage.timeseries import (
    INSTRUMENT_BITS,
    Batch,
    Buckets,
    Column,
    EventRow,
    Quarantined,
    Raw,
    Stats,
    StoreUnavailable,
)

log = logging.getLogger(__name__)

SCHEMA = pa.schema(
    [
        ("series", pa.int32()),
        ("at", pa.int64()),
        ("number", pa.float64()),
        ("integer", pa.int64()),
        ("text", pa.string()),
        ("quality", pa.int16()),
        ("flags", pa.uint8()),
        ("row", pa.int64()),
    ]
)

_NEWEST_OF_EACH = """
    SELECT "at", number, integer, text, quality, flags FROM tail
    WHERE series IN (SELECT unnest($series)) AND "at" >= $start AND "at" < $end
    QUALIFY row_number() OVER (PARTITION BY "at" ORDER BY row DESC) = 1
    ORDER BY "at" LIMIT $most
"""

_DISTINCT = """
    SELECT count(*), count(*) FILTER (WHERE spread > 1) FROM (
        SELECT count(DISTINCT {'n': number, 'i': integer, 't': text}) AS spread FROM tail GROUP BY series, "at"
    ) AS keys
"""

MOST_IN_BUCKETS = 2_000_000


class EmbeddedStore:
    """A TimeSeries in one folder. Open it with `with`."""

    def __init__(self, folder: Path, *, memory_limit: str = "256MB", threads: int = 2) -> None:
        self._path = folder / "store.db"
        self._limits: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": memory_limit,
            "threads": threads,
        }
        self._lock = threading.Lock()
        self._tail: tuple[pa.Table, ...] = ()
        self._rows = 0
        self._commits = 0
        self._series: dict[tuple[DeviceKey, str, DataType], int] = {}
        self._unsaved: dict[int, tuple[DeviceKey, str, DataType]] = {}
        self._by_metric: dict[tuple[DeviceKey, str], list[int]] = {}
        self._ledger: dict[NodeKey, dict[Lineage, RangeSet]] = {}
        self._received = 0
        self._distinct: tuple[int, int, int] | None = None

    def __enter__(self) -> Self:
        self._database = open_database(self._path, "store")
        self._reader = open_database(self._path, "store")
        self._duckdb = duckdb.connect(":memory:", config=self._limits)
        for number, *key, name, datatype in self._database.execute(
            'SELECT id, "group", node, device, metric, datatype FROM series'
        ):
            self._know(number, DeviceKey(*key), name, DataType(datatype))
        for group, node, record, epoch, stream, first, last in self._database.execute("SELECT * FROM ledger"):
            known = self._ledger.setdefault(NodeKey(group, node), {})
            lineage = Lineage(record, epoch, stream)
            known[lineage] = known.get(lineage, EMPTY).add(first, last)
        tables = []
        for number, received_at, blob in self._database.execute(
            "SELECT id, received_at, samples FROM inbox ORDER BY id"
        ):
            table = _unpacked(blob)
            self._rows += table.num_rows
            self._commits, self._received = number, max(self._received, received_at)
            tables.append(table)
        if tables:
            self._tail = (pa.concat_tables(tables).combine_chunks(),)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()
        self._reader.close()
        self._duckdb.close()

    def series(self, key: DeviceKey, metric: str, datatype: DataType) -> int:
        known = self._series.get((key, metric, datatype))
        if known is not None:
            return known
        with self._lock:
            number = len(self._series) + 1
            self._know(number, key, metric, datatype)
            self._unsaved[number] = (key, metric, datatype)
        return number

    def commit(self, batch: Batch, received_at: int) -> None:
        table = _table(batch, self._rows)
        with self._lock:
            unsaved = dict(self._unsaved)
        grown = self._grown(batch.committed)
        try:
            self._database.execute("BEGIN IMMEDIATE")
            self._write(batch, table, unsaved, grown, received_at)
            self._database.execute("COMMIT")
        except sqlite3.Error as exc:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise StoreUnavailable(f"{self._path}: {exc}") from exc
        with self._lock:
            for number in unsaved:
                self._unsaved.pop(number, None)
            for node, lineages in grown.items():
                self._ledger.setdefault(node, {}).update(lineages)
            self._rows += table.num_rows
            self._commits += 1
            self._received = max(self._received, received_at)
            if table.num_rows:
                self._tail = _merged((*self._tail, table))

    def ledger(self, node: NodeKey) -> Mapping[Lineage, RangeSet]:
        with self._lock:
            return dict(self._ledger.get(node, {}))

    def raw(self, key: DeviceKey, metric: str, start: int, end: int, most: int) -> Raw:
        rows = self._rows_of(key, metric, start, end, most)
        columns = rows.to_pydict()
        return Raw(
            at=columns["at"],
            value=[_value(*one) for one in zip(columns["number"], columns["integer"], columns["text"], strict=True)],
            quality=columns["quality"],
            flags=columns["flags"],
        )

    def buckets(self, key: DeviceKey, metric: str, start: int, end: int, count: int, hold_ms: int) -> Buckets:
        rows = self._rows_of(key, metric, start - hold_ms, end, MOST_IN_BUCKETS)
        number = rows["number"].to_numpy(zero_copy_only=False)
        integer = rows["integer"].to_numpy(zero_copy_only=False).astype(np.float64)
        value = np.where(np.isnan(number.astype(np.float64)), integer, number.astype(np.float64))
        measuring = (rows["flags"].to_numpy() & INSTRUMENT_BITS) == 0
        good = (rows["quality"].to_numpy() == int(Quality.GOOD)) & measuring & ~np.isnan(value)
        return buckets(rows["at"].to_numpy(), value, good, start=start, end=end, count=count, hold_ms=hold_ms)

    def events(self, after: int, metric: str, most: int) -> Sequence[EventRow]:
        with self._lock:
            rows = self._reader.execute(
                'SELECT id, "group", node, device, metric, at, received_at, value, log, epoch, "offset" FROM events'
                " WHERE metric = ? AND id > ? ORDER BY id LIMIT ?",
                (metric, after, most),
            ).fetchall()
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

    def stats(self) -> Stats:
        with self._lock:
            counted = self._distinct
            rows = self._rows
        if counted is None or counted[0] != rows:
            samples, conflicts = self._ask(_DISTINCT, {}).fetchall()[0]
            counted = self._distinct = (rows, samples, conflicts)
        with self._lock:
            quarantined, events = self._reader.execute(
                "SELECT (SELECT coalesce(sum(samples), 0) FROM quarantine), (SELECT count(*) FROM events)"
            ).fetchone()
            commits, series = self._commits, len(self._series)
        return Stats(
            samples=counted[1],
            conflicts=counted[2],
            quarantined=quarantined,
            events=events,
            series=series,
            commits=commits,
            bytes_on_disk=sum(one.stat().st_size for one in self._path.parent.glob("store.db*")),
        )

    def newest_received(self) -> int:
        return self._received

    def _know(self, number: int, key: DeviceKey, metric: str, datatype: DataType) -> None:
        self._series[key, metric, datatype] = number
        self._by_metric.setdefault((key, metric), []).append(number)

    def _grown(self, committed: Sequence[tuple[NodeKey, Lineage, int, int]]) -> dict[NodeKey, dict[Lineage, RangeSet]]:
        grown: dict[NodeKey, dict[Lineage, RangeSet]] = {}
        for node, lineage, first, last in committed:
            of_node = grown.setdefault(node, {})
            known = of_node.get(lineage) or self._ledger.get(node, {}).get(lineage, EMPTY)
            of_node[lineage] = known.add(first, last)
        return grown

    def _write(
        self,
        batch: Batch,
        table: pa.Table,
        unsaved: Mapping[int, tuple[DeviceKey, str, DataType]],
        grown: Mapping[NodeKey, Mapping[Lineage, RangeSet]],
        received_at: int,
    ) -> None:
        self._database.executemany(
            "INSERT INTO series VALUES (?, ?, ?, ?, ?, ?)",
            [
                (number, key.group, key.node, key.device, name, int(datatype))
                for number, (key, name, datatype) in unsaved.items()
            ],
        )
        if table.num_rows:
            self._database.execute(
                "INSERT INTO inbox (received_at, rows, samples) VALUES (?, ?, ?)",
                (received_at, table.num_rows, _packed(table)),
            )
        for node, lineages in grown.items():
            for lineage, ranges in lineages.items():
                where = (node.group, node.node, lineage.log, lineage.epoch, lineage.stream)
                self._database.execute(
                    'DELETE FROM ledger WHERE "group" = ? AND node = ? AND log = ? AND epoch = ? AND stream = ?', where
                )
                self._database.executemany(
                    "INSERT INTO ledger VALUES (?, ?, ?, ?, ?, ?, ?)", [(*where, *one) for one in ranges]
                )
        self._database.executemany(
            'INSERT INTO events ("group", node, device, metric, at, received_at, value, log, epoch, "offset")'
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [_event(one) for one in batch.events],
        )
        self._database.executemany(
            'INSERT INTO quarantine ("group", node, device, log, epoch, first, last, metric, at, received_at,'
            " reason, samples, payload) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [_bad(one) for one in batch.quarantined],
        )

    def _rows_of(self, key: DeviceKey, metric: str, start: int, end: int, most: int) -> pa.Table:
        series = self._by_metric.get((key, metric), [])
        if not series:
            return SCHEMA.empty_table()
        question = {"series": list(series), "start": start, "end": end, "most": most}
        return self._ask(_NEWEST_OF_EACH, question).to_arrow_table()

    def _ask(self, sql: str, values: Mapping[str, Any]) -> Any:
        tail = self._tail  # one snapshot: the tuple is replaced, never changed
        cursor = self._duckdb.cursor()
        cursor.register("tail", pa.concat_tables(tail) if tail else SCHEMA.empty_table())
        return cursor.sql(sql, params=dict(values))


def _table(batch: Batch, rows: int) -> pa.Table:
    parts = []
    for column, name in ((batch.numbers, "number"), (batch.integers, "integer"), (batch.texts, "text")):
        if len(column):
            parts.append(_part(column, name))
    if not parts:
        return SCHEMA.empty_table()
    table = pa.concat_tables(parts).combine_chunks()
    numbered = pa.array(np.arange(rows, rows + table.num_rows, dtype=np.int64))
    return table.append_column("row", numbered)


def _part(column: Column, name: str) -> pa.Table:
    marks = np.frombuffer(column.marks, dtype=np.int32)
    size = len(column)
    values = {one: pa.nulls(size, SCHEMA.field(one).type) for one in ("number", "integer", "text")}
    if isinstance(column.value, array):
        numbers = np.frombuffer(column.value, dtype=np.float64)
        values[name] = pa.array(numbers, mask=np.isnan(numbers))
    else:
        values[name] = pa.array(column.value, SCHEMA.field(name).type)
    return pa.table(
        {
            "series": pa.array(np.frombuffer(column.series, dtype=np.int32)),
            "at": pa.array(np.frombuffer(column.at, dtype=np.int64)),
            **values,
            "quality": pa.array((marks >> 8).astype(np.int16)),
            "flags": pa.array((marks & 0xFF).astype(np.uint8)),
        }
    )


def _packed(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, SCHEMA, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(table)
    return sink.getvalue()


def _unpacked(blob: bytes) -> pa.Table:
    with pa.ipc.open_stream(blob) as reader:
        return reader.read_all()


def _merged(tail: tuple[pa.Table, ...]) -> tuple[pa.Table, ...]:
    """Return the tail with its youngest tables joined, so that their number grows with the logarithm of the rows."""
    tables = list(tail)
    while len(tables) > 1 and tables[-2].num_rows <= 2 * tables[-1].num_rows:
        young = tables.pop()
        tables[-1] = pa.concat_tables([tables[-1], young]).combine_chunks()
    return tuple(tables)


def _value(number: float | None, integer: int | None, text: str | None) -> Value:
    if number is not None:
        return number
    return integer if integer is not None else text


def _event(one: EventRow) -> tuple[object, ...]:
    position = (None, None) if one.lineage is None else (one.lineage.log, one.lineage.epoch)
    value = None if one.value is None else str(one.value)
    key = one.key
    return (key.group, key.node, key.device, one.metric, one.at, one.received_at, value, *position, one.offset)


def _bad(one: Quarantined) -> tuple[object, ...]:
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
