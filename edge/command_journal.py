"""What this box was told and has already done: on disk before anything sounds, so that nothing is done twice."""

import sqlite3
from pathlib import Path
from types import TracebackType
from typing import Self

from contract.commands import FINAL, Stage

KEEP = 2000
"""Orders, stops, and commands. Counted and not dated: a clock that jumps must not make anything be forgotten.

An order is fresh for a quarter of an hour at most; the rate that a bundle grants keeps so many from coming meanwhile.
"""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS orders (
    id TEXT PRIMARY KEY,
    digest TEXT NOT NULL,
    keyid TEXT NOT NULL,
    stage TEXT NOT NULL,
    accepted_at INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS outcomes (
    "order" TEXT NOT NULL,
    speaker TEXT NOT NULL,
    raw TEXT NOT NULL,
    PRIMARY KEY ("order", speaker)
) STRICT;
CREATE TABLE IF NOT EXISTS stops (id TEXT PRIMARY KEY, at INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS commands (
    id TEXT PRIMARY KEY,
    accepted_at INTEGER NOT NULL,
    stage TEXT NOT NULL,
    outcome TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS trust (name TEXT PRIMARY KEY, raw TEXT NOT NULL) STRICT;
"""


class CommandJournal:
    """Orders and commands by id, stops, the last outcome of each, the trust that was verified. Open it with `with`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Self:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._database = sqlite3.connect(self._path, timeout=5)
        # Without shared memory beside it the file can be opened on a card that is full.
        self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = FULL")
        self._database.executescript(_SCHEMA)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()

    def known(self) -> dict[str, str]:
        """Return the digest of each order accepted here."""
        return dict(self._database.execute("SELECT id, digest FROM orders"))

    def stopped(self) -> frozenset[str]:
        """Return the ids that were stopped, also those that never came."""
        return frozenset(one for (one,) in self._database.execute("SELECT id FROM stops"))

    def recent(self, at: int, window: int) -> dict[str, int]:
        """Return how many orders of each key were accepted within `window` of an instant (ms).

        On both sides of it: what was accepted while the clock was years ahead would otherwise count until then.
        """
        rows = self._database.execute(
            "SELECT keyid, count(*) FROM orders WHERE accepted_at BETWEEN ? AND ? GROUP BY keyid",
            (at - window, at + window),
        )
        return dict(rows)

    def accept(self, order: str, digest: str, keyid: str, at: int) -> None:
        """Remember an order before it is obeyed."""
        with self._database:
            self._database.execute(
                "INSERT INTO orders VALUES (?, ?, ?, ?, ?)", (order, digest, keyid, Stage.ACCEPTED, at)
            )
            self._database.execute("DELETE FROM orders WHERE rowid <= (SELECT max(rowid) FROM orders) - ?", (KEEP,))
            self._database.execute('DELETE FROM outcomes WHERE "order" NOT IN (SELECT id FROM orders)')

    def settle(self, order: str, stage: Stage) -> None:
        """Remember how an order ended."""
        with self._database:
            self._database.execute("UPDATE orders SET stage = ? WHERE id = ?", (stage, order))

    def unfinished(self) -> list[str]:
        """Return the orders that were accepted and have no end: the power went meanwhile."""
        marks = ", ".join("?" * len(FINAL))
        rows = self._database.execute(f"SELECT id FROM orders WHERE stage NOT IN ({marks})", tuple(FINAL))  # noqa: S608  # marks only
        return [one for (one,) in rows]

    def stop(self, order: str, at: int) -> None:
        """Remember that an order is not to sound, even if it has not come yet."""
        with self._database:
            self._database.execute("INSERT OR IGNORE INTO stops VALUES (?, ?)", (order, at))
            self._database.execute("DELETE FROM stops WHERE rowid <= (SELECT max(rowid) FROM stops) - ?", (KEEP,))

    def keep_outcome(self, order: str, speaker: str, raw: str) -> None:
        """Keep the last outcome of an order, and of each speaker, to be repeated when asked again."""
        with self._database:
            self._database.execute("INSERT OR REPLACE INTO outcomes VALUES (?, ?, ?)", (order, speaker, raw))

    def outcomes(self, order: str) -> list[str]:
        """Return the kept outcomes of an order."""
        return [raw for (raw,) in self._database.execute('SELECT raw FROM outcomes WHERE "order" = ?', (order,))]

    def command(self, wanted: str) -> str | None:
        """Return the last outcome of a command, "" before there is one, None for a command that never came."""
        row = self._database.execute("SELECT outcome FROM commands WHERE id = ?", (wanted,)).fetchone()
        return None if row is None else str(row[0])

    def accept_command(self, command: str, at: int) -> None:
        """Remember a command before it is obeyed, or that it will not be."""
        with self._database:
            self._database.execute("INSERT INTO commands VALUES (?, ?, ?, '')", (command, at, Stage.ACCEPTED))
            self._database.execute("DELETE FROM commands WHERE rowid <= (SELECT max(rowid) FROM commands) - ?", (KEEP,))

    def settle_command(self, command: str, stage: Stage, outcome: str) -> None:
        """Remember how far a command has come, and what was said of it, to be repeated when asked again."""
        with self._database:
            self._database.execute("UPDATE commands SET stage = ?, outcome = ? WHERE id = ?", (stage, outcome, command))

    def commands_unfinished(self) -> list[str]:
        """Return the commands that were accepted and have no end: the power went meanwhile."""
        rows = self._database.execute("SELECT id FROM commands WHERE stage = ?", (Stage.ACCEPTED,))
        return [one for (one,) in rows]

    def trust(self, name: str) -> str | None:
        """Return what was kept by that name."""
        row = self._database.execute("SELECT raw FROM trust WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def keep_trust(self, name: str, raw: str) -> None:
        """Keep signed objects that were verified."""
        with self._database:
            self._database.execute("INSERT OR REPLACE INTO trust VALUES (?, ?)", (name, raw))
