"""Which days of a delivery log must go, and what goes with them. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

KEEP_DAYS = 60
"""Monitoring stations must keep 60 days (Circular 10/2021/TT-BTNMT on data loggers)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """One day file: its day as YYYY-MM-DD, its bytes, how many of its records the hub is not known to have."""

    day: str
    size: int
    uncommitted: int


def leaving(days: Sequence[Day], *, today: str, keep_from: str, budget: int, hub_known: bool) -> list[Day]:
    """Return the days to unlink now, in this order.

    Days before `keep_from` go once all of them is committed. While the rest is larger than `budget` bytes, committed
    days go first, oldest first, then uncommitted ones, oldest first; `today` stays. `hub_known` False: nobody has yet
    told what is committed, so nothing uncommitted goes for lack of an answer that may be on its way.
    """
    expired = [one for one in days if one.day < keep_from and not one.uncommitted]
    rest = sorted((one for one in days if one not in expired and one.day != today), key=lambda one: one.day)
    excess = sum(one.size for one in days if one not in expired) - budget
    leaving = list(expired)
    for one in [*(day for day in rest if not day.uncommitted), *(day for day in rest if day.uncommitted)]:
        if excess <= 0 or (one.uncommitted and not hub_known):
            break
        leaving.append(one)
        excess -= one.size
    return leaving
