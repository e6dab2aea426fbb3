"""Accounts from the hub's own machine: the first start's link, people added and recovered by command."""

import csv
import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass

from contract.clock import Clock
from hub.audit import Act, Person
from hub.config import Config
from hub.people.entrance import SHELL
from hub.people.reception import Reception, open_reception
from hub.people.set_up import good_name, told_grant
from hub.rights.permissions import Grant, Role, may_be_held
from hub.rights.scopes import Scope
from hub.storage.audit import Audit
from hub.storage.database import open_database


class ShellRefused(ValueError):
    """A command that must not be done, and why."""


def first_link(config: Config, clock: Clock) -> str | None:
    """Return a link, valid for 15 minutes and from this machine only, that makes the first administrator, once.

    None where somebody administers the province already.
    """
    with _opened(config, clock) as reception:
        return reception.set_up.first_link()


def administered(config: Config, clock: Clock) -> bool:
    """Return whether somebody administers the province and can sign in."""
    with _opened(config, clock) as reception:
        return bool(reception.accounts.administrators(now=clock.now_ms()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A line of a list of people: what they type to sign in, who they are, and a role over a place."""

    name: str
    full_name: str
    role: Role
    scope: Scope


COLUMNS = ("name", "full_name", "role", "scope")


def wanted(lines: Iterable[str]) -> list[Wanted]:
    """Return the people of a CSV with the columns name, full_name, role and scope; raise ShellRefused with the line.

    `scope` is empty for the province, a commune's group, or group/node for a hamlet. A name that stands again is given
    a further role.
    """
    found = []
    for number, row in enumerate(csv.reader(lines), start=1):
        if not row or (number == 1 and tuple(row) == COLUMNS):
            continue
        if len(row) != len(COLUMNS):
            raise ShellRefused(f"line {number}: {len(row)} columns, not {', '.join(COLUMNS)}")
        name, full_name, role, scope = (one.strip() for one in row)
        try:
            one = Wanted(name=name, full_name=full_name, role=Role(role), scope=Scope(*scope.split("/", 1)))
            good_name(name, full_name)
        except ValueError as exc:
            raise ShellRefused(f"line {number}: {exc}") from exc
        if not may_be_held(one.role, one.scope):
            raise ShellRefused(f"line {number}: {role} cannot be held over a whole {one.scope.level}")
        found.append(one)
    return found


def add(config: Config, clock: Clock, people: Sequence[Wanted], *, who: str) -> dict[str, str]:
    """Add people with their roles; return by name the secret of the link with which each sets up their sign-in."""
    links: dict[str, str] = {}
    with _opened(config, clock) as reception:
        by, now = Person(account=SHELL, name=who), clock.now_ms()
        taken = [one.name for one in people if reception.accounts.by_name(one.name) is not None]
        if taken:
            raise ShellRefused(f"somebody has the name {taken[0]!r} already; nobody was added")
        for one in people:
            if one.name not in links:
                told = {"name": one.name, "full_name": one.full_name, "group": one.scope.group, "node": one.scope.node}
                act = Act(at=now, by=by, what="account.make", subject=one.name, after=told)
                made = reception.accounts.add(name=one.name, full_name=one.full_name, home=one.scope, at=now, act=act)
                links[one.name] = reception.set_up.link_for(made, by)
            account = reception.accounts.by_name(one.name)
            assert account is not None  # noqa: S101  # just added
            grant = Grant(role=one.role, scope=one.scope)
            given = Act(at=now, by=by, what="grant.make", subject=account.id, after=told_grant(grant))
            reception.accounts.give(account.id, grant, by=SHELL, at=now, act=given)
    return links


def recover(config: Config, clock: Clock, *, who: str, name: str) -> str:
    """Return the secret of a link with which somebody sets up their sign-in afresh."""
    with _opened(config, clock) as reception:
        found = reception.accounts.by_name(name)
        if found is None:
            raise ShellRefused(f"name: there is no account {name!r}")
        return reception.set_up.link_for(found, Person(account=SHELL, name=who), "by command")


def address(config: Config, secret: str) -> str:
    """Return a link as somebody opens it: by the running hub's address, else by the configured one."""
    hub = config.hub
    base = f"{'https' if hub.tls_certificate else 'http'}://{hub.names[0] if hub.names else 'localhost'}:{hub.port}"
    if hub.status_file is not None and hub.status_file.is_file():
        base = json.loads(hub.status_file.read_text(encoding="utf-8"))["url"]
    return f"{base}/set-up/{secret}"


@contextmanager
def _opened(config: Config, clock: Clock) -> Iterator[Reception]:
    folder = config.hub.state_dir
    database: sqlite3.Connection
    with closing(open_database(folder / "hub.db", "hub")) as database:
        yield open_reception(database, Audit(database), folder, clock)
