"""How far something that was asked for has come: the stages, and which may follow which."""

from enum import StrEnum


class Stage(StrEnum):
    """Where an announcement stands, in the order things happen; `accepted` on is what the edge node itself reported."""

    PENDING = "pending"
    SENT = "sent"
    ACCEPTED = "accepted"
    STARTED = "started"
    FINISHED = "finished"
    STOPPED = "stopped"
    REFUSED = "refused"
    FAILED = "failed"
    EXPIRED = "expired"


FINAL = frozenset({Stage.FINISHED, Stage.STOPPED, Stage.REFUSED, Stage.FAILED, Stage.EXPIRED})

_RANK = {Stage.PENDING: 0, Stage.SENT: 1, Stage.ACCEPTED: 2, Stage.STARTED: 3}


def settle(current: Stage, reported: Stage) -> Stage:
    """Return the stage after a report; one that would go backwards, or change a final stage, changes nothing."""
    if current in FINAL:
        return current
    if reported in FINAL or _RANK[reported] > _RANK[current]:
        return reported
    return current
