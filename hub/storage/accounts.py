"""Accounts and the roles they hold, each change together with its act in the audit."""

import secrets
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from hub.audit import Act
from hub.rights.permissions import Grant, Role
from hub.rights.scopes import Scope
from hub.storage.audit import Audit
from hub.storage.database import transaction


class ChangedMeanwhile(Exception):
    """Somebody else changed it since it was read; nothing was changed."""


class NameTaken(ValueError):
    """Another account has this name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Somebody who may sign in; `home` is the place whose administrators look after it."""

    id: str
    name: str
    full_name: str
    home: Scope
    created_at: int
    disabled_at: int | None
    revision: int
    has_password: bool
    has_totp: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """A grant as it was given: to whom, by whom, when, and whose deputy they are, if any."""

    id: int
    account: str
    grant: Grant
    given_by: str
    given_at: int
    deputy_of: str | None


_ACCOUNT = (
    "SELECT id, name, full_name, home_group, home_node, created_at, disabled_at, revision,"
    " password IS NOT NULL, totp IS NOT NULL FROM accounts"
)
_GRANT = 'SELECT id, account, role, "group", node, starts, ends, given_by, given_at, deputy_of FROM grants'

_HELD = f"""{_GRANT} AS own
WHERE account = :account AND (starts IS NULL OR starts <= :now) AND (ends IS NULL OR ends > :now)
AND EXISTS (SELECT 1 FROM accounts WHERE id = :account AND disabled_at IS NULL)
AND (deputy_of IS NULL OR EXISTS (
    SELECT 1 FROM grants AS theirs JOIN accounts ON accounts.id = theirs.account
    WHERE theirs.account = own.deputy_of AND theirs.deputy_of IS NULL AND theirs.role = own.role
    AND accounts.disabled_at IS NULL
    AND (theirs."group" = '' OR theirs."group" = own."group") AND (theirs.node = '' OR theirs.node = own.node)
    AND (theirs.starts IS NULL OR theirs.starts <= :now) AND (theirs.ends IS NULL OR theirs.ends > :now)
))"""  # noqa: S608  # a literal


