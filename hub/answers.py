"""What edge nodes are to be told of what the store has committed, and when; and whom it is better not to tell. Pure."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from contract.delivery import Committed, Ledger
from contract.positions import Lineage, RangeSet

WINDOW = 256 * 1024
"""Bytes an edge node may have under way uncommitted, history and resends."""

ALL_WINDOWS = 6 * 1024 * 1024
"""What all that have much to send may have under way together: live readings queue behind it, and must not be late."""

LEAST_WINDOW = 8 * 1024

COMMITTED_EVERY = 5.0
LEDGER_EVERY = 60.0

BETWEEN_LEDGERS = 5.0
"""A ledger that is wanted before its minute is over keeps at least this distance from the last answer."""

MOST_WRONG_TIMES = 1000
WRONG_TIMES_SHARE = 0.01
MINUTE = 60.0


@dataclass(slots=True)
class _Second:
    at: float
    samples: int = 0
    wrong: int = 0


@dataclass(slots=True)
class TimeFaults:
    """How many of a node's samples of the last minute had impossible instants, positions that came first only.

    A box whose clock is wild would have its log emptied into our quarantine; while that lasts it is not acknowledged
    and keeps what it has. One wrong sample in a thousand is a device's fault, not the clock's.
    """

    _noted: deque[_Second] = field(default_factory=deque)
    _samples: int = 0
    _wrong: int = 0
    _since: int | None = None

    def note(self, now: float, samples: int, wrong: int) -> None:
        """Count what a message brought, at an instant of the monotonic clock."""
        if not self._noted or now - self._noted[-1].at >= 1.0:  # a second is exact enough, a message each too many
            self._noted.append(_Second(now))
        self._noted[-1].samples += samples
        self._noted[-1].wrong += wrong
        self._samples += samples
        self._wrong += wrong

    def judge(self, now: float, now_ms: int) -> bool:
        """Return whether the node's clock cannot be trusted at present, and remember since when (ms)."""
        wild = self.wild(now)
        self._since = (self._since or now_ms) if wild else None
        return wild

    def wild_since(self, now: float) -> int | None:
        """Return since when (ms) the clock cannot be trusted, None if it can."""
        return self._since if self.wild(now) else None

    def wild(self, now: float) -> bool:
        """Return whether over 1 % of the last minute's samples were wrong, or over 1,000."""
        while self._noted and now - self._noted[0].at >= MINUTE:
            gone = self._noted.popleft()
            self._samples -= gone.samples
            self._wrong -= gone.wrong
        return self._wrong > min(MOST_WRONG_TIMES, WRONG_TIMES_SHARE * (self._samples + self._wrong))


def window_among(draining: int) -> int:
    """Return the window of each of so many edge nodes that have much to send."""
    return max(LEAST_WINDOW, min(WINDOW, ALL_WINDOWS // max(draining, 1)))


@dataclass(slots=True)
class Answers:
    """What one edge node is owed. Instants are seconds of the monotonic clock."""

    times: TimeFaults = field(default_factory=TimeFaults)
    window: int = WINDOW
    """As it was told last, or will be next."""
    _positions: dict[Lineage, list[tuple[int, int]]] = field(default_factory=dict)
    _size: int = 0
    _told: float = float("-inf")
    _ledger_due: float = 0.0

    def born(self, now: float) -> None:
        """Note a birth: the whole ledger is due."""
        self._ledger_due = now

    def ledger_wanted(self) -> None:
        """Note that floor or window changed: the ledger is due as soon as decency allows."""
        self._ledger_due = min(self._ledger_due, self._told + BETWEEN_LEDGERS)

    def committed(self, lineage: Lineage, first: int, last: int, size: int) -> None:
        """Note positions that are in the store, and about how many bytes they came in."""
        spans = self._positions.setdefault(lineage, [])
        if spans and spans[-1][1] + 1 == first:  # while nothing may be told, they must not pile up
            first = spans.pop()[0]
        spans.append((first, last))
        self._size += size

    def due(self, now: float, *, held: bool) -> type[Ledger] | type[Committed] | None:
        """Return what is to be told now, None if nothing is; `held`: nothing may be acknowledged."""
        if held:
            return None
        if now >= self._ledger_due:
            return Ledger
        soon = now - self._told >= COMMITTED_EVERY or self._size >= self.window // 2
        return Committed if self._positions and soon else None

    def ledger(self, ledger: Mapping[Lineage, RangeSet], log: str, *, floors: frozenset[int], closed: bool) -> Ledger:
        """Return everything committed of one log; `closed` shuts the window to all but live data."""
        return Ledger(positions=_of_log(ledger, log), floors=floors, window=0 if closed else self.window)

    def news(self, log: str) -> Committed:
        """Return what was committed since the last answer."""
        return Committed(positions=_of_log({one: RangeSet(spans) for one, spans in self._positions.items()}, log))

    def told(self, what: Ledger | Committed, now: float) -> None:
        """Note that an answer left."""
        self._positions.clear()
        self._size, self._told = 0, now
        if isinstance(what, Ledger):
            self._ledger_due = now + LEDGER_EVERY


def _of_log(positions: Mapping[Lineage, RangeSet], log: str) -> dict[Lineage, RangeSet]:
    return {lineage: ranges for lineage, ranges in positions.items() if lineage.log == log and ranges}
