"""Every message's path through the hub, top to bottom: decode, validate, live state, commit, acknowledge.

Positions are acknowledged only after the one transaction that holds their samples. A store that is down, slow or full
makes the hub hold acknowledgements; live state goes on.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from contract import sparkplug_pb2
from contract.catalog import BDSEQ
from contract.clock import Clock
from contract.delivery import BYTES, DEPTH, LOG, OLDEST, Held
from contract.payload import PayloadUnreadable, parse
from contract.positions import EMPTY, RangeSet
from contract.topics import MessageType, Topic, TopicUnreadable, state_host
from contract.topics import parse as parse_topic
from hub import comings, log_account, session
from hub.alias_tables import Taken
from hub.answering import TICK, Answering, Standing
from hub.births import read_birth
from hub.broker import Broker, Message
from hub.clock_watch import ClockWatch
from hub.committing import Committing
from hub.counters import Counters
from hub.decode import DataUndecided, DataUnlisted, DataUnreadable, read_alike, read_data, speaks_now
from hub.devices import DeviceKey, NodeKey
from hub.live_state import LiveState
from hub.node_delivery import WORDS, AlarmKind, Depth, NodeDelivery
from hub.node_view import NodeView
from hub.storage.timeseries import HISTORICAL_BIT, TIME_BITS, Batch, TimeSeries
from hub.strangers import METRICS_A_NODE, Strangers
from hub.tally import Tally

log = logging.getLogger(__name__)

_COMMANDS = frozenset({MessageType.NCMD, MessageType.DCMD})
_DATA = frozenset({MessageType.NDATA, MessageType.DDATA})


@lru_cache(maxsize=16_384)
def _parse_topic(text: str) -> tuple[Topic, NodeKey]:
    topic = parse_topic(text)
    return topic, NodeKey(topic.group, topic.node)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the configuration says about taking in."""

    reorder_seconds: float = 5.0
    ask_kernel: bool = True
    """Whether an unsynchronised kernel clock holds acknowledgements (`clock = "ntp"`)."""