class AccountStore:
    """The accounts in `hub.db`; calls are short and may stand on the event loop."""

    def __init__(self, database: sqlite3.Connection, audit: Audit) -> None:
        self._database = database
        self._audit = audit

    def add(self, *, name: str, full_name: str, home: Scope, at: int, act: Act) -> Account:
        """Keep a new account that cannot sign in yet; raise NameTaken."""
        made = secrets.token_hex(8)
        with transaction(self._database):
            try:
                self._database.execute(
                    "INSERT INTO accounts (id, name, full_name, home_group, home_node, created_at, revision)"
                    " VALUES (?, ?, ?, ?, ?, ?, 1)",
                    (made, name, full_name, home.group, home.node, at),
                )
            except sqlite3.IntegrityError as exc:
                raise NameTaken(f"somebody has the name {name!r} already; choose another") from exc
            self._audit.add(act)
        return self._found(made)

    def get(self, wanted: str) -> Account | None:
        """Return an account by its id."""
        row = self._database.execute(f"{_ACCOUNT} WHERE id = ?", (wanted,)).fetchone()
        return _account(row) if row else None

    def by_name(self, name: str) -> Account | None:
        """Return an account by the name that is typed to sign in."""
        row = self._database.execute(f"{_ACCOUNT} WHERE name = ?", (name,)).fetchone()
        return _account(row) if row else None

    def all(self) -> list[Account]:
        """Return every account, by full name."""
        return [_account(row) for row in self._database.execute(f"{_ACCOUNT} ORDER BY full_name, name").fetchall()]

    def change(self, account: str, *, revision: int, full_name: str, disabled_at: int | None, act: Act) -> None:
        """Change name and whether it may sign in; raise ChangedMeanwhile."""
        with transaction(self._database):
            self._step(account, revision)
            self._database.execute(
                "UPDATE accounts SET full_name = ?, disabled_at = ? WHERE id = ?", (full_name, disabled_at, account)
            )
            self._audit.add(act)

    def give(
        self,
        account: str,
        grant: Grant,
        *,
        by: str,
        at: int,
        act: Act,
        revision: int | None = None,
        deputy_of: str | None = None,
    ) -> None:
        """Give an account a role; raise ChangedMeanwhile if it is no longer at `revision`."""
        with transaction(self._database):
            self._step(account, revision)
            self._database.execute(
                'INSERT INTO grants (account, role, "group", node, starts, ends, given_by, given_at, deputy_of)'
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    account,
                    grant.role,
                    grant.scope.group,
                    grant.scope.node,
                    grant.starts,
                    grant.ends,
                    by,
                    at,
                    deputy_of,
                ),
            )
            self._audit.add(act)

    def end(self, given: Given, *, at: int, act: Act, revision: int | None = None) -> None:
        """End a grant now; raise ChangedMeanwhile."""
        with transaction(self._database):
            self._step(given.account, revision)
            self._database.execute(
                "UPDATE grants SET ends = ? WHERE id = ? AND (ends IS NULL OR ends > ?)", (at, given.id, at)
            )
            self._audit.add(act)

    def grant(self, wanted: int) -> Given | None:
        """Return one grant."""
        row = self._database.execute(f"{_GRANT} WHERE id = ?", (wanted,)).fetchone()
        return _given(row) if row else None

    def grants(self, account: str, *, now: int) -> list[Given]:
        """Return what an account holds or will hold, without what has ended."""
        rows = self._database.execute(
            f"{_GRANT} WHERE account = ? AND (ends IS NULL OR ends > ?) ORDER BY id", (account, now)
        )
        return [_given(row) for row in rows.fetchall()]

    def deputies(self, account: str, *, now: int) -> list[Given]:
        """Return the grants that others hold in an account's stead, now or later."""
        rows = self._database.execute(
            f"{_GRANT} WHERE deputy_of = ? AND (ends IS NULL OR ends > ?) ORDER BY id", (account, now)
        )
        return [_given(row) for row in rows.fetchall()]

    def held(self, account: str, *, now: int) -> tuple[Grant, ...]:
        """Return what counts now: nothing of a disabled account, no deputy whose principal lost the role."""
        rows = self._database.execute(_HELD, {"account": account, "now": now})
        return tuple(_given(row).grant for row in rows.fetchall())

    def administrators(self, *, now: int) -> list[str]:
        """Return the accounts that administer the whole province now and can sign in."""
        rows = self._database.execute(
            "SELECT DISTINCT accounts.id FROM grants JOIN accounts ON accounts.id = grants.account"
            " WHERE role = ? AND \"group\" = '' AND deputy_of IS NULL AND (starts IS NULL OR starts <= ?)"
            " AND ends IS NULL AND disabled_at IS NULL"
            " AND (password IS NOT NULL OR EXISTS (SELECT 1 FROM passkeys WHERE passkeys.account = accounts.id))",
            (Role.ADMINISTRATOR, now),
        )
        return [row[0] for row in rows.fetchall()]

    def _step(self, account: str, revision: int | None) -> None:
        changed = self._database.execute(
            "UPDATE accounts SET revision = revision + 1 WHERE id = ? AND (? IS NULL OR revision = ?)",
            (account, revision, revision),
        )
        if changed.rowcount != 1:
            raise ChangedMeanwhile(f"account {account} was changed by somebody else meanwhile; read it again")

    def _found(self, wanted: str) -> Account:
        found = self.get(wanted)
        assert found is not None  # noqa: S101  # it was just kept
        return found


def _account(row: Sequence[object]) -> Account:
    number, name, full_name, group, node, created_at, disabled_at, revision, has_password, has_totp = row
    return Account(
        id=str(number),
        name=str(name),
        full_name=str(full_name),
        home=Scope(str(group), str(node)),
        created_at=int(str(created_at)),
        disabled_at=None if disabled_at is None else int(str(disabled_at)),
        revision=int(str(revision)),
        has_password=bool(has_password),
        has_totp=bool(has_totp),
    )


def _given(row: Sequence[object]) -> Given:
    number, account, role, group, node, starts, ends, given_by, given_at, deputy_of = row
    return Given(
        id=int(str(number)),
        account=str(account),
        grant=Grant(
            role=Role(str(role)),
            scope=Scope(str(group), str(node)),
            starts=None if starts is None else int(str(starts)),
            ends=None if ends is None else int(str(ends)),
        ),
        given_by=str(given_by),
        given_at=int(str(given_at)),
        deputy_of=None if deputy_of is None else str(deputy_of),
    )
