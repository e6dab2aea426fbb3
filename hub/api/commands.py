"""Commands: asking a device to do something at once, and how far that has come."""

from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel

from contract.actions import Action
from hub.api.problems import RESPONSES, ProblemRaised
from hub.commands import CommandRefused
from hub.doors import Asked, may, of_device
from hub.given import Given, Hub
from hub.people.caller import Caller
from hub.rights.permissions import Noun, Verb
from hub.storage.commands import Kept

router = APIRouter(prefix="/api/devices", tags=["commands"], responses=RESPONSES)

ASKS_NOW = Annotated[Asked, Depends(may(Noun.COMMAND, Verb.ASK_NOW, of_device))]
SEES_COMMANDS = Annotated[Asked, Depends(may(Noun.COMMAND, Verb.SEE, of_device))]


class CommandIn(BaseModel):
    """What to ask for."""

    action: Action


class CommandOut(BaseModel):
    """A command: who (an account), how far it has come, why, since when, how often sent, until when (ms)."""

    id: str
    action: Action
    issuer: str
    issued_at: int
    expires_at: int
    stage: str
    reason: str
    since: int
    sendings: int


class CommandsOut(BaseModel):
    """The newest commands of a device, newest first."""

    commands: list[CommandOut]


@router.post("/{id}/commands", status_code=202)
async def ask(id: str, body: CommandIn, hub: Given, asked: ASKS_NOW) -> CommandOut:  # noqa: A002  # the path's word
    """Ask a device to do something at once; answers as soon as it is kept and on its way."""
    return _out(asked_of(hub, id, body.action, asked.caller))


@router.get("/{id}/commands")
async def commands(id: str, hub: Given, asked: SEES_COMMANDS) -> CommandsOut:  # noqa: A002  # the path's word
    """List the newest commands of a device."""
    one = hub.live.device(id)
    return CommandsOut(commands=[_out(kept) for kept in hub.commands.of(one.key, 50)] if one is not None else [])


def asked_of(hub: Hub, wanted: str, action: Action, caller: Caller) -> Kept:
    """Have a device of ours asked; raise a problem where that cannot be."""
    one = hub.live.device(wanted)
    if one is None:
        raise ProblemRaised(404, f"there is no device {wanted[:40]!r}; /api/devices lists all")
    if one.foreign or hub.places.of(one.key.of_node) is None:
        raise ProblemRaised(409, f"{wanted[:40]!r} is equipment of others: it knows no commands", code="foreign")
    try:
        return hub.commands.ask(one.key, one.kind, action, caller.by)
    except CommandRefused as exc:
        raise ProblemRaised(409, str(exc), code=exc.code) from exc


def _out(kept: Kept) -> CommandOut:
    return CommandOut(
        id=kept.id,
        action=kept.action,
        issuer=kept.issuer,
        issued_at=kept.issued_at,
        expires_at=kept.expires_at,
        stage=kept.stage,
        reason=kept.reason,
        since=kept.since,
        sendings=kept.sendings,
    )
