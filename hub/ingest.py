"""Every message's path through the hub, top to bottom: decode, validate, live state, commit, acknowledge.

Positions are acknowledged only after the one transaction that holds their samples. A store that is down, slow or full
makes the hub hold acknowledgements; live state goes on.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import lru_cache

from contract import sparkplug_pb2
from contract.catalog import BDSEQ
from contract.clock import Clock, kernel_synchronised
from contract.delivery import BYTES, DEPTH, LOG, OLDEST, Held
from contract.metrics import Quality
from contract.payload import PayloadUnreadable, parse
from contract.positions import EMPTY, RangeSet
from contract.topics import MessageType, Topic, TopicUnreadable, state_host
from contract.topics import parse as parse_topic
from hub import log_account, session
from hub.alias_tables import Taken
from hub.answering import TICK, Answering, Standing
from hub.births import read_birth
from hub.broker import Broker, Message
from hub.clock_guard import Witnesses, clock_fault
from hub.committing import Committing
from hub.counters import Counters
from hub.decode import DataUndecided, DataUnreadable, read_alike, read_data, speaks_now
from hub.devices import DeviceKey, NodeKey
from hub.live_state import LiveState, Slot
from hub.node_delivery import WORDS, AlarmKind, Depth, NodeDelivery
from hub.node_view import NodeView
from hub.presence import DeviceFacts, NodeFacts
from hub.storage.timeseries import HISTORICAL_BIT, TIME_BITS, Batch, TimeSeries
from hub.strangers import METRICS_A_NODE, Strangers

log = logging.getLogger(__name__)

_COMMANDS = frozenset({MessageType.NCMD, MessageType.DCMD})
_DATA = frozenset({MessageType.NDATA, MessageType.DDATA})

COMPLAIN_EVERY = 60.0
HEARD_WITHIN = 1.0
"""Seconds: how exactly it is kept when an edge node was heard."""

WITNESS_EVERY = 5.0
"""Seconds between two looks at an edge node's clock."""

