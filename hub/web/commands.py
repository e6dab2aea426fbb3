"""What was asked of a device, on its page: the newest commands, how far each has come, and a button for who may ask."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse, RedirectResponse

from contract.actions import ACTIONS, Action, offered
from contract.commands import FINAL, Stage
from hub.api.commands import ASKS_NOW, asked_of
from hub.api.problems import ProblemRaised
from hub.given import Given, Hub
from hub.live_state import LiveDevice
from hub.storage.commands import Kept
from hub.web.i18n import Words
from hub.web.render import Sight, of_our_form
from hub.web.views import CAUSE_WORDS, N_, STAGE_WORDS

router = APIRouter(include_in_schema=False, tags=["pages"], dependencies=[Depends(of_our_form)])

SHOWN = 5
WORDS = {
    **STAGE_WORDS,
    Stage.FAILED: N_("could not be done"),
    Stage.EXPIRED: N_("expired, not done"),
}
"""What the stages are called where nothing is to be heard."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandView:
    """A command in the words of one language; `until` is "" once it has an end."""

    what: str
    who: str
    stage: Stage
    word: str
    reason: str
    since: str
    since_time: str
    sendings: int
    until: str


@router.post("/devices/{id}/ask-now")
async def ask_now(request: Request, id: str, hub: Given, asked: ASKS_NOW) -> Any:  # noqa: A002  # the path's word
    """Have a device read at once, and go back to its page; pressed twice, it is asked once."""
    try:
        asked_of(hub, id, Action.ASK_NOW, asked.caller)
    except ProblemRaised as exc:
        if exc.code != "under_way":
            raise
    if request.headers.get("hx-request"):
        return HTMLResponse("", status_code=204)
    return RedirectResponse(f"/devices/{id}", status_code=303)


def shown(hub: Hub, said: Words, sees: Sight, one: LiveDevice) -> dict[str, Any]:
    """Return what the page of a device tells of its commands; `commands` is None for who may not see them."""
    ours = not one.foreign and hub.places.of(one.key.of_node) is not None
    if not ours or not sees.commands.sees(one.key):
        return {"commands": None, "may_ask_now": False, "ask_now": ""}
    kept = hub.commands.of(one.key, SHOWN)
    names = {account: hub.reception.accounts.get(account) for account in {each.issuer for each in kept}}
    who = {account: found.full_name if found is not None else account for account, found in names.items()}
    now = hub.clock.now_ms()
    return {
        "commands": commands(kept, who, said, now),
        "may_ask_now": sees.ask_now.sees(one.key) and Action.ASK_NOW in offered(one.kind),
        "ask_now": _called(Action.ASK_NOW, said),
    }


def commands(kept: Sequence[Kept], who: dict[str, str], words: Words, now: int) -> list[CommandView]:
    """Return the views of commands; `who` are the names of accounts."""
    return [_view(one, who[one.issuer], words, now) for one in kept]


def _view(one: Kept, who: str, words: Words, now: int) -> CommandView:
    _ = words._
    return CommandView(
        what=_called(one.action, words),
        who=who,
        stage=one.stage,
        word=_(WORDS[one.stage]),
        reason=_(CAUSE_WORDS.get(one.reason, one.reason)) if one.reason else "",
        since=words.ago(one.since, now),
        since_time=words.time(one.since),
        sendings=one.sendings,
        until="" if one.stage in FINAL else words.time(one.expires_at),
    )


def _called(action: Action, words: Words) -> str:
    offer = ACTIONS[action]
    return offer.label_vi if words.language == "vi" else offer.label_en
