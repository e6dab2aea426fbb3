"""One session's messages in their order: births first, then data; one sequence number over all of them.

Made anew for each connection and used by one task, so that the numbers need no lock. What to send comes from
delivery.py, how it reads from messages.py. Nothing here waits but for the broker.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from contract import sparkplug_pb2
from contract.catalog import NEVER_LOGGED, NEVER_LOGGED_PREFIXES, Kind
from contract.clock import Clock
from contract.metrics import Metric
from contract.payload import WireMetric
from contract.positions import NODE_STREAM
from contract.topics import MessageType, Topic
from edge import messages
from edge.broker import Connection
from edge.delivery import Delivery
from edge.delivery_log import DeliveryLog
from edge.messages import Born
from edge.record_bytes import Record

UPTIME_EVERY = 30.0
"""The hub calls a node offline after 90 s of silence: three of these."""

NO_LEDGER_AFTER = 90.0
"""A host that sent no ledger so long after a session's first birth is a stranger that will never send one."""

DRIP_EVERY = 60.0
"""Seconds between two messages of what a stranger missed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceBirth:
    """What a configured device is and ever reports, known before it was ever reached."""

    kind: Kind
    metrics: Sequence[Metric]


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who this edge node is: its ids, its devices, every metric of each stream, what it says of itself, since when."""

    group: str
    node: str
    devices: Mapping[str, DeviceBirth]
    known: Mapping[str, Mapping[str, Metric]]
    hello: Callable[[], str]
    started: float


