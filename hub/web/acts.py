"""The record of acts as people read it: who did what to what, why, and what it was before. No I/O."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hub.audit import ERASE_ACT, ERASE_PERSON
from hub.storage.announcements import UNKNOWN_ORDER
from hub.storage.audit import Told
from hub.web.i18n import Words
from hub.web.views import N_

ACTS = {
    "announcement.make": N_("announced"),
    "announcement.stop": N_("stopped an announcement"),
    UNKNOWN_ORDER: N_("a box reported an order this hub does not know"),
    "history.export": N_("exported readings"),
    "report.export": N_("exported a report"),
    "command.ask_now": N_("asked for a device to be read at once"),
    "edge_node.rebirth": N_("asked an edge node to report anew"),
    "edge_node.write": N_("wrote to foreign equipment"),
    "quarantine.retry": N_("judged the quarantine again"),
    "hub.restore": N_("restored the hub from a backup"),
    "account.make": N_("made an account"),
    "account.change": N_("changed an account"),
    "account.recover": N_("let somebody set up sign-in anew"),
    "account.set_up": N_("set up sign-in"),
    "account.change_password": N_("changed the own password"),
    "account.change_codes": N_("changed the own codes"),
    "passkey.make": N_("added a passkey"),
    "passkey.end": N_("removed a passkey"),
    "token.make": N_("made a token for a program"),
    "token.end": N_("ended a token"),
    "grant.make": N_("gave a role"),
    "grant.end": N_("ended a role"),
    "grant.delegate": N_("passed a role on to a deputy"),
    "session.start": N_("signed in"),
    "session.end": N_("signed out"),
    "session.revoke": N_("ended a sign-in"),
    "audit.export": N_("exported the record of acts"),
    ERASE_PERSON: N_("erased a person's name and address"),
    ERASE_ACT: N_("erased the details of an act"),
}
"""What each verb of the record is called."""

FIELDS = {"why": N_("Why"), "before": N_("Before"), "after": N_("After")}
ERASED = {
    "name": N_("name"),
    "address": N_("address"),
    "why": N_("reason"),
    "before": N_("before"),
    "after": N_("after"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ActView:
    """One act; `account` and `what` are for the search by them, `erased` is a sentence, "" where nothing was."""

    number: int
    time: str
    who: str
    account: str
    address: str
    what: str
    did: str
    subject: str
    details: Sequence[tuple[str, str]]
    erased: str


def act(one: Told, words: Words) -> ActView:
    """Return the view of an act."""
    _ = words._
    gone = [_(ERASED[name]) for name in one.erased]
    return ActView(
        number=one.number,
        time=words.time(one.at),
        who=str(one.details.get("name") or one.account),
        account=one.account,
        address=str(one.details.get("address", "")),
        what=one.what,
        did=did(one.what, words),
        subject=one.subject,
        details=[(_(label), _text(one.details[name])) for name, label in FIELDS.items() if name in one.details],
        erased=_("Erased: %(what)s.") % {"what": ", ".join(gone)} if gone else "",
    )


def did(what: str, words: Words) -> str:
    """Return what a verb of the record is called, itself where it has no other name."""
    return words._(ACTS[what]) if what in ACTS else what


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        told = ((name, one) for name, one in value.items() if one is not None and one != "")
        return "; ".join(f"{name}: {_text(one)}" for name, one in told)
    return json.dumps(value, ensure_ascii=False)
