"""One session's messages in their order: births first, then data; one sequence number over all of them.

Made anew for each connection and used by one task, so that the numbers need no lock. What to send comes from
delivery.py, how it reads from messages.py.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from contract import sparkplug_pb2
from contract.catalog import NEVER_LOGGED, NEVER_LOGGED_PREFIXES, UPTIME, Kind
from contract.clock import Clock
from contract.delivery import MOST_HELD, Held
from contract.metrics import DataType, Metric
from contract.payload import WireMetric
from contract.positions import NODE_STREAM
from contract.topics import MessageType, Topic
from edge import messages
from edge.broker import Connection
from edge.delivery import Delivery
from edge.delivery_log import DeliveryLog
from edge.messages import Born, Record

log = logging.getLogger(__name__)

UPTIME_EVERY = 30.0
"""The hub calls a node offline after 90 s of silence: three of these."""

NO_LEDGER_AFTER = 90.0
"""A host that sent no ledger so long after a birth is a stranger that will never send one."""


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
        self._born_at = 0.0
        self._uptime_due = 0.0
        self.born: dict[str, frozenset[int]] = {}
        """Streams born in this session, and the aliases their births declared."""

    async def die(self) -> None:
        """Publish NDEATH at QoS 1, so that it is out before DISCONNECT takes the will away."""
        payload = messages.node_death(self._bdseq, self._clock.now_ms())
        await self._connection.publish(self._topic(MessageType.NDEATH), payload, qos=1)

    async def bear(self) -> None:
        """Publish NBIRTH, then a DBIRTH for every configured device and every one with uncovered records."""
        now = self._clock.now_ms()
        self._seq, self.born, self._newest_sent = 0, {}, {}
        self._born_at = self._clock.monotonic()
        self._delivery.reckon()
        metrics = self._birth_metrics(NODE_STREAM)
        held = Held(log=self._log.log_id, epoch=self._log.epoch, positions=self._log.closed(MOST_HELD))
        payload = messages.node_birth(
            self._newest(NODE_STREAM, metrics),
            held=held,
            bdseq=self._bdseq,
            hello=self._hello(),
            uptime=self._uptime(),
            alias=self._log.alias,
            seq=self._next_seq(),
            now=now,
        )
        await self._connection.publish(self._topic(MessageType.NBIRTH), payload)
        self.born[NODE_STREAM] = self._alias_set(NODE_STREAM, metrics)
        self._uptime_due = self._born_at + UPTIME_EVERY
        for device in (*self._devices, *sorted(self._delivery.uncovered - self._devices.keys() - {NODE_STREAM})):
            await self._bear_device(device)

    async def _bear_device(self, device: str) -> None:
        metrics = self._birth_metrics(device)
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

    def _birth_metrics(self, stream: str) -> list[Metric]:
        """Return what is configured and, while records are uncovered, what the stream ever reported besides."""
        declared = list(self._known.get(stream, {}).values())
        if stream in self._delivery.uncovered:
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
                self._newest_sent[alias] = (position.epoch, position.offset)
            born.append(Born(metric=metric, newest=newest[0] if newest else None))
        return born

    def _alias_set(self, stream: str, metrics: Iterable[Metric]) -> frozenset[int]:
        return frozenset(self._log.alias(stream, one.name, one.datatype) for one in metrics)

    async def send_live(self) -> None:
        """Send what waits in the live lanes, events first."""
        events, telemetry = self._delivery.events, self._delivery.telemetry
        while events or telemetry:
            lane = events or telemetry
            await self._send_records([lane[0]])
            lane.popleft()

    async def send_history(self) -> bool:
        """Send one message of what is owed, as far as the window allows; return whether there is more to try."""
        owed = self._delivery.next_owed()
        if owed is None:
            return False
        lineage, first, last, most_bytes = owed
        records = await asyncio.to_thread(self._log.read, lineage, first, last, most_bytes)
        if not records or records[0].offset != first:
            gone = records[0].offset - 1 if records else last
            log.error(
                "%s: records %d-%d of epoch %d are not in the log any more", lineage.stream, first, gone, lineage.epoch
            )
            self._log.forget(lineage, first, gone)
            return True
        await self._send_records(records)
        return True

    async def _send_records(self, records: Sequence[Record]) -> None:
        lineage = records[0].lineage
        await self._ensure_born(records)

        def historical(record: Record, alias: int) -> bool:
            here = (record.lineage.epoch, record.offset)
            if self._newest_sent.get(alias, here) > here:
                return True
            self._newest_sent[alias] = here
            return False

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
        self._delivery.uncovered |= {stream}
        if stream == NODE_STREAM:
            await self.bear()
        else:
            await self._bear_device(stream)

    async def settle_devices(self, reachable: Mapping[str, bool], *, ledger_came: bool) -> None:
        """Let unreachable and retired devices die once nothing of theirs is owed; birth those that are back."""
        stranger = not ledger_came and self._clock.monotonic() - self._born_at >= NO_LEDGER_AFTER
        settled = ledger_came or stranger
        for device in set(self._devices) | (self.born.keys() - {NODE_STREAM}):
            alive = device in self._devices and reachable.get(device, True)
            if alive and device not in self.born:
                await self._bear_device(device)
            elif not alive and device in self.born and settled and (stranger or device not in self._delivery.uncovered):
                payload = messages.device_death(self._next_seq(), self._clock.now_ms())
                await self._connection.publish(self._topic(MessageType.DDEATH, device), payload)
                del self.born[device]

    async def say(self, transients: Iterable[WireMetric]) -> None:
        """Send what is said once and never logged, and the sign of life when it is due."""
        said, now = list(transients), self._clock.monotonic()
        if now >= self._uptime_due:
            self._uptime_due = now + UPTIME_EVERY
            alias = self._log.alias(NODE_STREAM, UPTIME, DataType.INT64)
            at = self._clock.now_ms()
            said.append(WireMetric(alias=alias, at=at, datatype=DataType.INT64, value=self._uptime()))
        if said:
            payload = messages.transient(said, seq=self._next_seq(), now=self._clock.now_ms())
            await self._connection.publish(self._topic(MessageType.NDATA), payload)

    def _next_seq(self) -> int:
        seq = self._seq
        self._seq = (seq + 1) % 256
        return seq

    def _uptime(self) -> int:
        return int(self._clock.monotonic() - self._identity.started)

    def _topic(self, kind: MessageType, device: str | None = None) -> str:
        return str(Topic(self._identity.group, kind, self._identity.node, device))


def _never_logged(name: str) -> bool:
    return name in NEVER_LOGGED or name.startswith(NEVER_LOGGED_PREFIXES)
