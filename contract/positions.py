"""Position and range set: the algebra of delivery.

A *position* names one record for ever: which log it stands in, in which life of the agent it was made (epoch), whose it
is (stream: the edge node itself or one device), and the how-manieth it is (offset, from 0). What the hub has committed,
and what an edge node still holds, are sets of positions; they are nearly always contiguous, so they are kept as ranges.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

NODE_STREAM = ""
"""The stream of the edge node itself; a device's stream is the device's id."""

Range = tuple[int, int]
"""First and last offset, both included."""


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """Where a record stands."""

    log: str
    epoch: int
    stream: str
    offset: int


class RangeSet:
    """A set of whole numbers held as disjoint, ascending, non-touching ranges. Immutable."""

    __slots__ = ("_ranges",)

    def __init__(self, ranges: Iterable[Range] = ()) -> None:
        merged: list[Range] = []
        for first, last in sorted(ranges):
            if first < 0 or last < first:
                raise ValueError(f"range {first}-{last} is not first <= last, both at least 0")
            if merged and first <= merged[-1][1] + 1:
                if last > merged[-1][1]:
                    merged[-1] = (merged[-1][0], last)
            else:
                merged.append((first, last))
        self._ranges = tuple(merged)

    def __iter__(self) -> Iterator[Range]:
        return iter(self._ranges)

    def __len__(self) -> int:
        """Return how many numbers are in the set, not how many ranges."""
        return sum(last - first + 1 for first, last in self._ranges)

    def __bool__(self) -> bool:
        return bool(self._ranges)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RangeSet) and self._ranges == other._ranges

    def __hash__(self) -> int:
        return hash(self._ranges)

    def __repr__(self) -> str:
        return f"RangeSet({list(self._ranges)})"

    def __contains__(self, number: int) -> bool:
        index = bisect_right(self._ranges, (number, float("inf"))) - 1
        return index >= 0 and self._ranges[index][1] >= number

    def __or__(self, other: "RangeSet") -> "RangeSet":
        return RangeSet((*self._ranges, *other._ranges))

    def __sub__(self, other: "RangeSet") -> "RangeSet":
        left: list[Range] = []
        holes = list(other._ranges)
        for first, last in self._ranges:
            start = first
            for hole_first, hole_last in holes:
                if hole_first > last:
                    break
                if hole_last < start:
                    continue
                if hole_first > start:
                    left.append((start, hole_first - 1))
                start = hole_last + 1
            if start <= last:
                left.append((start, last))
        return RangeSet(left)

    def __and__(self, other: "RangeSet") -> "RangeSet":
        return self - (self - other)

    @property
    def highest(self) -> int:
        """Return the largest number, -1 for the empty set."""
        return self._ranges[-1][1] if self._ranges else -1

    def covers(self, other: "RangeSet") -> bool:
        """Return whether every number of the other set is in this one."""
        return not other - self

    def add(self, first: int, last: int) -> "RangeSet":
        """Return this set with first to last added."""
        if self._ranges:
            low, high = self._ranges[-1]
            if low <= first <= high + 1:  # the common case: the newest range grows
                grown = RangeSet()
                grown._ranges = (*self._ranges[:-1], (low, max(high, last)))
                return grown
        return RangeSet((*self._ranges, (first, last)))


@dataclass(frozen=True, slots=True)
class Lineage:
    """One stream in one life of one log: what offsets are counted in."""

    log: str
    epoch: int
    stream: str


Positions = Mapping[Lineage, RangeSet]
"""A set of positions."""

EMPTY = RangeSet()


def union(left: Positions, right: Positions) -> dict[Lineage, RangeSet]:
    """Return all positions of both sets."""
    both = dict(left)
    for lineage, ranges in right.items():
        both[lineage] = both.get(lineage, EMPTY) | ranges
    return both


def difference(left: Positions, right: Positions) -> dict[Lineage, RangeSet]:
    """Return the positions of the left set that are not in the right one."""
    rest = ((lineage, ranges - right.get(lineage, EMPTY)) for lineage, ranges in left.items())
    return {lineage: ranges for lineage, ranges in rest if ranges}
