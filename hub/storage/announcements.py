"""Announcements, on disk together with the act that made them before anything is sent."""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from contract.commands import Stage
from hub.audit import Act, Person
from hub.devices import DeviceKey
from hub.storage.audit import Audit, Search
from hub.storage.database import transaction

UNKNOWN_ORDER = "announcement.unknown_order"
"""What a box did by an order that this hub does not know: made after the backup it was restored from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One loudspeaker of an announcement: how far it has come, why, and when it reached each stage (ms)."""

    device: DeviceKey
    stage: Stage
    reason: str
    at: Mapping[Stage, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """A bulletin to be played on some loudspeakers, at most until `expires_at`; its id is its order's id."""

    id: str
    created_at: int
    expires_at: int
    issuer: str
    text: str
    filename: str
    sha256: str
    duration_ms: int
    volume: int
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """The signed order, by its id, that ends an announcement; worth sending until `expires_at` (ms)."""

    order: str
    announcement: str
    expires_at: int


class AnnouncementStore:
    """The announcements in `hub.db`; calls are short and may stand on the event loop."""

    def __init__(self, database: sqlite3.Connection, audit: Audit) -> None:
        self._database = database
        self._audit = audit

    def add(self, one: Announcement, act: Act) -> None:
        """Keep a new announcement together with the act."""
        with transaction(self._database):
            self._database.execute(
                "INSERT INTO announcements VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    one.id,
                    one.created_at,
                    one.expires_at,
                    one.issuer,
                    one.text,
                    one.filename,
                    one.sha256,
                    one.duration_ms,
                    one.volume,
                ),
            )
            for part in one.parts:
                self._put(one.id, part)
            self._audit.add(act)

    def add_stop(self, stop: Stop, act: Act) -> None:
        """Keep a stop together with the act."""
        with transaction(self._database):
            row = (stop.order, stop.announcement, stop.expires_at)
            self._database.execute("INSERT INTO stops VALUES (?, ?, ?)", row)
            self._audit.add(act)

    def stops(self, announcement: str) -> list[Stop]:
        """Return the stops of an announcement, the last one last."""
        rows = self._database.execute(
            "SELECT id, expires_at FROM stops WHERE announcement = ? ORDER BY rowid", (announcement,)
        )
        return [Stop(order=order, announcement=announcement, expires_at=expires_at) for order, expires_at in rows]

    def stopped_by(self, order: str) -> str | None:
        """Return the id of the announcement that an order stops, None if the order is no stop."""
        row = self._database.execute("SELECT announcement FROM stops WHERE id = ?", (order,)).fetchone()
        return str(row[0]) if row else None

    def update(self, announcement: str, parts: Sequence[Part], *, cursor: int | None = None) -> None:
        """Keep new stages of some parts, and how far the outcomes were read, in one transaction."""
        with transaction(self._database):
            for part in parts:
                self._put(announcement, part)
            if cursor is not None:
                self._database.execute("INSERT OR REPLACE INTO cursors VALUES ('outcomes', ?)", (cursor,))

    def sounded_unknown(self, order: str, stage: Stage, *, at: int, who: str, cursor: int) -> None:
        """Keep once, in the audit, what a box says of an order that is not known here, and how far was read."""
        asked = Search(account=who, what=UNKNOWN_ORDER, subject=order)
        with transaction(self._database):
            if all(one.details.get("why") != stage for one in self._audit.search(asked)):
                act = Act(at=at, by=Person(account=who), what=UNKNOWN_ORDER, subject=order, why=str(stage))
                self._audit.add(act)
            self._database.execute("INSERT OR REPLACE INTO cursors VALUES ('outcomes', ?)", (cursor,))

    def advance(self, cursor: int) -> None:
        """Keep how far the outcomes were read."""
        self.update("", (), cursor=cursor)

    def cursor(self) -> int:
        """Return how far the outcomes were read."""
        row = self._database.execute("SELECT id FROM cursors WHERE name = 'outcomes'").fetchone()
        return int(row[0]) if row else 0

    def recent(self, most: int) -> list[Announcement]:
        """Return the newest announcements, newest first."""
        rows = self._database.execute("SELECT * FROM announcements ORDER BY created_at DESC LIMIT ?", (most,))
        return [self._read(row) for row in rows.fetchall()]

    def undelivered(self) -> list[Announcement]:
        """Return the announcements of which some box has not said yet that it has them, oldest first."""
        rows = self._database.execute(
            "SELECT * FROM announcements WHERE id IN (SELECT announcement FROM parts WHERE stage IN (?, ?))"
            " ORDER BY created_at",
            (Stage.PENDING, Stage.SENT),
        )
        return [self._read(row) for row in rows.fetchall()]

    def get(self, wanted: str) -> Announcement | None:
        """Return one announcement."""
        row = self._database.execute("SELECT * FROM announcements WHERE id = ?", (wanted,)).fetchone()
        return self._read(row) if row else None

    def _put(self, announcement: str, part: Part) -> None:
        key = part.device
        self._database.execute(
            "INSERT OR REPLACE INTO parts VALUES (?, ?, ?, ?, ?, ?, ?)",
            (announcement, key.group, key.node, key.device, part.stage, part.reason, json.dumps(part.at)),
        )

    def _read(self, row: Sequence[object]) -> Announcement:
        number, created_at, expires_at, issuer, text, filename, sha256, duration_ms, volume = row
        parts = self._database.execute(
            'SELECT "group", node, device, stage, reason, at FROM parts WHERE announcement = ?', (number,)
        ).fetchall()
        return Announcement(
            id=str(number),
            created_at=int(str(created_at)),
            expires_at=int(str(expires_at)),
            issuer=str(issuer),
            text=str(text),
            filename=str(filename),
            sha256=str(sha256),
            duration_ms=int(str(duration_ms)),
            volume=int(str(volume)),
            parts=tuple(
                Part(
                    device=DeviceKey(group, node, device),
                    stage=Stage(stage),
                    reason=reason,
                    at={Stage(name): when for name, when in json.loads(at).items()},
                )
                for group, node, device, stage, reason, at in parts
            ),
        )