GONE_AFTER = 60.0
"""Seconds after an NBIRTH in which every configured device is born; who is not by then is no device any more."""


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
        self._complained: dict[tuple[str, str], float] = {}
        self._witnesses = Witnesses()
        self._taken: Counter[MessageType] = Counter()
        self._taken_samples = 0
        self._started_early = clock.now_ms() < store.newest_received()
        self.committing = Committing(
            store=store,
            clock=clock,
            counters=counters,
            received_at=self._received_at,
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
        self._doubt = ""
        self._look_at_clock()

    @property
    def holding(self) -> str:
        """Return why acknowledgements are withheld, "" if they are not."""
        return self.committing.down or self._doubt

    def standing(self) -> Standing:
        """Return how the hub stands towards edge nodes."""
        return Standing(doubt=self._doubt, closed=bool(self.committing.down) or self.committing.full)

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
                self._drop("topic", message.topic[:60], str(exc))
            return
        except PayloadUnreadable as exc:
            self._drop("payload", message.topic, f"{message.topic}: {exc}")
            return
        self._taken[topic.kind] += 1
        view = self._view(node)
        if view is None:
            self._drop("too_many_strangers", "strangers", "too many edge nodes that nobody configured; not taken in")
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
        if now - view.witnessed >= WITNESS_EVERY and not template.last_mark & (HISTORICAL_BIT | TIME_BITS):
            self._testify(view, alike.told_at, message, now)
        batch.wire_bytes += len(message.payload)
        self._taken[topic.kind] += 1
        self._taken_samples += template.samples
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
        self._complain(
            "strangers", "", f"more than {len(self._strangers)} edge nodes that nobody configured; the silent ones go"
        )

    def _node_birth(self, view: NodeView, payload: sparkplug_pb2.Payload, message: Message) -> None:
        now = self._clock.monotonic()
        view.session = session.birth(view.session, bdseq=_bdseq(payload), seq=payload.seq)
        view.log = next((one.string_value for one in payload.metrics if one.name == LOG and one.string_value), None)
        view.tables.clear()
        self._live.set_node(view.key, NodeFacts(born=True, since=message.received_at, heard=message.received_at))
        for device in self._live.of_node(view.key):
            device.facts = replace(device.facts, born=False)
        held = self._told_log(message) if view.log is not None else None
        for kind in log_account.begin(view, held, now=now, now_ms=message.received_at, batch=self.committing.filling()):
            self._complain(kind, view.key.node, f"{view.key.group}/{view.key.node} {WORDS[kind]}")
        self._read(view, "", payload, message, birth=True)
        view.heard = now
        view.answers.born(now)

    def _told_log(self, message: Message) -> Held | None:
        try:
            return log_account.told_log(message.payload)
        except PayloadUnreadable as exc:
            self._complain("held", message.topic, f"{message.topic}: {exc}")
            return None

    def _node_death(self, view: NodeView, payload: sparkplug_pb2.Payload, message: Message) -> None:
        dead = session.death(view.session, _bdseq(payload))
        if dead is None:
            self._drop("old_death", message.topic, f"{message.topic}: death of another session")
            return
        view.session = dead
        heard = self._live.node(view.key).heard
        self._live.set_node(view.key, NodeFacts(born=False, since=message.received_at, heard=heard))
        for device in self._live.of_node(view.key):
            device.facts = replace(device.facts, born=False, since=message.received_at)
            _grow_stale(device.slots.values())
        _grow_stale(self._live.state(DeviceKey(view.key.group, view.key.node, "")).slots.values())
        self._live.touch()

    def _later(self, view: NodeView, topic: Topic, payload: sparkplug_pb2.Payload, message: Message) -> None:
        self._heard(view, payload.seq if payload.HasField("seq") else None, message, self._clock.monotonic())
        if not view.session.born:
            self._drop("before_birth", message.topic, f"{message.topic}: data before birth")
            return
        device = topic.device or ""
        match topic.kind:
            case MessageType.DBIRTH:
                self._device_birth(view, DeviceKey(topic.group, topic.node, device), payload, message)
            case MessageType.DDEATH:
                self._device_death(view, DeviceKey(topic.group, topic.node, device), message)
            case _:
                self._read(view, device, payload, message, birth=False)

    def _heard(self, view: NodeView, seq: int | None, message: Message, now: float) -> None:
        """Note a message after the birth, in its order."""
        view.session = session.message(view.session, seq, now)
        if not view.session.born:
            return
        view.heard = now
        if now - view.shown_at >= HEARD_WITHIN:
            view.shown_at = now
            self._live.set_node(view.key, replace(self._live.node(view.key), heard=message.received_at))

    def _device_birth(self, view: NodeView, key: DeviceKey, payload: sparkplug_pb2.Payload, message: Message) -> None:
        state = self._live.state(key)
        state.facts = DeviceFacts(
            born=True, since=message.received_at, claim=state.facts.claim, claimed=state.facts.claimed
        )
        view.born_devices.add(key.device)
        self._read(view, key.device, payload, message, birth=True)

    def _device_death(self, view: NodeView, key: DeviceKey, message: Message) -> None:
        state = self._live.state(key)
        table = view.tables.pop(key.device, None)
        if view.log is not None and table is not None and table.retired:
            self._live.forget(key)
            return
        state.facts = replace(state.facts, born=False, since=message.received_at)
        _grow_stale(state.slots.values())
        self._live.touch()

    def _read(
        self, view: NodeView, device: str, payload: sparkplug_pb2.Payload, message: Message, *, birth: bool
    ) -> None:
        keep = not self.committing.full
        batch = self.committing.filling() if keep else Batch()
        try:
            if birth:
                if not self._room_for(view, device, payload):
                    self._drop(
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
                    doubt=bool(self._doubt),
                )
        except DataUnreadable as exc:
            view.session = session.unreadable(view.session)
            self._drop(str(exc), message.topic, f"{message.topic}: {exc}")
            return
        except DataUndecided as exc:
            self._drop(str(exc), "clock", f"{self._doubt}: readings of impossible times are not taken in")
            return
        if keep:
            batch.wire_bytes += len(message.payload)
            self._count(view, taken, message)
        else:
            self._drop("undecided", "store", "more than 64 MiB wait for the store; not acknowledged")
        self._heed(view, taken, message)
        self._live.touch()

    def _room_for(self, view: NodeView, device: str, payload: sparkplug_pb2.Payload) -> bool:
        if view.key not in self._strangers:
            return True
        known = self._live.state(DeviceKey(view.key.group, view.key.node, device)).slots
        return self._strangers.may_add(1 + sum(one.name not in known for one in payload.metrics))

    def _witness(self, view: NodeView, device: str, payload: sparkplug_pb2.Payload, message: Message) -> None:
        now = self._clock.monotonic()
        if now - view.witnessed >= WITNESS_EVERY and payload.timestamp and speaks_now(view, device, payload):
            self._testify(view, payload.timestamp, message, now)

    def _testify(self, view: NodeView, told_at: int, message: Message, now: float) -> None:
        """Take an edge node's clock for a witness now and then; only those that somebody configured are believed."""
        if view.key in self._live.configured:
            view.witnessed = now
            self._witnesses.heard(view.key, told_at - message.received_at, now)

    def _count(self, view: NodeView, taken: Taken, message: Message) -> None:
        self._taken_samples += taken.samples
        if taken.positioned:
            wrong = taken.faults.count("impossible_time")
            view.answers.times.note(self._clock.monotonic(), taken.samples, wrong)
        if taken.again:
            self._counters.again.inc(taken.again)
        for reason in taken.faults:
            self._counters.quarantined.labels(reason).inc()
        if taken.faults:
            self._complain(taken.faults[0], message.topic, f"{message.topic}: {', '.join(sorted(set(taken.faults)))}")

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

    def _drop(self, reason: str, source: str, sentence: str) -> None:
        self._counters.dropped.labels(reason).inc()
        self._complain(reason, source, sentence)

    def _complain(self, reason: str, source: str, sentence: str) -> None:
        """Log once per source and minute."""
        now = self._clock.monotonic()
        if now - self._complained.get((reason, source), float("-inf")) < COMPLAIN_EVERY:
            return
        if len(self._complained) > 10_000:
            self._complained.clear()
        self._complained[reason, source] = now
        log.warning("%s", sentence)

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
            self._look_at_clock()
            self._let_go()
            self._counters.undecided.set(self.committing.undecided)
            self._counters.holding.set(1 if self.holding else 0)
            self._count_taken()
            self._count_alarms()
            if self._broker.ready:
                self.answering.look(self.standing())

    def _look_at_clock(self) -> None:
        now = self._clock.monotonic()
        doubt = clock_fault(
            synchronised=not self._settings.ask_kernel or kernel_synchronised(),
            started_early=self._started_early,
            now_ms=self._clock.now_ms(),
            newest_received=self._store.newest_received(),
            ahead=self._witnesses.ahead(now),
        )
        if doubt and not self._doubt:
            log.error("acknowledgements are held: %s", doubt)
        elif self._doubt and not doubt:
            log.warning("the clock is believed again")
        self._doubt = doubt

    def _received_at(self) -> int:
        """Return what a commit is dated: never beyond what is stored while the clock may be ahead."""
        newest = self._store.newest_received()
        return min(self._clock.now_ms(), newest) if self._doubt and newest else self._clock.now_ms()

    def _let_go(self) -> None:
        """Let devices go that their edge node does not know any more: every configured one is born with its node."""
        now = self._clock.monotonic()
        for view in self._nodes.values():
            if view.settled or view.log is None or not view.session.born or now - view.born_at < GONE_AFTER:
                continue
            view.settled = True
            for state in self._live.of_node(view.key):
                if state.key.device not in view.born_devices:
                    log.info("%s/%s is no device of its edge node any more", state.key.node, state.key.device)
                    self._live.forget(state.key)

    def _count_taken(self) -> None:
        """Bring up the counters: twice a second, since each costs as much as reading a sample."""
        for kind, count in self._taken.items():
            self._counters.messages.labels(kind).inc(count)
        self._counters.samples.inc(self._taken_samples)
        self._taken.clear()
        self._taken_samples = 0

    def _count_alarms(self) -> None:
        now = self._clock.monotonic()
        standing = [kind for view in self._nodes.values() for kind in log_account.active(view, now)]
        for kind in AlarmKind:
            self._counters.alarms.labels(kind.value).set(standing.count(kind))


def _bdseq(payload: sparkplug_pb2.Payload) -> int | None:
    return next((int(one.long_value or one.int_value) for one in payload.metrics if one.name == BDSEQ), None)


def _grow_stale(slots: Iterable[Slot]) -> None:
    for slot in slots:
        slot.mark = int(Quality.STALE) << 8 | slot.mark & 0xFF
