"""What leaves for edge nodes: what is committed, when it may be said; and requests to be born again, within limits."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from contract.catalog import REBIRTH
from contract.clock import Clock
from contract.delivery import Committed, Ledger, answer
from contract.metrics import DataType
from contract.payload import Payload, WireMetric, encode
from contract.topics import MessageType, Topic
from hub import floor, session
from hub.answers import window_among
from hub.broker import Broker
from hub.counters import Counters
from hub.devices import NodeKey
from hub.node_view import NodeView
from hub.storage.timeseries import TimeSeries

log = logging.getLogger(__name__)

REBIRTHS_A_SECOND = 20
MUCH = 500
"""Records owed beyond which an edge node counts as draining."""

TICK = 0.5
"""Seconds between two looks at who is owed something."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How the hub stands: `doubt` is why nothing may be acknowledged, `closed` whether only live data is welcome."""

    doubt: str
    closed: bool


class Answering:
    """Answers the edge nodes of `nodes`; `look` is to be called each TICK seconds."""

    def __init__(
        self,
        *,
        nodes: Mapping[NodeKey, NodeView],
        configured: frozenset[NodeKey],
        broker: Broker,
        store: TimeSeries,
        clock: Clock,
        counters: Counters,
        reorder_seconds: float,
    ) -> None:
        self._nodes = nodes
        self._configured = configured
        self._broker = broker
        self._store = store
        self._clock = clock
        self._counters = counters
        self._reorder_seconds = reorder_seconds
        self._closed = False

    def look(self, standing: Standing) -> None:
        """Send whatever is due."""
        if standing.closed != self._closed:
            self._closed = standing.closed
            for view in self._nodes.values():
                view.answers.ledger_wanted()
        self.ask_for_births()
        for view in self._nodes.values():
            self.answer(view, standing)

    def ask_for_births(self) -> None:
        """Ask for the births that are wanted, no edge node twice in a minute and not too many at once."""
        now, asked = self._clock.monotonic(), 0
        for view in self._nodes.values():
            view.session = session.overdue(view.session, now, self._reorder_seconds)
            if asked >= REBIRTHS_A_SECOND * TICK:
                return
            after = session.asks(view.session, now)
            if after is not None and self._ask(view.key):
                view.session = after
                asked += 1

    def answer(self, view: NodeView, standing: Standing) -> None:
        """Tell an edge node what is committed, if it is due and may be told."""
        now, now_ms = self._clock.monotonic(), self._clock.now_ms()
        if view.log is None or not view.session.born:
            return
        wild = view.answers.times.judge(now, now_ms)
        due = view.answers.due(now, held=bool(standing.doubt) or wild)
        if due is None:
            return
        what: Ledger | Committed = view.answers.news(view.log)
        if due is Ledger:
            # The ledger first: it must not lack rows that a floor raised in between made needless.
            rows = self._store.ledger(view.key)
            floors = self._store.floors(view.key).get(view.log, frozenset())
            told = floors if view.held is None else floor.told(floors, view.held, rows)
            view.answers.window = window_among(self._draining())
            what = view.answers.ledger(rows, view.log, floors=told, closed=standing.closed)
        if self._send(view.key, answer(what, now_ms)):
            view.answers.told(what, now)
            view.acknowledged_at = now_ms

    def _draining(self) -> int:
        """Return how many edge nodes have much to send, or may have: who was not heard yet counts, it may come next."""
        unheard = len(self._configured - self._nodes.keys())
        return unheard + sum(map(_has_much, self._nodes.values()))

    def _ask(self, key: NodeKey) -> bool:
        now = self._clock.now_ms()
        metric = WireMetric(name=REBIRTH, at=now, datatype=DataType.BOOLEAN, value=True)
        if not self._send(key, Payload(at=now, metrics=(metric,))):
            return False
        self._counters.rebirths.inc()
        log.info("asking %s/%s for a rebirth", key.group, key.node)
        return True

    def _send(self, key: NodeKey, payload: Payload) -> bool:
        return self._broker.publish(str(Topic(key.group, MessageType.NCMD, key.node)), encode(payload))


def _has_much(view: NodeView) -> bool:
    depth = view.depth.records
    return view.session.born and view.log is not None and (depth is None or depth > MUCH)
