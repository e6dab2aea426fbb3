"""Commands, on disk together with the act that made them before anything is sent."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from contract.actions import Action
from contract.commands import FINAL, Stage
from hub.audit import Act
from hub.devices import DeviceKey
from hub.storage.audit import Audit
from hub.storage.database import transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A command, how far it has come, why, since when (ms), and how often it was sent."""

    id: str
    device: DeviceKey
    action: Action
    issuer: str
    issued_at: int
    expires_at: int
    stage: Stage
    reason: str = ""
    since: int
    sendings: int = 0


class CommandStore:
    """The commands in `hub.db`; calls are short and may stand on the event loop."""

    def __init__(self, database: sqlite3.Connection, audit: Audit) -> None:
        self._database = database
        self._audit = audit

    def add(self, one: Kept, act: Act) -> None:
        """Keep a new command together with the act."""
        key = one.device
        row = (one.id, key.group, key.node, key.device, one.action, one.issuer)
        with transaction(self._database):
            self._database.execute(
                "INSERT INTO commands VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*row, one.issued_at, one.expires_at, one.stage, one.reason, one.since, one.sendings),
            )
            self._audit.add(act)

    def update(self, one: Kept | None, *, cursor: int | None = None) -> None:
        """Keep how far a command has come, and how far the outcomes were read, in one transaction."""
        with transaction(self._database):
            if one is not None:
                self._database.execute(
                    "UPDATE commands SET stage = ?, reason = ?, since = ?, sendings = ? WHERE id = ?",
                    (one.stage, one.reason, one.since, one.sendings, one.id),
                )
            if cursor is not None:
                self._database.execute("INSERT OR REPLACE INTO cursors VALUES ('command outcomes', ?)", (cursor,))

    def cursor(self) -> int:
        """Return how far the outcomes were read."""
        row = self._database.execute("SELECT id FROM cursors WHERE name = 'command outcomes'").fetchone()
        return int(row[0]) if row else 0

    def get(self, wanted: str) -> Kept | None:
        """Return one command."""
        row = self._database.execute("SELECT * FROM commands WHERE id = ?", (wanted,)).fetchone()
        return _read(row) if row else None

    def of(self, device: DeviceKey, most: int) -> list[Kept]:
        """Return the newest commands of a device, newest first."""
        rows = self._database.execute(
            'SELECT * FROM commands WHERE "group" = ? AND node = ? AND device = ? ORDER BY issued_at DESC LIMIT ?',
            (device.group, device.node, device.device, most),
        )
        return [_read(row) for row in rows.fetchall()]

    def undelivered(self) -> list[Kept]:
        """Return the commands of which no edge node has said yet that it has them, oldest first."""
        rows = self._database.execute(
            "SELECT * FROM commands WHERE stage IN (?, ?) ORDER BY issued_at", (Stage.PENDING, Stage.SENT)
        )
        return [_read(row) for row in rows.fetchall()]

    def under_way(self, device: DeviceKey, action: Action, now: int) -> Kept | None:
        """Return a command of that action for a device that has no end yet and has not expired."""
        newest = self.of(device, 20)
        alike = (one for one in newest if one.action is action and one.stage not in FINAL)
        return next((one for one in alike if now <= one.expires_at), None)


def _read(row: Sequence[object]) -> Kept:
    number, group, node, device, action, issuer, issued_at, expires_at, stage, reason, since, sendings = row
    return Kept(
        id=str(number),
        device=DeviceKey(str(group), str(node), str(device)),
        action=Action(str(action)),
        issuer=str(issuer),
        issued_at=int(str(issued_at)),
        expires_at=int(str(expires_at)),
        stage=Stage(str(stage)),
        reason=str(reason),
        since=int(str(since)),
        sendings=int(str(sendings)),
    )
