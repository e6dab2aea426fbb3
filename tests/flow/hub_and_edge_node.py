"""A hub and an edge node in this process, each with a folder of its own, for tests of what passes between them."""

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from contract.catalog import CATALOG, Kind
from contract.clock import SystemClock
from edge.broker import Server
from edge.delivery_log import DeliveryLog
from edge.sender import DeviceBirth
from edge.uplink import Settings, Uplink
from hub.broker import Broker
from hub.broker import Settings as BrokerSettings
from hub.counters import Counters
from hub.devices import DeviceKey, NodeKey
from hub.ingest import Ingest
from hub.ingest import Settings as IngestSettings
from hub.live_state import LiveState
from hub.state_folder import HOST_STATE
from hub.storage.embedded import EmbeddedStore

NODE = NodeKey("c7k2m", "c7k2m-01")
PROBE = DeviceKey("c7k2m", "c7k2m-01", "probe-01")
ONE_PROBE = {"probe-01": Kind.WATER_PROBE}


@dataclass(frozen=True, slots=True, kw_only=True)
class Hub:
    """The parts of a hub that tests look at."""

    ingest: Ingest
    store: EmbeddedStore
    live: LiveState
    broker: Broker
    counters: Counters


@asynccontextmanager
async def hub_at(folder: Path, port: int) -> AsyncIterator[Hub]:
    """Run a hub on a folder, at the broker on a port."""
    clock, counters = SystemClock(), Counters()
    folder.mkdir(exist_ok=True)
    with EmbeddedStore(folder) as store:
        live = LiveState(clock, [NODE])
        settings = BrokerSettings(host="127.0.0.1", port=port, host_id="hub")
        broker = Broker(settings, state_file=folder / HOST_STATE, clock=clock)
        ingest = Ingest(
            broker=broker,
            store=store,
            live=live,
            clock=clock,
            counters=counters,
            settings=IngestSettings(ask_kernel=False),
            on_hello=lambda node, raw: None,
            on_events=lambda: None,
        )
        tasks = [asyncio.create_task(broker.run()), asyncio.create_task(ingest.run())]
        try:
            yield Hub(ingest=ingest, store=store, live=live, broker=broker, counters=counters)
        finally:
            for task in reversed(tasks):
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def edge_at(
    folder: Path,
    port: int,
    *,
    node: NodeKey = NODE,
    host: str = "hub",
    devices: Mapping[str, Kind] = ONE_PROBE,
) -> AsyncIterator[Uplink]:
    """Run an edge node with some devices on a folder, at the broker on a port, for a primary host."""

    async def ignore(name: str, value: str) -> None: ...

    async def unasked(value: str) -> None: ...

    clock = SystemClock()
    with DeliveryLog(folder, clock) as delivery_log:
        uplink = Uplink(
            Settings(
                group=node.group,
                node=node.node,
                brokers=[Server(host="127.0.0.1", port=port)],
                primary_host=host,
                birth_jitter=0,
                commit_interval=0.2,
            ),
            delivery_log=delivery_log,
            devices={name: DeviceBirth(kind=kind, metrics=CATALOG[kind].metrics) for name, kind in devices.items()},
            clock=clock,
            hello=lambda: "",
            on_broadcast=ignore,
            on_command=unasked,
            chance=random.Random(1),
        )
        running = asyncio.create_task(uplink.run())
        try:
            yield uplink
        finally:
            await uplink.end(0)
            await asyncio.wait_for(running, 10)
