"""What is asked of tail and segments: DuckDB scans, in memory and bounded; each question over one snapshot of both."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from hub.storage.order import distinct, newest
from hub.storage.rollups import SCHEMA as ROLLUPS
from hub.storage.segments import Kind, Segment
from hub.storage.tail import SCHEMA as SAMPLES
from hub.storage.timeseries import StoreUnavailable

WANTED = pa.schema([("series", pa.int32()), ("rank", pa.int32()), ("start", pa.int64()), ("end", pa.int64())])

_FEW = 64
"""So many series are named one by one, which prunes best; more are joined."""

_WANTED = 'FROM source JOIN wanted USING (series) WHERE "at" >= wanted."start" AND "at" < wanted."end"'


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Tail and segments as they were at one moment; the segments' files stay readable while it is in use."""

    tail: tuple[pa.Table, ...]
    segments: tuple[Segment, ...]
    minutes_from: int = 0
    """The instant from which there are rollups of 5 minutes."""

    def meeting(self, kind: Kind, low: int, high: int, start: int, end: int) -> list[Segment]:
        """Return the segments that may hold rows of series low to high with start <= at < end."""
        return [one for one in self.segments if one.kind == kind and one.meets(low, high, start, end)]


def wanted(
    series: Sequence[int] | np.ndarray[tuple[int], np.dtype[np.int32]],
    start: object,
    end: object,
    rank: Sequence[int] | None = None,
) -> pa.Table:
    """Return a table of what is wanted: series from `start` up to `end`; rows of one rank count as one series."""
    size = len(series)
    columns = [
        pa.array(series, pa.int32()),
        pa.array(series if rank is None else rank, pa.int32()),
        pa.array(np.broadcast_to(np.asarray(start, dtype=np.int64), size)),
        pa.array(np.broadcast_to(np.asarray(end, dtype=np.int64), size)),
    ]
    return pa.table(columns, schema=WANTED)


def _one_box(what: pa.Table) -> bool:
    """Return whether all of it is wanted of the same time, and most series of its range are wanted."""
    series, rank = what["series"].to_numpy(), what["rank"].to_numpy()
    same = all(len(np.unique(what[name].to_numpy())) == 1 for name in ("start", "end"))
    return same and bool((series == rank).all()) and len(series) * 2 > int(series.max()) - int(series.min())


class Questions:
    """DuckDB over snapshots; a cursor of its own for each question. Open and close it with the store."""

    def __init__(self, folder: Path, spill: Path) -> None:
        self._folder = folder
        self._limits: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": "256MB",
            "threads": 2,
            "temp_directory": str(spill),
        }

    def open(self) -> None:
        """Start DuckDB."""
        self._duckdb = duckdb.connect(":memory:", config=self._limits)

    def close(self) -> None:
        """End DuckDB."""
        self._duckdb.close()

    def samples(self, snapshot: Snapshot, what: pa.Table) -> pa.Table:
        """Return what is wanted, ordered by rank and instant, the last committed of each, conflicts marked."""
        columns = ", ".join(f'"{one}"' for one in SAMPLES.names)
        series = what["series"].to_numpy()
        if len(series) > _FEW and _one_box(what):
            # Without a join, rows come as they stand in the files: in order.
            near = self.ask(snapshot, f"SELECT series AS rank, {columns} FROM source", what)  # noqa: S608
            is_wanted = np.zeros(int(series.max()) + 1, dtype=np.bool_)
            is_wanted[series] = True
            inside = is_wanted[near["series"].to_numpy()]
            return distinct(near if inside.all() else near.filter(pa.array(inside)), "rank")
        return distinct(self.ask(snapshot, f"SELECT rank, {columns} {_WANTED}", what), "rank")

    def counts(self, snapshot: Snapshot, what: pa.Table) -> dict[int, int]:
        """Return how many rows there are of each series that has any, repeated ones included."""
        found = self.ask(snapshot, f"SELECT series, count(*) AS rows {_WANTED} GROUP BY series", what)
        return dict(zip(found["series"].to_pylist(), found["rows"].to_pylist(), strict=True))

    def same_keys(self, snapshot: Snapshot, part: pa.Table) -> pa.Table:
        """Return the stored rows with keys of a part (series, at), the last of each; `place`: the part's row."""
        names = ", ".join(f'source."{one}"' for one in SAMPLES.names)
        keys = part.select(["series", "at"]).append_column("place", pa.array(np.arange(part.num_rows, dtype=np.int64)))
        at = part["at"].to_numpy()
        box = wanted([part["series"][0].as_py(), part["series"][-1].as_py()], int(at.min()), int(at.max()) + 1)
        sql = f'SELECT place, {names} FROM source JOIN keys ON source.series = keys.series AND source."at" = keys."at"'  # noqa: S608
        return distinct(self.ask(snapshot, sql, box, keys=keys, whole_box=True))

    def rollups(
        self, snapshot: Snapshot, kind: Kind, what: pa.Table, columns: Sequence[str] = ROLLUPS.names
    ) -> pa.Table:
        """Return some columns of the stored rollups that are wanted, by series and instant, the last sealed of each."""
        names = ", ".join(f'"{one}"' for one in dict.fromkeys([*columns, "series", "at", "row"]))
        found = newest(self.ask(snapshot, f"SELECT {names} {_WANTED}", what, kind=kind))
        return found.select(list(columns))

    def ask(
        self,
        snapshot: Snapshot,
        sql: str,
        what: pa.Table,
        *,
        kind: Kind = Kind.SAMPLES,
        keys: pa.Table | None = None,
        whole_box: bool = False,
    ) -> pa.Table:
        """Return the answer to SQL over `source`, the rows near what is wanted; raise StoreUnavailable."""
        schema = SAMPLES if kind is Kind.SAMPLES else ROLLUPS.append(pa.field("row", pa.int64()))
        parts = []
        if what.num_rows:
            series, start, end = what["series"].to_numpy(), what["start"].to_numpy().min(), what["end"].to_numpy().max()
            low, high = int(series.min()), int(series.max())
            near = f'series BETWEEN {low} AND {high} AND "at" >= {start} AND "at" < {end}'
            if len(series) <= _FEW and not whole_box:
                near += f" AND series IN ({', '.join(str(one) for one in set(series.tolist()))})"
            names = ", ".join(f'"{one}"' for one in schema.names)
            files = [
                "'" + str(self._folder / one.file).replace("'", "''") + "'"
                for one in snapshot.meeting(kind, low, high, int(start), int(end))
            ]
            if kind is Kind.SAMPLES and snapshot.tail:
                parts.append(f"SELECT {names} FROM tail WHERE {near}")  # noqa: S608
            if files:
                parts.append(f"SELECT {names} FROM read_parquet([{', '.join(files)}]) WHERE {near}")  # noqa: S608
        if not parts:
            parts = ["SELECT * FROM nothing"]
        try:
            cursor = self._duckdb.cursor()
        except duckdb.Error as exc:
            raise StoreUnavailable(f"the store is closed: {exc}") from exc
        try:
            cursor.register("nothing", schema.empty_table())
            cursor.register("tail", pa.concat_tables(snapshot.tail) if snapshot.tail else SAMPLES.empty_table())
            cursor.register("wanted", what)
            if keys is not None:
                cursor.register("keys", keys)
            return cursor.sql(f"WITH source AS ({' UNION ALL '.join(parts)}) {sql}").to_arrow_table()
        except duckdb.Error as exc:
            raise StoreUnavailable(f"the question could not be answered: {exc}") from exc
        finally:
            cursor.close()