class Sender:
    """Publishes on one connection; `bdseq` is that of the connection's will."""

    def __init__(
        self,
        connection: Connection,
        *,
        bdseq: int,
        identity: Identity,
        delivery_log: DeliveryLog,
        delivery: Delivery,
        clock: Clock,
    ) -> None:
        self._connection = connection
        self._bdseq = bdseq
        self._identity = identity
        self._devices = identity.devices
        self._known = identity.known
        self._hello = identity.hello
        self._log = delivery_log
        self._delivery = delivery
        self._clock = clock
        self._seq = 0
        self._newest_sent: dict[int, tuple[int, int]] = {}
        self._first_birth: float | None = None
        self._signs_due = 0.0
        self._drip_due = 0.0
        self.born: dict[str, frozenset[int]] = {}
        """Streams born in this session, and the aliases their births declared."""

    async def die(self) -> None:
        """Publish NDEATH at QoS 1, so that it is out before DISCONNECT takes the will away."""
        payload = messages.node_death(self._bdseq, self._clock.now_ms())
        await self._connection.publish(self._topic(MessageType.NDEATH), payload, qos=1)

    async def bear(self) -> None:
        """Publish NBIRTH, then a DBIRTH for every configured device and every one with uncovered records."""
        await self._bear(frozenset())

    async def _bear(self, also: frozenset[str]) -> None:
        """As `bear`; of the streams in `also` the births tell everything they ever reported, covered or not."""
        self._seq, self.born, self._newest_sent = 0, {}, {}
        self._delivery.reckon()
        uncovered = self._delivery.uncovered | also
        metrics = self._birth_metrics(NODE_STREAM, everything=NODE_STREAM in uncovered)
        now = self._clock.now_ms()
        payload = messages.node_birth(
            self._newest(NODE_STREAM, metrics),
            held=self._delivery.list_held(),
            bdseq=self._bdseq,
            hello=self._hello(),
            signs=self._signs_of_life(now, named=True),
            alias=self._log.alias,
            seq=self._next_seq(),
            now=now,
        )
        await self._connection.publish(self._topic(MessageType.NBIRTH), payload)
        self.born[NODE_STREAM] = self._alias_set(NODE_STREAM, metrics)
        born_at = self._clock.monotonic()
        self._first_birth = born_at if self._first_birth is None else self._first_birth
        self._signs_due = born_at + UPTIME_EVERY
        for device in (*self._devices, *sorted(uncovered - self._devices.keys() - {NODE_STREAM})):
            await self._bear_device(device, everything=device in uncovered)

    async def _bear_device(self, device: str, *, everything: bool) -> None:
        metrics = self._birth_metrics(device, everything=everything)
        payload = messages.device_birth(
            device,
            self._devices[device].kind if device in self._devices else None,
            self._newest(device, metrics),
            epoch=self._log.epoch,
            alias=self._log.alias,
            seq=self._next_seq(),
            now=self._clock.now_ms(),
        )
        await self._connection.publish(self._topic(MessageType.DBIRTH, device), payload)
        self.born[device] = self._alias_set(device, metrics)

    def _birth_metrics(self, stream: str, *, everything: bool) -> list[Metric]:
        """Return what is configured and, where records are uncovered, what the stream ever reported besides."""
        declared = list(self._known.get(stream, {}).values())
        if everything:
            names = {(one.name, one.datatype) for one in declared}
            declared += [
                Metric(name=name, datatype=datatype)
                for name, datatype in self._log.known(stream)
                if (name, datatype) not in names and not _never_logged(name)
            ]
        return declared

    def _newest(self, stream: str, metrics: Iterable[Metric]) -> list[Born]:
        """Return the births of metrics; what a birth says counts as sent."""
        born: list[Born] = []
        for metric in metrics:
            newest = self._log.newest(stream, metric)
            if newest is not None:
                position = newest[1]
                alias = self._log.alias(stream, metric.name, metric.datatype)
                self._newest_sent[alias] = (self._log.place(position.epoch) or 0, position.offset)
            born.append(Born(metric=metric, newest=newest[0] if newest else None))
        return born

    def _alias_set(self, stream: str, metrics: Iterable[Metric]) -> frozenset[int]:
        return frozenset(self._log.alias(stream, one.name, one.datatype) for one in metrics)

    def stranger(self, *, ledger_came: bool) -> bool:
        """Return whether the host has had its time to tell what it has, and did not."""
        since = self._first_birth
        return not ledger_came and since is not None and self._clock.monotonic() - since >= NO_LEDGER_AFTER

    async def send_live(self) -> bool:
        """Send the first record that waits in the live lanes, events first; return whether there was one."""
        lane = self._delivery.events or self._delivery.telemetry
        if not lane:
            return False
        await self._send_records([lane[0]])
        lane.popleft()
        return True

    async def send_history(self, records: Sequence[Record]) -> None:
        """Send consecutive records that are owed, in one message."""
        await self._send_records(records)

    def drips(self, *, ledger_came: bool) -> bool:
        """Return whether a stranger may be given the next message of what it missed."""
        return self.stranger(ledger_came=ledger_came) and self._clock.monotonic() >= self._drip_due

    async def drip(self, records: Sequence[Record]) -> None:
        """Give a stranger consecutive records that no session was given, as history."""
        self._drip_due = self._clock.monotonic() + DRIP_EVERY
        await self._send_records(records, old=True)

    async def _send_records(self, records: Sequence[Record], *, old: bool = False) -> None:
        lineage = records[0].lineage
        await self._ensure_born(records)
        place = self._log.place(lineage.epoch) or 0

        def historical(record: Record, alias: int) -> bool:
            here = (place, record.offset)
            if self._newest_sent.get(alias, here) > here:
                return True
            self._newest_sent[alias] = here
            return old

        payload = messages.data(
            records,
            alias=self._log.alias,
            seq=self._next_seq(),
            now=self._clock.now_ms(),
            historical=historical,
        )
        kind = MessageType.DDATA if lineage.stream else MessageType.NDATA
        await self._connection.publish(self._topic(kind, lineage.stream or None), payload)
        self._delivery.flew(lineage, records[0].offset, records[-1].offset, len(payload))

    async def _ensure_born(self, records: Sequence[Record]) -> None:
        """Birth the device, or the whole node, first if a record has a metric that no birth of this session had."""
        stream = records[0].lineage.stream
        aliases = {
            metric.alias for record in records for metric in sparkplug_pb2.Payload.FromString(record.metrics).metrics
        }
        if aliases <= self.born.get(stream, frozenset()):
            return
        # Its records were covered when it was last born; the birth now tells all it ever reported.
        if stream == NODE_STREAM:
            await self._bear(frozenset({NODE_STREAM}))
        else:
            await self._bear_device(stream, everything=True)

    async def settle_devices(self, reachable: Mapping[str, bool], *, ledger_came: bool) -> None:
        """Let unreachable and retired devices die once nothing of theirs is owed; birth those that are back."""
        stranger = self.stranger(ledger_came=ledger_came)
        for device in [*self._devices, *(self.born.keys() - self._devices.keys() - {NODE_STREAM})]:
            alive = device in self._devices and reachable.get(device, True)
            if alive and device not in self.born:
                await self._bear_device(device, everything=self._delivery.is_uncovered(device))
            elif not alive and device in self.born:
                settled = stranger or (ledger_came and not self._delivery.is_uncovered(device))
                if settled:
                    await self._bury_device(device)

    async def _bury_device(self, device: str) -> None:
        payload = messages.device_death(self._next_seq(), self._clock.now_ms())
        await self._connection.publish(self._topic(MessageType.DDEATH, device), payload)
        del self.born[device]

    async def say(self, transients: Iterable[WireMetric]) -> None:
        """Send what is said once and never logged."""
        said = list(transients)
        if said:
            payload = messages.transient(said, seq=self._next_seq(), now=self._clock.now_ms())
            await self._connection.publish(self._topic(MessageType.NDATA), payload)

    async def give_signs_of_life(self) -> None:
        """Send the signs of life when they are due."""
        if self._clock.monotonic() >= self._signs_due:
            self._signs_due = self._clock.monotonic() + UPTIME_EVERY
            await self.say(self._signs_of_life(self._clock.now_ms(), named=False))

    def _signs_of_life(self, now: int, *, named: bool) -> tuple[WireMetric, ...]:
        uptime = int(self._clock.monotonic() - self._identity.started)
        return messages.signs_of_life(uptime, self._delivery.depth(), alias=self._log.alias, now=now, named=named)

    def _next_seq(self) -> int:
        seq = self._seq
        self._seq = (seq + 1) % 256
        return seq

    def _topic(self, kind: MessageType, device: str | None = None) -> str:
        return str(Topic(self._identity.group, kind, self._identity.node, device))


def _never_logged(name: str) -> bool:
    return name in NEVER_LOGGED or name.startswith(NEVER_LOGGED_PREFIXES)
