"""The way in: from a password with a code, a passkey, a session's cookie or a program's token to a caller."""

import asyncio
import secrets as randomness
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Any

from contract.clock import Clock
from hub.audit import Act, Person
from hub.people import passkeys, passwords, totp
from hub.people.caller import Caller, Visitor
from hub.people.lifetimes import SEEN_EVERY_MS, alive
from hub.people.passkeys import Challenges, PasskeyRefused, Site
from hub.people.sealing import Seal
from hub.people.secrets import MOST, TOKEN_PREFIX, digest, new_secret
from hub.people.shell_pass import RIGHTS, bearer
from hub.people.throttle import Lane, Throttle, lanes
from hub.rights.permissions import Grant, Holder, Narrowing, Role
from hub.rights.scopes import PROVINCE
from hub.storage.accounts import Account, AccountStore
from hub.storage.credentials import Credentials, CredentialStore
from hub.storage.sessions import Session, SessionStore

HASHES_AT_ONCE = 2
"""Each takes 64 MiB and a core for a while."""

SHELL = "shell"
"""Who acts by the commands on the hub's own machine."""

SIGN_IN = "sign in"
_NOBODYS_SECRET = "A" * 32


class SignInRefused(Exception):
    """Wrong, whatever of it was wrong; the words are the same for everybody."""

    def __init__(self, text: str = "name, password or code is wrong") -> None:
        super().__init__(text)


