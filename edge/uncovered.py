"""What is held and not known to be committed, kept so that neither the log's age nor its depth costs anything. Pure.

Every change touches only the lineages it names; the oldest is at hand, and so is the number of records.
"""

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable, Iterator

from contract.positions import EMPTY, Lineage, Positions, RangeSet


class Uncovered:
    """Positions in the log's own order; `place` tells where an epoch stands in it."""

    def __init__(self, place: Callable[[int], int | None]) -> None:
        self._place = place
        self._ranges: dict[Lineage, RangeSet] = {}
        self._order: list[tuple[int, str, int]] = []
        self._lineages: Counter[str] = Counter()
        self._records = 0

    def __len__(self) -> int:
        """Return how many records are uncovered."""
        return self._records

    @property
    def streams(self) -> frozenset[str]:
        """Streams of which something is uncovered."""
        return frozenset(self._lineages)

    def has_stream(self, stream: str) -> bool:
        """Return whether something of a stream is uncovered."""
        return stream in self._lineages

    def of(self, lineage: Lineage) -> RangeSet:
        """Return what is uncovered of a lineage."""
        return self._ranges.get(lineage, EMPTY)

    def add(self, positions: Positions) -> None:
        """Take positions in."""
        for lineage, ranges in positions.items():
            self._put(lineage, self.of(lineage) | ranges)

    def remove(self, positions: Positions) -> int:
        """Leave positions out; return how many records of them were in."""
        before = self._records
        for lineage, ranges in positions.items():
            if lineage in self._ranges:
                self._put(lineage, self._ranges[lineage] - ranges)
        return before - self._records

    def replace(self, positions: Positions) -> None:
        """Make it exactly these positions."""
        for lineage in self._ranges.keys() - positions.keys():
            self._put(lineage, EMPTY)
        for lineage, ranges in positions.items():
            self._put(lineage, ranges)

    def from_place(self, place: int) -> Iterator[tuple[int, Lineage, RangeSet]]:
        """Yield place, lineage and ranges, oldest epoch first, from a place on; nothing may change meanwhile."""
        for index in range(bisect_left(self._order, (place,)), len(self._order)):
            where, stream, epoch = self._order[index]
            lineage = Lineage(self._log, epoch, stream)
            yield where, lineage, self._ranges[lineage]

    def _put(self, lineage: Lineage, ranges: RangeSet) -> None:
        known = self._ranges.get(lineage)
        if known == ranges:
            return
        self._log = lineage.log
        self._records += len(ranges) - (len(known) if known is not None else 0)
        key = (self._place(lineage.epoch) or 0, lineage.stream, lineage.epoch)
        if known is None and ranges:
            insort(self._order, key)
            self._lineages[lineage.stream] += 1
        if not ranges:
            if known is not None:
                del self._ranges[lineage], self._order[bisect_left(self._order, key)]
                self._lineages[lineage.stream] -= 1
                if not self._lineages[lineage.stream]:
                    del self._lineages[lineage.stream]
            return
        self._ranges[lineage] = ranges
