"""Whether the hub may believe its own clock: by its kernel, by what it stored, and by its edge nodes' median. Pure.

A hub with a wrong clock would put good readings into quarantine as impossible, and acknowledge them. While in doubt it
stores what cannot be wrong, acknowledges nothing, and says so.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from statistics import median

from hub.devices import NodeKey

FAR_OFF = 5 * 60_000
"""Milliseconds beyond which two clocks cannot both be right."""

ENOUGH_WITNESSES = 5
FRESH = 300.0
"""Seconds for which what an edge node's clock said counts."""


@dataclass(slots=True)
class Witnesses:
    """How far the clocks of edge nodes are ahead of ours: those that call themselves synchronised, by live messages."""

    _ahead: dict[NodeKey, tuple[float, int]] = field(default_factory=dict)

    def heard(self, node: NodeKey, ahead_ms: int, now: float) -> None:
        """Note how far ahead an edge node's clock is, at an instant of the monotonic clock."""
        self._ahead[node] = (now, ahead_ms)

    def ahead(self, now: float) -> list[int]:
        """Return what was said of late, one number an edge node; older ones are forgotten."""
        self._ahead = {node: told for node, told in self._ahead.items() if now - told[0] < FRESH}
        return [ahead for _, ahead in self._ahead.values()]


def clock_fault(
    *, synchronised: bool, started_early: bool, now_ms: int, newest_received: int, ahead: Collection[int]
) -> str:
    """Return why the hub's clock cannot be believed, "" if it can.

    `synchronised`: the kernel says so, or nobody asks it. `started_early`: at its start the clock was behind the newest
    commit; a running hub may lose some seconds to a correction, a hub that starts may not. `ahead`: the witnesses.
    """
    if not synchronised:
        return "the clock is not synchronised"
    behind = newest_received - now_ms
    if behind > (0 if started_early else FAR_OFF):
        return f"the clock is {_words(behind)} behind the newest reading in the store"
    if len(ahead) >= ENOUGH_WITNESSES and abs(median(ahead)) >= FAR_OFF:
        off = int(median(ahead))
        return f"the clock is {_words(abs(off))} {'behind' if off > 0 else 'ahead of'} {len(ahead)} edge nodes"
    return ""


def _words(milliseconds: float) -> str:
    seconds = int(milliseconds / 1000)
    if seconds < 120:
        return f"{seconds} s"
    return f"{seconds // 60} min" if seconds < 7200 else f"{seconds // 3600} h"
