"""What the hub has, what is in the air, and what is owed: the accounts between a delivery log and its hub."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from contract.clock import Clock
from contract.delivery import FIRST_WINDOW_BYTES, MOST_HELD, Committed, Held, Ledger
from contract.positions import EMPTY, Lineage, Positions, RangeSet, difference, union
from edge import lanes, listing
from edge.delivery_log import DeliveryLog
from edge.listing import Listing
from edge.messages import Depth
from edge.record_bytes import Record
from edge.uncovered import Uncovered

LIST_AGAIN_EVERY = 600.0
"""Seconds between two births for the reason that a list is not true any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Owed:
    """Consecutive records to be sent as history, up to so many bytes of them in one message."""

    lineage: Lineage
    first: int
    last: int
    most_bytes: int


class Delivery:
    """Kept between sessions, forgotten with the process: the hub tells it all anew after each birth.

    `events` and `telemetry` are the live lanes, emptied when a session ends: what was in them is in the log. Nothing
    here waits for a disk or a clock; what a call costs does not grow with the log.
    """

    def __init__(self, delivery_log: DeliveryLog, clock: Clock) -> None:
        self._log = delivery_log
        self._clock = clock
        self._window = FIRST_WINDOW_BYTES
        self._flights: list[lanes.Flight] = []
        self._flying: dict[Lineage, RangeSet] = {}
        self._patience = lanes.FIRST_PATIENCE
        self._sent: dict[str, int] = {}
        self._uncovered = Uncovered(delivery_log.place)
        self._uncovered.add(delivery_log.held)
        self._counted: tuple[Positions, int] = {}, 0
        self._listing = Listing()
        self._named: frozenset[int] = frozenset()
        self._listed_at = float("-inf")
        self._list_untrue = False
        self.floor: int | None = None
        """The hub's floor that binds this log."""
        self.committed: Positions = {}
        self.hub_known = False
        """Whether a hub has told since this process started what it has."""
        self.oldest: int | None = None
        """The instant of the oldest uncommitted record on disk, as somebody last looked it up."""
        self.events: deque[Record] = deque()
        self.telemetry: deque[Record] = deque()

    @property
    def uncovered(self) -> frozenset[str]:
        """Streams of which something is not yet covered by the hub's answers."""
        queued = {one.lineage.stream for one in (*self.events, *self.telemetry)}
        return self._uncovered.streams | queued

    def is_uncovered(self, stream: str) -> bool:
        """Return whether something of a stream is not yet covered by the hub's answers."""
        return self._uncovered.has_stream(stream) or any(
            one.lineage.stream == stream for one in (*self.events, *self.telemetry)
        )

    def uncommitted_records(self) -> int:
        """Return how many records the hub has not yet said to have committed, those in memory included."""
        return self._log.pending + len(self._uncovered)

    def committed_records(self) -> int:
        """Return how many of the records held here the hub has committed."""
        if self._counted[0] is not self._log.held:
            self._counted = self._log.held, sum(map(len, self._log.held.values()))
        return self._counted[1] - len(self._uncovered)

    def depth(self) -> Depth:
        """Return how deep the log is."""
        oldest = self.oldest if len(self._uncovered) else self._log.oldest_pending
        return Depth(records=self.uncommitted_records(), oldest=oldest, size=self._log.size)

    def queue(self, record: Record) -> None:
        """Put a record into its live lane."""
        (self.events if record.event else self.telemetry).append(record)

    def clear_lanes(self) -> None:
        """Forget what waited to be sent live; as history it is still owed."""
        self._log.not_handed(self._queued())
        self.events.clear()
        self.telemetry.clear()
        self.reckon()

    def answered(self, what: Ledger | Committed) -> list[str]:
        """Take in what the hub says to have committed; return a sentence for each range that cannot be true."""
        self._catch_up()
        good, doubts = lanes.believable(what.positions, self._log.log_id, self._log.epoch, self._sent)
        ours = {lineage: ranges for lineage, ranges in good.items() if self._log.place(lineage.epoch) is not None}
        if isinstance(what, Ledger):
            floors = listing.whole(what.floors - {self._log.epoch}, self._log.held, ours)
            self.floor = listing.binding(floors, self._log.place)
            self.committed, self._window, self.hub_known = ours, what.window, True
            missing = ((lineage, self.missing(lineage, ranges)) for lineage, ranges in self._log.held.items())
            self._uncovered.replace({lineage: ranges for lineage, ranges in missing if ranges})
            self._log.all_handed()
        else:
            self.committed = union(self.committed, ours)
            self._uncovered.remove(ours)
        aloft = lanes.aloft(self._flights, self.missing)
        if len(aloft) < len(self._flights):
            self._patience = lanes.FIRST_PATIENCE
            self._fly(aloft)
        return doubts

    def missing(self, lineage: Lineage, ranges: RangeSet) -> RangeSet:
        """Return which of some positions of this log the hub is not known to have."""
        place = self._log.place(lineage.epoch)
        if place is not None and place <= listing.standing(self.floor, self._log.place):
            return EMPTY
        return ranges - self.committed.get(lineage, EMPTY)

    def under_floor(self) -> frozenset[int]:
        """Return the epochs of which this log lost something and that the hub has done with."""
        bottom = listing.standing(self.floor, self._log.place)
        return frozenset(one.epoch for one in self._log.lost if (self._log.place(one.epoch) or 0) <= bottom)

    def reckon(self) -> None:
        """Work out anew what is in the air and what the log holds."""
        self._catch_up()
        patient = lanes.patient(self._flights, self._clock.monotonic(), self._patience)
        if len(patient) < len(self._flights):
            self._patience = lanes.longer(self._patience)
            self._fly(patient)

    def _catch_up(self) -> None:
        gained, gone, damaged = self._log.take_changes()
        if gained:
            missing = ((lineage, self.missing(lineage, ranges)) for lineage, ranges in gained.items())
            self._uncovered.add({lineage: ranges for lineage, ranges in missing if ranges})
        if damaged:
            self._log.dropped(self._uncovered.remove(damaged))
        self._list_untrue |= bool(self._uncovered.remove(gone)) or bool(damaged)

    def list_held(self) -> Held:
        """Return what a birth says of the log now."""
        log, self._listed_at, self._list_untrue = self._log, self._clock.monotonic(), False
        # Before a hub has told its floor, the last one that was told: a hub that has it no more then says so, and is
        # told from further down what nobody holds any more.
        floor = self.floor if self.hub_known else log.kept_floor
        told = self._listing = listing.listing(
            (log.held, log.lost, log.expired), running=log.epoch, floor=floor, most=MOST_HELD, place=log.place
        )
        self._named = frozenset(told.epochs)
        return Held(
            log=log.log_id,
            epoch=log.epoch,
            positions=listing.part(log.held, told.epochs),
            # What was let go in good faith is named too: a hub that lost it meanwhile learns what nobody has.
            lost=listing.part(difference(union(log.lost, log.expired), log.held), told.epochs),
            floor=told.floor,
        )

    def must_list_again(self) -> bool:
        """Return whether the node must be born again, to name other epochs or to take back what is not true."""
        untrue = self._list_untrue and self._clock.monotonic() - self._listed_at >= LIST_AGAIN_EVERY
        moved = self.hub_known and listing.list_again(self._listing, self.floor, self._log.place)
        return untrue or moved

    def next_owed(self) -> Owed | None:
        """Return the oldest records that are owed and as much of them as the window leaves room for, None for none."""
        self.reckon()
        room = lanes.room(self._window, lanes.under_way(self._flights))
        if not room:
            return None
        queued = self._queued()
        for lineage, ranges in self._sendable():
            missing = ranges - self._flying.get(lineage, EMPTY) - queued.get(lineage, EMPTY)
            for first, last in missing:
                return Owed(lineage=lineage, first=first, last=last, most_bytes=room)
        return None

    def _sendable(self) -> Iterator[tuple[Lineage, RangeSet]]:
        """Yield what is uncovered of the epochs that the last birth named, oldest first, then of the running one."""
        place, named = self._log.place, self._listing.epochs
        if named:
            last = place(named[-1]) or 0
            for where, lineage, ranges in self._uncovered.from_place(place(named[0]) or 0):
                if where > last:
                    break
                if lineage.epoch in self._named:
                    yield lineage, ranges
        for _, lineage, ranges in self._uncovered.from_place(place(self._log.epoch) or 0):
            yield lineage, ranges

    def next_unhanded(self) -> Owed | None:
        """Return the oldest records that no session was given, as much as one message holds."""
        unhanded = self._log.unhanded
        for lineage in sorted(unhanded, key=lambda one: (self._log.place(one.epoch) or 0, one.stream)):
            for first, last in unhanded[lineage]:
                return Owed(lineage=lineage, first=first, last=last, most_bytes=lanes.MESSAGE_BYTES)
        return None

    def first_uncovered(self) -> Sequence[tuple[Lineage, int]]:
        """Return the first uncovered record of each stream in the oldest epoch that has any."""
        found: list[tuple[Lineage, int]] = []
        oldest: int | None = None
        for place, lineage, ranges in self._uncovered.from_place(0):
            oldest = place if oldest is None else oldest
            if place > oldest:
                break
            found.append((lineage, next(iter(ranges))[0]))
        return found

    def flew(self, lineage: Lineage, first: int, last: int, size: int) -> None:
        """Note that consecutive records were just sent, in a message of so many bytes."""
        if lineage.epoch == self._log.epoch:
            self._sent[lineage.stream] = max(last, self._sent.get(lineage.stream, -1))
        self._flights.append(
            lanes.Flight(lineage=lineage, first=first, last=last, size=size, sent=self._clock.monotonic())
        )
        self._flying[lineage] = self._flying.get(lineage, EMPTY).add(first, last)

    def _fly(self, flights: Sequence[lanes.Flight]) -> None:
        self._flights = list(flights)
        self._flying = lanes.flying(flights)

    def _queued(self) -> Positions:
        queued: dict[Lineage, list[tuple[int, int]]] = {}
        for one in (*self.events, *self.telemetry):
            queued.setdefault(one.lineage, []).append((one.offset, one.offset))
        return {lineage: RangeSet(offsets) for lineage, offsets in queued.items()}
