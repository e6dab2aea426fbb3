"""The hub's doubts about its own clock, looked at anew twice a second; what decides is clock_guard.py."""

import logging

from contract.clock import Clock, kernel_synchronised
from hub.clock_guard import Witnesses, clock_fault
from hub.devices import NodeKey
from hub.node_view import NodeView
from hub.storage.timeseries import TimeSeries

log = logging.getLogger(__name__)

WITNESS_EVERY = 5.0
"""Seconds between two looks at an edge node's clock."""


class ClockWatch:
    """Keeps `doubt`: why the clock cannot be believed, "" while it can. Only `trusted` edge nodes may testify."""

    def __init__(self, *, store: TimeSeries, clock: Clock, ask_kernel: bool, trusted: frozenset[NodeKey]) -> None:
        self._store = store
        self._clock = clock
        self._ask_kernel = ask_kernel
        self._trusted = trusted
        self._witnesses = Witnesses()
        self._started_early = clock.now_ms() < store.newest_received()
        self.doubt = ""
        self.look()

    def look(self) -> None:
        """Judge the clock as it stands."""
        doubt = clock_fault(
            synchronised=not self._ask_kernel or kernel_synchronised(),
            started_early=self._started_early,
            now_ms=self._clock.now_ms(),
            newest_received=self._store.newest_received(),
            ahead=self._witnesses.ahead(self._clock.monotonic()),
        )
        if doubt and not self.doubt:
            log.error("acknowledgements are held: %s", doubt)
        elif self.doubt and not doubt:
            log.warning("the clock is believed again")
        self.doubt = doubt

    def asks(self, view: NodeView, now: float) -> bool:
        """Return whether an edge node's clock is to be looked at again."""
        return now - view.witnessed >= WITNESS_EVERY and view.key in self._trusted

    def heard(self, view: NodeView, ahead_ms: int, now: float) -> None:
        """Take what an edge node's clock says against ours."""
        view.witnessed = now
        self._witnesses.heard(view.key, ahead_ms, now)

    def dated(self) -> int:
        """Return what a commit is dated: never beyond what is stored while the clock may be ahead."""
        newest = self._store.newest_received()
        return min(self._clock.now_ms(), newest) if self.doubt and newest else self._clock.now_ms()
