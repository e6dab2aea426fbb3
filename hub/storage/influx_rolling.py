"""Which hours of which edge nodes are rolled up in InfluxDB, and which still owe that: kept in the books as marks."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hub.devices import NodeKey
from hub.storage.influx_rollups import MOST_HOLD_MS, OWED, SETTLING_MS, SINCE, UNTIL, Owed, Samples, lines, owed_by
from hub.storage.rollups import HOURS_MS
from hub.storage.timeseries import Batch

MOST_NEW_HOURS = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Hours that are rolled up from now on, and what is owed of them."""

    since: int
    until: int
    owed: Mapping[Owed, int]

    @property
    def marks(self) -> Mapping[str, int]:
        """Return what the books have to keep of it."""
        return {SINCE: self.since, UNTIL: self.until, **marks_of(self.owed)}


class Rolling:
    """What is owed has the number of the commit that it came of; what came again meanwhile has another.

    Changed by one thread at a time; asked by any.
    """

    def __init__(
        self, read: Callable[[NodeKey, int, int], Samples], put: Callable[[str], None], marks: Mapping[str, int]
    ) -> None:
        self._read = read
        self._put = put
        self.since, self.until = (marks.get(one, 0) for one in (SINCE, UNTIL))
        self.owed: Mapping[Owed, int] = {
            Owed.read(one): number for one, number in marks.items() if one.startswith(OWED)
        }

    def told(self, nodes: Collection[NodeKey]) -> tuple[int, int, Collection[int]]:
        """Return from when until when hours are rolled up, and which of them some edge nodes owe."""
        since, until = self.since, self.until  # first, for what is owed is noted before it
        return since, until, {one.hour for one in self.owed if one.node in nodes}

    def changed_by(self, batch: Batch, node_of: Callable[[int], NodeKey]) -> set[Owed]:
        """Return what a batch makes owed; `node_of` tells whose a series is, by its number."""

        def late() -> Iterator[tuple[NodeKey, int]]:
            for column in (batch.numbers, batch.integers):
                at = np.frombuffer(column.at, dtype=np.int64)
                for one in np.flatnonzero(at < self.until):
                    yield node_of(column.series[one]), int(at[one])

        return owed_by(late(), self.until)

    def plan(self, now_ms: int, nodes: Collection[NodeKey], number: int) -> Plan | None:
        """Return what comes due as hours end, a day at most at once; the first time, only hours that are to come."""
        until = (now_ms - SETTLING_MS) // HOURS_MS * HOURS_MS
        if until <= self.until:
            return None
        if not self.until:
            return Plan(since=until, until=until, owed={})
        until = min(until, self.until + MOST_NEW_HOURS * HOURS_MS)
        hours = range(self.until, until, HOURS_MS)
        return Plan(since=self.since, until=until, owed={Owed(hour, one): number for hour in hours for one in nodes})

    def follow(self, plan: Plan) -> None:
        """Go by a plan that the books keep."""
        # In this order: who sees the hours as rolled up sees what is owed of them.
        self.note(plan.owed)
        self.since, self.until = plan.since, plan.until

    def note(self, owed: Mapping[Owed, int]) -> None:
        """Add what is owed, as the books keep it."""
        if owed:
            self.owed = {**self.owed, **owed}

    def roll(self, some: Sequence[tuple[Owed, int]]) -> None:
        """Roll up some of what is owed; raise StoreUnavailable."""
        for one, _ in some:
            found = self._read(one.node, one.hour - MOST_HOLD_MS, one.hour + HOURS_MS)
            rolled = lines(found, one.hour, one.hour + HOURS_MS)
            if rolled:
                self._put(rolled)

    def settled(self, some: Sequence[tuple[Owed, int]]) -> Sequence[Owed]:
        """Return which of some that were rolled up did not become owed again meanwhile."""
        return [one for one, number in some if self.owed.get(one) == number]

    def forget(self, done: Sequence[Owed]) -> None:
        """Let go of what the books do not keep any more."""
        gone = set(done)
        self.owed = {one: number for one, number in self.owed.items() if one not in gone}


def marks_of(owed: Mapping[Owed, int]) -> Mapping[str, int]:
    """Return what is owed as marks."""
    return {one.mark: number for one, number in owed.items()}
