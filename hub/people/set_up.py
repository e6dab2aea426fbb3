"""Setting up how somebody signs in, by a one-time link: the first administrator, a new person, one who lost all."""

import asyncio
import re
from dataclasses import dataclass

from contract.clock import Clock
from hub.audit import Act, Person
from hub.people import passwords, totp
from hub.people.entrance import SHELL
from hub.people.lifetimes import FIRST_START_MS, SET_UP_MS
from hub.people.sealing import Seal
from hub.people.secrets import MOST, digest, new_secret
from hub.rights.permissions import Grant, Holder, Noun, Role, Verb, reach
from hub.rights.scopes import PROVINCE
from hub.storage.accounts import Account, AccountStore
from hub.storage.credentials import CredentialStore, Link
from hub.storage.sessions import SessionStore

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{1,31}")
MOST_FULL_NAME = 80


class SetUpRefused(ValueError):
    """What must be mended before the set-up is done; `code` says it in a word."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A link that holds: whom it is for (None: the first administrator), and the code secret it will set."""

    link: Link
    account: Account | None
    secret: str


class SetUp:
    """Makes links and honours them once."""

    def __init__(
        self, *, accounts: AccountStore, credentials: CredentialStore, sessions: SessionStore, seal: Seal, clock: Clock
    ) -> None:
        self._accounts = accounts
        self._credentials = credentials
        self._sessions = sessions
        self._seal = seal
        self._clock = clock

    def first_link(self) -> str | None:
        """Return the secret of a link that makes the first administrator, None where there is one already."""
        now = self._clock.now_ms()
        if self._accounts.administrators(now=now):
            return None
        return self._made(None, now + FIRST_START_MS, SHELL, None)

    def link_for(self, account: Account, by: Person, why: str = "") -> str:
        """Return the secret of a link with which somebody sets up their sign-in; earlier links for them are void."""
        now = self._clock.now_ms()
        act = Act(at=now, by=by, what="account.recover", subject=account.id, why=why)
        return self._made(account.id, now + SET_UP_MS, by.account, act)

    def opened(self, secret: str) -> Opened | None:
        """Return what a link is for, None if it is none, was used or has expired."""
        if len(secret) > MOST:
            return None
        link = self._credentials.link(digest(secret), now=self._clock.now_ms())
        if link is None:
            return None
        if link.account is None and self._accounts.administrators(now=self._clock.now_ms()):
            return None
        account = self._accounts.get(link.account) if link.account is not None else None
        if account is not None and (account.disabled_at is not None or not self._in_reach(link.made_by, account)):
            return None
        return Opened(link=link, account=account, secret=self._seal.open(link.totp, about=secret))

    async def done(self, secret: str, *, name: str, full_name: str, password: str, code: str, address: str) -> Account:
        """Set password and codes as the link's holder wants them, and use the link up; raise SetUpRefused.

        Every earlier way to sign in, session and token of the account ends.
        """
        opened = self.opened(secret)
        if opened is None:
            raise SetUpRefused("link_over", "this link was used or has expired; ask for a new one")
        now = self._clock.now_ms()
        known = opened.account
        name = known.name if known else name.strip().lower()
        full_name = known.full_name if known else " ".join(full_name.split())
        good_name(name, full_name)
        try:
            passwords.check(password, about=(name, full_name))
        except passwords.PasswordRefused as exc:
            raise SetUpRefused(exc.code, str(exc)) from exc
        step = totp.matched_step(opened.secret, code[:MOST], now)
        if step is None:
            raise SetUpRefused("wrong_code", "the code is wrong; wait for the next one and type that")
        kept = await asyncio.to_thread(passwords.hashed, password)
        if known is None and self._accounts.by_name(name) is not None:
            raise SetUpRefused("name_taken", f"somebody has the name {name!r} already; choose another")
        if not self._credentials.use_link(opened.link.digest):
            raise SetUpRefused("link_over", "this link was used or has expired; ask for a new one")
        account = known or self._administrator(name, full_name, now, address)
        by = Person(account=account.id, name=account.full_name, address=address)
        self._credentials.forget_all(account.id)
        self._sessions.end_all(account.id, tokens=True)
        self._credentials.set_password(account.id, kept)
        sealed = self._seal.seal(opened.secret, about=account.id)
        act = Act(at=now, by=by, what="account.set_up", subject=account.id)
        self._credentials.set_totp(account.id, sealed, step, act)
        return account

    def _in_reach(self, maker: str, account: Account) -> bool:
        """Return whether a link's maker looks after all that the account holds by now, or will hold.

        Otherwise who kept a link of theirs could take over an account that was given more since.
        """
        if self._accounts.get(maker) is None:
            return True  # made on the hub's own machine
        now = self._clock.now_ms()
        over = reach(Holder(account=maker, grants=self._accounts.held(maker, now=now)), Noun.GRANT, Verb.CHANGE, now)
        places = [account.home, *(one.grant.scope for one in self._accounts.grants(account.id, now=now))]
        return all(over.covers(one) for one in places)

    def _administrator(self, name: str, full_name: str, now: int, address: str) -> Account:
        by = Person(account=SHELL, address=address)
        told = {"name": name, "full_name": full_name}
        act = Act(at=now, by=by, what="account.make", subject=name, after=told)
        account = self._accounts.add(name=name, full_name=full_name, home=PROVINCE, at=now, act=act)
        grant = Grant(role=Role.ADMINISTRATOR, scope=PROVINCE)
        given = Act(at=now, by=by, what="grant.make", subject=account.id, after=told_grant(grant))
        self._accounts.give(account.id, grant, by=SHELL, at=now, act=given)
        return account

    def _made(self, account: str | None, expires_at: int, by: str, act: Act | None) -> str:
        secret = new_secret()
        sealed = self._seal.seal(totp.new_secret(), about=secret)
        link = Link(digest=digest(secret), account=account, totp=sealed, made_by=by, expires_at=expires_at)
        self._credentials.add_link(link, act)
        return secret


def good_name(name: str, full_name: str) -> None:
    """Raise SetUpRefused unless a new account can be called so."""
    if not NAME.fullmatch(name):
        raise SetUpRefused(
            "name_form",
            f"the name {name[:40]!r} must be 2 to 32 of a-z, 0-9, '.', '_' and '-', a letter or digit first",
        )
    if not 1 <= len(full_name) <= MOST_FULL_NAME or not full_name.isprintable():
        raise SetUpRefused("full_name_form", f"the full name must be 1 to {MOST_FULL_NAME} characters")


def told_grant(grant: Grant) -> dict[str, object]:
    """Return a grant as the audit tells it."""
    place = {"group": grant.scope.group, "node": grant.scope.node}
    return {"role": grant.role, **place, "starts": grant.starts, "ends": grant.ends}
