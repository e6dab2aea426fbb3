"""What people are shown of an edge node's delivery: how much it owes, up to where it is served, and what is wrong."""

from dataclasses import dataclass
from enum import StrEnum


class AlarmKind(StrEnum):
    """What is wrong with an edge node's log, and needs somebody to look."""

    TWO_LOGS = "two_logs"
    """Two log ids within ten minutes: another box has its id, or its log was deleted or exchanged."""
    TWO_EPOCHS = "two_epochs"
    """Two lives of one log with one count of starts within ten minutes: its card was copied, and both copies run."""
    EPOCH_BACK = "epoch_back"
    """Its log counts fewer starts than before: its card was restored from an older copy."""
    NEW_LOG = "new_log"
    """It comes with a log never seen before: the old one was deleted or exchanged, what it still owed is gone."""
    WILD_CLOCK = "wild_clock"
    """Too many of its samples have impossible times; it is not acknowledged while that lasts."""
    UNREADABLE_LOG = "unreadable_log"
    """What its birth says of its log cannot be read; no floor is raised and no void computed."""


WORDS = {
    AlarmKind.TWO_LOGS: "spoke from two logs within ten minutes: another box has its id, or its log was exchanged",
    AlarmKind.TWO_EPOCHS: "spoke from two copies of one card: two boxes have its id, and both are served",
    AlarmKind.EPOCH_BACK: "counts fewer starts than before: its card was restored from an older copy",
    AlarmKind.NEW_LOG: "comes with a new log: the old one was deleted or exchanged, what it still owed is gone",
    AlarmKind.WILD_CLOCK: "has too many impossible times: not acknowledged while that lasts, mend its clock",
    AlarmKind.UNREADABLE_LOG: "says of its log what cannot be read: its agent is of another version, or damaged",
}
"""Each alarm as the end of a sentence that begins with the edge node's id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """Something wrong, since when (ms)."""

    kind: AlarmKind
    since: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Depth:
    """What an edge node says of its log: records not known to be committed, the oldest one's instant (ms), bytes."""

    records: int | None = None
    oldest: int | None = None
    bytes_on_disk: int | None = None
    told_at: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeDelivery:
    """One edge node's delivery as it stands; instants in ms.

    `foreign`: it has no positions and is served as well as can be. `closed` counts the earlier epochs listed at its
    last birth, `floor` is the epoch up to which all is committed. `acknowledged_at`: when it was last told so.
    """

    foreign: bool
    log: str | None
    epoch: int | None
    floor: int | None
    closed: int
    depth: Depth
    acknowledged_at: int | None
    alarms: tuple[Alarm, ...]
