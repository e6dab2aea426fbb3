"""Who is signed in where, and the tokens of programs; both known by the digest of a secret only."""

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from hub.audit import Act
from hub.rights.permissions import Key, Noun, Verb
from hub.rights.scopes import Scope
from hub.storage.audit import Audit
from hub.storage.database import transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A browser that is signed in; all instants in ms. `proven_at`: the last full sign-in there."""

    digest: bytes
    account: str
    created_at: int
    seen_at: int
    proven_at: int
    address: str
    agent: str

    @property
    def id(self) -> str:
        """Return what it is called in lists; it opens nothing."""
        return self.digest.hex()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A program's token: what it may do at most, and until when (ms)."""

    digest: bytes
    account: str
    label: str
    rights: frozenset[Key]
    scope: Scope
    created_at: int
    expires_at: int
    used_at: int | None

    @property
    def id(self) -> str:
        """Return what it is called in lists; it opens nothing."""
        return self.digest.hex()[:16]


_SESSION = "SELECT digest, account, created_at, seen_at, proven_at, address, agent FROM sessions"
_PROGRAM = 'SELECT digest, account, label, rights, "group", node, created_at, expires_at, used_at FROM tokens'


class SessionStore:
    """The sessions and tokens in `hub.db`; calls are short and may stand on the event loop."""

    def __init__(self, database: sqlite3.Connection, audit: Audit) -> None:
        self._database = database
        self._audit = audit

    def start(self, one: Session, act: Act) -> None:
        """Keep a new session."""
        with transaction(self._database):
            self._database.execute(
                "INSERT INTO sessions VALUES (?, ?, ?, ?, ?, ?, ?)",
                (one.digest, one.account, one.created_at, one.seen_at, one.proven_at, one.address, one.agent),
            )
            self._audit.add(act)

    def session(self, digest: bytes) -> Session | None:
        """Return a session; the caller asks whether it is still alive."""
        row = self._database.execute(f"{_SESSION} WHERE digest = ?", (digest,)).fetchone()
        return _session(row) if row else None

    def sessions(self, account: str) -> list[Session]:
        """Return an account's sessions, the last used first; the caller asks whether they are alive."""
        rows = self._database.execute(f"{_SESSION} WHERE account = ? ORDER BY seen_at DESC", (account,))
        return [_session(row) for row in rows.fetchall()]

    def seen(self, digest: bytes, at: int) -> None:
        """Keep when a session was used."""
        self._database.execute("UPDATE sessions SET seen_at = ? WHERE digest = ?", (at, digest))

    def end(self, digest: bytes, act: Act | None = None) -> None:
        """End a session; without an act it had run out, or gives way to a new one of the same person."""
        with transaction(self._database):
            self._database.execute("DELETE FROM sessions WHERE digest = ?", (digest,))
            if act is not None:
                self._audit.add(act)

    def end_all(self, account: str, *, but: bytes | None = None, tokens: bool = False, act: Act | None = None) -> None:
        """End all sessions of an account except one, its tokens if asked; without an act the caller records why."""
        with transaction(self._database):
            self._database.execute("DELETE FROM sessions WHERE account = ? AND digest IS NOT ?", (account, but))
            if tokens:
                self._database.execute("DELETE FROM tokens WHERE account = ?", (account,))
            if act is not None:
                self._audit.add(act)

    def end_everybodys(self) -> None:
        """End every session, token and link of everybody: a restored database knows some that were ended since."""
        with transaction(self._database):
            for table in ("sessions", "tokens", "links"):
                self._database.execute(f"DELETE FROM {table}")  # noqa: S608  # of three literals

    def add_token(self, one: Token, act: Act) -> None:
        """Keep a new token."""
        rights = json.dumps(sorted(f"{noun} {verb}" for noun, verb in one.rights))
        with transaction(self._database):
            self._database.execute(
                "INSERT INTO tokens VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    one.digest,
                    one.account,
                    one.label,
                    rights,
                    one.scope.group,
                    one.scope.node,
                    one.created_at,
                    one.expires_at,
                    one.used_at,
                ),
            )
            self._audit.add(act)

    def token(self, digest: bytes, *, now: int) -> Token | None:
        """Return a token that has not expired."""
        row = self._database.execute(f"{_PROGRAM} WHERE digest = ? AND expires_at > ?", (digest, now)).fetchone()
        return _token(row) if row else None

    def tokens(self, account: str) -> list[Token]:
        """Return an account's tokens, oldest first, expired ones too."""
        rows = self._database.execute(f"{_PROGRAM} WHERE account = ? ORDER BY created_at", (account,))
        return [_token(row) for row in rows.fetchall()]

    def token_used(self, digest: bytes, at: int) -> None:
        """Keep when a token was used."""
        self._database.execute("UPDATE tokens SET used_at = ? WHERE digest = ?", (at, digest))

    def revoke_token(self, digest: bytes, act: Act) -> None:
        """Forget a token."""
        with transaction(self._database):
            self._database.execute("DELETE FROM tokens WHERE digest = ?", (digest,))
            self._audit.add(act)


def _session(row: Sequence[object]) -> Session:
    digest, account, created_at, seen_at, proven_at, address, agent = row
    assert isinstance(digest, bytes)  # noqa: S101  # the schema is STRICT
    return Session(
        digest=digest,
        account=str(account),
        created_at=int(str(created_at)),
        seen_at=int(str(seen_at)),
        proven_at=int(str(proven_at)),
        address=str(address),
        agent=str(agent),
    )


def _token(row: Sequence[object]) -> Token:
    digest, account, label, rights, group, node, created_at, expires_at, used_at = row
    assert isinstance(digest, bytes)  # noqa: S101  # the schema is STRICT
    return Token(
        digest=digest,
        account=str(account),
        label=str(label),
        rights=frozenset(one for one in map(_right, json.loads(str(rights))) if one is not None),
        scope=Scope(str(group), str(node)),
        created_at=int(str(created_at)),
        expires_at=int(str(expires_at)),
        used_at=None if used_at is None else int(str(used_at)),
    )


def _right(text: str) -> Key | None:
    """Return a right by its name, None if this version no longer knows it: nobody has that."""
    noun, _, verb = text.partition(" ")
    try:
        return Noun(noun), Verb(verb)
    except ValueError:
        return None
