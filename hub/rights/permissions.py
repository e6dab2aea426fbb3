"""The table of permissions, noun by verb by role by scope, and the one question about it. Pure.

A role is held over a scope, for as long as its grant says. A right is a cell of the table: whoever holds one of its
roles has it wherever the role's scope covers the thing's place. What is not in the table nobody may do.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from hub.rights.scopes import Level, Reach, Scope


class Role(StrEnum):
    """What somebody is here for."""

    OPERATOR = "operator"
    APPROVER = "approver"
    DUTY_OFFICER = "duty_officer"
    POLICE = "police"
    TECHNICIAN = "technician"
    ENVIRONMENT_OFFICER = "environment_officer"
    VOLUNTEER = "volunteer"
    PROVINCE_SUPERVISOR = "province_supervisor"
    TESTER = "tester"
    ADMINISTRATOR = "administrator"


class Noun(StrEnum):
    """What is done something to."""

    DEVICE = "device"
    HISTORY = "history"
    PICTURE = "picture"
    EDGE_NODE = "edge_node"
    COMMAND = "command"
    ANNOUNCEMENT = "announcement"
    AUDIO = "audio"
    STATISTICS = "statistics"
    METRICS = "metrics"
    REPORT = "report"
    QUARANTINE = "quarantine"
    BACKUP = "backup"
    AUDIT = "audit"
    ACCOUNT = "account"
    GRANT = "grant"
    SESSION = "session"
    OWN_ACCOUNT = "own_account"
    PERMISSIONS = "permissions"


class Verb(StrEnum):
    """What is done."""

    SEE = "see"
    EXPORT = "export"
    HEAR = "hear"
    MAKE = "make"
    STOP = "stop"
    APPROVE = "approve"
    LIVE = "live"
    EMERGENCY = "emergency"
    ASK_NOW = "ask_now"
    REBIRTH = "rebirth"
    WRITE = "write"
    RETRY = "retry"
    CHANGE = "change"
    DELEGATE = "delegate"
    REVOKE = "revoke"
    ERASE = "erase"


@dataclass(frozen=True, slots=True)
class Right:
    """A cell of the table: who has it, and whether it wants a sign-in of the last minutes (step-up)."""

    roles: frozenset[Role]
    step_up: bool = False


Key = tuple[Noun, Verb]

_R = Role
_EVERYONE = frozenset(Role)
_SPEAKING = frozenset({_R.OPERATOR, _R.APPROVER, _R.DUTY_OFFICER})
_MENDING = frozenset({_R.TECHNICIAN, _R.ADMINISTRATOR})
_REPORTING = frozenset({_R.APPROVER, _R.POLICE, _R.TECHNICIAN, _R.ENVIRONMENT_OFFICER, _R.PROVINCE_SUPERVISOR})
_RULING = frozenset({_R.ADMINISTRATOR})
_WATCHING = frozenset({_R.ADMINISTRATOR, _R.PROVINCE_SUPERVISOR})

TABLE: Mapping[Key, Right] = {
    (Noun.DEVICE, Verb.SEE): Right(_EVERYONE),
    (Noun.HISTORY, Verb.SEE): Right(_EVERYONE - {_R.VOLUNTEER}),
    (Noun.HISTORY, Verb.EXPORT): Right(_WATCHING | {_R.TECHNICIAN, _R.ENVIRONMENT_OFFICER}),
    (Noun.PICTURE, Verb.SEE): Right(frozenset({_R.POLICE}), step_up=True),
    (Noun.EDGE_NODE, Verb.SEE): Right(_EVERYONE - {_R.VOLUNTEER}),
    (Noun.EDGE_NODE, Verb.REBIRTH): Right(_MENDING | {_R.TESTER}),
    (Noun.EDGE_NODE, Verb.WRITE): Right(_MENDING),
    (Noun.COMMAND, Verb.SEE): Right(_MENDING | {_R.TESTER, _R.PROVINCE_SUPERVISOR}),
    (Noun.COMMAND, Verb.ASK_NOW): Right(_MENDING),
    (Noun.ANNOUNCEMENT, Verb.SEE): Right(_EVERYONE),
    (Noun.ANNOUNCEMENT, Verb.MAKE): Right(frozenset({_R.OPERATOR, _R.DUTY_OFFICER})),
    # Silence harms least: whoever may be asked to end a mistake can.
    (Noun.ANNOUNCEMENT, Verb.STOP): Right(_SPEAKING | _MENDING),
    (Noun.ANNOUNCEMENT, Verb.APPROVE): Right(frozenset({_R.APPROVER}), step_up=True),
    (Noun.ANNOUNCEMENT, Verb.LIVE): Right(_SPEAKING, step_up=True),
    (Noun.ANNOUNCEMENT, Verb.EMERGENCY): Right(frozenset({_R.DUTY_OFFICER, _R.APPROVER}), step_up=True),
    (Noun.AUDIO, Verb.HEAR): Right(_EVERYONE - {_R.POLICE, _R.ENVIRONMENT_OFFICER}),
    (Noun.STATISTICS, Verb.SEE): Right(_WATCHING | {_R.TECHNICIAN, _R.TESTER}),
    (Noun.METRICS, Verb.SEE): Right(_MENDING),
    (Noun.REPORT, Verb.SEE): Right(_REPORTING | _RULING),
    (Noun.REPORT, Verb.EXPORT): Right(_REPORTING | _RULING),
    (Noun.QUARANTINE, Verb.SEE): Right(_MENDING),
    (Noun.QUARANTINE, Verb.RETRY): Right(_MENDING),
    (Noun.BACKUP, Verb.MAKE): Right(_RULING),
    (Noun.AUDIT, Verb.SEE): Right(_WATCHING),
    (Noun.AUDIT, Verb.EXPORT): Right(_WATCHING),
    (Noun.AUDIT, Verb.ERASE): Right(_RULING, step_up=True),
    (Noun.ACCOUNT, Verb.SEE): Right(_RULING),
    (Noun.ACCOUNT, Verb.CHANGE): Right(_RULING, step_up=True),
    (Noun.GRANT, Verb.CHANGE): Right(_RULING, step_up=True),
    (Noun.GRANT, Verb.DELEGATE): Right(frozenset({_R.APPROVER, _R.DUTY_OFFICER}), step_up=True),
    (Noun.SESSION, Verb.REVOKE): Right(_RULING),
    (Noun.OWN_ACCOUNT, Verb.SEE): Right(_EVERYONE),
    (Noun.OWN_ACCOUNT, Verb.CHANGE): Right(_EVERYONE, step_up=True),
    (Noun.OWN_ACCOUNT, Verb.REVOKE): Right(_EVERYONE),
    (Noun.PERMISSIONS, Verb.SEE): Right(_EVERYONE),
}
"""Everything anybody may do."""

PERSONAL = frozenset({Noun.OWN_ACCOUNT, Noun.PERMISSIONS})
"""What belongs to whoever is signed in, wherever they work, and also before they were given a role."""

LEVELS: Mapping[Role, frozenset[Level]] = {
    **{role: frozenset(Level) for role in Role},
    _R.APPROVER: frozenset({Level.PROVINCE, Level.COMMUNE}),
    _R.DUTY_OFFICER: frozenset({Level.PROVINCE, Level.COMMUNE}),
    _R.VOLUNTEER: frozenset({Level.HAMLET}),
    _R.PROVINCE_SUPERVISOR: frozenset({Level.PROVINCE}),
    _R.ADMINISTRATOR: frozenset({Level.PROVINCE, Level.COMMUNE}),
}
"""Over how wide a scope each role can be held."""

STEP_UP_MS = 5 * 60_000
"""For how long a sign-in counts as proof that the holder is still there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """A role over a scope, from `starts` (ms, inclusive) until `ends` (ms, exclusive), None for without limit."""

    role: Role
    scope: Scope
    starts: int | None = None
    ends: int | None = None

    def holds(self, now: int) -> bool:
        """Return whether it counts at an instant (ms)."""
        return (self.starts is None or self.starts <= now) and (self.ends is None or now < self.ends)


