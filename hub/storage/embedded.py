"""The store that needs no other server: SQLite takes commits, Arrow holds the tail, DuckDB answers questions.

A batch is one SQLite transaction: its samples as one compressed Arrow table, ledger ranges, events, quarantine. The
tail, all of it as Arrow tables in memory, is rebuilt from the inbox at start; DuckDB, in memory and bounded, answers
over a snapshot of it.
"""

import itertools
import shutil
import sqlite3
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import duckdb
import numpy as np
import pyarrow as pa

from contract.catalog import PRESENCE
from contract.metrics import DataType, Quality, Value
from contract.positions import Lineage, RangeSet
from hub.devices import DeviceKey, NodeKey
from hub.storage.availability import CLAIM_LOOKBACK_MS, intervals, silences
from hub.storage.books import Books, Series
from hub.storage.buckets import buckets, mean_of
from hub.storage.tail import SCHEMA, joined, packed, table_of, unpacked
from hub.storage.timeseries import (
    HISTORICAL_BIT,
    INSTRUMENT_BITS,
    ROWS,
    STREAM_GAP_MS,
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

_NEWEST_OF_EACH = """
    SELECT "at", number, integer, text, quality, flags FROM tail
    WHERE series IN (SELECT unnest($series)) AND "at" >= $start AND "at" < $end
    QUALIFY row_number() OVER (PARTITION BY "at" ORDER BY row DESC) = 1
    ORDER BY "at" LIMIT $most
"""

_LAST_OF_EACH = """
    SELECT series, "at", number, integer, text, quality, flags FROM tail
    WHERE series IN (SELECT unnest($series))
    QUALIFY row_number() OVER (PARTITION BY series ORDER BY "at" DESC, row DESC) = 1
"""

_EXPORT = """
    SELECT series, "at", number, integer, text, quality, flags
    FROM tail JOIN (SELECT unnest($series) AS series, unnest($rank) AS rank) USING (series)
    WHERE "at" >= $start AND "at" < $end
    QUALIFY row_number() OVER (PARTITION BY rank, "at" ORDER BY row DESC) = 1
    ORDER BY rank, "at"
"""

_DISTINCT = """
    SELECT count(*), count(*) FILTER (WHERE spread > 1) FROM (
        SELECT count(DISTINCT {'n': number, 'i': integer, 't': text}) AS spread FROM tail GROUP BY series, "at"
    ) AS keys
"""

_COMPLETENESS = """
    SELECT count(*), count(DISTINCT (stream, "at")),
           count(*) FILTER (WHERE historical), count(*) FILTER (WHERE spread > 1)
    FROM (
        SELECT stream, "at", count(DISTINCT {'n': number, 'i': integer, 't': text}) AS spread,
               arg_max(flags & $bit, row) <> 0 AS historical
        FROM tail JOIN (SELECT unnest($series) AS series, unnest($stream) AS stream) USING (series)
        WHERE "at" >= $start AND "at" < $end GROUP BY series, stream, "at"
    ) AS keys
"""

_HEARD = """
    SELECT DISTINCT "at" FROM tail
    WHERE series IN (SELECT unnest($series)) AND "at" >= $start AND "at" < $end ORDER BY "at"
"""

MOST_IN_BUCKETS = 2_000_000
SERIES_A_PIECE = 200


class EmbeddedStore:
    """A TimeSeries in one folder. Open it with `with`."""

    name = "embedded"

    def __init__(self, folder: Path, *, memory_limit: str = "256MB", threads: int = 2) -> None:
        self._books = Books(folder / "store.db")
        self._limits: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": memory_limit,
            "threads": threads,
        }
        self._lock = threading.Lock()
        self._tail: tuple[pa.Table, ...] = ()
        self._rows = 0
        self._commits = 0
        self._received = 0
        self._distinct: tuple[int, int, int] | None = None

    def __enter__(self) -> Self:
        self._books.__enter__()
        self._duckdb = duckdb.connect(":memory:", config=self._limits)
        tables = []
        for number, received_at, blob in self._books.read("SELECT id, received_at, samples FROM inbox ORDER BY id"):
            table = unpacked(blob)
            self._rows += table.num_rows
            self._commits, self._received = number, max(self._received, received_at)
            tables.append(table)
        if tables:
            self._tail = (pa.concat_tables(tables).combine_chunks(),)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._books.__exit__(kind, error, trace)
        self._duckdb.close()

    def series(self, key: DeviceKey, metric: str, datatype: DataType) -> int:
        return self._books.series(key, metric, datatype)

    def commit(self, batch: Batch, received_at: int) -> None:
        table = table_of(batch, self._rows)

        def write(database: sqlite3.Connection) -> None:
            if table.num_rows:
                database.execute(
                    "INSERT INTO inbox (received_at, rows, samples) VALUES (?, ?, ?)",
                    (received_at, table.num_rows, packed(table)),
                )

        self._books.commit(batch, write)
        with self._lock:
            self._rows += table.num_rows
            self._commits += 1
            self._received = max(self._received, received_at)
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

    def last(self, group: str | None = None) -> Rows:
        names = self._books.all_series()
        wanted = [number for number, one in enumerate(names, start=1) if group is None or one.key.group == group]
        return _rows(self._ask(_LAST_OF_EACH, {"series": wanted}).to_arrow_table(), names)

    def raw(self, key: DeviceKey, metric: str, start: int, end: int, most: int) -> Raw:
        rows = self._rows_of(key, metric, start, end, most)
        columns = rows.to_pydict()
        return Raw(
            at=columns["at"],
            value=[_value(*one) for one in zip(columns["number"], columns["integer"], columns["text"], strict=True)],
            quality=columns["quality"],
            flags=columns["flags"],
        )

    def export(
        self, start: int, end: int, groups: Collection[str] | None = None, metrics: Collection[str] | None = None
    ) -> Iterator[Rows]:
        names = self._books.all_series()
        wanted = sorted(
            ((one.key, one.metric), number)
            for number, one in enumerate(names, start=1)
            if (groups is None or one.key.group in groups) and (metrics is None or one.metric in metrics)
        )
        ranked = itertools.groupby(wanted, key=lambda each: each[0])
        ranks = [[number for _, number in same] for _, same in ranked]
        for first in range(0, len(ranks), SERIES_A_PIECE):
            piece = [(n, rank) for rank, same in enumerate(ranks[first : first + SERIES_A_PIECE]) for n in same]
            question = {"series": [n for n, _ in piece], "rank": [r for _, r in piece], "start": start, "end": end}
            yield from (
                _rows(pa.Table.from_batches([one]), names) for one in self._ask(_EXPORT, question).to_arrow_reader()
            )

    def buckets(self, key: DeviceKey, metric: str, start: int, end: int, count: int, hold_ms: int) -> Buckets:
        rows = self._rows_of(key, metric, start - hold_ms, end, MOST_IN_BUCKETS)
        number = rows["number"].to_numpy(zero_copy_only=False)
        integer = rows["integer"].to_numpy(zero_copy_only=False).astype(np.float64)
        value = np.where(np.isnan(number.astype(np.float64)), integer, number.astype(np.float64))
        measuring = (rows["flags"].to_numpy() & INSTRUMENT_BITS) == 0
        good = (rows["quality"].to_numpy() == int(Quality.GOOD)) & measuring & ~np.isnan(value)
        return buckets(rows["at"].to_numpy(), value, good, start=start, end=end, count=count, hold_ms=hold_ms)

    def availability(
        self, devices: Collection[DeviceKey], start: int, end: int
    ) -> Mapping[DeviceKey, Sequence[Interval]]:
        names = self._books.all_series()
        silent: dict[NodeKey, list[tuple[int, int]]] = {}
        found = {}
        for device in devices:
            node = device.of_node
            stream = DeviceKey(node.group, node.node, "")
            if node not in silent:
                own = [number for number, one in enumerate(names, start=1) if one.key == stream]
                question = {"series": own, "start": start - STREAM_GAP_MS, "end": end + STREAM_GAP_MS}
                heard = self._ask(_HEARD, question).to_arrow_table()["at"].to_pylist()
                silent[node] = silences(heard, start, end)
            claims = self.raw(stream, PRESENCE + device.device, start - CLAIM_LOOKBACK_MS, end, MOST_IN_BUCKETS)
            told = [
                (at, str(one) if one is not None else None) for at, one in zip(claims.at, claims.value, strict=True)
            ]
            found[device] = intervals(told, silent[node], start, end)
        return found

    def by_group(self, metric: str, start: int, end: int, count: int, hold_ms: int) -> Mapping[str, Buckets]:
        devices: dict[str, set[DeviceKey]] = {}
        for one in self._books.all_series():
            if one.metric == metric:
                devices.setdefault(one.key.group, set()).add(one.key)
        return {
            group: mean_of([self.buckets(key, metric, start, end, count, hold_ms) for key in sorted(keys)])
            for group, keys in devices.items()
        }

    def events(self, after: int, metric: str, most: int) -> Sequence[EventRow]:
        return self._books.events(after, metric, most)

    def stats(self) -> Stats:
        with self._lock:
            counted = self._distinct
            rows, commits = self._rows, self._commits
        if counted is None or counted[0] != rows:
            samples, conflicts = self._ask(_DISTINCT, {}).fetchall()[0]
            counted = self._distinct = (rows, samples, conflicts)
        quarantined, events = self._books.held_back()
        return Stats(
            samples=counted[1],
            conflicts=counted[2],
            quarantined=quarantined,
            events=events,
            series=len(self._books.all_series()),
            commits=commits,
            bytes_on_disk=sum(one.stat().st_size for one in self._books.path.parent.glob("store.db*")),
            unsealed=counted[1],
        )

    def completeness(self, node: NodeKey, start: int, end: int) -> Completeness:
        own = [(n, one.key.device) for n, one in enumerate(self._books.all_series(), 1) if one.key.of_node == node]
        question = {"series": [n for n, _ in own], "stream": [stream for _, stream in own], "bit": HISTORICAL_BIT}
        samples, records, historical, conflicts = self._ask(
            _COMPLETENESS, {**question, "start": start, "end": end}
        ).fetchall()[0]
        quarantined, void = self._books.missing(node, start, end)
        return Completeness(
            samples=samples,
            records=records,
            historical=historical,
            conflicts=conflicts,
            quarantined=quarantined,
            void=void,
        )

    def newest_received(self) -> int:
        return self._received

    def tend(self, now_ms: int) -> None:
        del now_ms  # nothing is sealed yet, so nothing is due

    def backup(self, folder: Path) -> None:
        if folder.exists() and any(folder.iterdir()):
            raise StoreUnavailable(f"{folder} is not empty; name a new folder for the backup")
        folder.mkdir(parents=True, exist_ok=True)
        try:
            source, copy = sqlite3.connect(self._books.path), sqlite3.connect(folder / "store.db")
            source.backup(copy)
            copy.close()
            source.close()
        except (sqlite3.Error, OSError) as exc:
            shutil.rmtree(folder, ignore_errors=True)
            raise StoreUnavailable(f"{folder}: {exc}") from exc

    def _rows_of(self, key: DeviceKey, metric: str, start: int, end: int, most: int) -> pa.Table:
        series = self._books.numbers(key, metric)
        if not series:
            return SCHEMA.empty_table()
        question = {"series": list(series), "start": start, "end": end, "most": most}
        return self._ask(_NEWEST_OF_EACH, question).to_arrow_table()

    def _ask(self, sql: str, values: Mapping[str, Any]) -> Any:
        tail = self._tail  # one snapshot: the tuple is replaced, never changed
        cursor = self._duckdb.cursor()
        cursor.register("tail", pa.concat_tables(tail) if tail else SCHEMA.empty_table())
        return cursor.sql(sql, params=dict(values))


def _rows(found: pa.Table, names: Sequence[Series]) -> Rows:
    """Return the answer with its series' numbers replaced by names, each distinct text once."""
    which = found["series"].to_numpy() - 1
    columns = []
    for field in ("group", "node", "device", "metric"):
        texts = [one.metric if field == "metric" else getattr(one.key, field) for one in names]
        distinct, codes = np.unique(np.array(texts, dtype=object), return_inverse=True)
        taken = codes[which].astype(np.int32) if len(names) else np.empty(0, dtype=np.int32)
        columns.append(pa.DictionaryArray.from_arrays(pa.array(taken), pa.array(distinct, pa.string())))
    values = [found[name].combine_chunks().cast(ROWS.field(name).type) for name in ROWS.names[4:]]
    return pa.table(columns + values, schema=ROWS)


def _value(number: float | None, integer: int | None, text: str | None) -> Value:
    if number is not None:
        return number
    return integer if integer is not None else text
