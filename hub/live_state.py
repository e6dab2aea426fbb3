"""What is true now, as far as the hub has heard; pages read this and never the store."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from contract.catalog import Kind, metric
from contract.clock import Clock
from contract.metrics import DataType, Quality, Value
from hub.devices import DeviceKey, NodeKey, device_id
from hub.presence import DeviceFacts, NodeFacts, Presence, of_device, of_node
from hub.storage.timeseries import INSTRUMENT_BITS, TIME_BITS, TIME_SHIFT

UNTOLD_SECONDS = 300
"""How long a stranger's value counts as current: strangers do not say how often they report."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveValue:
    """The newest value of one metric; instants in ms. After `fresh_until` it must be shown as old."""

    metric: str
    value: Value
    at: int
    quality: int
    instrument: int
    time: int
    unit: str
    fresh_until: int
    event: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveDevice:
    """A field device, or an edge node (`key.device` is "")."""

    id: str
    key: DeviceKey
    kind: Kind | None
    presence: Presence
    values: Mapping[str, LiveValue]
    foreign: bool
    last_seen: int | None


class Slot:
    """Where the newest sample of one metric is put; the one object a sample touches."""

    __slots__ = ("at", "event", "mark", "max_report_ms", "unit", "value")

    def __init__(self, *, unit: str, max_report_ms: int, event: bool) -> None:
        self.at = -1
        self.value: Value = None
        self.mark = int(Quality.STALE) << 8
        """quality << 8 | flags, as it is stored."""
        self.unit = unit
        self.max_report_ms = max_report_ms
        self.event = event


class DeviceState:
    """What is known of one device, changed by ingest only."""

    __slots__ = ("facts", "foreign", "key", "kind", "last_seen", "slots")

    def __init__(self, key: DeviceKey) -> None:
        self.key = key
        self.kind: Kind | None = None
        self.facts = DeviceFacts()
        self.slots: dict[str, Slot] = {}
        self.foreign = False
        self.last_seen: int | None = None

    def slot(self, name: str, datatype: DataType, unit: str) -> Slot:
        """Return the slot of a metric, made at its first birth."""
        known = self.slots.get(name)
        if known is None:
            declared = metric(self.kind, name) if self.kind else None
            seconds = declared.max_report_seconds if declared else UNTOLD_SECONDS
            # A boolean or text of a stranger cannot be told from an event; only the catalogue says which are.
            known = Slot(unit=unit, max_report_ms=seconds * 1000, event=declared.event if declared else False)
            self.slots[name] = known
        if unit:
            known.unit = unit
        return known


class LiveState:
    """Everything that pages show of now. Lives on the event loop; `version` grows with every visible change."""

    def __init__(self, clock: Clock, configured: Iterable[NodeKey]) -> None:
        self._clock = clock
        self._devices: dict[DeviceKey, DeviceState] = {}
        self._by_id: dict[str, DeviceKey] = {}
        self._nodes: dict[NodeKey, NodeFacts] = {}
        self._waiting: set[asyncio.Event] = set()
        self._seen: tuple[Presence, ...] = ()
        self.version = 0
        self.configured = frozenset(configured)
        for node in self.configured:
            self.state(DeviceKey(node.group, node.node, "")).kind = Kind.EDGE_NODE
            self._nodes[node] = NodeFacts()

    def state(self, key: DeviceKey) -> DeviceState:
        """Return the state of a device, new if it was never heard of."""
        known = self._devices.get(key)
        if known is None:
            known = self._devices[key] = DeviceState(key)
            self._by_id[device_id(key)] = key
        return known

    def kind(self, key: DeviceKey) -> Kind | None:
        """Return the kind of a device, None if it is not known or was never heard of."""
        known = self._devices.get(key)
        return None if known is None else known.kind

    def node(self, key: NodeKey) -> NodeFacts:
        """Return what is known of an edge node."""
        return self._nodes.get(key) or NodeFacts()

    def set_node(self, key: NodeKey, facts: NodeFacts) -> None:
        """Replace what is known of an edge node."""
        self._nodes[key] = facts

    def of_node(self, key: NodeKey) -> list[DeviceState]:
        """Return the states of an edge node's devices, without the edge node itself."""
        return [one for known, one in self._devices.items() if known.of_node == key and known.device]

    def forget(self, key: DeviceKey) -> None:
        """Let go of a device that is gone for good, or of an edge node."""
        if self._devices.pop(key, None) is not None:
            del self._by_id[device_id(key)]
            self.touch()

    def forget_node(self, key: NodeKey) -> None:
        """Let go of an edge node and all its devices."""
        for state in self.of_node(key):
            self.forget(state.key)
        self.forget(DeviceKey(key.group, key.node, ""))
        self._nodes.pop(key, None)

    def touch(self) -> None:
        """Say that something visible changed."""
        self.version += 1
        for waiting in self._waiting:
            waiting.set()

    def watch_silence(self) -> None:
        """Notice presences that changed by time alone."""
        seen = tuple(self.presence(key) for key in self._devices)
        if seen != self._seen:
            self._seen = seen
            self.touch()

    async def changed(self, seen: int) -> int:
        """Return the version once it is another than the one seen."""
        while self.version == seen:
            waiting = asyncio.Event()
            self._waiting.add(waiting)
            try:
                await waiting.wait()
            finally:
                self._waiting.discard(waiting)
        return self.version

    def presence(self, key: DeviceKey) -> Presence:
        """Return whether a device is there."""
        node = of_node(self._nodes.get(key.of_node, NodeFacts()), self._clock.now_ms())
        if not key.device:
            return node
        known = self._devices.get(key)
        return of_device(node, known.facts if known is not None else DeviceFacts())

    def devices(self) -> Sequence[LiveDevice]:
        """Return all devices and edge nodes, ordered by group, node and device."""
        return [self._view(self._devices[key]) for key in sorted(self._devices)]

    def device(self, wanted: str) -> LiveDevice | None:
        """Return a device by its id."""
        key = self._by_id.get(wanted)
        return None if key is None else self._view(self._devices[key])

    def _view(self, state: DeviceState) -> LiveDevice:
        return LiveDevice(
            id=device_id(state.key),
            key=state.key,
            kind=state.kind,
            presence=self.presence(state.key),
            values={
                name: LiveValue(
                    metric=name,
                    value=slot.value,
                    at=slot.at,
                    quality=slot.mark >> 8,
                    instrument=slot.mark & INSTRUMENT_BITS,
                    time=(slot.mark & TIME_BITS) >> TIME_SHIFT,
                    unit=slot.unit,
                    fresh_until=slot.at + slot.max_report_ms,
                    event=slot.event,
                )
                for name, slot in state.slots.items()
                if slot.at >= 0
            },
            foreign=state.foreign,
            last_seen=state.last_seen,
        )
