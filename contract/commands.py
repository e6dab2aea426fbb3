"""What a device may be asked to do at once, how that is written on the wire, and how far it has come. Pure.

Commands are not signed: whoever has rights on the broker can send one. They can therefore only ask for what harms
nobody (contract/actions.py), and nothing that sounds is among it.
"""

from enum import StrEnum
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from contract.strict_json import JsonRefused, loads


class Stage(StrEnum):
    """How far something asked for has come, in the order things happen; `accepted` on the edge node itself reported."""

    PENDING = "pending"
    SENT = "sent"
    ACCEPTED = "accepted"
    STARTED = "started"
    FINISHED = "finished"
    DONE = "done"
    STOPPED = "stopped"
    REFUSED = "refused"
    FAILED = "failed"
    EXPIRED = "expired"


FINAL = frozenset({Stage.FINISHED, Stage.DONE, Stage.STOPPED, Stage.REFUSED, Stage.FAILED, Stage.EXPIRED})

_RANK = {Stage.PENDING: 0, Stage.SENT: 1, Stage.ACCEPTED: 2, Stage.STARTED: 3}

MOST_BYTES = 4096

LONGEST = 15 * 60_000
"""Milliseconds from issue to expiry at most: a command is for now, and a journal need not remember it for ever."""

_Millis = Annotated[int, Field(ge=0, lt=1 << 53)]
_Id = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
_Shape = TypeVar("_Shape", bound="_Wire")


class CommandUnreadable(ValueError):
    """Text that is no command, or no outcome of one; the text says why."""


class _Wire(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class Command(_Wire):
    """Something to do, once, until `expires_at` (ms); `device` is "" for the edge node itself.

    The action is any word here: what an edge node does not know it refuses by name.
    """

    id: _Id
    action: Annotated[str, Field(min_length=1, max_length=40)]
    device: Annotated[str, Field(max_length=100)] = ""
    arguments: Annotated[dict[str, str], Field(max_length=8)] = Field(default_factory=dict)
    issued_at: _Millis
    expires_at: _Millis
    issuer: Annotated[str, Field(max_length=100)] = ""


class Outcome(_Wire):
    """What became of a command: a stage that the edge node itself reports, why, and when (ms)."""

    command: _Id
    stage: Annotated[Stage, Field(strict=False)]
    reason: Annotated[str, Field(max_length=300)] = ""
    at: _Millis


def written(one: Command | Outcome) -> str:
    """Return the JSON text."""
    return one.model_dump_json()


def read_command(raw: str) -> Command:
    """Return the command that a text is; raise CommandUnreadable."""
    return _read(Command, raw)


def read_outcome(raw: str) -> Outcome:
    """Return the outcome that a text is; raise CommandUnreadable."""
    return _read(Outcome, raw)


def settle(current: Stage, reported: Stage) -> Stage:
    """Return the stage after a report; one that would go backwards, or change a final stage, changes nothing."""
    if current in FINAL:
        return current
    if reported in FINAL or _RANK[reported] > _RANK[current]:
        return reported
    return current


def _read(shape: type[_Shape], raw: str) -> _Shape:
    try:
        return shape.model_validate(loads(raw, most_bytes=MOST_BYTES))
    except JsonRefused as exc:
        raise CommandUnreadable(f"no command: {exc}") from exc
    except ValidationError as exc:
        first = exc.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "it"
        raise CommandUnreadable(f"no command: {where}: {first['msg']}") from exc
