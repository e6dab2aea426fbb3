"""What outlives the days of a delivery log: its id, its lives in order, aliases, bdSeq, what had to go.

One small SQLite file, `log.db`, written when the agent starts, when a metric is first seen, and hardly ever besides.
"""

import contextlib
import logging
import secrets
import sqlite3
import threading
from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path

from contract.clock import Clock
from contract.metrics import DataType
from contract.positions import Lineage, Positions, RangeSet, union

log = logging.getLogger(__name__)

# Epochs are UInt64 with 32 random low bits and the agent's starts above them; SQLite's integers end at 2^63, which the
# count of starts reaches in no lifetime. `place` is the order of this very log: numbers alone do not tell what is later
# on a card that was restored from an image.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS epochs (place INTEGER PRIMARY KEY AUTOINCREMENT, epoch INTEGER NOT NULL UNIQUE) STRICT;
CREATE TABLE IF NOT EXISTS aliases (
    alias INTEGER PRIMARY KEY,
    stream TEXT NOT NULL,
    name TEXT NOT NULL,
    datatype INTEGER NOT NULL,
    UNIQUE (stream, name, datatype)
) STRICT;
CREATE TABLE IF NOT EXISTS lost (
    epoch INTEGER NOT NULL,
    stream TEXT NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    PRIMARY KEY (epoch, stream, first)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS expired (
    epoch INTEGER NOT NULL,
    stream TEXT NOT NULL,
    last INTEGER NOT NULL,
    PRIMARY KEY (epoch, stream)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS unhanded (
    epoch INTEGER NOT NULL,
    stream TEXT NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    PRIMARY KEY (epoch, stream, first)
) STRICT, WITHOUT ROWID;
"""

MOST_EXPIRED = 4000
"""Streams and epochs of which it is remembered how far they went; the oldest are forgotten."""


class LogRegister:
    """Opened by its constructor, which starts a new life of the log; raises sqlite3.OperationalError if it cannot.

    On a card that is full or read-only a log that is there begins its life in memory; `save` puts it on disk.
    A file that is damaged is set aside and a new log begins: a new id, and aliases from a new random base.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        self._lock = threading.Lock()
        self._unsaved: list[tuple[int, str, str, DataType]] = []
        self._aliases: dict[tuple[str, str, DataType], int] = {}
        self._places: dict[int, int] = {}
        try:
            self._open(path)
        except sqlite3.DatabaseError as exc:
            if isinstance(exc, sqlite3.OperationalError):
                raise
            aside = path.with_suffix(f".broken-{clock.now_ms()}")
            log.error("%s is damaged (%s); set aside as %s, a new log begins", path, exc, aside.name)
            path.rename(aside)
            for suffix in ("-wal", "-shm"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
            self._open(path)

    def _open(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, check_same_thread=False, timeout=5)
        try:
            # Without shared memory beside it the file can be opened on a card that is full.
            self._connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.executescript(_SCHEMA)
            if self._connection.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
                raise sqlite3.DatabaseError("its pages contradict each other")
            known = self.fact("log_id", "")
            self.log_id = known or secrets.token_hex(8)
            self._places = {epoch: place for place, epoch in self._connection.execute("SELECT * FROM epochs")}
            self._starts = int(self.fact("starts", "0")) + 1
            self.epoch = (self._starts << 32) | secrets.randbits(32)
            try:
                self._begin()
            except sqlite3.OperationalError as exc:
                if not known:
                    raise
                log.error("%s cannot be written: %s; this life of the log begins in memory", path, exc)
                self._places[self.epoch] = max(self._places.values(), default=0) + 1
                self._begun = False
            self._aliases = {
                (stream, name, DataType(datatype)): alias
                for alias, stream, name, datatype in self._connection.execute("SELECT * FROM aliases")
            }
            self._bdseq = int(self.fact("bdseq", "-1"))
            told = self.fact("floor", "")
            self.floor = int(told) if told else None
            self.lost = self._ranges("lost")
            self.expired: Positions = {
                Lineage(self.log_id, epoch, stream): RangeSet([(0, last)])
                for epoch, stream, last in self._connection.execute("SELECT * FROM expired")
            }
            self.unhanded = self._ranges("unhanded")
        except BaseException:
            self._connection.close()
            raise

    def _begin(self) -> None:
        with self._lock, self._connection:
            self._connection.executemany(
                "INSERT OR REPLACE INTO facts VALUES (?, ?)", [("starts", str(self._starts)), ("log_id", self.log_id)]
            )
            self._add_epoch(self.epoch)
        self._begun = True

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def place(self, epoch: int) -> int | None:
        """Return where an epoch stands in this log's own order, None if it is none of this log."""
        return self._places.get(epoch)

    def adopt(self, epochs: Iterable[int]) -> None:
        """Take in epochs that only a day file knows, by their counts of starts; the running one stays the last."""
        unknown = set(epochs) - self._places.keys()
        if not unknown:
            return
        earlier = {*unknown, *self._places} - {self.epoch}
        ordered = sorted(earlier, key=lambda epoch: (epoch >> 32, self._places.get(epoch, 0), epoch))
        with self._lock, self._connection:
            self._connection.execute("DELETE FROM epochs")
            self._places.clear()
            for epoch in [*ordered, self.epoch]:
                self._add_epoch(epoch)

    def _add_epoch(self, epoch: int) -> None:
        row = self._connection.execute("INSERT INTO epochs (epoch) VALUES (?)", (epoch,)).lastrowid
        assert row is not None  # noqa: S101  # an INSERT has one
        self._places[epoch] = row

    def alias(self, stream: str, name: str, datatype: DataType) -> int:
        """Return the alias of a metric, given once and on disk before it is used; never given to another metric.

        Numbers start at a random multiple of 2^20: a hub that missed a birth then knows no such alias, instead of
        storing under a wrong name.
        """
        known = self.known_alias(stream, name, datatype)
        if known is None:
            self.give([(stream, name, datatype)])
            known = self._aliases[stream, name, datatype]
        return known

    def give(self, metrics: Iterable[tuple[str, str, DataType]]) -> None:
        """Give an alias to each metric that has none, all with one wait for the disk."""
        new = [one for one in dict.fromkeys(metrics) if one not in self._aliases]
        if not new:
            return
        base = max(self._aliases.values(), default=_random_base())
        try:
            self._save([(number, *one) for number, one in enumerate(new, base + 1)])
        except sqlite3.OperationalError:
            # A number that is not on disk could be given again after a restart: these come from nowhere near.
            base = _random_base()
            self._unsaved += [(number, *one) for number, one in enumerate(new, base + 1)]
        self._aliases |= {one: number for number, one in enumerate(new, base + 1)}

    def save(self) -> None:
        """Put on disk what was begun and given while the disk refused; raise sqlite3.Error if it still does."""
        if not self._begun:
            self._begin()
        if self._unsaved:
            self._save(self._unsaved)
            self._unsaved = []

    def _save(self, aliases: Sequence[tuple[int, str, str, DataType]]) -> None:
        with self._lock, self._connection:
            self._connection.executemany(
                "INSERT INTO aliases VALUES (?, ?, ?, ?)",
                [(number, stream, name, int(datatype)) for number, stream, name, datatype in aliases],
            )

    @property
    def aliases(self) -> Set[int]:
        """Return every alias this log ever gave."""
        return set(self._aliases.values())

    def known_alias(self, stream: str, name: str, datatype: DataType) -> int | None:
        """Return the alias of a metric if it has one."""
        return self._aliases.get((stream, name, datatype))

    def known(self, stream: str) -> list[tuple[str, DataType]]:
        """Return every metric this stream ever had, by name and datatype."""
        return [(name, datatype) for (whose, name, datatype) in self._aliases if whose == stream]

    def next_bdseq(self) -> int:
        """Return a bdSeq, 0-255, for the next CONNECT, on disk already (topics-nbirth-bdseq-increment).

        Where the disk refuses it goes on in memory: a box that cannot write must still be heard.
        """
        self._bdseq = (self._bdseq + 1) % 256
        with contextlib.suppress(sqlite3.OperationalError):
            self.remember(bdseq=self._bdseq)
        return self._bdseq

    def note_lost(self, positions: Positions, records: int) -> None:
        """Put on disk what is about to go though nobody is known to have it, and how many records must be told of."""
        untold = int(self.fact("lost_untold", "0")) + records
        self.lost = union(self.lost, positions)
        with self._lock, self._connection:
            self._put_ranges("lost", self.lost)
            self._connection.execute("INSERT OR REPLACE INTO facts VALUES ('lost_untold', ?)", (str(untold),))

    def forget_lost(self, epochs: Iterable[int]) -> None:
        """Stop naming what was lost of these epochs."""
        gone = set(epochs)
        kept = {lineage: ranges for lineage, ranges in self.lost.items() if lineage.epoch not in gone}
        if len(kept) < len(self.lost):
            self.lost = kept
            with self._lock, self._connection:
                self._put_ranges("lost", kept)

    def keep_floor(self, floor: int | None) -> None:
        """Put the hub's floor on disk."""
        self.remember(floor="" if floor is None else floor)
        self.floor = floor

    def note_expired(self, positions: Positions) -> None:
        """Put on disk how far the streams of a day went that is about to go: a hub may come back without it."""
        both = union(self.expired, {one: RangeSet([(0, ranges.highest)]) for one, ranges in positions.items()})
        kept = sorted(both, key=lambda one: (self._places.get(one.epoch, 0), one.stream))[-MOST_EXPIRED:]
        self.expired = {one: both[one] for one in kept}
        with self._lock, self._connection:
            self._connection.executemany(
                "INSERT OR REPLACE INTO expired VALUES (?, ?, ?)",
                [(one.epoch, one.stream, both[one].highest) for one in positions],
            )
            self._connection.executemany(
                "DELETE FROM expired WHERE epoch = ? AND stream = ?",
                [(one.epoch, one.stream) for one in both.keys() - self.expired.keys()],
            )

    def keep_unhanded(self, positions: Positions) -> None:
        """Put on disk what no session was given yet."""
        if positions != self.unhanded:
            self.unhanded = dict(positions)
            with self._lock, self._connection:
                self._put_ranges("unhanded", positions)

    def fact(self, name: str, default: str) -> str:
        """Return what was remembered under a name."""
        row = self._connection.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return default if row is None else str(row[0])

    def remember(self, **facts: object) -> None:
        """Put facts on disk."""
        with self._lock, self._connection:
            self._connection.executemany(
                "INSERT OR REPLACE INTO facts VALUES (?, ?)", [(name, str(value)) for name, value in facts.items()]
            )

    def _ranges(self, table: str) -> Mapping[Lineage, RangeSet]:
        found: dict[Lineage, list[tuple[int, int]]] = {}
        for epoch, stream, first, last in self._connection.execute(f"SELECT * FROM {table}"):  # noqa: S608  # our own name
            found.setdefault(Lineage(self.log_id, epoch, stream), []).append((first, last))
        return {lineage: RangeSet(ranges) for lineage, ranges in found.items()}

    def _put_ranges(self, table: str, positions: Positions) -> None:
        self._connection.execute(f"DELETE FROM {table}")  # noqa: S608
        self._connection.executemany(
            f"INSERT INTO {table} VALUES (?, ?, ?, ?)",  # noqa: S608
            [(one.epoch, one.stream, first, last) for one, ranges in positions.items() for first, last in ranges],
        )


def _random_base() -> int:
    return secrets.randbits(20) << 20