class Ingest:
    """Takes messages from the broker until cancelled; `run` it once."""

    def __init__(
        self,
        *,
        broker: Broker,
        store: TimeSeries,
        live: LiveState,
        clock: Clock,
        counters: Counters,
        settings: Settings,
        on_hello: Callable[[NodeKey, str], None],
        on_events: Callable[[], None],
    ) -> None:
        self._broker = broker
        self._store = store
        self._live = live
        self._clock = clock
        self._counters = counters
        self._settings = settings
        self._on_hello = on_hello
        self._on_events = on_events
        self._nodes: dict[NodeKey, NodeView] = {}
        self._strangers = Strangers(live.configured)
        self.tally = Tally(clock=clock, counters=counters)
        self.watch = ClockWatch(store=store, clock=clock, ask_kernel=settings.ask_kernel, trusted=live.configured)
        self.committing = Committing(
            store=store,
            clock=clock,
            counters=counters,
            received_at=self.watch.dated,
            committed=self._committed,
            lost=self._lost,
        )
        self.answering = Answering(
            nodes=self._nodes,
            configured=live.configured,
            broker=broker,
            store=store,
            clock=clock,
            counters=counters,
            reorder_seconds=settings.reorder_seconds,
        )

    @property
    def holding(self) -> str:
        """Return why acknowledgements are withheld, "" if they are not."""
        return self.committing.down or self.watch.doubt

    def standing(self) -> Standing:
        """Return how the hub stands towards edge nodes."""
        return Standing(doubt=self.watch.doubt, closed=bool(self.committing.down) or self.committing.full)

    def our_node(self, key: NodeKey) -> bool:
        """Return whether an edge node speaks our delivery; only strangers may be written to plainly."""
        view = self._nodes.get(key)
        return view is not None and view.log is not None

    def born(self, key: NodeKey) -> bool:
        """Return whether an edge node's birth is in force."""
        view = self._nodes.get(key)
        return view is not None and view.session.born

    def delivery(self, key: NodeKey) -> NodeDelivery | None:
        """Return how an edge node's delivery stands, None if it was not heard since the hub started."""
        view = self._nodes.get(key)
        return None if view is None else log_account.shown(view, self._clock.monotonic())

    def want_birth(self, key: NodeKey) -> bool:
        """Have an edge node asked for its births, within the limits; return whether it was ever heard."""
        view = self._nodes.get(key)
        if view is None:
            return False
        view.session = session.unreadable(view.session)
        return True

    async def run(self) -> None:
        """Take in, commit and answer until cancelled; what was taken in by then is committed before returning."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._collect(), name="ingest: collect")
                tasks.create_task(self._tick(), name="ingest: tick")
        finally:
            await self.committing.end()

    async def _collect(self) -> None:
        while True:
            for count, message in enumerate(await self._broker.take(within=0.05 if self.committing.batch else 1.0)):
                self._take_in_safely(message)
                if count % 200 == 199:
                    await asyncio.sleep(0)
                    self.committing.commit_if_due()
            self.committing.commit_if_due()

    def _take_in_safely(self, message: Message) -> None:
        """Take in one message; a mistake of ours costs that message, not the hub."""
        try:
            self.take_in(message)
        except Exception:
            self._counters.dropped.labels("our_mistake").inc()
            log.exception("%s could not be taken in; it is not acknowledged", message.topic[:200])

    def take_in(self, message: Message) -> None:
        """Bring one message as far as the batch and live state; nothing it contains raises."""
        try:
            topic, node = _parse_topic(message.topic)
            if topic.kind in _COMMANDS or (topic.kind in _DATA and self._take_alike(topic, node, message)):
                return
            payload = parse(message.payload)
        except TopicUnreadable as exc:
            if state_host(message.topic) is None:
                self.tally.dropped("topic", message.topic[:60], str(exc))
            return
        except PayloadUnreadable as exc:
            self.tally.dropped("payload", message.topic, f"{message.topic}: {exc}")
            return
        self.tally.messages[topic.kind] += 1
        view = self._view(node)
        if view is None:
            self.tally.dropped(
                "too_many_strangers", "strangers", "too many edge nodes that nobody configured; not taken in"
            )
            return
        match topic.kind:
            case MessageType.NBIRTH:
                self._node_birth(view, payload, message)
            case MessageType.NDEATH:
                self._node_death(view, payload, message)
            case _:
                self._later(view, topic, payload, message)

    def _take_alike(self, topic: Topic, node: NodeKey, message: Message) -> bool:
        """Take in data that is like earlier data of its device; return whether it was."""
        view = self._nodes.get(node)
        if view is None or not view.session.born or self.committing.full:
            return False
        batch = self.committing.filling()
        found = read_alike(view, topic.device or "", message.payload, received_at=message.received_at, batch=batch)
        if found is None:
            return False
        template, alike = found
        now = self._clock.monotonic()
        self._heard(view, alike.seq, message, now)
        if node in self._strangers:
            self._strangers.heard(node)
        if self.watch.asks(view, now) and not template.last_mark & (HISTORICAL_BIT | TIME_BITS):
            self.watch.heard(view, alike.told_at - message.received_at, now)
        batch.wire_bytes += len(message.payload)
        self.tally.messages[topic.kind] += 1
        self.tally.samples += template.samples
        view.answers.times.note(now, template.samples, 0)
        self._live.touch()
        return True

    def _view(self, key: NodeKey) -> NodeView | None:
        """Return the view of an edge node, a new one if need be; None for a stranger for whom there is no room."""
        view = self._nodes.get(key)
        stranger = key in self._strangers
        if view is None:
            if stranger and not self._strangers.may_add(METRICS_A_NODE):
                return None
            view = self._nodes[key] = log_account.opened(key, self._store)
        if stranger:
            silent = self._strangers.heard(key)
            if silent is not None:
                self._forget(silent)
        return view

    def _forget(self, stranger: NodeKey) -> None:
        self._nodes.pop(stranger, None)
        self._live.forget_node(stranger)
        self._counters.strangers_forgotten.inc()
        self.tally.complain(
            "strangers", "", f"more than {len(self._strangers)} edge nodes that nobody configured; the silent ones go"
        )

    def _node_birth(self, view: NodeView, payload: sparkplug_pb2.Payload, message: Message) -> None:
        now = self._clock.monotonic()
        view.session = session.birth(view.session, bdseq=_bdseq(payload), seq=payload.seq)
        view.log = next((one.string_value for one in payload.metrics if one.name == LOG and one.string_value), None)
        view.tables.clear()
        comings.node_born(self._live, view.key, message.received_at)
        held = self._told_log(message) if view.log is not None else None
        for kind in log_account.begin(view, held, now=now, now_ms=message.received_at, batch=self.committing.filling()):
            self.tally.complain(kind, view.key.node, f"{view.key.group}/{view.key.node} {WORDS[kind]}")
        self._read(view, "", payload, message, birth=True)
        view.heard = now
        view.answers.born(now)

    def _told_log(self, message: Message) -> Held | None:
        try:
            return log_account.told_log(message.payload)
        except PayloadUnreadable as exc:
            self.tally.complain("held", message.topic, f"{message.topic}: {exc}")
            return None

    def _node_death(self, view: NodeView, payload: sparkplug_pb2.Payload, message: Message) -> None:
        dead = session.death(view.session, _bdseq(payload))
        if dead is None:
            self.tally.dropped("old_death", message.topic, f"{message.topic}: death of another session")
            return
        view.session = dead
        comings.node_died(self._live, view.key, message.received_at)

    def _later(self, view: NodeView, topic: Topic, payload: sparkplug_pb2.Payload, message: Message) -> None:
        self._heard(view, payload.seq if payload.HasField("seq") else None, message, self._clock.monotonic())
        if not view.session.born:
            self.tally.dropped("before_birth", message.topic, f"{message.topic}: data before birth")
            return
        device = topic.device or ""
        match topic.kind:
            case MessageType.DBIRTH:
                comings.device_born(self._live, view, DeviceKey(topic.group, topic.node, device), message.received_at)
                self._read(view, device, payload, message, birth=True)
            case MessageType.DDEATH:
                comings.device_died(self._live, view, DeviceKey(topic.group, topic.node, device), message.received_at)
            case _:
                self._read(view, device, payload, message, birth=False)

    def _heard(self, view: NodeView, seq: int | None, message: Message, now: float) -> None:
        """Note a message after the birth, in its order."""
        view.session = session.message(view.session, seq, now)
        if view.session.born:
            comings.node_heard(self._live, view, message.received_at, now)

    def _read(
        self, view: NodeView, device: str, payload: sparkplug_pb2.Payload, message: Message, *, birth: bool
    ) -> None:
        keep = not self.committing.full
        batch = self.committing.filling() if keep else Batch()
        try:
            if birth:
                if not self._room_for(view, device, payload):
                    self.tally.dropped(
                        "too_many_strangers", view.key.node, f"{message.topic}: no room for a stranger's metrics"
                    )
                    return
                taken = read_birth(
                    view,
                    device,
                    payload,
                    received_at=message.received_at,
                    store=self._store,
                    live=self._live,
                    batch=batch,
                )
            else:
                self._witness(view, device, payload, message)
                taken = read_data(
                    view,
                    device,
                    payload,
                    message.payload,
                    received_at=message.received_at,
                    live=self._live,
                    batch=batch,
                    keep=keep,
                    doubt=bool(self.watch.doubt),
                )
        except DataUnreadable as exc:
            # Where there are more epochs than a birth may name, another birth would name the same again.
            if not (isinstance(exc, DataUnlisted) and log_account.full(view)):
                view.session = session.unreadable(view.session)
            self.tally.dropped(str(exc), message.topic, f"{message.topic}: {exc}")
            return
        except DataUndecided as exc:
            self.tally.dropped(str(exc), "clock", f"{self.watch.doubt}: readings of impossible times are not taken in")
            return
        if keep:
            batch.wire_bytes += len(message.payload)
            self._count(view, taken, message)
        else:
            self.tally.dropped("undecided", "store", "more than 64 MiB wait for the store; not acknowledged")
        self._heed(view, taken, message)
        self._live.touch()

    def _room_for(self, view: NodeView, device: str, payload: sparkplug_pb2.Payload) -> bool:
        if view.key not in self._strangers:
            return True
        known = self._live.state(DeviceKey(view.key.group, view.key.node, device)).slots
        return self._strangers.may_add(1 + sum(one.name not in known for one in payload.metrics))

    def _witness(self, view: NodeView, device: str, payload: sparkplug_pb2.Payload, message: Message) -> None:
        now = self._clock.monotonic()
        if self.watch.asks(view, now) and payload.timestamp and speaks_now(view, device, payload):
            self.watch.heard(view, payload.timestamp - message.received_at, now)

    def _count(self, view: NodeView, taken: Taken, message: Message) -> None:
        self.tally.taken(taken, message.topic)
        if taken.positioned:
            wrong = taken.faults.count("impossible_time")
            view.answers.times.note(self._clock.monotonic(), taken.samples, wrong)

    def _heed(self, view: NodeView, taken: Taken, message: Message) -> None:
        if taken.hello is not None:
            self._on_hello(view.key, taken.hello)
        if taken.depth:
            view.depth = Depth(
                records=taken.depth.get(DEPTH),
                oldest=taken.depth.get(OLDEST),
                bytes_on_disk=taken.depth.get(BYTES),
                told_at=message.received_at,
            )

    def _committed(self, batch: Batch) -> None:
        """Owe the edge nodes an answer, and raise the floors that this batch lets rise."""
        told: dict[NodeKey, NodeView] = {}
        rising: dict[NodeKey, NodeView] = {}
        for node, lineage, first, last in batch.committed:
            view = self._nodes.get(node)
            if view is None:
                continue
            view.answers.committed(lineage, first, last, batch.wire_bytes // len(batch.committed))
            told[node] = view
            if view.held is not None and lineage.epoch != view.held.epoch:
                rising[node] = view
        for view in rising.values():
            log_account.raise_floor(view, self.committing.filling())
        for raised in batch.floors:
            view = self._nodes.get(raised.node)
            if view is not None and log_account.spent(view):
                view.answers.ledger_wanted()
        if self._broker.ready:  # whoever filled half its window waits for this
            for view in told.values():
                self.answering.answer(view, self.standing())
        if batch.events:
            self._on_events()

    def _lost(self, batch: Batch) -> None:
        """Take back what was accepted with a batch that is not going to be committed."""
        touched = {node for node, *_ in batch.committed}
        touched |= {one.node for one in batch.floors} | {one.node for one in batch.voids}
        for node in touched:
            view = self._nodes.get(node)
            if view is not None:
                stored = log_account.opened(node, self._store)
                view.accepted, view.floors, view.void = stored.accepted, stored.floors, stored.void
                view.session = session.unreadable(view.session)
        for node, lineage, first, last in self.committing.batch.committed:
            view = self._nodes.get(node)
            if view is not None:
                view.accepted[lineage] = view.accepted.get(lineage, EMPTY) | RangeSet([(first, last)])

    async def _tick(self) -> None:
        while True:
            await self._clock.sleep(TICK)
            self._live.watch_silence()
            self.watch.look()
            comings.let_go(self._live, self._nodes.values(), self._clock.monotonic())
            self._counters.undecided.set(self.committing.undecided)
            self._counters.holding.set(1 if self.holding else 0)
            self.tally.bring_up()
            self._count_alarms()
            if self._broker.ready:
                self.answering.look(self.standing())

    def _count_alarms(self) -> None:
        now = self._clock.monotonic()
        standing = [kind for view in self._nodes.values() for kind in log_account.active(view, now)]
        for kind in AlarmKind:
            self._counters.alarms.labels(kind.value).set(standing.count(kind))


def _bdseq(payload: sparkplug_pb2.Payload) -> int | None:
    return next((int(one.long_value or one.int_value) for one in payload.metrics if one.name == BDSEQ), None)