@dataclass(frozen=True, slots=True, kw_only=True)
class Narrowing:
    """What a token may at most do: some rights, in one place."""

    rights: frozenset[Key]
    scope: Scope


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who asks, as far as rights go; `proven_at` (ms) is their last full sign-in here, None for a program's token."""

    account: str
    grants: tuple[Grant, ...]
    proven_at: int | None = None
    narrowing: Narrowing | None = None


class Reason(StrEnum):
    """Why something is refused."""

    NOT_SIGNED_IN = "not_signed_in"
    NO_RIGHT = "no_right"
    OUT_OF_SCOPE = "out_of_scope"
    STEP_UP = "step_up"


@dataclass(frozen=True, slots=True)
class Allowed:
    """Yes."""


@dataclass(frozen=True, slots=True)
class Refused:
    """No, and why."""

    reason: Reason


YES = Allowed()


def reach(holder: Holder | None, noun: Noun, verb: Verb, now: int) -> Reach:
    """Return where somebody has a right at an instant (ms); step-up is not asked here."""
    right = TABLE.get((noun, verb))
    if holder is None or right is None:
        return Reach()
    narrowing = holder.narrowing
    if narrowing is not None and (noun, verb) not in narrowing.rights:
        return Reach()
    if noun in PERSONAL:
        held = [Scope()]
    else:
        held = [one.scope for one in holder.grants if one.role in right.roles and one.holds(now)]
    if narrowing is None:
        return Reach.over(held)
    asked = narrowing.scope
    return Reach.over(asked if one.covers(asked) else one for one in held if one.covers(asked) or asked.covers(one))


def allowed(holder: Holder | None, noun: Noun, verb: Verb, place: Scope, now: int) -> Allowed | Refused:
    """Return whether somebody may do something to a thing at a place, at an instant (ms); total, and no by default."""
    if holder is None:
        return Refused(Reason.NOT_SIGNED_IN)
    over = reach(holder, noun, verb, now)
    if not over:
        return Refused(Reason.NO_RIGHT)
    if not over.covers(place):
        return Refused(Reason.OUT_OF_SCOPE)
    if TABLE[noun, verb].step_up and not fresh(holder, now):
        return Refused(Reason.STEP_UP)
    return YES


def fresh(holder: Holder, now: int) -> bool:
    """Return whether somebody signed in so lately that it counts as step-up; a token never does."""
    return holder.proven_at is not None and 0 <= now - holder.proven_at < STEP_UP_MS


def may_be_held(role: Role, scope: Scope) -> bool:
    """Return whether a role can be held over so wide a scope."""
    return scope.level in LEVELS[role]
