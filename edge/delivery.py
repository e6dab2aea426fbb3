"""What the hub has, what is in the air, and what is owed: the accounts between a delivery log and its hub."""

from collections import deque
from collections.abc import Mapping

from contract.clock import Clock
from contract.delivery import FIRST_WINDOW_BYTES, Committed, Ledger
from contract.positions import EMPTY, Lineage, RangeSet, difference, union
from edge import lanes
from edge.delivery_log import DeliveryLog
from edge.messages import Record


class Delivery:
    """Kept between sessions, forgotten with the process: the hub tells it all anew after each birth.

    `events` and `telemetry` are the live lanes, emptied when a session ends: what was in them is in the log.
    """

    def __init__(self, delivery_log: DeliveryLog, clock: Clock) -> None:
        self._log = delivery_log
        self._clock = clock
        self._window = FIRST_WINDOW_BYTES
        self._flights: tuple[lanes.Flight, ...] = ()
        self._patience = lanes.FIRST_PATIENCE
        self._sent: dict[str, int] = {}
        self._owed: list[tuple[Lineage, RangeSet]] = []
        self.committed: Mapping[Lineage, RangeSet] = {}
        self.uncovered: frozenset[str] = frozenset()
        """Streams of which something is not yet covered by the hub's answers."""
        self.events: deque[Record] = deque()
        self.telemetry: deque[Record] = deque()

    def uncommitted_records(self) -> int:
        """Return how many records the hub has not yet said to have committed, those in memory included."""
        return self._log.pending + sum(len(ranges) for ranges in difference(self._log.held, self.committed).values())

    def committed_records(self) -> int:
        """Return how many of the records held here the hub has committed."""
        return sum(len(ranges & self.committed.get(one, EMPTY)) for one, ranges in self._log.held.items())

    def queue(self, record: Record) -> None:
        """Put a record into its live lane."""
        (self.events if record.event else self.telemetry).append(record)

    def clear_lanes(self) -> None:
        """Forget what waited to be sent live; as history it is still owed."""
        self.events.clear()
        self.telemetry.clear()
        self.reckon()

    def answered(self, what: Ledger | Committed) -> list[str]:
        """Take in what the hub says to have committed; return a sentence for each range that cannot be true."""
        good, doubts = lanes.believable(what.positions, self._log.log_id, self._log.epoch, self._sent)
        aloft = len(self._flights)
        if isinstance(what, Ledger):
            self.committed, self._window = good, what.window
        else:
            self.committed = union(self.committed, good)
        self.reckon()
        if len(self._flights) < aloft:
            self._patience = lanes.FIRST_PATIENCE
        return doubts

    def reckon(self) -> None:
        """Work out anew what is in the air, what is owed, and whose records are not covered."""
        aloft = lanes.aloft(self._flights, self.committed)
        self._flights = lanes.patient(aloft, self._clock.monotonic(), self._patience)
        if len(self._flights) < len(aloft):
            self._patience = lanes.longer(self._patience)
        uncovered = difference(self._log.held, self.committed)
        queued: dict[Lineage, list[tuple[int, int]]] = {}
        for one in (*self.events, *self.telemetry):
            queued.setdefault(one.lineage, []).append((one.offset, one.offset))
        waiting = {lineage: RangeSet(offsets) for lineage, offsets in queued.items()}
        self._owed = lanes.owed(uncovered, self._flights, waiting)
        self.uncovered = frozenset(one.stream for one in (*uncovered, *waiting))

    def next_owed(self) -> tuple[Lineage, int, int, int] | None:
        """Return the oldest owed range as lineage, first, last, and the bytes the window leaves for it now."""
        self.reckon()
        room = self._window - lanes.under_way(self._flights)
        if not self._owed or room <= 0:
            return None
        lineage, ranges = self._owed[0]
        first, last = next(iter(ranges))
        return lineage, first, last, max(1, min(room, lanes.MESSAGE_BYTES))

    def flew(self, lineage: Lineage, first: int, last: int, size: int) -> None:
        """Note that consecutive records were just sent, in a message of so many bytes."""
        if lineage.epoch == self._log.epoch:
            self._sent[lineage.stream] = max(last, self._sent.get(lineage.stream, -1))
        flight = lanes.Flight(lineage=lineage, first=first, last=last, size=size, sent=self._clock.monotonic())
        self._flights = (*self._flights, flight)
