"""A hub's intake without a broker: messages go in by hand, what would be sent is kept."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from contract.catalog import CATALOG, KIND, STATE, Kind
from contract.delivery import EPOCH, FIRST, LAST, Committed, Held, Ledger, held_metrics, read_answer
from contract.metrics import DataType, Metric, Value
from contract.payload import DataSet, Payload, WireMetric, decode, encode
from contract.topics import MessageType, Topic
from hub.answering import Standing
from hub.broker import Message
from hub.counters import Counters
from hub.devices import NodeKey
from hub.ingest import Ingest, Settings
from hub.live_state import LiveState
from hub.storage.embedded import EmbeddedStore

NODE = NodeKey("g", "n-01")


@dataclass
class Line:
    """Stands where the broker's line would, and keeps what is sent; not ready, so nothing is answered unasked."""

    sent: list[tuple[str, Payload]] = field(default_factory=list)
    ready: bool = False

    def publish(self, topic: str, payload: bytes) -> bool:
        self.sent.append((topic, decode(payload)))
        return True

    async def take(self, within: float) -> list[Message]:
        raise NotImplementedError


@dataclass
class Intake:
    ingest: Ingest
    store: EmbeddedStore
    live: LiveState
    line: Line
    counters: Counters
    clock: Any
    hellos: list[str]

    def give(self, kind: MessageType, payload: Payload | bytes, device: str | None = None, node: str = "n-01") -> None:
        raw = payload if isinstance(payload, bytes) else encode(payload)
        self.ingest.take_in(Message(str(Topic("g", kind, node, device)), raw, self.clock.now_ms()))

    def births(
        self,
        *,
        log: str | None = "log",
        device: str = "probe",
        kind: Kind = Kind.WATER_PROBE,
        held: Held | None = None,
        node: str = "n-01",
    ) -> None:
        now = self.clock.now_ms()
        self.give(MessageType.NBIRTH, node_birth(log, now, held), node=node)
        self.give(MessageType.DBIRTH, device_birth(kind, now, ours=log is not None), device, node=node)

    async def commit(self) -> None:
        await self.ingest.committing.flush()

    def answer(self, *, doubt: str = "", closed: bool = False) -> list[Ledger | Committed]:
        """Return what an edge node is told now."""
        before = len(self.line.sent)
        self.ingest.answering.answer(self.ingest._nodes[NODE], Standing(doubt=doubt, closed=closed))
        return [one for _, payload in self.line.sent[before:] for one in read_answer(payload)]


def wire(name: str, datatype: DataType, value: Value | DataSet, at: int, alias: int | None = None) -> WireMetric:
    return WireMetric(name=name, alias=alias, at=at, datatype=datatype, value=value)


def node_birth(log: str | None, at: int, held: Held | None = None) -> Payload:
    metrics = [
        wire("bdSeq", DataType.INT64, 1, at),
        wire("Node Control/Rebirth", DataType.BOOLEAN, False, at),
    ]
    if log is not None:
        told = held or Held(log=log, epoch=1, positions={})
        metrics += [
            *held_metrics(told, at),
            wire(KIND, DataType.STRING, "edge_node", at),
            *(
                wire(name, DataType.UINT64, told.epoch, at, alias)
                for alias, name in ((1, EPOCH), (2, FIRST), (3, LAST))
            ),
            wire("Presence/probe", DataType.STRING, None, at, 4),
            wire("Announcement/Outcome", DataType.STRING, None, at, 5),
        ]
    return Payload(at=at, seq=0, metrics=tuple(metrics))


def device_birth(kind: str, at: int, *, ours: bool = True) -> Payload:
    metrics = [wire(KIND, DataType.STRING, str(kind), at)] if ours else []
    if ours:
        metrics += [
            wire(name, DataType.UINT64, None, at, alias) for alias, name in ((11, EPOCH), (12, FIRST), (13, LAST))
        ]
    metrics += [wire(one.name, one.datatype, None, at, alias) for alias, one in enumerate(_measured(kind), start=20)]
    return Payload(at=at, seq=1, metrics=tuple(metrics))


def _measured(kind: str) -> list[Metric]:
    """Return a kind's metrics, those it is there for first."""
    return sorted(CATALOG[Kind(kind)].metrics, key=lambda one: one.name == STATE)


def by_alias(alias: int, datatype: DataType, value: Value, at: int, *, historical: bool = False) -> WireMetric:
    return WireMetric(alias=alias, at=at, datatype=datatype, value=value, historical=historical)


def data(*samples: WireMetric, first: int = 0, last: int = 0, epoch: int = 1, at: int, base: int = 11) -> Payload:
    positions = [
        by_alias(base, DataType.UINT64, epoch, at),
        by_alias(base + 1, DataType.UINT64, first, at),
        by_alias(base + 2, DataType.UINT64, last, at),
    ]
    return Payload(at=at, seq=2, metrics=(*positions, *samples))


def over(store: EmbeddedStore, clock: Any) -> Intake:
    """Return an intake over a store, as a hub that just started has it."""
    live, line, counters, hellos = LiveState(clock, [NODE]), Line(), Counters(), list[str]()
    keep: Callable[[NodeKey, str], None] = lambda node, raw: hellos.append(raw)  # noqa: E731
    ingest = Ingest(
        broker=line,  # type: ignore[arg-type]  # only take and publish are used
        store=store,
        live=live,
        clock=clock,
        counters=counters,
        settings=Settings(ask_kernel=False),
        on_hello=keep,
        on_events=lambda: None,
    )
    return Intake(ingest, store, live, line, counters, clock, hellos)


@pytest.fixture
def intake(tmp_path: Path, clock: Any) -> Iterator[Intake]:
    with EmbeddedStore(tmp_path) as store:
        yield over(store, clock)


@pytest.fixture
def another(intake: Intake) -> Callable[[], Intake]:
    """Return a maker of hubs that start over the same store."""
    return lambda: over(intake.store, intake.clock)


@pytest.fixture
def make() -> Any:
    """Return the makers of payloads, for test modules (which cannot import a conftest)."""

    class Make:
        by_alias = staticmethod(by_alias)
        data = staticmethod(data)
        node_birth = staticmethod(node_birth)
        device_birth = staticmethod(device_birth)
        wire = staticmethod(wire)

    return Make
