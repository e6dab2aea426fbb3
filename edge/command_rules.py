"""What to do about a command that came: obey, say again, refuse, or say nothing. Pure.

Nobody signed it, so nothing is believed of it but that it costs something to obey: what one can do is bounded by how
much of it is done in a minute.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from contract.actions import ACTIONS, Action
from contract.catalog import Kind
from contract.commands import LONGEST, Command, Stage

RATE_WINDOW = 60.0
PER_DEVICE = 3
"""Attempts a minute at one device: few enough that a device locks nobody out for them."""

LATE = "late"
"""Why it is expired, in a word that the pages know."""

PER_NODE = 40
"""Commands a minute of which anything is recorded: more would fill the log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """All that matters for the verdict; `wall` in ms, never behind the log.

    `recent` counts the last minute's by device, under None those that were not for one.
    """

    kinds: Mapping[str, Kind]
    wall: int
    known: bool
    recent: Mapping[str | None, int]


@dataclass(frozen=True, slots=True)
class Obey:
    """Do it."""

    action: Action


@dataclass(frozen=True, slots=True)
class Again:
    """It was here before: say what became of it."""


@dataclass(frozen=True, slots=True)
class Settle:
    """Do not do it, and say so."""

    stage: Stage
    reason: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Say nothing: too many came. What still counts in a minute is sent again by the hub."""


Verdict = Obey | Again | Settle | Wait


def examine(command: Command, situation: Situation) -> Verdict:
    """Return the verdict; what is late is not done, and what is unknown is refused by name."""
    if situation.known:
        return Again()
    if sum(situation.recent.values()) >= PER_NODE:
        return Wait()
    # Of a clock that may lie behind only the expiry is asked: it would take everything for too early.
    if command.expires_at < situation.wall:
        return Settle(Stage.EXPIRED, LATE)
    if command.expires_at - command.issued_at > LONGEST:
        return Settle(Stage.REFUSED, f"it would count for longer than {LONGEST // 60_000} minutes")
    if command.action not in set(Action):
        return Settle(Stage.REFUSED, f"there is no action {command.action!r} here")
    kind = situation.kinds.get(command.device)
    if kind is None:
        return Settle(Stage.REFUSED, f"there is no device {command.device[:40]!r} here")
    action = Action(command.action)
    if kind not in ACTIONS[action].kinds:
        return Settle(Stage.REFUSED, f"{action} is not for a {kind}")
    if command.arguments:
        return Settle(Stage.REFUSED, f"{action} takes no arguments")
    if situation.recent.get(command.device, 0) >= PER_DEVICE:
        return Wait()
    return Obey(action)
