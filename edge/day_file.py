"""One UTC day of a delivery log: an SQLite file that is written in small pieces and put in order now and then.

A group commit is one row, all its records in one compressed piece: one page for the card instead of one for each
device. Every half an hour such rows are *folded*: each stream's records of that time become one chunk, found by their
offsets, about as large as a message; the small rows go in the same transaction. A day that is over is *sealed*: a plain
file without a write-ahead log, which reading does not touch.
"""

import sqlite3
import threading
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

from contract.positions import EMPTY, Lineage, RangeSet
from edge import day_upgrade
from edge.record_bytes import Record, RecordsUnreadable, chunks_of, packed, unpacked

MOST_TOGETHER = 500
"""Records in one piece of a group commit."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS origin (log_id TEXT PRIMARY KEY) STRICT;
CREATE TABLE IF NOT EXISTS commits (id INTEGER PRIMARY KEY, records BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS chunks (
    epoch INTEGER NOT NULL,
    stream TEXT NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    oldest INTEGER NOT NULL,
    newest INTEGER NOT NULL,
    records BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX IF NOT EXISTS chunk_positions ON chunks (epoch, stream, first, last, oldest, newest);
CREATE TABLE IF NOT EXISTS spans (
    epoch INTEGER NOT NULL,
    stream TEXT NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    newest INTEGER NOT NULL,
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


class ChunkUnreadable(Exception):
    """Damage within the file, up to the record `last`; the rest of it may be whole."""

    def __init__(self, reason: str, last: int) -> None:
        super().__init__(reason)
        self.last = last


class DayFile:
    """One day; every method raises sqlite3.Error where the disk refuses, and reads raise RecordsUnreadable for damage.

    Threads may share it. What reading finds in memory does not wait for the disk.
    """

    def __init__(self, path: Path, log_id: str) -> None:
        self.path = path
        self._log_id = log_id
        self._lock = threading.RLock()
        self._writer: sqlite3.Connection | None = None
        self._hot: dict[Lineage, list[Record]] = {}
        self._reach: dict[str, int] = {}
        self.commits = 0
        """Group commits not folded yet."""
        self.spans: dict[Lineage, RangeSet] = {}
        """What the file holds; replaced, never changed."""

    @property
    def day(self) -> str:
        """Return the UTC day as YYYY-MM-DD."""
        return self.path.stem

    @property
    def is_open(self) -> bool:
        """Whether the file is ready to be written."""
        return self._writer is not None

    @property
    def reach(self) -> int:
        """Return the latest instant here, 0 where there is none."""
        return max(self._reach.values(), default=0)

    def size(self) -> int:
        """Return the bytes on disk."""
        return sum(self._beside(one).stat().st_size for one in ("", "-wal") if self._beside(one).exists())

    def load(self) -> tuple[str | None, Mapping[int, Newest], Sequence[Record]]:
        """Return whose log the file is, the newest samples it knows, and the records that were not folded yet."""
        with closing(sqlite3.connect(self.path, timeout=5)) as connection:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")  # which needs no room on a card that is full
            if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'chunks'").fetchone():
                day_upgrade.upgrade(connection, _SCHEMA, self._log_id)
            origin = connection.execute("SELECT log_id FROM origin").fetchone()
            spans: dict[Lineage, list[tuple[int, int]]] = {}
            for epoch, stream, first, last, newest in connection.execute("SELECT * FROM spans"):
                spans.setdefault(Lineage(self._log_id, epoch, stream), []).append((first, last))
                self._reach[stream] = max(newest, self._reach.get(stream, newest))
            self.spans = {lineage: RangeSet(ranges) for lineage, ranges in spans.items()}
            newest_known = {
                alias: (epoch, offset, metric)
                for alias, epoch, offset, metric in connection.execute("SELECT * FROM newest")
            }
            hot: list[Record] = []
            for (raw,) in connection.execute("SELECT records FROM commits ORDER BY id"):
                hot += unpacked(raw, self._log_id)
                self.commits += 1
        self._take(hot)
        return (origin[0] if origin else None), newest_known, hot

    def write(self, records: Sequence[Record]) -> None:
        """Put records on disk, fsynced: one group commit."""
        with self._lock, self._written() as connection:
            connection.execute("INSERT OR IGNORE INTO origin VALUES (?)", (self._log_id,))
            connection.executemany(
                "INSERT INTO commits (records) VALUES (?)",
                [(packed(records[start : start + MOST_TOGETHER]),) for start in range(0, len(records), MOST_TOGETHER)],
            )
        self.commits += 1
        self._take(records)

    def fold(self, newest: Mapping[int, Newest]) -> None:
        """Put what was committed in order, and beside it the newest sample of each alias."""
        if not self.commits:
            return
        hot = sorted((one.epoch, one.stream, records) for one, records in self._hot.items())
        chunks = [(epoch, stream, *chunk) for epoch, stream, records in hot for chunk in chunks_of(records)]
        with self._lock, self._written() as connection:
            connection.executemany("INSERT INTO chunks VALUES (?, ?, ?, ?, ?, ?, ?)", chunks)
            for epoch, stream, _ in hot:
                ranges = self.spans[Lineage(self._log_id, epoch, stream)]
                connection.execute("DELETE FROM spans WHERE epoch = ? AND stream = ?", (epoch, stream))
                connection.executemany(
                    "INSERT INTO spans VALUES (?, ?, ?, ?, ?)",
                    [(epoch, stream, first, last, self._reach[stream]) for first, last in ranges],
                )
            connection.executemany(
                "INSERT OR REPLACE INTO newest VALUES (?, ?, ?, ?)",
                [(alias, *values) for alias, values in newest.items()],
            )
            connection.execute("DELETE FROM commits")
        # Only now: who looks for a record looks here first, then in the file.
        self._hot = {}
        self.commits = 0

    def seal(self) -> None:
        """Close the file; what was folded lies in it alone, without a write-ahead log."""
        with self._lock:
            if self._writer is None:
                return
            writer, self._writer = self._writer, None
            with closing(writer):
                if not self.commits:
                    writer.execute("PRAGMA journal_mode = DELETE")

    def unlink(self) -> None:
        """Remove the file."""
        with self._lock:
            self._close()
            # The write-ahead log first: left alone it would be played back into the next file of that name.
            for suffix in ("-wal", "-shm", "-journal", ""):
                self._beside(suffix).unlink(missing_ok=True)

    def set_aside(self, mark: str) -> Path:
        """Rename the file so that nothing takes it for a day; return its new name."""
        with self._lock:
            self._close()
            aside = self.path.with_suffix(f".{mark}")
            for suffix in ("", "-wal", "-shm", "-journal"):
                if self._beside(suffix).exists():
                    self._beside(suffix).rename(aside.with_name(aside.name + suffix))
        return aside

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _beside(self, suffix: str) -> Path:
        return self.path.with_name(self.path.name + suffix)

    def has(self, lineage: Lineage, offset: int) -> bool:
        """Return whether a record should be here."""
        return offset in self.spans.get(lineage, EMPTY)

    def read(self, lineage: Lineage, first: int, most_bytes: int) -> list[Record]:
        """Return consecutive records from `first` on, at least one if it is here, up to about so many bytes."""
        hot = self._hot.get(lineage, [])
        start = bisect_left(hot, first, key=lambda one: one.offset)
        if start < len(hot) and hot[start].offset == first:
            return _up_to(hot[start:], most_bytes)
        found: list[Record] = []
        with self._read() as connection:
            # The chunk with `first` is the last one that begins at or before it: the index leads straight there.
            rows = connection.execute(
                "SELECT last, records FROM chunks WHERE epoch = ?1 AND stream = ?2 AND first >= coalesce("
                "(SELECT max(first) FROM chunks WHERE epoch = ?1 AND stream = ?2 AND first <= ?3), ?3) ORDER BY first",
                (lineage.epoch, lineage.stream, first),
            )
            for last, raw in rows:
                try:
                    found += [one for one in unpacked(raw, self._log_id) if one.offset >= first]
                except RecordsUnreadable as exc:
                    if found:
                        break
                    raise ChunkUnreadable(str(exc), last) from exc
                if sum(len(one.metrics) for one in found) >= most_bytes:
                    break
        if not found or found[0].offset != first:
            return []
        return _up_to(found, most_bytes)

    def taken(self, stream: str, at: int) -> bool:
        """Return whether the stream has a record of that very instant here."""
        if at > self._reach.get(stream, -1):
            return False
        if any(one.at == at for lineage, hot in self._hot.items() if lineage.stream == stream for one in hot):
            return True
        with self._read() as connection:
            for epoch in {lineage.epoch for lineage in self.spans if lineage.stream == stream}:
                rows = connection.execute(
                    "SELECT records FROM chunks WHERE epoch = ? AND stream = ? AND oldest <= ? AND newest >= ?",
                    (epoch, stream, at, at),
                )
                for (raw,) in rows:
                    if any(one.at == at for one in unpacked(raw, self._log_id)):
                        return True
        return False

    def _written(self) -> sqlite3.Connection:
        """Return the connection that writes; the file is made where there is none."""
        if self._writer is not None:
            return self._writer
        connection = sqlite3.connect(self.path, check_same_thread=False, timeout=5)
        try:
            # Small pages, and no shared memory beside the write-ahead log: measured, that spares the card a third.
            connection.execute("PRAGMA page_size = 1024")
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.executescript(f"BEGIN; {_SCHEMA} COMMIT;")  # a kill leaves all tables or none
        except sqlite3.Error:
            connection.close()
            raise
        self._writer = connection
        return connection

    def _take(self, records: Iterable[Record]) -> None:
        spans, hot = dict(self.spans), {lineage: list(found) for lineage, found in self._hot.items()}
        for one in records:
            hot.setdefault(one.lineage, []).append(one)
            spans[one.lineage] = spans.get(one.lineage, EMPTY).add(one.offset, one.offset)
            self._reach[one.lineage.stream] = max(one.at, self._reach.get(one.lineage.stream, one.at))
        self._hot, self.spans = hot, spans

    @contextmanager
    def _read(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            if self._writer is not None:
                yield self._writer
                return
            with closing(sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=rw", uri=True, timeout=5)) as reader:
                reader.execute("PRAGMA locking_mode = EXCLUSIVE")
                yield reader


def day_of(at: int) -> str:
    """Return the UTC day of an instant; what no calendar holds goes to its nearest end."""
    try:
        return datetime.fromtimestamp(max(at, 0) / 1000, UTC).strftime("%Y-%m-%d")
    except (OverflowError, ValueError, OSError):
        return "9999-12-31"


def _up_to(records: Sequence[Record], most_bytes: int) -> list[Record]:
    size = len(records[0].metrics)
    for count, (before, after) in enumerate(pairwise(records), start=1):
        size += len(after.metrics)
        if after.offset != before.offset + 1 or size > most_bytes:
            return list(records[:count])
    return list(records)
