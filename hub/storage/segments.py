"""Sealed samples and rollups: immutable Parquet files, which of them count, and who is reading them.

A file is written aside, synced, renamed and its folder synced before a transaction names it; one that a transaction
drops is unlinked when nobody reads it any more. What no row names is unlinked at start.
"""

import hashlib
import os
import sqlite3
import threading
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass
from enum import StrEnum
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

GROUP_ROWS = 122_880
_ASIDE = ".part"


class Kind(StrEnum):
    """What a segment holds."""

    SAMPLES = "samples"
    MINUTES = "minutes"
    HOURS = "hours"


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One file of one UTC day, sorted by series and instant, each (series, instant) once."""

    file: str
    kind: Kind
    day: int
    generation: int
    first_series: int
    last_series: int
    first_at: int
    last_at: int
    rows: int
    fresh: int
    conflicts: int
    bytes: int
    sha256: str

    def meets(self, low: int, high: int, start: int, end: int) -> bool:
        """Return whether it may hold a row of series low to high with start <= at < end."""
        return self.first_series <= high and self.last_series >= low and self.first_at < end and self.last_at >= start


class Segments:
    """The folder of segments and the list of those that count."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._listed: tuple[Segment, ...] = ()
        self._read: Counter[str] = Counter()
        self._dropped: set[str] = set()
        self._written = 0

    def load(self, rows: Iterable[tuple[object, ...]]) -> None:
        """Take the list from the table's rows and unlink every file it does not name."""
        if not self.folder.exists():
            self.folder.mkdir(parents=True)
            sync_folder(self.folder.parent)
        self._listed = tuple(segment_of(row) for row in rows)
        named = {one.file for one in self._listed}
        missing = sorted(one for one in named if not (self.folder / one).exists())
        if missing:
            raise sqlite3.DatabaseError(
                f"{self.folder}: {len(missing)} segments are missing, the first is {missing[0]}; restore a backup"
            )
        for path in self.folder.iterdir():
            if path.name not in named:
                path.unlink()

    @property
    def listed(self) -> tuple[Segment, ...]:
        """Return the segments that count now."""
        return self._listed

    @contextmanager
    def reading(self, wanted: Collection[Segment]) -> Iterator[None]:
        """Keep files readable for as long as the block lasts; they must be listed now."""
        names = [one.file for one in wanted]
        with self._lock:
            self._read.update(names)
        try:
            yield
        finally:
            with self._lock:
                self._read.subtract(names)
                self._unlink()

    def replace(self, gone: Collection[Segment], new: Collection[Segment]) -> None:
        """Change the list, after the transaction that says so."""
        with self._lock:
            dropped = {one.file for one in gone}
            self._listed = (*(one for one in self._listed if one.file not in dropped), *new)
            self._dropped |= dropped
            self._unlink()

    def write(self, kind: Kind, day: int, generation: int, table: pa.Table, *, fresh: int, conflicts: int) -> Segment:
        """Write a table that is in order into a file that is durable when this returns; raise OSError."""
        series, at = table["series"].to_numpy(), table["at"].to_numpy()
        self._written += 1
        name = f"{kind}-{day}-{generation}-{self._written}.parquet"
        aside, path = self.folder / (name + _ASIDE), self.folder / name
        try:
            with aside.open("wb") as file:
                with _writer(file, table.schema) as writer:
                    writer.write_table(table, row_group_size=GROUP_ROWS)
                file.flush()
                os.fsync(file.fileno())
            digest = digest_of(aside)
            aside.rename(path)
            sync_folder(self.folder)
        except BaseException:
            with suppress(OSError):
                aside.unlink(missing_ok=True)
            raise
        return Segment(
            file=name,
            kind=kind,
            day=day,
            generation=generation,
            first_series=int(series[0]),
            last_series=int(series[-1]),
            first_at=int(at.min()),
            last_at=int(at.max()),
            rows=table.num_rows,
            fresh=fresh,
            conflicts=conflicts,
            bytes=path.stat().st_size,
            sha256=digest,
        )

    def discard(self, written: Iterable[Segment]) -> None:
        """Unlink files that no transaction will name."""
        for one in written:
            with suppress(OSError):
                (self.folder / one.file).unlink(missing_ok=True)

    def _unlink(self) -> None:
        for name in [one for one in self._dropped if self._read[one] <= 0]:
            self._dropped.discard(name)
            del self._read[name]
            with suppress(OSError):  # it is named nowhere; at the latest the next start unlinks it
                (self.folder / name).unlink(missing_ok=True)


def list_segments(database: sqlite3.Connection, gone: Iterable[Segment], new: Iterable[Segment]) -> None:
    """Write a change of the list, inside a transaction."""
    database.executemany("DELETE FROM segments WHERE file = ?", [(one.file,) for one in gone])
    database.executemany(
        "INSERT INTO segments VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", [astuple(one) for one in new]
    )


def segment_of(row: tuple[object, ...]) -> Segment:
    """Return the segment that a row of the table `segments` is."""
    values = dict(zip(Segment.__slots__, row, strict=True))
    return Segment(**{**values, "kind": Kind(str(values["kind"]))})  # type: ignore[arg-type]


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_folder(folder: Path) -> None:
    """Make what was renamed into a folder, or created in it, survive a power cut."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _writer(file: object, schema: pa.Schema) -> pq.ParquetWriter:
    # Instants are shared by a device's metrics: zstd finds that in split bytes, not in deltas.
    encodings = {
        field.name: "BYTE_STREAM_SPLIT" if field.type == pa.int64() else "PLAIN"
        for field in schema
        if field.type in {pa.int64(), pa.float64()} and field.name not in {"integer", "row"}
    } | {"series": "DELTA_BINARY_PACKED"}
    dictionaries = [name for name in schema.names if name not in encodings]
    return pq.ParquetWriter(
        file,
        schema,
        compression="zstd",
        compression_level=3,
        use_dictionary=dictionaries,
        column_encoding=encodings,
    )
