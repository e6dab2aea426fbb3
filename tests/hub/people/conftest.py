"""Accounts without a web server: a database in a folder, a clock the test moves."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyotp
import pytest
from argon2 import PasswordHasher

from hub.audit import Act, Person
from hub.people import passwords
from hub.people.caller import Caller, Visitor
from hub.people.entrance import SignedIn
from hub.people.reception import Reception, open_reception
from hub.rights.permissions import Grant, Role
from hub.rights.scopes import PROVINCE, Scope
from hub.storage.accounts import Account
from hub.storage.audit import Audit, Search
from hub.storage.database import open_database

PASSWORD = "bốn con trâu uống nước"
HERE = Visitor(address="192.168.1.7", agent="Firefox")


@dataclass
class House:
    """A hub's accounts, and short ways to fill them."""

    reception: Reception
    clock: Any
    audit: Audit
    database: sqlite3.Connection

    def account(self, name: str, *roles: Role, scope: Scope = PROVINCE, home: Scope | None = None) -> Account:
        act = Act(at=self.clock.now_ms(), by=Person(account="test"), what="account.make")
        made = self.reception.accounts.add(
            name=name, full_name=f"Bà {name}", home=home or scope, at=self.clock.now_ms(), act=act
        )
        for role in roles:
            grant = Grant(role=role, scope=scope)
            self.reception.accounts.give(made.id, grant, by="test", at=self.clock.now_ms(), act=act)
        return self.again(made)

    async def known(self, name: str, *roles: Role, scope: Scope = PROVINCE) -> tuple[Account, str]:
        """Return somebody who has set up their sign-in, and the secret of their codes."""
        made = self.account(name, *roles, scope=scope)
        link = self.reception.set_up.link_for(made, Person(account="test"))
        opened = self.reception.set_up.opened(link)
        assert opened is not None
        code = self.code(opened.secret)
        await self.reception.set_up.done(link, name="", full_name="", password=PASSWORD, code=code, address="127.0.0.1")
        await self.clock.advance(60)  # the code that confirmed it is used up
        return self.again(made), opened.secret

    def code(self, secret: str) -> str:
        return pyotp.TOTP(secret).generate_otp(self.clock.now_ms() // 30_000)

    def again(self, account: Account) -> Account:
        found = self.reception.accounts.get(account.id)
        assert found is not None
        return found

    def signed_in(self, account: Account) -> Caller:
        return self.caller(self.reception.entrance.start(account.id, HERE))

    def caller(self, came: SignedIn) -> Caller:
        found = self.reception.entrance.caller(came.secret, HERE.address)
        assert found is not None
        return found

    def acts(self) -> list[str]:
        return [one.what for one in self.audit.search(Search())]


@pytest.fixture(autouse=True)
def quick_hashes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let hashes cost little: what they cost is asked where it matters."""
    monkeypatch.setattr(passwords, "_HASHER", PasswordHasher(time_cost=1, memory_cost=64, parallelism=1))
    passwords._nobodys.cache_clear()
    yield
    passwords._nobodys.cache_clear()


@pytest.fixture
def real_hashes(quick_hashes: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let hashes cost what they cost in life."""
    monkeypatch.setattr(passwords, "_HASHER", PasswordHasher())
    passwords._nobodys.cache_clear()


@pytest.fixture
def house(tmp_path: Path, clock: Any) -> Iterator[House]:
    with closing(open_database(tmp_path / "hub.db", "hub")) as database:
        audit = Audit(database)
        yield House(open_reception(database, audit, tmp_path, clock), clock, audit, database)
