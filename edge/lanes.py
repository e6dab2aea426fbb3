"""What goes next: which records are still owed to the hub, and how many may be under way. Pure.

Live records go at once and in order; this file decides about the rest. A *flight* is what was sent and is not yet
covered by the hub's answers. What is held, not committed and not in flight is *owed*; it travels in the history lane,
oldest first, as far as the window allows. A flight that stays uncovered beyond our patience is owed again.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from contract.positions import Lineage, RangeSet
from edge.record_bytes import Record

Missing = Callable[[Lineage, RangeSet], RangeSet]
"""From some positions to those of them that the hub is not known to have."""

FIRST_PATIENCE = 30.0
MOST_PATIENCE = 600.0
"""Seconds until what was sent and not covered is sent again; doubles while the hub covers nothing."""

MESSAGE_BYTES = 56 * 1024
"""History packs records up to this much: within 64 KiB that leaves room for the envelope, and for the mark of old news,
which is a tenth of the smallest sample."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flight:
    """Consecutive records of one lineage under way since `sent` (monotonic seconds)."""

    lineage: Lineage
    first: int
    last: int
    size: int
    sent: float


def aloft(flights: Iterable[Flight], missing: Missing) -> tuple[Flight, ...]:
    """Return the flights of which the hub is not yet known to have everything."""
    return tuple(one for one in flights if missing(one.lineage, RangeSet([(one.first, one.last)])))


def patient(flights: Iterable[Flight], now: float, patience: float) -> tuple[Flight, ...]:
    """Return the flights sent less than `patience` seconds ago; the others are given up and owed again."""
    return tuple(flight for flight in flights if now - flight.sent < patience)


def under_way(flights: Iterable[Flight]) -> int:
    """Return the bytes in the air."""
    return sum(flight.size for flight in flights)


def flying(flights: Iterable[Flight]) -> dict[Lineage, RangeSet]:
    """Return what is in the air, as positions."""
    ranges: dict[Lineage, list[tuple[int, int]]] = {}
    for flight in flights:
        ranges.setdefault(flight.lineage, []).append((flight.first, flight.last))
    return {lineage: RangeSet(found) for lineage, found in ranges.items()}


def room(window: int, in_the_air: int) -> int:
    """Return how many bytes of history may be sent now, 0 for none.

    It is not worth a message until the window leaves half of one: history in crumbs would cost more than it carries.
    """
    left = window - in_the_air
    return min(left, MESSAGE_BYTES) if left > 0 and left >= min(window, MESSAGE_BYTES) // 2 else 0


def sendable(records: Sequence[Record], most_bytes: int) -> list[Record]:
    """Return the first of the records that can be one message: consecutive, instants rising, up to so many bytes."""
    if not records:
        return []
    size = len(records[0].metrics)
    for count, (before, after) in enumerate(pairwise(records), start=1):
        size += len(after.metrics)
        if after.offset != before.offset + 1 or after.at <= before.at or size > most_bytes:
            return list(records[:count])
    return list(records)


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
