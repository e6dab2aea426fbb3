"""From a recorded sample to a committed row and back: edge uplink, real broker, hub ingest, embedded store."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from contract.catalog import CATALOG, Kind
from contract.clock import SystemClock
from contract.metrics import Sample
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
from hub.presence import State
from hub.storage.embedded import EmbeddedStore

pytestmark = pytest.mark.broker

NODE = NodeKey("c7k2m", "c7k2m-01")
PROBE = DeviceKey("c7k2m", "c7k2m-01", "probe-01")


@dataclass
class Hub:
    ingest: Ingest
    store: EmbeddedStore
    live: LiveState
    broker: Broker
    counters: Counters


@asynccontextmanager
async def hub_at(folder: Path, port: int) -> AsyncIterator[Hub]:
    clock, counters = SystemClock(), Counters()
    folder.mkdir(exist_ok=True)
    with EmbeddedStore(folder) as store:
        live = LiveState(clock, [NODE])
        broker = Broker(
            BrokerSettings(host="127.0.0.1", port=port, host_id="hub"), state_file=folder / "state", clock=clock
        )
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
            yield Hub(ingest, store, live, broker, counters)
        finally:
            for task in reversed(tasks):
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def edge_at(folder: Path, port: int) -> AsyncIterator[Uplink]:
    async def ignore(name: str, value: str) -> None: ...

    clock = SystemClock()
    with DeliveryLog(folder, clock) as delivery_log:
        uplink = Uplink(
            Settings(
                group=NODE.group,
                node=NODE.node,
                brokers=[Server(host="127.0.0.1", port=port)],
                primary_host="hub",
                birth_jitter=0,
                commit_interval=0.2,
            ),
            delivery_log=delivery_log,
            devices={"probe-01": DeviceBirth(kind=Kind.WATER_PROBE, metrics=CATALOG[Kind.WATER_PROBE].metrics)},
            clock=clock,
            hello=lambda: "",
            on_broadcast=ignore,
            chance=random.Random(1),
        )
        running = asyncio.create_task(uplink.run())
        try:
            yield uplink
        finally:
            await uplink.end(0)
            await asyncio.wait_for(running, 10)


async def measure(uplink: Uplink, count: int, start: float = 7.0) -> None:
    now = SystemClock().now_ms()
    for number in range(count):
        sample = Sample(metric="Water/pH", at=now - count * 1000 + number * 1000, value=start + number / 100)
        await uplink.record("probe-01", [sample])


async def test_a_live_reading_is_shown_stored_and_acknowledged(mosquitto: Any, tmp_path: Path, eventually: Any) -> None:
    async with hub_at(tmp_path / "hub", mosquitto.port) as hub, edge_at(tmp_path / "edge", mosquitto.port) as uplink:
        await eventually(lambda: uplink.born)
        await measure(uplink, 5)
        await eventually(lambda: hub.store.stats().samples == 5)
        await eventually(lambda: uplink.uncommitted() == 0)
        probe = next(one for one in hub.live.devices() if one.key == PROBE)
        assert probe.kind is Kind.WATER_PROBE
        assert probe.presence.state is State.ONLINE
        assert probe.values["Water/pH"].value == 7.04


async def test_what_was_measured_while_the_hub_was_away_arrives_once_it_is_back(
    mosquitto: Any, tmp_path: Path, eventually: Any
) -> None:
    async with edge_at(tmp_path / "edge", mosquitto.port) as uplink:
        await measure(uplink, 300)
        async with hub_at(tmp_path / "hub", mosquitto.port) as hub:
            await eventually(lambda: hub.store.stats().samples == 300)
            await eventually(lambda: uplink.uncommitted() == 0)
            assert hub.store.stats().conflicts == 0
    async with hub_at(tmp_path / "hub", mosquitto.port) as again:
        assert again.store.stats().samples == 300


async def test_an_agent_killed_before_the_hub_came_back_still_delivers(
    mosquitto: Any, tmp_path: Path, eventually: Any
) -> None:
    async with edge_at(tmp_path / "edge", mosquitto.port) as uplink:
        await measure(uplink, 50)
    async with hub_at(tmp_path / "hub", mosquitto.port) as hub, edge_at(tmp_path / "edge", mosquitto.port) as uplink:
        await eventually(lambda: hub.store.stats().samples == 50)
        await eventually(lambda: uplink.uncommitted() == 0)


async def test_the_death_of_the_edge_node_is_seen_at_once(mosquitto: Any, tmp_path: Path, eventually: Any) -> None:
    async with hub_at(tmp_path / "hub", mosquitto.port) as hub:
        async with edge_at(tmp_path / "edge", mosquitto.port) as uplink:
            await eventually(lambda: uplink.born)
            await eventually(lambda: hub.ingest.born(NODE))
        await eventually(lambda: not hub.ingest.born(NODE))
        node = next(one for one in hub.live.devices() if one.key == DeviceKey(NODE.group, NODE.node, ""))
        assert node.presence.state is State.OFFLINE
