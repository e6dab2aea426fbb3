"""Looking after other people's accounts: making them, giving and ending roles, deputies. Each rule is checked here."""

from contract.clock import Clock
from hub.audit import Act
from hub.people.caller import Caller
from hub.people.lifetimes import LONGEST_DEPUTY_MS
from hub.people.set_up import SetUpRefused, good_name, told_grant
from hub.rights.permissions import Grant, Noun, Role, Verb, may_be_held
from hub.rights.scopes import Scope
from hub.storage.accounts import Account, AccountStore, Given
from hub.storage.sessions import SessionStore


class PeopleRefused(ValueError):
    """A change of accounts or grants that must not be; `code` says why in a word."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class Administration:
    """Accounts and grants, as their administrators change them. Rights were asked before; the rules beyond are here.

    Nobody changes what they hold themselves, nobody touches an account that reaches further than they do, and somebody
    always remains who administers the province.
    """

    def __init__(self, *, accounts: AccountStore, sessions: SessionStore, clock: Clock) -> None:
        self._accounts = accounts
        self._sessions = sessions
        self._clock = clock

    def seen_by(self, caller: Caller) -> list[Account]:
        """Return the accounts whose home a caller looks after."""
        over = caller.reach(Noun.ACCOUNT, Verb.SEE)
        return [one for one in self._accounts.all() if over.covers(one.home)]

    def make(self, caller: Caller, *, name: str, full_name: str, home: Scope) -> Account:
        """Keep a new account without roles; raise PeopleRefused or NameTaken."""
        name, full_name = name.strip().lower(), " ".join(full_name.split())
        try:
            good_name(name, full_name)
        except SetUpRefused as exc:
            raise PeopleRefused(exc.code, str(exc)) from exc
        told = {"name": name, "full_name": full_name, "group": home.group, "node": home.node}
        act = Act(at=self._now, by=caller.by, what="account.make", subject=name, after=told)
        return self._accounts.add(name=name, full_name=full_name, home=home, at=self._now, act=act)

    def change(self, caller: Caller, account: Account, *, revision: int, full_name: str, disabled: bool) -> None:
        """Rename or disable an account, signed out everywhere then; raise PeopleRefused or ChangedMeanwhile."""
        self.may_touch(caller, account)
        full_name = " ".join(full_name.split())
        try:
            good_name(account.name, full_name)
        except SetUpRefused as exc:
            raise PeopleRefused(exc.code, str(exc)) from exc
        if disabled:
            self._somebody_remains(account.id)
        disabled_at = (account.disabled_at or self._now) if disabled else None
        act = Act(
            at=self._now,
            by=caller.by,
            what="account.change",
            subject=account.id,
            before={"full_name": account.full_name, "disabled": account.disabled_at is not None},
            after={"full_name": full_name, "disabled": disabled},
        )
        self._accounts.change(account.id, revision=revision, full_name=full_name, disabled_at=disabled_at, act=act)
        if disabled:
            self._sessions.end_all(account.id, tokens=True)

    def give(self, caller: Caller, account: Account, grant: Grant, *, revision: int) -> None:
        """Give an account a role; raise PeopleRefused or ChangedMeanwhile."""
        self.may_touch(caller, account)
        if not may_be_held(grant.role, grant.scope):
            raise PeopleRefused("scope_too_wide", f"{grant.role} cannot be held over a whole {grant.scope.level}")
        if not caller.reach(Noun.GRANT, Verb.CHANGE).covers(grant.scope):
            raise PeopleRefused("beyond", "that place is not yours to give roles over")
        self._dates(grant)
        act = Act(at=self._now, by=caller.by, what="grant.make", subject=account.id, after=told_grant(grant))
        self._accounts.give(account.id, grant, by=caller.account.id, at=self._now, act=act, revision=revision)

    def end(self, caller: Caller, account: Account, given: Given, *, revision: int) -> None:
        """End a role now; raise PeopleRefused or ChangedMeanwhile."""
        self.may_touch(caller, account)
        if given.grant.role is Role.ADMINISTRATOR and not given.grant.scope.group:
            self._somebody_remains(account.id)
        act = Act(at=self._now, by=caller.by, what="grant.end", subject=account.id, before=told_grant(given.grant))
        self._accounts.end(given, at=self._now, act=act, revision=revision)

    def sign_out(self, caller: Caller, account: Account) -> None:
        """End an account's sessions and tokens; no rule beyond the right: it can do no harm but a nuisance."""
        act = Act(at=self._now, by=caller.by, what="session.revoke", subject=account.id)
        self._sessions.end_all(account.id, tokens=True, act=act)

    def delegate(self, caller: Caller, given: Given, deputy: Account | None, *, starts: int, ends: int) -> None:
        """Let somebody act in the caller's stead between two instants (ms); raise PeopleRefused."""
        own = given.account == caller.account.id and given.deputy_of is None and given.grant.holds(self._now)
        if not own or not caller.reach(Noun.GRANT, Verb.DELEGATE).covers(given.grant.scope):
            raise PeopleRefused("not_yours", "this role is not yours to pass on")
        if deputy is None or deputy.disabled_at is not None or deputy.id == caller.account.id:
            raise PeopleRefused("no_such_person", "there is nobody of this name who could stand in for you")
        if not starts < ends or ends <= self._now:
            raise PeopleRefused("dates", "the end must lie after the beginning, and not in the past")
        if ends - starts > LONGEST_DEPUTY_MS:
            raise PeopleRefused("dates_long", "nobody stands in for longer than three months at a time")
        grant = Grant(role=given.grant.role, scope=given.grant.scope, starts=starts, ends=ends)
        act = Act(at=self._now, by=caller.by, what="grant.delegate", subject=deputy.id, after=told_grant(grant))
        me = caller.account.id
        self._accounts.give(deputy.id, grant, by=me, at=self._now, act=act, deputy_of=me)

    def recall(self, caller: Caller, given: Given) -> None:
        """End a deputy's grant; raise PeopleRefused unless it is in the caller's stead."""
        if given.deputy_of != caller.account.id:
            raise PeopleRefused("not_yours", "this deputy is not yours")
        act = Act(at=self._now, by=caller.by, what="grant.end", subject=given.account, before=told_grant(given.grant))
        self._accounts.end(given, at=self._now, act=act)

    def may_touch(self, caller: Caller, account: Account) -> None:
        """Raise PeopleRefused if an account is the caller's own, or holds anything beyond the caller's reach."""
        if account.id == caller.account.id:
            raise PeopleRefused("yourself", "nobody changes what they hold themselves; ask another administrator")
        over = caller.reach(Noun.GRANT, Verb.CHANGE)
        beyond = [one for one in self._accounts.grants(account.id, now=self._now) if not over.covers(one.grant.scope)]
        if beyond or not over.covers(account.home):
            raise PeopleRefused(
                "beyond", "this account holds more than you look after; ask the province's administrator"
            )

    def _somebody_remains(self, leaving: str) -> None:
        administrators = self._accounts.administrators(now=self._now)
        if leaving in administrators and len(administrators) == 1:
            raise PeopleRefused(
                "last_administrator", "this is the last administrator of the province; make another first"
            )

    def _dates(self, grant: Grant) -> None:
        if grant.ends is not None and (grant.ends <= self._now or grant.ends <= (grant.starts or 0)):
            raise PeopleRefused("dates", "the end must lie after the beginning, and not in the past")

    @property
    def _now(self) -> int:
        return self._clock.now_ms()
