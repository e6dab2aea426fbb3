"""Who a request comes from: an account by its session or token, with what it may do now."""

from dataclasses import dataclass

from hub.audit import Person
from hub.rights.permissions import Holder, Noun, Verb, fresh, reach
from hub.rights.scopes import Reach
from hub.storage.accounts import Account
from hub.storage.sessions import Session, Token


@dataclass(frozen=True, slots=True, kw_only=True)
class Visitor:
    """Where a request comes from: its address, what its browser calls itself, and the mark of an earlier sign-in."""

    address: str
    agent: str = ""
    mark: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Somebody known, at an instant (`now`, ms). `secret` is the session's own, for its forms; "" for programs."""

    account: Account
    holder: Holder
    now: int
    address: str
    session: Session | None = None
    token: Token | None = None
    secret: str = ""

    @property
    def by(self) -> Person:
        """Return who acts, for the audit."""
        return Person(account=self.account.id, name=self.account.full_name, address=self.address)

    @property
    def fresh(self) -> bool:
        """Return whether the last full sign-in is so near that it counts as step-up."""
        return fresh(self.holder, self.now)

    def reach(self, noun: Noun, verb: Verb) -> Reach:
        """Return where this caller has a right."""
        return reach(self.holder, noun, verb, self.now)
