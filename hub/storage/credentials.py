"""What people sign in with: password, one-time codes, passkeys, and the one-time links that set them up."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from hub.audit import Act
from hub.storage.audit import Audit
from hub.storage.database import transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """An account's password hash and sealed code secret, None where there is none; `totp_step` was taken last."""

    account: str
    disabled: bool
    password: str | None
    totp: bytes | None
    totp_step: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Passkey:
    """A passkey; `site` is the name it was made for, `uses` the authenticator's own counter."""

    id: bytes
    account: str
    site: str
    public_key: bytes
    uses: int
    label: str
    created_at: int
    used_at: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A one-time link by its digest; `account` None makes the first administrator. `totp` is the sealed code secret."""

    digest: bytes
    account: str | None
    totp: bytes
    made_by: str
    expires_at: int


_PASSKEY = "SELECT id, account, site, public_key, uses, label, created_at, used_at FROM passkeys"


class CredentialStore:
    """The credentials in `hub.db`; calls are short and may stand on the event loop."""

    def __init__(self, database: sqlite3.Connection, audit: Audit) -> None:
        self._database = database
        self._audit = audit

    def of_name(self, name: str) -> Credentials | None:
        """Return what belongs to the name that was typed."""
        return self._read("name", name)

    def of(self, account: str) -> Credentials | None:
        """Return what belongs to an account."""
        return self._read("id", account)

    def set_password(self, account: str, kept: str, act: Act | None = None) -> None:
        """Keep a new password hash; without an act it is the same password, hashed anew."""
        with transaction(self._database):
            self._database.execute("UPDATE accounts SET password = ? WHERE id = ?", (kept, account))
            if act is not None:
                self._audit.add(act)

    def set_totp(self, account: str, sealed: bytes, step: int, act: Act) -> None:
        """Keep a new code secret; the code that confirmed it, of `step`, is used up."""
        with transaction(self._database):
            self._database.execute("UPDATE accounts SET totp = ?, totp_step = ? WHERE id = ?", (sealed, step, account))
            self._audit.add(act)

    def use_step(self, account: str, step: int) -> bool:
        """Use up the code of a step, and all before it; return False if that was done already."""
        used = self._database.execute(
            "UPDATE accounts SET totp_step = ? WHERE id = ? AND totp_step < ?", (step, account, step)
        )
        return used.rowcount == 1

    def add_passkey(self, one: Passkey, act: Act) -> None:
        """Keep a new passkey."""
        with transaction(self._database):
            self._database.execute(
                "INSERT INTO passkeys VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (one.id, one.account, one.site, one.public_key, one.uses, one.label, one.created_at, one.used_at),
            )
            self._audit.add(act)

    def passkeys(self, account: str) -> list[Passkey]:
        """Return an account's passkeys, oldest first."""
        rows = self._database.execute(f"{_PASSKEY} WHERE account = ? ORDER BY created_at", (account,))
        return [_passkey(row) for row in rows.fetchall()]

    def passkey(self, wanted: bytes) -> Passkey | None:
        """Return a passkey by its id."""
        row = self._database.execute(f"{_PASSKEY} WHERE id = ?", (wanted,)).fetchone()
        return _passkey(row) if row else None

    def used(self, passkey: bytes, *, uses: int, at: int) -> None:
        """Keep the authenticator's counter."""
        self._database.execute("UPDATE passkeys SET uses = ?, used_at = ? WHERE id = ?", (uses, at, passkey))

    def remove_passkey(self, passkey: bytes, act: Act) -> None:
        """Forget a passkey."""
        with transaction(self._database):
            self._database.execute("DELETE FROM passkeys WHERE id = ?", (passkey,))
            self._audit.add(act)

    def forget_all(self, account: str) -> None:
        """Take an account every way to sign in; the caller records why."""
        with transaction(self._database):
            self._database.execute("DELETE FROM passkeys WHERE account = ?", (account,))
            self._database.execute("UPDATE accounts SET password = NULL, totp = NULL WHERE id = ?", (account,))

    def add_link(self, link: Link, act: Act | None = None) -> None:
        """Keep a link; it takes the place of the account's earlier ones, and the first start's of those."""
        with transaction(self._database):
            self._database.execute("DELETE FROM links WHERE account IS ?", (link.account,))
            self._database.execute(
                "INSERT INTO links VALUES (?, ?, ?, ?, ?)",
                (link.digest, link.account, link.totp, link.made_by, link.expires_at),
            )
            if act is not None:
                self._audit.add(act)

    def link(self, digest: bytes, *, now: int) -> Link | None:
        """Return a link that was not used and has not expired."""
        row = self._database.execute(
            "SELECT digest, account, totp, made_by, expires_at FROM links WHERE digest = ? AND expires_at > ?",
            (digest, now),
        ).fetchone()
        if row is None:
            return None
        own, account, totp, made_by, expires_at = row
        return Link(digest=own, account=account, totp=totp, made_by=made_by, expires_at=expires_at)

    def use_link(self, digest: bytes) -> bool:
        """Use a link up; return False if somebody did before."""
        return self._database.execute("DELETE FROM links WHERE digest = ?", (digest,)).rowcount == 1

    def _read(self, column: str, wanted: str) -> Credentials | None:
        row = self._database.execute(
            f"SELECT id, disabled_at IS NOT NULL, password, totp, totp_step FROM accounts WHERE {column} = ?",  # noqa: S608  # two literals
            (wanted,),
        ).fetchone()
        if row is None:
            return None
        account, disabled, password, totp, step = row
        return Credentials(account=account, disabled=bool(disabled), password=password, totp=totp, totp_step=step)


def _passkey(row: Sequence[object]) -> Passkey:
    number, account, site, public_key, uses, label, created_at, used_at = row
    assert isinstance(number, bytes)  # noqa: S101  # the schema is STRICT
    assert isinstance(public_key, bytes)  # noqa: S101  # the schema is STRICT
    return Passkey(
        id=number,
        account=str(account),
        site=str(site),
        public_key=public_key,
        uses=int(str(uses)),
        label=str(label),
        created_at=int(str(created_at)),
        used_at=None if used_at is None else int(str(used_at)),
    )
