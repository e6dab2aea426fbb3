"""The session with the hub: gives records positions, sends them, and forgets nothing until the hub has committed it.

One task owns the connection and sends everything, so sequence numbers need no lock. What to do is decided in session.py
(when to be born), lanes.py (what is owed) and messages.py (how it reads on the wire); here it is done.
"""

import asyncio
import contextlib
import logging
import random
import sqlite3
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from contract import sparkplug_pb2
from contract.catalog import NEVER_LOGGED, NEVER_LOGGED_PREFIXES, ONLINE, PRESENCE, UPTIME, Kind, node_metrics
from contract.clock import Clock
from contract.delivery import FIRST_WINDOW_BYTES, MOST_HELD, Committed, Held, Ledger
from contract.metrics import DataType, Metric, Sample
from contract.payload import WireMetric
from contract.positions import EMPTY, NODE_STREAM, Lineage, RangeSet, difference, union
from contract.topics import MessageType, Topic, commands_for_devices, commands_for_node, state
from edge import lanes, messages
from edge.broker import BrokerLost, Connection, Message, Server, connect
from edge.delivery_log import DeliveryLog
from edge.downlink import Answer, Broadcast, HostState, Rebirth, Refused, instructions
from edge.messages import Born, Record
from edge.session import (
    Action,
    Bear,
    Connect,
    Connected,
    Event,
    HostSaid,
    Leave,
    LedgerCame,
    Lost,
    Phase,
    RebirthAsked,
    Rules,
    Session,
    Tick,
    step,
)

log = logging.getLogger(__name__)

UPTIME_EVERY = 30.0
"""The hub calls a node offline after 90 s of silence: three of these."""

NO_LEDGER_AFTER = 90.0
"""A host that sent no ledger so long after a birth is a stranger that will never send one."""

