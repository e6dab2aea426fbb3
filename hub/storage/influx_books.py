"""The books' copy in InfluxDB's bucket `delivery`, from which they are made anew at every start.

Whatever a transaction changes in the books is noted by triggers and written to the bucket before that transaction
commits. A row is a point: measurement = table, time = a number of its own from the beginning of 1970, field `row` = its
columns as JSON, empty once it is gone. All points of a commit fall into one shard, so they are stored together or not
at all, and writing them again changes nothing.
"""

import base64
import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

BOOKS = ("series", "ledger", "floors", "voids", "events", "quarantine", "marks")
"""Tables that are copied; what else `store.db` has belongs to the embedded store."""

SHARD_END = 7 * 86_400_000
"""Points of the copy lie within the first shard of a bucket that keeps for ever: seven days (ms)."""

MOST_IN_A_FIELD = 500_000
"""InfluxDB takes texts of 1 MiB; a longer row goes on in fields `row1`, `row2` and so on."""

_BLOBS = frozenset({("quarantine", "payload")})
_SEQUENCE = "sequence of "
"""Marks that keep what SQLite gave out last as an id, so that none is given twice."""

Row = tuple[Any, ...]


class CopyUnreadable(ValueError):
    """The bucket holds what we never wrote."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One table of the books; `numbered`: its key is a number, which is then the time of its points."""

    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]
    numbered: bool


