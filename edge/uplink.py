"""The line to the hub: gives records positions, keeps a session alive, and forgets nothing until the hub has it.

When to connect, to be born and to leave is decided in session.py; sender.py sends; delivery.py keeps the accounts.
"""

import asyncio
import contextlib
import logging
import random
import sqlite3
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from contract.catalog import LOG_LOST, ONLINE, PRESENCE, node_metrics
from contract.clock import Clock
from contract.delivery import Committed, Ledger
from contract.metrics import Quality, Sample, Timing
from contract.payload import WireMetric
from contract.positions import NODE_STREAM, Lineage
from contract.topics import MessageType, Topic, commands_for_devices, commands_for_node, state
from edge import messages
from edge.broker import BrokerLost, Connection, Message, Server, connect
from edge.delivery import Delivery
from edge.delivery_log import DeliveryLog
from edge.downlink import Answer, Asked, Broadcast, HostState, Rebirth, Refused, instructions
from edge.sender import DeviceBirth, Identity, Sender
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

REFUSALS_EVERY = 60.0
EXPIRE_EVERY = 60.0

ANSWER_WITHIN = 600.0
"""Seconds that a hub has after a start to tell what it has, before uncommitted days may go for lack of room."""


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
    refusals: int = 0


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
        on_command: Callable[[str], Awaitable[None]],
        chance: random.Random,
        timing: Callable[[], Timing] = lambda: Timing.SYNCHRONISED,
    ) -> None:
        self._settings = settings
        self._timing = timing
        self._log = delivery_log
        self._clock = clock
        self._on_broadcast = on_broadcast
        self._on_command = on_command
        self._chance = chance
        self._rules = Rules(
            brokers=len(settings.brokers),
            waits_for_host=bool(settings.primary_host),
            birth_jitter=settings.birth_jitter,
        )
        self._known = {device: {one.name: one for one in born.metrics} for device, born in devices.items()}
        self._known[NODE_STREAM] = {one.name: one for one in node_metrics(devices)}
        delivery_log.introduce(self._known)
        self._identity = Identity(
            group=settings.group,
            node=settings.node,
            devices=devices,
            known=self._known,
            hello=hello,
            started=clock.monotonic(),
        )
        self._delivery = Delivery(delivery_log, clock)
        self._reachable: dict[str, bool] = {}
        self._session = Session()
        self._birth_wanted = False
        self._leave: Leave | None = None
        self._reconnect_at = 0.0
        self._ending = False
        self._wake = asyncio.Event()
        self._left = asyncio.Event()
        self._committing = asyncio.Lock()
        self._transients: deque[WireMetric] = deque(maxlen=100)
        self._refused_at: float | None = None
        self._said_lost = False
        self._said_refused = False
        self._first_uncovered: Sequence[tuple[Lineage, int]] = ()
        self.counts = Counts()

    @property
    def born(self) -> bool:
        """Whether the hub knows us right now."""
        return self._session.phase is Phase.BORN

    def uncommitted(self) -> int:
        """Return how many records the hub has not yet said to have committed, those in memory included."""
        return self._delivery.uncommitted_records()

    def committed(self) -> int:
        """Return how many of the records held here the hub has committed."""
        return self._delivery.committed_records()

    async def record(self, stream: str, samples: Sequence[Sample]) -> None:
        """Give the samples of one read a position and send them as soon as a session lives.

        When one of them is an event, all pending records are on disk when this returns. Raises ValueError for a metric
        that the stream does not declare.
        """
        if not samples:
            return
        timing = self._timing()
        samples = [replace(one, time=timing) for one in samples]
        record = self._log.append(stream, samples[0].at, samples, self._known[stream], handed=self.born)
        self.counts.reported += len(samples)
        if stream == NODE_STREAM:
            for sample in samples:
                if sample.metric.startswith(PRESENCE):
                    self._reachable[sample.metric.removeprefix(PRESENCE)] = sample.value == ONLINE
        if record.event:
            await self._commit()
        if record.handed:
            self._delivery.queue(record)
            if not self.born:  # the session ended while the disk was busy
                self._delivery.clear_lanes()
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
        expire_due = self._clock.monotonic() + EXPIRE_EVERY
        while True:
            await self._clock.sleep(self._settings.commit_interval)
            await self._commit()
            await self._look_at_oldest()
            await self._keep_floor()
            if self._clock.monotonic() >= expire_due:
                expire_due = self._clock.monotonic() + EXPIRE_EVERY
                await self._expire()
            await self._tell_lost()
            self._list_again_if_needed()

    async def _commit(self) -> None:
        async with self._committing:
            # The log says once that the disk refuses; sending goes on, since a hub that hears us is better than none.
            with contextlib.suppress(sqlite3.Error):
                await asyncio.to_thread(self._log.commit)
        self._delivery.reckon()

    async def _keep_floor(self) -> None:
        if self._delivery.hub_known and self._delivery.floor != self._log.kept_floor:
            with self._disk_may_refuse():
                await asyncio.to_thread(self._log.keep_floor, self._delivery.floor)

    async def _expire(self) -> None:
        known = self._delivery.hub_known or self._clock.monotonic() - self._identity.started >= ANSWER_WITHIN
        async with self._committing:
            with self._disk_may_refuse():
                await asyncio.to_thread(
                    self._log.expire,
                    self._delivery.missing,
                    under=self._delivery.under_floor(),
                    hub_known=known,
                    clock_known=self._timing() is not Timing.UNKNOWN,
                )
                if self._delivery.hub_known:
                    await asyncio.to_thread(self._log.give_up_expired, self._delivery.missing)
        self._delivery.reckon()

    async def _look_at_oldest(self) -> None:
        first = self._delivery.first_uncovered()
        if first != self._first_uncovered:
            with self._disk_may_refuse():
                self._delivery.oldest = await asyncio.to_thread(self._log.oldest, first)
                self._first_uncovered = first

    async def _tell_lost(self) -> None:
        """Record an event for what had to go, once the disk takes it."""
        if self._log.refused:
            return
        if self._log.set_aside:
            self._log.set_aside = False
            await self._record_lost(None)
        if lost := self._log.untold_lost:
            await self._record_lost(lost)
            with self._disk_may_refuse():
                self._log.told_lost(lost)

    async def _record_lost(self, records: int | None) -> None:
        quality = Quality.GOOD if records is not None else Quality.BAD
        sample = Sample(metric=LOG_LOST, at=self._clock.now_ms(), value=records, quality=quality)
        await self.record(NODE_STREAM, [sample])

    @contextlib.contextmanager
    def _disk_may_refuse(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as exc:
            if not self._said_refused:
                log.error("the delivery log: %s; trying again", exc)
            self._said_refused = True
        else:
            self._said_refused = False

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
                sender = Sender(
                    connection,
                    bdseq=bdseq,
                    identity=self._identity,
                    delivery_log=self._log,
                    delivery=self._delivery,
                    clock=self._clock,
                )
                self._dispatch(Connected(self._clock.monotonic(), self._chance.random()))
                if self._said_lost:
                    self._said_lost = False
                    log.info("broker %s:%d answers again", server.host, server.port)
                await self._converse(connection, sender)
        except BrokerLost as exc:
            if not self._said_lost:
                self._said_lost = True
                log.warning("broker %s:%d is lost: %s", server.host, server.port, exc)
            self._dispatch(Lost(self._clock.monotonic(), self._chance.random()))
        finally:
            self._transients.clear()
            self._delivery.clear_lanes()

    def _subscriptions(self) -> list[str]:
        group, node, host = self._settings.group, self._settings.node, self._settings.primary_host
        own = [commands_for_node(group, node), commands_for_devices(group, node)]
        return [*own, state(host)] if host else own

    async def _converse(self, connection: Connection, sender: Sender) -> None:
        """Send and receive until the session decides to leave (returns) or the connection is lost (raises)."""
        loops = [
            asyncio.create_task(self._receive(connection), name="uplink: receive"),
            asyncio.create_task(self._send(sender), name="uplink: send"),
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
        elif self._leave.death and sender.born:
            await sender.die()

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
                    case Asked(value):
                        await self._on_command(value)
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
        for doubt in self._delivery.answered(what):
            self._refuse(f"the hub acknowledged {doubt}")
        if isinstance(what, Ledger):
            self._dispatch(LedgerCame(self._clock.monotonic()))
        self._list_again_if_needed()
        self._wake.set()

    def _list_again_if_needed(self) -> None:
        if self.born and self._delivery.must_list_again():
            self._dispatch(RebirthAsked(self._clock.monotonic()))

    async def _send(self, sender: Sender) -> None:
        """Send whatever is to be sent, the most urgent first; sleep until there is more."""
        while True:
            self._wake.clear()
            self._dispatch(Tick(self._clock.monotonic()))
            if self._birth_wanted:
                self._birth_wanted = False
                await sender.bear()
            if self.born and sender.born:
                said = list(self._transients)
                self._transients.clear()
                await sender.say(said)
                await sender.give_signs_of_life()
                if await sender.send_live():
                    continue
                ledger_came = self._session.first_ledger is not None
                await sender.settle_devices(self._reachable, ledger_came=ledger_came)
                # Nothing is sent as history before the hub has told what it has.
                if ledger_came and await self._send_owed(sender):
                    continue
                if sender.drips(ledger_came=ledger_came):
                    await self._drip(sender)
            await self._wake.wait()

    async def _send_owed(self, sender: Sender) -> bool:
        """Send one message of history, as far as the window allows; return whether there was anything to try."""
        owed = self._delivery.next_owed()
        if owed is None:
            return False
        tried = False
        with self._disk_may_refuse():
            records = await asyncio.to_thread(self._log.read, owed.lineage, owed.first, owed.last, owed.most_bytes)
            tried = True
            if records:
                await sender.send_history(records)
        return tried

    async def _drip(self, sender: Sender) -> None:
        """Give a stranger one message of what was logged while no session lived."""
        owed = self._delivery.next_unhanded()
        if owed is None:
            return
        with self._disk_may_refuse():
            records = await asyncio.to_thread(self._log.read, owed.lineage, owed.first, owed.last, owed.most_bytes)
            if records:
                # Before it is sent: whatever happens then, no position is given twice.
                await asyncio.to_thread(self._log.hand_over, owed.lineage, records[0].offset, records[-1].offset)
                await sender.drip(records)

    def _topic(self, kind: MessageType) -> str:
        return str(Topic(self._settings.group, kind, self._settings.node))
