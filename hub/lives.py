"""Which lives of which logs spoke for one edge node lately: how a second box under its id is noticed. Pure.

A box that restarts counts one start more in the same log. Everything else that happens within a short time means two
boxes, or a card that is not what it was; none is turned away, since each has records to deliver.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

from hub.floor import starts
from hub.node_delivery import AlarmKind

WITHIN = 600.0
"""Seconds: what was last heard longer ago is history, not a second box."""


@dataclass(frozen=True, slots=True)
class Life:
    """One start of the agent on one log; `heard` in seconds of the monotonic clock."""

    log: str
    epoch: int
    heard: float


def born(lives: Sequence[Life], life: Life) -> tuple[Life, ...]:
    """Return the lives of late after a birth, the newest born last."""
    return (*(one for one in recent(lives, life.heard) if (one.log, one.epoch) != (life.log, life.epoch)), life)


def recent(lives: Sequence[Life], now: float) -> tuple[Life, ...]:
    """Return the lives that were heard within a short time; at most the 8 youngest, who comes under more is no box."""
    return tuple(one for one in lives if now - one.heard < WITHIN)[-8:]


def doubt(lives: Sequence[Life]) -> AlarmKind | None:
    """Return what is wrong with these lives of late, in the order of their births; None for an honest restart."""
    if len({one.log for one in lives}) > 1:
        return AlarmKind.TWO_LOGS
    pairs = list(combinations((one.epoch for one in lives), 2))
    if any(starts(earlier) == starts(later) for earlier, later in pairs):
        return AlarmKind.TWO_EPOCHS
    return AlarmKind.EPOCH_BACK if any(starts(earlier) > starts(later) for earlier, later in pairs) else None


def surprise(log: str, epoch: int, known: Iterable[tuple[str, int]]) -> AlarmKind | None:
    """Return what is odd about a life beside the (log, epoch) that the hub has ever kept account of, None if nothing.

    A life that has an account already surprises nobody.
    """
    accounts = set(known)
    if not accounts or (log, epoch) in accounts:
        return None
    of_log = [other for whose, other in accounts if whose == log]
    if not of_log:
        return AlarmKind.NEW_LOG
    return AlarmKind.EPOCH_BACK if max(map(starts, of_log)) >= starts(epoch) else None
