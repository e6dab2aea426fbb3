"""What goes next: which records are still owed to the hub, and how many may be under way. Pure.

Live records go at once and in order; this file decides about the rest. A *flight* is what was sent and is not yet
covered by the hub's answers. What is held, not committed and not in flight is *owed*; it travels in the history lane,
oldest first, as far as the window allows. A flight that stays uncovered beyond our patience is owed again.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from contract.positions import EMPTY, Lineage, RangeSet, difference

FIRST_PATIENCE = 30.0
MOST_PATIENCE = 600.0
"""Seconds until what was sent and not covered is sent again; doubles while the hub covers nothing."""

MESSAGE_BYTES = 60 * 1024
"""History packs records up to this much, which leaves room for the envelope within 64 KiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flight:
    """Consecutive records of one lineage under way since `sent` (monotonic seconds)."""

    lineage: Lineage
    first: int
    last: int
    size: int
    sent: float


def aloft(flights: Iterable[Flight], committed: Mapping[Lineage, RangeSet]) -> tuple[Flight, ...]:
    """Return the flights that the hub's answers do not wholly cover yet."""
    return tuple(
        flight
        for flight in flights
        if not committed.get(flight.lineage, EMPTY).covers(RangeSet([(flight.first, flight.last)]))
    )


def patient(flights: Iterable[Flight], now: float, patience: float) -> tuple[Flight, ...]:
    """Return the flights sent less than `patience` seconds ago; the others are given up and owed again."""
    return tuple(flight for flight in flights if now - flight.sent < patience)


def under_way(flights: Iterable[Flight]) -> int:
    """Return the bytes in the air."""
    return sum(flight.size for flight in flights)


def owed(
    uncovered: Mapping[Lineage, RangeSet], flights: Iterable[Flight], queued: Mapping[Lineage, RangeSet]
) -> list[tuple[Lineage, RangeSet]]:
    """Return what must still be sent as history, oldest epoch first; what waits in the live lane is not owed."""
    flying: dict[Lineage, list[tuple[int, int]]] = {}
    for flight in flights:
        flying.setdefault(flight.lineage, []).append((flight.first, flight.last))
    missing = difference(uncovered, {lineage: RangeSet(ranges) for lineage, ranges in flying.items()})
    missing = difference(missing, queued)
    return sorted(missing.items(), key=lambda one: (one[0].epoch, one[0].stream))


def longer(patience: float) -> float:
    """Return the next patience after one ran out without any answer."""
    return min(MOST_PATIENCE, patience * 2)


def believable(
    answered: Mapping[Lineage, RangeSet], log_id: str, epoch: int, sent: Mapping[str, int]
) -> tuple[dict[Lineage, RangeSet], list[str]]:
    """Return the answered ranges that can be true, and a sentence for each that cannot.

    Ranges of another log, and offsets of the running epoch that were never sent (`sent`: highest by stream), are
    nobody's to acknowledge: believing them would lose records.
    """
    good: dict[Lineage, RangeSet] = {}
    doubts: list[str] = []
    for lineage, ranges in answered.items():
        if lineage.log != log_id:
            doubts.append(f"ranges of log {lineage.log!r}, this is {log_id!r}")
            continue
        if lineage.epoch == epoch:
            most = sent.get(lineage.stream, -1)
            beyond = ranges - RangeSet([(0, most)]) if most >= 0 else ranges
            if beyond:
                doubts.append(f"{lineage.stream or 'edge node'}: offsets {list(beyond)} were never sent")
                ranges = ranges - beyond  # noqa: PLW2901  # the rest of the answer stands
        good[lineage] = ranges
    return good, doubts