REFUSALS_EVERY = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceBirth:
    """What a configured device is and ever reports, known before it was ever reached."""

    kind: Kind
    metrics: Sequence[Metric]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Who this edge node is and whom it talks to."""

    group: str
    node: str
    brokers: Sequence[Server]
    primary_host: str = ""
    birth_jitter: float = 30.0
    keep_alive: int = 30
    commit_interval: float = 10.0


@dataclass(slots=True)
class Counts:
    """What the status file and the tests read."""

    reported: int = 0
    births: int = 0
    sent_bytes: int = 0
    refusals: int = 0


@dataclass(slots=True)
class _Connected:
    """What lives as long as one MQTT connection."""

    bdseq: int
    seq: int = 0
    born: dict[str, frozenset[int]] = field(default_factory=dict)
    newest_sent: dict[int, tuple[int, int]] = field(default_factory=dict)
    born_at: float = 0.0
    uptime_due: float = 0.0


class Uplink:
    """Where readings go in, and the hub's answers come back to. `run` it once; `end` makes `run` return."""

    def __init__(
        self,
        settings: Settings,
        *,
        delivery_log: DeliveryLog,
        devices: Mapping[str, DeviceBirth],
        clock: Clock,
        hello: Callable[[], str],
        on_broadcast: Callable[[str, str], Awaitable[None]],
        chance: random.Random,
    ) -> None:
        self._settings = settings
        self._log = delivery_log
        self._devices = devices
        self._clock = clock
        self._hello = hello
        self._on_broadcast = on_broadcast
        self._chance = chance
        self._rules = Rules(
            brokers=len(settings.brokers),
            waits_for_host=bool(settings.primary_host),
            birth_jitter=settings.birth_jitter,
        )
        self._known = {device: {one.name: one for one in born.metrics} for device, born in devices.items()}
        self._known[NODE_STREAM] = {one.name: one for one in node_metrics(devices)}
        self._reachable: dict[str, bool] = {}
        self._started = clock.monotonic()
        self._session = Session()
        self._live: _Connected | None = None
        self._birth_wanted = False
        self._leave: Leave | None = None
        self._reconnect_at = 0.0
        self._ending = False
        self._wake = asyncio.Event()
        self._left = asyncio.Event()
        self._committing = asyncio.Lock()
        self._events: deque[Record] = deque()
        self._telemetry: deque[Record] = deque()
        self._transients: deque[WireMetric] = deque(maxlen=100)
        self._committed: dict[Lineage, RangeSet] = {}
        self._window = FIRST_WINDOW_BYTES
        self._flights: tuple[lanes.Flight, ...] = ()
        self._patience = lanes.FIRST_PATIENCE
        self._sent: dict[str, int] = {}
        self._owed: list[tuple[Lineage, RangeSet]] = []
        self._uncovered: frozenset[str] = frozenset()
        self._refused_at: float | None = None
        self._said_lost = False
        self.counts = Counts()

    @property
    def born(self) -> bool:
        """Whether the hub knows us right now."""
        return self._session.phase is Phase.BORN

    def uncommitted(self) -> int:
        """Return how many records the hub has not yet said to have committed, those in memory included."""
        return self._log.pending + sum(len(ranges) for ranges in difference(self._log.held, self._committed).values())

    def committed(self) -> int:
        """Return how many of the records held here the hub has committed."""
        return sum(len(ranges & self._committed.get(one, EMPTY)) for one, ranges in self._log.held.items())

    async def record(self, stream: str, samples: Sequence[Sample]) -> None:
        """Give the samples of one read a position and send them as soon as a session lives.

        When one of them is an event, all pending records are on disk when this returns. Raises ValueError for a metric
        that the stream does not declare.
        """
        if not samples:
            return
        record = self._log.append(stream, samples[0].at, samples, self._known[stream])
        self.counts.reported += len(samples)
        if stream == NODE_STREAM:
            for sample in samples:
                if sample.metric.startswith(PRESENCE):
                    self._reachable[sample.metric.removeprefix(PRESENCE)] = sample.value == ONLINE
        if record.event:
            await self._commit()
        if self.born:
            (self._events if record.event else self._telemetry).append(record)
            self._wake.set()

    async def say(self, metrics: Sequence[WireMetric]) -> None:
        """Send node metrics that are never logged, if a session lives; otherwise they are dropped."""
        if self.born:
            self._transients.extend(metrics)
            self._wake.set()

    async def run(self) -> None:
        """Stay connected, commit in time, send what is owed; return after `end`."""
        keepers = [
            asyncio.create_task(self._commit_in_time(), name="delivery log: group commit"),
            asyncio.create_task(self._tick(), name="uplink: tick"),
        ]
        try:
            while not self._ending:
                await self._connect_once()
                await self._until_reconnect()
        finally:
            for keeper in keepers:
                keeper.cancel()
            await asyncio.gather(*keepers, return_exceptions=True)

    async def end(self, drain_seconds: float) -> bool:
        """Wait, at most so long, until the hub has committed all; then NDEATH, disconnect. Return whether it had.

        Where no hub answers in this session there is nothing to wait for: the rest is on disk.
        """
        await self._commit()
        deadline = self._clock.monotonic() + drain_seconds
        while self.uncommitted() and self._clock.monotonic() < deadline and not self._ending:
            if not self.born or self._session.first_ledger is None:
                break
            await self._clock.sleep(0.1)
        self._ending = True
        self._leave = Leave(death=self.born)
        self._left.set()
        self._wake.set()
        return self.uncommitted() == 0

    async def _commit_in_time(self) -> None:
        while True:
            await self._clock.sleep(self._settings.commit_interval)
            await self._commit()
            if self._session.first_ledger is not None:
                async with self._committing:
                    await asyncio.to_thread(self._log.expire, dict(self._committed))

    async def _commit(self) -> None:
        async with self._committing:
            # The log says once that the disk refuses; sending goes on, since a hub that hears us is better than none.
            with contextlib.suppress(sqlite3.Error):
                await asyncio.to_thread(self._log.commit)
        self._reckon()

    async def _tick(self) -> None:
        while True:
            await self._clock.sleep(1.0)
            self._wake.set()

    async def _until_reconnect(self) -> None:
        while not self._ending and self._clock.monotonic() < self._reconnect_at:
            self._wake.clear()
            await self._wake.wait()

    async def _connect_once(self) -> None:
        server = self._settings.brokers[self._session.broker]
        bdseq = self._log.next_bdseq()
        death = Message(self._topic(MessageType.NDEATH), messages.node_death(bdseq, self._clock.now_ms()))
        self._leave = None
        self._left.clear()
        try:
            async with connect(
                server, client_id=self._settings.node, will=death, keep_alive=self._settings.keep_alive
            ) as connection:
                await connection.subscribe(self._subscriptions())
                self._live = _Connected(bdseq=bdseq)
                self._dispatch(Connected(self._clock.monotonic(), self._chance.random()))
                if self._said_lost:
                    self._said_lost = False
                    log.info("broker %s:%d answers again", server.host, server.port)
                await self._converse(connection)
        except BrokerLost as exc:
            if not self._said_lost:
                self._said_lost = True
                log.warning("broker %s:%d is lost: %s", server.host, server.port, exc)
            self._dispatch(Lost(self._clock.monotonic(), self._chance.random()))
        finally:
            self._live = None
            self._events.clear()
            self._telemetry.clear()
            self._transients.clear()
            self._reckon()

    def _subscriptions(self) -> list[str]:
        group, node, host = self._settings.group, self._settings.node, self._settings.primary_host
        own = [commands_for_node(group, node), commands_for_devices(group, node)]
        return [*own, state(host)] if host else own

    async def _converse(self, connection: Connection) -> None:
        """Send and receive until the session decides to leave (returns) or the connection is lost (raises)."""
        loops = [
            asyncio.create_task(self._receive(connection), name="uplink: receive"),
            asyncio.create_task(self._send(connection), name="uplink: send"),
            asyncio.create_task(self._left.wait(), name="uplink: leave"),
        ]
        try:
            done, _ = await asyncio.wait(loops, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for loop in loops:
                loop.cancel()
            await asyncio.gather(*loops, return_exceptions=True)
        if self._leave is None:
            for loop in done:
                loop.result()
        elif self._leave.death and self._live is not None and self._live.born:
            # At QoS 1, so that it is out before DISCONNECT takes the will away.
            payload = messages.node_death(self._live.bdseq, self._clock.now_ms())
            await connection.publish(self._topic(MessageType.NDEATH), payload, qos=1)

    async def _receive(self, connection: Connection) -> None:
        settings = self._settings
        async for message in connection.messages():
            for asked in instructions(
                message.topic,
                message.payload,
                group=settings.group,
                node=settings.node,
                primary_host=settings.primary_host,
            ):
                now = self._clock.monotonic()
                match asked:
                    case HostState(online, timestamp):
                        self._dispatch(HostSaid(now, online, timestamp, self._chance.random()))
                    case Rebirth():
                        self._dispatch(RebirthAsked(now))
                    case Answer(what):
                        self._answered(what)
                    case Broadcast(name, value):
                        await self._on_broadcast(name, value)
                    case Refused(reason):
                        self._refuse(reason)

    def _dispatch(self, event: Event) -> None:
        self._session, actions = step(self._session, event, self._rules)
        for action in actions:
            self._act(action)
        if actions or not isinstance(event, Tick):
            self._wake.set()

    def _act(self, action: Action) -> None:
        match action:
            case Bear():
                self._birth_wanted = True
            case Leave():
                self._leave = action
                self._left.set()
            case Connect(at):
                self._reconnect_at = at

    def _refuse(self, reason: str) -> None:
        self.counts.refusals += 1
        now = self._clock.monotonic()
        if self._refused_at is None or now - self._refused_at >= REFUSALS_EVERY:
            self._refused_at = now
            log.warning("refused: %s (%d so far)", reason, self.counts.refusals)

    def _answered(self, what: Ledger | Committed) -> None:
        good, doubts = lanes.believable(what.positions, self._log.log_id, self._log.epoch, self._sent)
        for doubt in doubts:
            self._refuse(f"the hub acknowledged {doubt}")
        before = self._flights
        if isinstance(what, Ledger):
            self._committed = good
            self._window = what.window
            self._dispatch(LedgerCame(self._clock.monotonic()))
        else:
            self._committed = union(self._committed, good)
        self._reckon()
        if len(self._flights) < len(before):
            self._patience = lanes.FIRST_PATIENCE
        self._wake.set()

    def _reckon(self) -> None:
        """Work out anew what is in the air, what is owed, and whose records are not covered."""
        now = self._clock.monotonic()
        aloft = lanes.aloft(self._flights, self._committed)
        self._flights = lanes.patient(aloft, now, self._patience)
        if len(self._flights) < len(aloft):
            self._patience = lanes.longer(self._patience)
        uncovered = difference(self._log.held, self._committed)
        self._owed = lanes.owed(uncovered, self._flights, self._queued())
        waiting = {one.lineage.stream for one in (*self._events, *self._telemetry)}
        self._uncovered = frozenset({one.stream for one in uncovered} | waiting)

    def _queued(self) -> dict[Lineage, RangeSet]:
        queued: dict[Lineage, list[tuple[int, int]]] = {}
        for one in (*self._events, *self._telemetry):
            queued.setdefault(one.lineage, []).append((one.offset, one.offset))
        return {lineage: RangeSet(offsets) for lineage, offsets in queued.items()}

    async def _send(self, connection: Connection) -> None:
        """Send whatever is to be sent, the most urgent first; sleep until there is more."""
        live = self._live
        assert live is not None  # noqa: S101  # set by the caller for as long as the connection stands
        while True:
            self._wake.clear()
            now = self._clock.monotonic()
            self._dispatch(Tick(now))
            if self._birth_wanted:
                self._birth_wanted = False
                await self._bear(connection, live)
            if self.born and live.born:
                await self._send_live(connection, live)
                await self._settle_devices(connection, live)
                await self._say(connection, live, now)
                if await self._send_history(connection, live):
                    self._wake.set()
            await self._wake.wait()

    async def _bear(self, connection: Connection, live: _Connected) -> None:
        now = self._clock.now_ms()
        live.seq, live.born, live.newest_sent = 0, {}, {}
        live.born_at = self._clock.monotonic()
        self._reckon()
        metrics = self._birth_metrics(NODE_STREAM)
        held = Held(log=self._log.log_id, epoch=self._log.epoch, positions=self._log.closed(MOST_HELD))
        payload = messages.node_birth(
            self._newest(live, NODE_STREAM, metrics),
            held=held,
            bdseq=live.bdseq,
            hello=self._hello(),
            uptime=self._uptime(),
            alias=self._log.alias,
            seq=self._next_seq(live),
            now=now,
        )
        await connection.publish(self._topic(MessageType.NBIRTH), payload)
        live.born[NODE_STREAM] = self._alias_set(NODE_STREAM, metrics)
        live.uptime_due = live.born_at + UPTIME_EVERY
        self.counts.births += 1
        for device in (*self._devices, *sorted(self._uncovered - self._devices.keys() - {NODE_STREAM})):
            await self._bear_device(connection, live, device)

    async def _bear_device(self, connection: Connection, live: _Connected, device: str) -> None:
        metrics = self._birth_metrics(device)
        payload = messages.device_birth(
            device,
            self._devices[device].kind if device in self._devices else None,
            self._newest(live, device, metrics),
            epoch=self._log.epoch,
            alias=self._log.alias,
            seq=self._next_seq(live),
            now=self._clock.now_ms(),
        )
        await connection.publish(self._topic(MessageType.DBIRTH, device), payload)
        live.born[device] = self._alias_set(device, metrics)

    def _birth_metrics(self, stream: str) -> list[Metric]:
        """Return what is configured and, while records are uncovered, what the stream ever reported besides."""
        declared = list(self._known.get(stream, {}).values())
        if stream in self._uncovered:
            names = {(one.name, one.datatype) for one in declared}
            declared += [
                Metric(name=name, datatype=datatype)
                for name, datatype in self._log.known(stream)
                if (name, datatype) not in names and not _never_logged(name)
            ]
        return declared

    def _newest(self, live: _Connected, stream: str, metrics: Iterable[Metric]) -> list[Born]:
        """Return the births of metrics; what a birth says counts as sent."""
        born: list[Born] = []
        for metric in metrics:
            newest = self._log.newest(stream, metric)
            if newest is not None:
                position = newest[1]
                alias = self._log.alias(stream, metric.name, metric.datatype)
                live.newest_sent[alias] = (position.epoch, position.offset)
            born.append(Born(metric=metric, newest=newest[0] if newest else None))
        return born

    def _alias_set(self, stream: str, metrics: Iterable[Metric]) -> frozenset[int]:
        return frozenset(self._log.alias(stream, one.name, one.datatype) for one in metrics)

    async def _send_live(self, connection: Connection, live: _Connected) -> None:
        for lane in (self._events, self._telemetry):
            while lane:
                if self._events and lane is self._telemetry:
                    break
                await self._send_records(connection, live, [lane[0]])
                lane.popleft()
        if self._events:
            self._wake.set()

    async def _send_history(self, connection: Connection, live: _Connected) -> bool:
        """Send one message of what is owed, as far as the window allows; return whether there is more to try."""
        if self._session.first_ledger is None:
            return False
        self._reckon()
        room = self._window - lanes.under_way(self._flights)
        if not self._owed or room <= 0:
            return False
        lineage, ranges = self._owed[0]
        first, last = next(iter(ranges))
        most = max(1, min(room, lanes.MESSAGE_BYTES))
        records = await asyncio.to_thread(self._log.read, lineage, first, last, most)
        if not records or records[0].offset != first:
            gone = records[0].offset - 1 if records else last
            log.error(
                "%s: records %d-%d of epoch %d are not in the log any more", lineage.stream, first, gone, lineage.epoch
            )
            self._log.forget(lineage, first, gone)
            return True
        await self._send_records(connection, live, records)
        return True

    async def _send_records(self, connection: Connection, live: _Connected, records: Sequence[Record]) -> None:
        lineage = records[0].lineage
        await self._ensure_born(connection, live, records)

        def historical(record: Record, alias: int) -> bool:
            here = (record.lineage.epoch, record.offset)
            if live.newest_sent.get(alias, here) > here:
                return True
            live.newest_sent[alias] = here
            return False

        payload = messages.data(
            records,
            alias=self._log.alias,
            seq=self._next_seq(live),
            now=self._clock.now_ms(),
            historical=historical,
        )
        kind = MessageType.DDATA if lineage.stream else MessageType.NDATA
        await connection.publish(self._topic(kind, lineage.stream or None), payload)
        self.counts.sent_bytes += len(payload)
        last = records[-1].offset
        if lineage.epoch == self._log.epoch:
            self._sent[lineage.stream] = max(last, self._sent.get(lineage.stream, -1))
        flight = lanes.Flight(
            lineage=lineage,
            first=records[0].offset,
            last=last,
            size=len(payload),
            sent=self._clock.monotonic(),
        )
        self._flights = (*self._flights, flight)

    async def _ensure_born(self, connection: Connection, live: _Connected, records: Sequence[Record]) -> None:
        """Birth the device, or the whole node, first if a record has a metric that no birth of this session had."""
        stream = records[0].lineage.stream
        aliases = {
            metric.alias for record in records for metric in sparkplug_pb2.Payload.FromString(record.metrics).metrics
        }
        if aliases <= live.born.get(stream, frozenset()):
            return
        self._uncovered |= {stream}
        if stream == NODE_STREAM:
            await self._bear(connection, live)
        else:
            await self._bear_device(connection, live, stream)

    async def _settle_devices(self, connection: Connection, live: _Connected) -> None:
        """Let unreachable and retired devices die once nothing of theirs is owed; birth those that are back."""
        stranger = self._session.first_ledger is None and self._clock.monotonic() - live.born_at >= NO_LEDGER_AFTER
        settled = self._session.first_ledger is not None or stranger
        for device in set(self._devices) | (live.born.keys() - {NODE_STREAM}):
            alive = device in self._devices and self._reachable.get(device, True)
            if alive and device not in live.born:
                await self._bear_device(connection, live, device)
            elif not alive and device in live.born and settled and (stranger or device not in self._uncovered):
                payload = messages.device_death(self._next_seq(live), self._clock.now_ms())
                await connection.publish(self._topic(MessageType.DDEATH, device), payload)
                del live.born[device]

    async def _say(self, connection: Connection, live: _Connected, now: float) -> None:
        said = list(self._transients)
        self._transients.clear()
        if now >= live.uptime_due:
            live.uptime_due = now + UPTIME_EVERY
            alias = self._log.alias(NODE_STREAM, UPTIME, DataType.INT64)
            at = self._clock.now_ms()
            said.append(WireMetric(alias=alias, at=at, datatype=DataType.INT64, value=self._uptime()))
        if said:
            payload = messages.transient(said, seq=self._next_seq(live), now=self._clock.now_ms())
            await connection.publish(self._topic(MessageType.NDATA), payload)

    def _next_seq(self, live: _Connected) -> int:
        seq = live.seq
        live.seq = (seq + 1) % 256
        return seq

    def _uptime(self) -> int:
        return int(self._clock.monotonic() - self._started)

    def _topic(self, kind: MessageType, device: str | None = None) -> str:
        return str(Topic(self._settings.group, kind, self._settings.node, device))


def _never_logged(name: str) -> bool:
    return name in NEVER_LOGGED or name.startswith(NEVER_LOGGED_PREFIXES)
