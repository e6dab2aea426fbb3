"""What a message from the broker asks of this edge node, read without acting on it. Pure.

Clauses (prefix `tck-id-` left out): operational-behavior-data-commands-ncmd-rebirth-*, payloads-state-*;
a command metric is read by name, or by the alias of the birth.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass

from contract.catalog import BUNDLE, COMMAND, ENVELOPE, REBIRTH, ROOT
from contract.delivery import COMMITTED, FLOORS, LEDGER, WINDOW, Committed, Ledger, read_answer
from contract.payload import Payload, PayloadUnreadable, decode
from contract.topics import MessageType, TopicUnreadable, parse, state_host


@dataclass(frozen=True, slots=True)
class HostState:
    """The primary host said whether it is there."""

    online: bool
    timestamp: int


@dataclass(frozen=True, slots=True)
class Rebirth:
    """A host wants all births again."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The hub told what it has committed."""

    what: Ledger | Committed


@dataclass(frozen=True, slots=True)
class Broadcast:
    """An envelope or a trust bundle, by metric name; nothing of it is verified yet."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Asked:
    """A command, as text; whether it is one is not looked at yet."""

    value: str


@dataclass(frozen=True, slots=True)
class Refused:
    """What this edge node does not do, and why, in a sentence."""

    reason: str


Instruction = HostState | Rebirth | Answer | Broadcast | Asked | Refused

_ANSWERS = frozenset({COMMITTED, LEDGER, FLOORS, WINDOW})


def instructions(topic: str, raw: bytes, *, group: str, node: str, primary_host: str) -> list[Instruction]:
    """Return what is asked, in order; anything unreadable comes back as Refused, never as an error."""
    host = state_host(topic)
    if host is not None:
        return [_host_state(raw)] if host == primary_host else []
    try:
        target = parse(topic)
        payload = decode(raw)
    except (TopicUnreadable, PayloadUnreadable) as exc:
        return [Refused(str(exc))]
    if (target.group, target.node) != (group, node):
        return [Refused(f"{topic} is for another edge node")]
    match target.kind:
        case MessageType.NCMD:
            return list(_for_node(payload))
        case MessageType.DCMD:
            names = ", ".join(one.name or str(one.alias) for one in payload.metrics)
            # Whatever sounds or changes a volume must be signed; a plain write is neither.
            return [Refused(f"plain write to {target.device}: {names}; devices here take signed orders only")]
        case _:
            return [Refused(f"{topic} is not for an edge node")]


def _host_state(raw: bytes) -> Instruction:
    try:
        said = json.loads(raw)
        online, timestamp = said["online"], said["timestamp"]
    except (ValueError, KeyError, TypeError, RecursionError) as exc:
        return Refused(f"STATE {raw[:80]!r} is not {{online, timestamp}}: {exc}")
    if not isinstance(online, bool) or not isinstance(timestamp, int) or isinstance(timestamp, bool):
        return Refused(f"STATE {raw[:80]!r}: online must be true or false, timestamp a number")
    return HostState(online, timestamp)


def _for_node(payload: Payload) -> Iterator[Instruction]:
    try:
        for answer in read_answer(payload):
            yield Answer(answer)
    except PayloadUnreadable as exc:
        yield Refused(str(exc))
    for metric in payload.metrics:
        if metric.name in _ANSWERS:
            continue
        if metric.name == REBIRTH:
            if metric.value is True:
                yield Rebirth()
        elif metric.name in {ENVELOPE, BUNDLE, ROOT} and isinstance(metric.value, str):
            yield Broadcast(metric.name, metric.value)
        elif metric.name == COMMAND and isinstance(metric.value, str):
            yield Asked(metric.value)
        else:
            yield Refused(f"plain write to {metric.name or metric.alias}: this edge node has no such command")