@dataclass(slots=True)
class _Times:
    """The times given to rows of a table without a number, and those that are free again."""

    of: dict[Row, int] = field(default_factory=dict)
    free: list[int] = field(default_factory=list)
    next: int = 1
    given: dict[Row, int] = field(default_factory=dict)
    gone: dict[Row, int] = field(default_factory=dict)

    def take(self, key: Row) -> int:
        known = self.of.get(key)
        if known is None:
            count = len(self.given)
            known = self.free[count] if count < len(self.free) else self.next + count - len(self.free)
            self.given[key] = known
        return known

    def drop(self, key: Row) -> int | None:
        """Return the time of a row that is gone; None where it came and went unseen."""
        known = self.of.get(key)
        if known is not None:
            self.gone[key] = known
        return known

    def settle(self) -> None:
        if not self.given and not self.gone:
            return
        self.of.update(self.given)
        for key in self.gone:
            del self.of[key]
        self.next = max(self.next, *(one + 1 for one in self.given.values())) if self.given else self.next
        self.free = sorted(set(self.free) - set(self.given.values()) | set(self.gone.values()))
        self.forget()

    def forget(self) -> None:
        self.given, self.gone = {}, {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    """What the bucket holds: each table's rows by their time, and by its number where each series' samples stand."""

    rows: Mapping[str, Mapping[int, Row]]
    places: Mapping[int, tuple[str, str]]

    def of(self, name: str) -> Mapping[int, Row]:
        """Return the rows of one table."""
        return self.rows.get(name, {})


class BooksCopy:
    """Turns changes of the books into points: `watch` the connection that writes, ask `changes` before it commits.

    What was asked for counts as written with `settle` only: until then the same changes get the same times.
    """

    def __init__(self, database: sqlite3.Connection) -> None:
        self._tables = [_table(database, name) for name in BOOKS]
        self._times = {one.name: _Times() for one in self._tables if not one.numbered}

    def watch(self, database: sqlite3.Connection) -> None:
        """Note from now on which rows this connection changes."""
        for table in self._tables:
            columns = ", ".join(f'"{one}"' for one in table.key)
            database.execute(f"CREATE TEMP TABLE changed_{table.name} ({columns})")
            for event, sides in (("INSERT", ("NEW",)), ("UPDATE", ("OLD", "NEW")), ("DELETE", ("OLD",))):
                keys = [", ".join(f'{side}."{one}"' for one in table.key) for side in sides]
                notes = " ".join(f"INSERT INTO changed_{table.name} VALUES ({one});" for one in keys)  # noqa: S608
                database.execute(
                    f"CREATE TEMP TRIGGER noted_{table.name}_{event} AFTER {event} ON main.{table.name}"
                    f" BEGIN {notes} END"
                )

    def changes(self, database: sqlite3.Connection) -> str:
        """Return the lines (times in ns) that bring the copy up to date, and begin to note anew."""
        for times in self._times.values():
            times.forget()
        _keep_sequences(database)
        lines: list[str] = []
        for table in self._tables:
            depth = len(table.key)
            for told in database.execute(_changed(table)).fetchall():
                key, alive, row = told[:depth], told[depth], told[depth + 1 :]
                time = self._time(table, key, alive=alive)
                if time is not None:
                    lines.append(_line(table, time, row if alive else None))
            database.execute(f"DELETE FROM changed_{table.name}")  # noqa: S608  # names of our own tables
        return "".join(lines)

    def settle(self) -> None:
        """Note that the last changes are in the bucket and committed here."""
        for times in self._times.values():
            times.settle()

    def adopt(self, copied: Copied) -> None:
        """Go on where the bucket stands."""
        for table in self._tables:
            if table.numbered:
                continue
            rows, places = copied.of(table.name), [table.columns.index(one) for one in table.key]
            following = max(rows, default=0) + 1
            self._times[table.name] = _Times(
                of={tuple(row[one] for one in places): time for time, row in rows.items()},
                free=sorted(set(range(1, following)) - set(rows)),
                next=following,
            )

    def replace(self, database: sqlite3.Connection, copied: Copied) -> None:
        """Make the books what the bucket holds, in the transaction that is open."""
        for table in self._tables:
            rows = copied.of(table.name).values()
            database.execute(f"DELETE FROM {table.name}")  # noqa: S608  # names of our own tables
            holes = ", ".join("?" * len(table.columns))
            database.executemany(f"INSERT INTO {table.name} VALUES ({holes})", rows)  # noqa: S608  # as above
        for name, number in database.execute("SELECT name, value FROM marks").fetchall():
            if name.startswith(_SEQUENCE):
                of = name.removeprefix(_SEQUENCE)
                database.execute("DELETE FROM sqlite_sequence WHERE name = ?", (of,))
                database.execute("INSERT INTO sqlite_sequence VALUES (?, ?)", (of, number))

    def same(self, ask: Callable[[str], Iterable[Row]], copied: Copied) -> bool:
        """Return whether the books, as they answer SQL, are what the bucket holds."""
        return all(
            set(ask(f"SELECT * FROM {one.name}")) == set(copied.of(one.name).values())  # noqa: S608  # our own names
            for one in self._tables
        )

    def read(self, found: Iterable[pa.Table]) -> Copied:
        """Return the copy from an answer with _time, _measurement, _field and _value; raise CopyUnreadable."""
        parts: dict[tuple[str, int], dict[str, str]] = {}
        for one in found:
            times = one["_time"].cast(pa.int64()).to_pylist()
            columns = (one[name].to_pylist() for name in ("_measurement", "_field", "_value"))
            for time, measurement, name, value in zip(times, *columns, strict=True):
                parts.setdefault((measurement, time), {})[name] = value
        tables = {one.name: one for one in self._tables}
        rows: dict[str, dict[int, Row]] = {name: {} for name in tables}
        places = {}
        for (name, time), fields in sorted(parts.items()):
            if name in tables and fields.get("row"):
                rows[name][time] = _row(tables[name], time, fields)
                if name == "series":
                    places[time] = (fields.get("measurement", ""), fields.get("field", ""))
        return Copied(rows=rows, places=places)

    def announced(self, number: int, row: Row, measurement: str, field_name: str) -> str:
        """Return the line of a series and of where its samples will stand: written before its first sample is."""
        (table,) = (one for one in self._tables if one.name == "series")
        told = _line(table, number, row).rpartition(" ")[0]
        return f"{told},measurement={_quoted(measurement)},field={_quoted(field_name)} {number}\n"

    def _time(self, table: Table, key: Row, *, alive: bool) -> int | None:
        if table.numbered:
            return int(key[0])
        times = self._times[table.name]
        return times.take(key) if alive else times.drop(key)


def _table(database: sqlite3.Connection, name: str) -> Table:
    told = database.execute(f"PRAGMA table_info({name})").fetchall()
    key = tuple(one[1] for one in sorted(told, key=lambda one: int(one[5])) if one[5])
    return Table(name=name, columns=tuple(one[1] for one in told), key=key, numbered=key == ("id",))


def _changed(table: Table) -> str:
    where = " AND ".join(f't."{one}" = c."{one}"' for one in table.key)
    keys = ", ".join(f'c."{one}"' for one in table.key)
    columns = ", ".join(f't."{one}"' for one in table.columns)
    return (
        f'SELECT DISTINCT {keys}, t."{table.key[0]}" IS NOT NULL, {columns}'  # noqa: S608  # names of our own tables
        f" FROM changed_{table.name} AS c LEFT JOIN main.{table.name} AS t ON {where} ORDER BY {keys}"
    )


def _keep_sequences(database: sqlite3.Connection) -> None:
    database.execute(
        "INSERT INTO marks SELECT ? || name, seq FROM sqlite_sequence WHERE true"
        " ON CONFLICT (name) DO UPDATE SET value = excluded.value WHERE value <> excluded.value",
        (_SEQUENCE,),
    )


def _line(table: Table, time: int, row: Row | None) -> str:
    if row is None:
        return f'{table.name} row="" {time}\n'
    told = [
        base64.b64encode(value).decode() if (table.name, name) in _BLOBS and value is not None else value
        for name, value in zip(table.columns, row, strict=True)
    ]
    text = json.dumps(told, separators=(",", ":"))
    pieces = [text[start : start + MOST_IN_A_FIELD] for start in range(0, len(text), MOST_IN_A_FIELD)]
    pieces[0] = f"{len(pieces)} {pieces[0]}"
    fields = [f"row{number or ''}={_quoted(piece)}" for number, piece in enumerate(pieces)]
    return f"{table.name} {','.join(fields)} {time}\n"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _row(table: Table, time: int, fields: Mapping[str, str]) -> Row:
    try:
        count, _, first = fields["row"].partition(" ")
        told = json.loads(first + "".join(fields[f"row{number}"] for number in range(1, int(count))))
        return tuple(
            base64.b64decode(value) if (table.name, name) in _BLOBS else value
            for name, value in zip(table.columns, told, strict=True)
        )
    except (KeyError, ValueError, TypeError) as exc:
        raise CopyUnreadable(f"row {time} of {table.name} cannot be read: {fields['row'][:80]!r} ({exc})") from exc
