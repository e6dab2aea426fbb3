"""A box's card: files that survive, statements that a full or read-only card refuses, a power cut at any commit.

Only what SQLite was told to make durable counts: the connection is asked for FULL at each commit.
"""

import shutil
import sqlite3
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from contract.positions import Lineage, RangeSet

WRITES = ("INSERT", "UPDATE", "DELETE", "CREATE", "REPLACE", "BEGIN")


class PowerCut(BaseException):
    """The box is off, in the middle of whatever it did."""

    def __init__(self, card: "Card") -> None:
        super().__init__(card.folder)
        self.card = card


@dataclass(frozen=True, slots=True)
class Image:
    """A copy of a card, and what had been durable on it."""

    folder: Path
    durable: Mapping[Lineage, RangeSet]


@dataclass(slots=True)
class Card:
    """Where one box keeps its log."""

    folder: Path
    durable: dict[Lineage, RangeSet] = field(default_factory=dict)
    """Every position that ever was on it, in this card's own past."""
    full: bool = False
    read_only: bool = False
    cut_at: int = 0
    """The how-manieth commit from now is cut short; 0 is none."""
    cut_after: bool = False
    dead: bool = False
    """The power is off: nothing gets through until the box starts again."""
    refused: int = 0
    connections: weakref.WeakSet[sqlite3.Connection] = field(default_factory=weakref.WeakSet)

    def statement(self, sql: str) -> None:
        if self.dead:
            raise sqlite3.OperationalError("disk I/O error")
        if (self.full or self.read_only) and sql.lstrip()[:7].upper().startswith(WRITES):
            self.refused += 1
            raise sqlite3.OperationalError(
                "database or disk is full" if self.full else "attempt to write a readonly database"
            )

    def image(self, folder: Path) -> Image:
        shutil.copytree(self.folder, folder, ignore=shutil.ignore_patterns("*-shm"))
        return Image(folder, dict(self.durable))

    def become(self, image: Image) -> None:
        """Overwrite this card with an image."""
        self.off()
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(image.folder, self.folder)
        self.durable = dict(image.durable)

    def wipe(self) -> None:
        self.off()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.durable = {}

    def off(self) -> None:
        """The process that had it open is gone: what was not committed is undone."""
        for connection in list(self.connections):
            connection.close()
        self.connections.clear()
        self.dead, self.cut_at = False, 0


CARDS: dict[str, Card] = {}
"""By folder."""


class _Connection(sqlite3.Connection):
    card: Card | None = None

    def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
        if self.card is not None:
            self.card.statement(sql)
            if sql.lstrip()[:6].upper() == "COMMIT":
                self._cut_in()
        return super().execute(sql, *arguments)

    def executemany(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
        if self.card is not None:
            self.card.statement(sql)
        return super().executemany(sql, *arguments)

    def commit(self) -> None:
        self._cut_in()
        super().commit()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Any:
        if error is None:
            self._cut_in()
        return super().__exit__(kind, error, trace)

    def _cut_in(self) -> None:
        card = self.card
        if card is None or not card.cut_at or not self.in_transaction:
            return
        card.cut_at -= 1
        if card.cut_at == 0:
            card.dead = True
            if card.cut_after:
                super().commit()
            else:
                self.rollback()
            raise PowerCut(card)


_connect = sqlite3.connect


def connect(path: Path | str, *arguments: Any, **options: Any) -> sqlite3.Connection:
    """Stand where sqlite3.connect would: a file on a card is opened on that card."""
    folder = Path(str(path).removeprefix("file://").partition("?")[0]).parent
    card = CARDS.get(str(folder))
    connection: _Connection = _connect(path, *arguments, factory=_Connection, **options)
    if card is not None:
        connection.card = card
        card.connections.add(connection)
    return connection
