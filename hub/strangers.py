"""Edge nodes that nobody configured: served as well as can be, but never so many that they cost the others. Pure.

Whoever may write to the broker can invent edge nodes, devices and metrics without end. What is kept of strangers is
bounded: beyond it the one longest silent is forgotten (it is welcome to come back), and what would grow the store's
lists for good is refused.
"""

from collections import OrderedDict
from collections.abc import Collection

from hub.devices import NodeKey

MOST = 1000
"""Strangers remembered at a time."""

MOST_NEW_METRICS = 100_000
"""Metrics, and edge nodes as ten each, that strangers may add to the store's lists in one run of the hub."""

METRICS_A_NODE = 10


class Strangers:
    """Who is remembered, and what they have cost."""

    def __init__(self, own: Collection[NodeKey]) -> None:
        self._own = frozenset(own)
        self._silent: OrderedDict[NodeKey, None] = OrderedDict()
        self._spent = 0

    def __contains__(self, node: NodeKey) -> bool:
        return node not in self._own

    def __len__(self) -> int:
        return len(self._silent)

    def heard(self, node: NodeKey) -> NodeKey | None:
        """Note that a stranger spoke; return the one to be forgotten for it, None while there is room."""
        self._silent[node] = None
        self._silent.move_to_end(node)
        if len(self._silent) <= MOST:
            return None
        return self._silent.popitem(last=False)[0]

    def may_add(self, metrics: int) -> bool:
        """Return whether so many new metrics of strangers may be kept, and count them if so."""
        if self._spent + metrics > MOST_NEW_METRICS:
            return False
        self._spent += metrics
        return True
