"""What edge nodes are to be told of what the store has committed, and when; and whom it is better not to tell. Pure."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from contract.delivery import Committed, Ledger
from contract.positions import Lineage, RangeSet

WINDOW = 256 * 1024
"""Bytes an edge node may have under way uncommitted, history and resends."""

COMMITTED_EVERY = 5.0
LEDGER_EVERY = 60.0

MOST_WRONG_TIMES = 1000
WRONG_TIMES_SHARE = 0.01
ENOUGH_TO_JUDGE = 1000
MINUTE = 60.0


@dataclass(slots=True)
class TimeFaults:
    """How many of a node's samples of the last minute had impossible instants.

    A box whose clock is wild would have its log emptied into our quarantine; while that lasts it is not acknowledged
    and keeps what it has. One wrong sample in a thousand is a device's fault, not the clock's.
    """

    _noted: deque[tuple[float, int, int]] = field(default_factory=deque)
    _samples: int = 0
    _wrong: int = 0

    def note(self, now: float, samples: int, wrong: int) -> None:
        """Count what a message brought, at an instant of the monotonic clock."""
        self._noted.append((now, samples, wrong))
        self._samples += samples
        self._wrong += wrong

    def wild(self, now: float) -> bool:
        """Return whether the node's clock cannot be trusted at present."""
        while self._noted and now - self._noted[0][0] >= MINUTE:
            _, samples, wrong = self._noted.popleft()
            self._samples -= samples
            self._wrong -= wrong
        total = self._samples + self._wrong
        many = total >= ENOUGH_TO_JUDGE and self._wrong > WRONG_TIMES_SHARE * total
        return many or self._wrong >= MOST_WRONG_TIMES


@dataclass(slots=True)
class Answers:
    """What one edge node is owed. Instants are seconds of the monotonic clock."""

    times: TimeFaults = field(default_factory=TimeFaults)
    _positions: dict[Lineage, list[tuple[int, int]]] = field(default_factory=dict)
    _size: int = 0
    _told: float = float("-inf")
    _ledger_due: float = 0.0

    def born(self, now: float) -> None:
        """Note a birth: the whole ledger is due."""
        self._ledger_due = now

    def committed(self, lineage: Lineage, first: int, last: int, size: int) -> None:
        """Note positions that are in the store, and about how many bytes they came in."""
        self._positions.setdefault(lineage, []).append((first, last))
        self._size += size

    def due(self, now: float, *, held: bool, store_down: bool) -> type[Ledger] | type[Committed] | None:
        """Return what is to be told now, None if nothing is.

        With the store down a ledger still says what was committed before; its window stops all but live data.
        """
        if now >= self._ledger_due:
            return None if held and not store_down else Ledger
        soon = now - self._told >= COMMITTED_EVERY or self._size >= WINDOW // 2
        return Committed if self._positions and soon and not held else None

    def ledger(self, ledger: Mapping[Lineage, RangeSet], log: str, *, store_down: bool) -> Ledger:
        """Return everything committed of one log; the floor comes with the rest of the delivery work."""
        return Ledger(positions=_of_log(ledger, log), window=0 if store_down else WINDOW)

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
