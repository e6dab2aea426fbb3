"""Every message's path through the hub, top to bottom: decode, validate, live state, commit, acknowledge.

Positions are acknowledged only after the one transaction that holds their samples. A store that is down, slow or full
makes the hub hold acknowledgements; live state goes on.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import lru_cache

from contract import sparkplug_pb2
from contract.catalog import BDSEQ, REBIRTH
from contract.clock import Clock, kernel_synchronised
from contract.delivery import LOG, Committed, Ledger, answer
from contract.metrics import DataType, Quality
from contract.payload import Payload, PayloadUnreadable, WireMetric, encode, parse
from contract.topics import MessageType, Topic, TopicUnreadable, state_host
from contract.topics import parse as parse_topic
from hub import session
from hub.alias_tables import NodeView, Taken
from hub.answers import Answers
from hub.births import read_birth
from hub.broker import Broker, Message
from hub.counters import Counters
from hub.decode import DataUnreadable, read_data
from hub.devices import DeviceKey, NodeKey
from hub.live_state import LiveState, Slot
from hub.presence import DeviceFacts, NodeFacts
from hub.storage.timeseries import Batch, StoreUnavailable, TimeSeries

log = logging.getLogger(__name__)

MOST_SAMPLES = 20_000
MOST_WAIT = 0.25
"""A batch is committed when it has so many samples, or when its first message waited so many seconds."""

MOST_UNDECIDED = 64 * 1024 * 1024
REBIRTHS_A_SECOND = 20
COMPLAIN_EVERY = 60.0
MOST_BACKOFF = 30.0

_parse_topic = lru_cache(maxsize=16_384)(parse_topic)


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
        self._answers: dict[NodeKey, Answers] = {}
        self._batch = Batch()
        self._batch_since = 0.0
        self._committing: asyncio.Task[None] | None = None
        self._committing_bytes = 0
        self._store_down = ""
        self._complained: dict[tuple[str, str], float] = {}
        self._started_early = clock.now_ms() < store.newest_received()

    @property
    def holding(self) -> str:
        """Return why acknowledgements are withheld, "" if they are not."""
        if self._store_down:
            return self._store_down
        if self._settings.ask_kernel and not kernel_synchronised():
            return "the clock is not synchronised"
        if self._started_early and self._clock.now_ms() < self._store.newest_received():
            return "the clock is behind the newest reading in the store"
        return ""

    def our_node(self, key: NodeKey) -> bool:
        """Return whether an edge node speaks our delivery; only strangers may be written to plainly."""
        view = self._nodes.get(key)
        return view is not None and view.log is not None

    def born(self, key: NodeKey) -> bool:
        """Return whether an edge node's birth is in force."""
        view = self._nodes.get(key)
        return view is not None and view.session.born

    async def run(self) -> None:
        """Take in, commit and answer until cancelled; what was taken in by then is committed before returning."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._collect(), name="ingest: collect")
                tasks.create_task(self._tick(), name="ingest: tick")
        finally:
            if self._committing is not None:
                self._committing.cancel()
                await asyncio.gather(self._committing, return_exceptions=True)

    async def _collect(self) -> None:
        while True:
            for count, message in enumerate(await self._broker.take(within=0.05 if self._batch else 1.0)):
                self._take_in_safely(message)
                if count % 200 == 199:
                    await asyncio.sleep(0)
                    self._commit_if_due()
            self._commit_if_due()

    def _take_in_safely(self, message: Message) -> None:
        """Take in one message; a mistake of ours costs that message, not the hub."""
        try:
            self.take_in(message)
        except Exception:
            self._counters.dropped.labels("our_mistake").inc()
            log.exception("%s could not be taken in; it is not acknowledged", message.topic[:200])

    def take_in(self, message: Message) -> None:
        """Bring one message as far as the batch and live state; nothing it contains raises."""
        if state_host(message.topic) is not None:
            return
        try:
            topic = _parse_topic(message.topic)
            if topic.kind in {MessageType.NCMD, MessageType.DCMD}:
                return
            payload = parse(message.payload)
        except TopicUnreadable as exc:
            self._drop("topic", message.topic[:60], str(exc))
            return
        except PayloadUnreadable as exc:
            self._drop("payload", message.topic, f"{message.topic}: {exc}")
            return
        self._counters.messages.labels(topic.kind).inc()
        view = self._view(NodeKey(topic.group, topic.node))
        match topic.kind:
            case MessageType.NBIRTH:
                self._node_birth(view, payload, message)
            case MessageType.NDEATH:
                self._node_death(view, payload, message)
            case _:
                self._later(view, topic, payload, message)

    def _view(self, key: NodeKey) -> NodeView:
        view = self._nodes.get(key)
        if view is None:
            view = self._nodes[key] = NodeView(key=key, accepted=dict(self._store.ledger(key)))
            self._answers[key] = Answers()
        return view

    def _node_birth(self, view: NodeView, payload: sparkplug_pb2.Payload, message: Message) -> None:
        bdseq = next((int(one.long_value or one.int_value) for one in payload.metrics if one.name == BDSEQ), None)
        view.session = session.birth(view.session, bdseq=bdseq, seq=payload.seq)
        view.log = next((one.string_value for one in payload.metrics if one.name == LOG and one.string_value), None)
        view.tables.clear()
        self._live.set_node(view.key, NodeFacts(born=True, since=message.received_at, heard=message.received_at))
        for device in self._live.of_node(view.key):
            device.facts = replace(device.facts, born=False)
        self._read(view, "", payload, message, birth=True)
        self._answers[view.key].born(self._clock.monotonic())

    def _node_death(self, view: NodeView, payload: sparkplug_pb2.Payload, message: Message) -> None:
        bdseq = next((int(one.long_value or one.int_value) for one in payload.metrics if one.name == BDSEQ), None)
        dead = session.death(view.session, bdseq)
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
        seq = payload.seq if payload.HasField("seq") else None
        view.session = session.message(view.session, seq, self._clock.monotonic())
        if not view.session.born:
            self._drop("before_birth", message.topic, f"{message.topic}: data before birth")
            return
        self._live.set_node(view.key, replace(self._live.node(view.key), heard=message.received_at))
        device = topic.device or ""
        match topic.kind:
            case MessageType.DBIRTH:
                state = self._live.state(DeviceKey(topic.group, topic.node, device))
                state.facts = DeviceFacts(
                    born=True,
                    since=message.received_at,
                    claim=state.facts.claim,
                    claimed=state.facts.claimed,
                )
                self._read(view, device, payload, message, birth=True)
            case MessageType.DDEATH:
                state = self._live.state(DeviceKey(topic.group, topic.node, device))
                state.facts = replace(state.facts, born=False, since=message.received_at)
                _grow_stale(state.slots.values())
                view.tables.pop(device, None)
                self._live.touch()
            case _:
                self._read(view, device, payload, message, birth=False)

    def _read(
        self, view: NodeView, device: str, payload: sparkplug_pb2.Payload, message: Message, *, birth: bool
    ) -> None:
        if not birth and self._batch.wire_bytes + self._committing_bytes > MOST_UNDECIDED:
            self._drop("undecided", "store", "more than 64 MiB wait for the store; not acknowledged")
            return
        if not self._batch:
            self._batch_since = self._clock.monotonic()
        try:
            taken = (
                read_birth(
                    view,
                    device,
                    payload,
                    received_at=message.received_at,
                    store=self._store,
                    live=self._live,
                    batch=self._batch,
                )
                if birth
                else read_data(
                    view,
                    device,
                    payload,
                    message.payload,
                    received_at=message.received_at,
                    live=self._live,
                    batch=self._batch,
                )
            )
        except DataUnreadable as exc:
            view.session = session.unreadable(view.session)
            self._drop(str(exc), message.topic, f"{message.topic}: {exc}")
            return
        self._batch.wire_bytes += len(message.payload)
        self._count(view, taken, message)
        self._live.touch()

    def _count(self, view: NodeView, taken: Taken, message: Message) -> None:
        self._counters.samples.inc(taken.samples)
        wrong = taken.faults.count("impossible_time")
        self._answers[view.key].times.note(self._clock.monotonic(), taken.samples, wrong)
        if taken.again:
            self._counters.again.inc(taken.again)
        for reason in taken.faults:
            self._counters.quarantined.labels(reason).inc()
        if taken.faults:
            self._complain(taken.faults[0], message.topic, f"{message.topic}: {', '.join(sorted(set(taken.faults)))}")
        if taken.hello is not None:
            self._on_hello(view.key, taken.hello)

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

    def _commit_if_due(self) -> None:
        if not self._batch or (self._committing is not None and not self._committing.done()):
            return
        waited = self._clock.monotonic() - self._batch_since
        if waited < MOST_WAIT and self._batch.samples < MOST_SAMPLES and not self._batch.events:
            return
        batch, self._batch = self._batch, Batch()
        self._committing_bytes = batch.wire_bytes
        self._committing = asyncio.create_task(self._commit(batch), name="ingest: commit")

    async def _commit(self, batch: Batch) -> None:
        """Commit, trying again for as long as it takes; then owe the edge nodes an answer."""
        backoff = 0.5
        while True:
            started = self._clock.monotonic()
            try:
                await asyncio.to_thread(self._store.commit, batch, self._clock.now_ms())
                break
            except StoreUnavailable as exc:
                self._counters.commit_failures.inc()
                if not self._store_down:
                    log.error("the store does not commit, acknowledgements are held: %s", exc)
                self._store_down = str(exc)
                await self._clock.sleep(backoff)
                backoff = min(backoff * 2, MOST_BACKOFF)
        if self._store_down:
            log.warning("the store commits again")
            self._store_down = ""
        self._counters.commits.inc()
        self._counters.commit_seconds.observe(self._clock.monotonic() - started)
        self._committing_bytes = 0
        for node, lineage, first, last in batch.committed:
            self._answers[node].committed(lineage, first, last, batch.wire_bytes // len(batch.committed))
        if batch.events:
            self._on_events()

    async def _tick(self) -> None:
        while True:
            await self._clock.sleep(0.5)
            self._live.watch_silence()
            self._counters.undecided.set(self._batch.wire_bytes + self._committing_bytes)
            if not self._broker.ready:
                continue
            self._ask_for_births()
            held = self.holding
            self._counters.holding.set(1 if held else 0)
            for key, answers in self._answers.items():
                self._answer(key, answers, held=bool(held))

    def _ask_for_births(self) -> None:
        now, asked = self._clock.monotonic(), 0
        for view in self._nodes.values():
            view.session = session.overdue(view.session, now, self._settings.reorder_seconds)
            if asked >= REBIRTHS_A_SECOND // 2:  # a tick is half a second
                return
            after = session.asks(view.session, now)
            if after is not None:
                view.session = after
                asked += 1
                self.ask_for_birth(view.key)

    def ask_for_birth(self, key: NodeKey) -> bool:
        """Send `Node Control/Rebirth` = true; return whether it could be sent."""
        now = self._clock.now_ms()
        metric = WireMetric(name=REBIRTH, at=now, datatype=DataType.BOOLEAN, value=True)
        self._counters.rebirths.inc()
        log.info("asking %s/%s for a rebirth", key.group, key.node)
        return self._send(key, Payload(at=now, metrics=(metric,)))

    def _answer(self, key: NodeKey, answers: Answers, *, held: bool) -> None:
        view, now = self._nodes[key], self._clock.monotonic()
        if view.log is None or not view.session.born:
            return
        due = answers.due(now, held=held, store_down=bool(self._store_down))
        if due is None:
            return
        if answers.times.wild(now):
            sentence = f"{key.node}: too many impossible times; not acknowledged while that lasts, mend its clock"
            self._complain("wild_clock", key.node, sentence)
            return
        what: Ledger | Committed = answers.news(view.log)
        if due is Ledger:
            what = answers.ledger(self._store.ledger(key), view.log, store_down=bool(self._store_down))
        if self._send(key, answer(what, self._clock.now_ms())):
            answers.told(what, now)

    def _send(self, key: NodeKey, payload: Payload) -> bool:
        return self._broker.publish(str(Topic(key.group, MessageType.NCMD, key.node)), encode(payload))


def _grow_stale(slots: Iterable[Slot]) -> None:
    for slot in slots:
        slot.quality = int(Quality.STALE)
