"""The audit on disk: acts are added within the transaction that does what they tell, and are never changed."""

import json
import secrets
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from hub.audit import (
    DETAILS,
    ERASE_ACT,
    ERASE_PERSON,
    GENESIS,
    OF_A_PERSON,
    Act,
    Detail,
    Entry,
    Head,
    Person,
    canonical,
    entry,
)
from hub.storage.database import transaction

AT_ONCE = 5000

_OLDER = {
    "announce": "announcement.make",
    "stop": "announcement.stop",
    "restore": "hub.restore",
    "unknown_order": "announcement.unknown_order",
}
"""What acts were called before they stood in a chain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """Which acts are asked for; every condition that is given must hold. `text` is looked for in every detail."""

    start: int = 0
    end: int = 1 << 62
    account: str = ""
    what: str = ""
    subject: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """An act as people read it: details that were erased are not in `details`, and named in `erased`."""

    number: int
    at: int
    account: str
    what: str
    subject: str
    details: Mapping[str, Any]
    erased: tuple[str, ...]
    hash: bytes


class Audit:
    """The acts in `hub.db`; one writer."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        with transaction(database):
            self._take_in_older()

    def record(self, act: Act) -> int:
        """Keep an act in a transaction of its own; return its number."""
        with transaction(self._database):
            return self.add(act)

    def add(self, act: Act) -> int:
        """Keep an act within the caller's transaction, so that neither stands without the other; return its number."""
        row = self._database.execute("SELECT number, hash FROM acts ORDER BY number DESC LIMIT 1").fetchone()
        number, previous = (row[0] + 1, row[1]) if row else (1, GENESIS)
        details = {name: Detail(secrets.token_bytes(16), canonical(value)) for name, value in act.details().items()}
        made = entry(act, details, number=number, previous=previous)
        self._database.execute(
            "INSERT INTO acts VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (number, act.at, act.by.account, act.what, act.subject, canonical(made.sealed), previous, made.hash),
        )
        self._database.executemany(
            "INSERT INTO act_details VALUES (?, ?, ?, ?)",
            [(number, name, one.salt, one.value) for name, one in details.items()],
        )
        return number

    def head(self, at: int) -> Head | None:
        """Return the newest entry, None while nobody did anything."""
        row = self._database.execute("SELECT number, hash FROM acts ORDER BY number DESC LIMIT 1").fetchone()
        return Head(at=at, number=row[0], hash=row[1]) if row else None

    def reader(self) -> sqlite3.Connection:
        """Return a connection of its own that only reads, for long questions in a thread; close it."""
        (file,) = (row[2] for row in self._database.execute("PRAGMA database_list") if row[1] == "main")
        return sqlite3.connect(f"file:{quote(file)}?mode=ro", uri=True, timeout=10, check_same_thread=False)

    def search_aside(self, asked: Search, *, before: int = 1 << 62, most: int = 50) -> list[Told]:
        """Return what `search` does, without holding up whoever writes meanwhile; blocks."""
        with closing(self.reader()) as database:
            return _search(database, asked, before, most)

    def search(self, asked: Search, *, before: int = 1 << 62, most: int = 50) -> list[Told]:
        """Return the newest acts that match and have a number below `before`, newest first."""
        return _search(self._database, asked, before, most)

    def verbs_aside(self) -> list[str]:
        """Return every verb that ever was, in order, without holding up whoever writes meanwhile; blocks."""
        with closing(self.reader()) as database:
            return [row[0] for row in database.execute("SELECT DISTINCT what FROM acts ORDER BY what")]

    def erase_person(self, account: str, act: Act) -> int:
        """Delete name and address of everything an account did, and keep the act that says so; return how many."""
        with transaction(self._database):
            gone = self._database.execute(
                f"DELETE FROM act_details WHERE field IN ({','.join('?' * len(OF_A_PERSON))})"  # noqa: S608  # marks only
                " AND number IN (SELECT number FROM acts WHERE account = ?)",
                (*OF_A_PERSON, account),
            )
            self.add(_erasing(act, ERASE_PERSON, account))
        return gone.rowcount

    def erase_act(self, number: int, act: Act) -> int:
        """Delete every detail of one act, and keep the act that says so; return how many."""
        with transaction(self._database):
            gone = self._database.execute("DELETE FROM act_details WHERE number = ?", (number,))
            self.add(_erasing(act, ERASE_ACT, str(number)))
        return gone.rowcount

    def _take_in_older(self) -> None:
        """Take what an earlier version kept without a chain into it, once."""
        older = self._database.execute("SELECT at, who, what, why, subject FROM audit ORDER BY id").fetchall()
        for at, who, what, why, subject in older:
            self.add(Act(at=at, by=Person(account=who), what=_OLDER.get(what, what), why=why, subject=subject))
        self._database.execute("DELETE FROM audit")


