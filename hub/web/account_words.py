"""The words of roles, rights and refusals, and the names of places, for the pages about people."""

from collections.abc import Sequence

from hub.devices import NodeKey
from hub.places import Places
from hub.rights.permissions import Noun, Reason, Role, Verb
from hub.rights.scopes import Level, Scope
from hub.web.i18n import Words
from hub.web.views import N_

ROLES = {
    Role.OPERATOR: N_("Operator"),
    Role.APPROVER: N_("Approver"),
    Role.DUTY_OFFICER: N_("Duty officer"),
    Role.POLICE: N_("Police"),
    Role.TECHNICIAN: N_("Technician"),
    Role.ENVIRONMENT_OFFICER: N_("Environment officer"),
    Role.VOLUNTEER: N_("Volunteer"),
    Role.PROVINCE_SUPERVISOR: N_("Province supervisor"),
    Role.TESTER: N_("Tester"),
    Role.ADMINISTRATOR: N_("Administrator"),
}
NOUNS = {
    Noun.DEVICE: N_("equipment"),
    Noun.HISTORY: N_("history of values"),
    Noun.PICTURE: N_("camera picture"),
    Noun.EDGE_NODE: N_("edge node"),
    Noun.COMMAND: N_("command"),
    Noun.ANNOUNCEMENT: N_("announcement"),
    Noun.AUDIO: N_("sound of an announcement"),
    Noun.STATISTICS: N_("statistics"),
    Noun.METRICS: N_("the hub's counters"),
    Noun.REPORT: N_("report"),
    Noun.QUARANTINE: N_("quarantine"),
    Noun.BACKUP: N_("backup"),
    Noun.AUDIT: N_("record of acts"),
    Noun.ACCOUNT: N_("account"),
    Noun.GRANT: N_("role of a person"),
    Noun.SESSION: N_("other people's sign-ins"),
    Noun.OWN_ACCOUNT: N_("own account"),
    Noun.PERMISSIONS: N_("this table"),
}
VERBS = {
    Verb.SEE: N_("see"),
    Verb.EXPORT: N_("export"),
    Verb.HEAR: N_("listen to"),
    Verb.MAKE: N_("make"),
    Verb.STOP: N_("stop"),
    Verb.APPROVE: N_("approve"),
    Verb.LIVE: N_("speak live"),
    Verb.EMERGENCY: N_("release an emergency"),
    Verb.ASK_NOW: N_("have equipment read at once by"),
    Verb.REBIRTH: N_("ask to report anew"),
    Verb.WRITE: N_("write to foreign equipment"),
    Verb.RETRY: N_("try again"),
    Verb.CHANGE: N_("change"),
    Verb.DELEGATE: N_("pass on to a deputy"),
    Verb.REVOKE: N_("end"),
    Verb.ERASE: N_("erase personal details of"),
}
LEVELS = {
    Level.PROVINCE: N_("province"),
    Level.COMMUNE: N_("commune"),
    Level.HAMLET: N_("hamlet"),
}
TURNED = {
    Reason.NOT_SIGNED_IN: N_("You are no longer signed in. Open the sign-in page in another tab, then try again here."),
    Reason.NO_RIGHT: N_("None of your roles may do that."),
    Reason.OUT_OF_SCOPE: N_("That reaches beyond the places you work for."),
    Reason.STEP_UP: N_("That wants a fresh sign-in. Confirm it is you, then try again here."),
}
REFUSALS = {
    "wrong": N_("Name, password or code is wrong."),
    "too_often": N_("Too many attempts. Wait a little and try again."),
    "password_short": N_("The password needs at least 12 characters."),
    "password_long": N_("The password has at most 128 characters."),
    "password_known": N_(
        "This password is known from breaches or easily guessed. Take another, for example four words."
    ),
    "wrong_code": N_("The code is wrong. Wait for the next one and type that."),
    "link_over": N_("This link was used or has expired. Ask for a new one."),
    "name_form": N_("The name must be 2 to 32 of a-z, 0-9, dot, dash and underscore."),
    "full_name_form": N_("The full name must be 1 to 80 characters."),
    "name_taken": N_("Somebody has this name already."),
    "scope_too_wide": N_("This role cannot be held over so wide or narrow a place."),
    "yourself": N_("Nobody changes what they hold themselves. Ask another administrator."),
    "beyond": N_("This account holds more than you look after. Ask the province's administrator."),
    "last_administrator": N_("This is the last administrator of the province. Make another first."),
    "changed_meanwhile": N_("Somebody else changed this meanwhile. Below it stands as it is now."),
    "dates": N_("The end must lie after the beginning, and not in the past."),
    "dates_long": N_("Nobody stands in for longer than three months at a time."),
    "no_such_person": N_("There is nobody of this name who could stand in for you."),
    "not_yours": N_("This role is not yours to pass on."),
    "too_many": N_("There are too many. Remove one first."),
    "unknown_one": N_("It is gone already."),
    "label": N_("Say what the token is for."),
    "token_rights": N_("Choose rights that you have yourself."),
    "token_expiry": N_("A token lasts at most 366 days."),
    "passkey": N_("The passkey was not made. Try again."),
}


def scope_name(scope: Scope, places: Places, words: Words) -> str:
    """Return what people call a place."""
    _ = words._
    if not scope.group:
        return _("the whole province")
    if scope.node:
        place = places.of(NodeKey(scope.group, scope.node))
        return f"{place.hamlet}, {place.commune}" if place else f"{scope.node}, {scope.group}"
    for node in places.nodes:
        place = places.of(node)
        if node.group == scope.group and place is not None:
            return place.commune
    return scope.group


def scopes(places: Places) -> Sequence[Scope]:
    """Return every place that is configured, the widest first in each branch."""
    groups = sorted({node.group for node in places.nodes})
    hamlets = {group: sorted(node.node for node in places.nodes if node.group == group) for group in groups}
    return [
        Scope(),
        *(one for group in groups for one in (Scope(group), *(Scope(group, node) for node in hamlets[group]))),
    ]


def scope_value(scope: Scope) -> str:
    """Return a place as a form's value."""
    return f"{scope.group}/{scope.node}"


def scope_of(value: str) -> Scope:
    """Return the place of a form's value; raise ValueError."""
    group, _, node = value.partition("/")
    return Scope(group, node)