class TooOften(SignInRefused):
    """Too many attempts; the next is free after `seconds`."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"too many attempts; try again in {seconds:.0f} s")
        self.seconds = seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedIn:
    """A new session: what goes into its cookie, and the mark by which this browser is known from now on."""

    account: Account
    secret: str
    mark: str


class Entrance:
    """Decides who comes in; nothing here says which part of an attempt was wrong."""

    def __init__(
        self,
        *,
        accounts: AccountStore,
        credentials: CredentialStore,
        sessions: SessionStore,
        seal: Seal,
        clock: Clock,
    ) -> None:
        self._accounts = accounts
        self._credentials = credentials
        self._sessions = sessions
        self._seal = seal
        self._clock = clock
        self._throttle = Throttle()
        self._hashing = asyncio.Semaphore(HASHES_AT_ONCE)
        self.challenges = Challenges()

    async def by_password(
        self, name: str, password: str, code: str, visitor: Visitor, *, instead_of: str = ""
    ) -> SignedIn:
        """Sign somebody in; raise SignInRefused or TooOften. `instead_of`: a session's secret that ends with this."""
        typed = name.strip().lower()[:MOST]
        asked = lanes(address=_place(visitor.address), name=typed, familiar=self._familiar(typed, visitor.mark))
        self._take(asked)
        found = self._credentials.of_name(typed)
        async with self._hashing:
            right = await asyncio.to_thread(passwords.matches, found.password if found else None, password)
        step = self._step(found, code)
        if found is None or not right or found.disabled or step is None:
            raise SignInRefused
        if not self._credentials.use_step(found.account, step):
            raise SignInRefused
        self._throttle.give_back(asked, self._clock.monotonic())
        if found.password is not None and passwords.outdated(found.password):
            async with self._hashing:
                self._credentials.set_password(found.account, await asyncio.to_thread(passwords.hashed, password))
        return self._start(found.account, visitor, "password", instead_of)

    def passkey_question(self, site: Site) -> str:
        """Return what a browser is asked to sign in with any of its passkeys for this site."""
        return passkeys.question_to_prove(site, self.challenges.new(SIGN_IN, self._clock.now_ms()))

    def by_passkey(self, site: Site, answer: dict[str, Any], visitor: Visitor, *, instead_of: str = "") -> SignedIn:
        """Sign somebody in; raise SignInRefused or TooOften."""
        asked = lanes(address=_place(visitor.address), name=None, familiar=None)
        self._take(asked)
        now = self._clock.now_ms()
        try:
            challenge = self.challenges.take(answer, SIGN_IN, now)
            kept = self._credentials.passkey(passkeys.passkey_of(answer))
            if kept is None or kept.site != site.name:
                raise SignInRefused
            uses = passkeys.proven(site, challenge, answer, public_key=kept.public_key, uses=kept.uses)
        except PasskeyRefused as exc:
            raise SignInRefused from exc
        account = self._accounts.get(kept.account)
        if account is None or account.disabled_at is not None:
            raise SignInRefused
        self._credentials.used(kept.id, uses=uses, at=now)
        self._throttle.give_back(asked, self._clock.monotonic())
        return self._start(kept.account, visitor, "passkey", instead_of)

    def start(self, account: str, visitor: Visitor) -> SignedIn:
        """Sign in somebody who has just set up how they sign in."""
        return self._start(account, visitor, "set_up", "")

    def caller(self, secret: str, address: str, *, used: bool = True) -> Caller | None:
        """Return who a session's cookie belongs to, None if it is over; keeps that it was used."""
        if not secret or len(secret) > MOST:
            return None
        now = self._clock.now_ms()
        session = self._sessions.session(digest(secret))
        if session is None:
            return None
        account = self._accounts.get(session.account)
        living = alive(created_at=session.created_at, seen_at=session.seen_at, now=now)
        if account is None or account.disabled_at is not None or not living:
            self._sessions.end(session.digest)
            return None
        if used and now - session.seen_at >= SEEN_EVERY_MS:
            self._sessions.seen(session.digest, now)
        held = self._accounts.held(account.id, now=now)
        holder = Holder(account=account.id, grants=held, proven_at=session.proven_at)
        return Caller(account=account, holder=holder, now=now, address=address, session=session, secret=secret)

    def program(self, text: str, address: str) -> Caller | None:
        """Return whose token a text is, None if it is none or no longer one."""
        if not text.startswith(TOKEN_PREFIX) or len(text) > MOST:
            return None
        now = self._clock.now_ms()
        token = self._sessions.token(digest(text), now=now)
        account = self._accounts.get(token.account) if token else None
        if token is None or account is None or account.disabled_at is not None:
            return None
        if token.used_at is None or now - token.used_at >= SEEN_EVERY_MS:
            self._sessions.token_used(token.digest, now)
        holder = Holder(
            account=account.id,
            grants=self._accounts.held(account.id, now=now),
            narrowing=Narrowing(rights=token.rights, scope=token.scope),
        )
        return Caller(account=account, holder=holder, now=now, address=address, token=token)

    def shell(self, text: str, address: str) -> Caller | None:
        """Return who runs a command on the hub's own machine, None if the pass is none. The caller asks where from."""
        now = self._clock.now_ms()
        who = bearer(self._seal, text, now) if len(text) <= 4 * MOST else None
        if who is None:
            return None
        account = Account(
            id=SHELL,
            name=SHELL,
            full_name=who,
            home=PROVINCE,
            created_at=now,
            disabled_at=None,
            revision=0,
            has_password=False,
            has_totp=False,
        )
        holder = Holder(
            account=SHELL,
            grants=(Grant(role=Role.TECHNICIAN, scope=PROVINCE),),
            narrowing=Narrowing(rights=RIGHTS, scope=PROVINCE),
        )
        return Caller(account=account, holder=holder, now=now, address=address)

    def sign_out(self, caller: Caller) -> None:
        """End a caller's own session."""
        if caller.session is not None:
            act = Act(at=self._clock.now_ms(), by=caller.by, what="session.end", subject=caller.session.id)
            self._sessions.end(caller.session.digest, act)

    def form_token(self, secret: str) -> str:
        """Return what a session's forms must bring back."""
        return self._seal.mark("form", secret)

    def _start(self, account: str, visitor: Visitor, way: str, instead_of: str) -> SignedIn:
        found = self._accounts.get(account)
        assert found is not None  # noqa: S101  # its credentials were just read
        if instead_of:
            self._sessions.end(digest(instead_of))
        now, secret = self._clock.now_ms(), new_secret()
        session = Session(
            digest=digest(secret),
            account=account,
            created_at=now,
            seen_at=now,
            proven_at=now,
            address=visitor.address,
            agent=visitor.agent[:MOST],
        )
        by = Person(account=account, name=found.full_name, address=visitor.address)
        self._sessions.start(session, Act(at=now, by=by, what="session.start", subject=session.id, after={"way": way}))
        return SignedIn(account=found, secret=secret, mark=self._mark(found.name))

    def _take(self, asked: list[Lane]) -> None:
        seconds = self._throttle.take(asked, self._clock.monotonic())
        if seconds:
            raise TooOften(seconds)

    def _step(self, found: Credentials | None, code: str) -> int | None:
        """Return the step of a right code that was not taken before; as much work where there is nobody."""
        known = found is not None and found.totp is not None
        secret = self._seal.open(found.totp, about=found.account) if found and found.totp else _NOBODYS_SECRET
        step = totp.matched_step(secret, code[:MOST], self._clock.now_ms())
        if not known or found is None or step is None or step <= found.totp_step:
            return None
        return step

    def _mark(self, name: str) -> str:
        nonce = randomness.token_hex(8)
        return f"{nonce}.{self._seal.mark('browser', f'{nonce} {name}')}"

    def _familiar(self, name: str, mark: str) -> str | None:
        nonce, _, rest = mark.partition(".")
        genuine = self._seal.mark("browser", f"{nonce} {name}")
        return nonce if randomness.compare_digest(genuine.encode(), rest.encode()) else None


def _place(address: str) -> str:
    """Return what counts as one address: of IPv6 the network a household is given."""
    try:
        found = ip_address(address)
    except ValueError:
        return address
    if isinstance(found, IPv6Address) and found.ipv4_mapped is None:
        return found.exploded[:19]
    return str(found)