def chain(
    database: sqlite3.Connection, first: int = 1, last: int = 1 << 62
) -> Iterator[tuple[Entry, dict[str, Detail]]]:
    """Yield entries with their details in order, in bounded memory, as `verified` wants them."""
    while True:
        rows = database.execute(
            "SELECT number, at, account, what, subject, sealed, previous, hash FROM acts"
            " WHERE number BETWEEN ? AND ? ORDER BY number LIMIT ?",
            (first, last, AT_ONCE),
        ).fetchall()
        if not rows:
            return
        kept: dict[int, dict[str, Detail]] = {}
        for number, name, salt, value in database.execute(
            "SELECT number, field, salt, value FROM act_details WHERE number BETWEEN ? AND ?", (rows[0][0], rows[-1][0])
        ):
            kept.setdefault(number, {})[name] = Detail(salt, value)
        for number, at, account, what, subject, hashes, previous, own in rows:
            one = Entry(
                number=number,
                at=at,
                account=account,
                what=what,
                subject=subject,
                sealed=_hashes(hashes),
                previous=previous,
                hash=own,
            )
            yield one, kept.get(number, {})
        first = rows[-1][0] + 1


def _search(database: sqlite3.Connection, asked: Search, before: int, most: int) -> list[Told]:
    text = f"%{_escaped(asked.text)}%"
    rows = database.execute(
        "SELECT number, at, account, what, subject, sealed, hash FROM acts"
        " WHERE number < :before AND at >= :start AND at < :end"
        " AND (:account = '' OR account = :account) AND (:what = '' OR what = :what)"
        " AND (:subject = '' OR subject = :subject)"
        " AND (:text = '%%' OR EXISTS (SELECT 1 FROM act_details AS one"
        "      WHERE one.number = acts.number AND one.value LIKE :text ESCAPE '\\'))"
        " ORDER BY number DESC LIMIT :most",
        {
            "before": before,
            "start": asked.start,
            "end": asked.end,
            "account": asked.account,
            "what": asked.what,
            "subject": asked.subject,
            "text": text,
            "most": most,
        },
    ).fetchall()
    return [_told(database, row) for row in rows]


def _told(database: sqlite3.Connection, row: Sequence[Any]) -> Told:
    number, at, account, what, subject, hashes, own = row
    kept = {
        name: json.loads(value)
        for name, value in database.execute("SELECT field, value FROM act_details WHERE number = ?", (number,))
    }
    erased = tuple(name for name in DETAILS if name in json.loads(hashes) and name not in kept)
    return Told(
        number=number,
        at=at,
        account=account,
        what=what,
        subject=subject,
        details=kept,
        erased=erased,
        hash=own,
    )


def _hashes(text: str) -> dict[str, str]:
    """Return the hashes of an entry; text that somebody spoilt reads as hashes that match nothing."""
    try:
        told = json.loads(text)
    except ValueError:
        return {"": text}
    return told if isinstance(told, dict) else {"": text}


def _erasing(act: Act, what: str, subject: str) -> Act:
    return Act(at=act.at, by=act.by, what=what, subject=subject, why=act.why)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
