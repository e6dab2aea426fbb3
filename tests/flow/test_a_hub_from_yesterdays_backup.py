"""A hub restored from a backup gets the missing time back from the edge nodes by itself."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
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
from hub.backup import back_up
from hub.broker import Broker
from hub.broker import Settings as BrokerSettings
from hub.counters import Counters
from hub.devices import DeviceKey, NodeKey
from hub.ingest import Ingest
from hub.ingest import Settings as IngestSettings
from hub.live_state import LiveState
from hub.restore import restore
from hub.storage.embedded import EmbeddedStore

pytestmark = [pytest.mark.broker, pytest.mark.timeout(150)]
# What was under way when the old hub went is sent again after 30 s.

NODE = NodeKey("c7k2m", "c7k2m-01")
PROBE = DeviceKey("c7k2m", "c7k2m-01", "probe-01")
START = SystemClock().now_ms() - 3_600_000


@asynccontextmanager
async def hub_at(folder: Path, port: int) -> AsyncIterator[EmbeddedStore]:
    clock = SystemClock()
    folder.mkdir(exist_ok=True)
    with EmbeddedStore(folder) as store:
        settings = BrokerSettings(host="127.0.0.1", port=port, host_id="hub")
        broker = Broker(settings, state_file=folder / "host-state", clock=clock)
        ingest = Ingest(
            broker=broker,
            store=store,
            live=LiveState(clock, [NODE]),
            clock=clock,
            counters=Counters(),
            settings=IngestSettings(ask_kernel=False),
            on_hello=lambda node, raw: None,
            on_events=lambda: None,
        )
        tasks = [asyncio.create_task(broker.run()), asyncio.create_task(ingest.run())]
        try:
            yield store
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


async def measure(uplink: Uplink, first: int, last: int) -> None:
    """Let the probe be read; each reading is its own serial number."""
    for serial in range(first, last + 1):
        await uplink.record("probe-01", [Sample(metric="Water/pH", at=START + serial * 1000, value=float(serial))])


def serials(store: EmbeddedStore) -> list[Any]:
    return list(store.raw(PROBE, "Water/pH", START, START + 10_000_000, 100_000).value)


def counted(last: int) -> list[float]:
    return [float(serial) for serial in range(1, last + 1)]


def back(state: Path, folder: Path) -> None:
    now = SystemClock().now_ms()
    restore(state, folder, host_id="hub", store="embedded", now=now, who="whoever is on duty")


def copied(state: Path, folder: Path) -> None:
    back_up(
        state, folder, host_id="hub", store="embedded", made_at=SystemClock().now_ms(), made_by="whoever is on duty"
    )


async def test_the_missing_time_comes_back_by_itself(mosquitto: Any, tmp_path: Path, eventually: Any) -> None:
    state = tmp_path / "hub"
    async with edge_at(tmp_path / "edge", mosquitto.port) as uplink:
        async with hub_at(state, mosquitto.port) as store:
            await measure(uplink, 1, 200)
            await eventually(lambda: len(serials(store)) == 200)
            await eventually(lambda: uplink.uncommitted() == 0)
            await asyncio.to_thread(copied, state, tmp_path / "backup")
            await measure(uplink, 201, 600)
            await eventually(lambda: serials(store) == counted(600))
            await eventually(lambda: uplink.uncommitted() == 0)
        back(state, tmp_path / "backup")
        async with hub_at(state, mosquitto.port) as store:
            assert serials(store) == counted(200), "what the hub remembers now"
            await measure(uplink, 601, 650)
            await eventually(lambda: serials(store) == counted(650), within=30)
            await eventually(lambda: uplink.uncommitted() == 0)
            assert store.stats().conflicts == 0


async def test_an_agent_that_was_started_anew_meanwhile_still_brings_all_of_it(
    mosquitto: Any, tmp_path: Path, eventually: Any
) -> None:
    state, backup = tmp_path / "hub", tmp_path / "backup"
    async with hub_at(state, mosquitto.port) as store, edge_at(tmp_path / "edge", mosquitto.port) as uplink:
        await measure(uplink, 1, 50)
        await eventually(lambda: len(serials(store)) == 50)
        await eventually(lambda: uplink.uncommitted() == 0)
        await asyncio.to_thread(copied, state, backup)
    for last in (100, 150):
        async with hub_at(state, mosquitto.port) as store, edge_at(tmp_path / "edge", mosquitto.port) as uplink:
            await measure(uplink, last - 49, last)
            await eventually(lambda store=store, last=last: len(serials(store)) == last)
            await eventually(lambda: uplink.uncommitted() == 0)
    back(state, backup)
    async with hub_at(state, mosquitto.port) as store, edge_at(tmp_path / "edge", mosquitto.port) as uplink:
        await eventually(lambda: serials(store) == counted(150), within=30)
        await eventually(lambda: uplink.uncommitted() == 0)
        assert store.voids(NODE, 10) == []


async def test_a_backup_taken_while_readings_pour_in_misses_none_of_them(
    mosquitto: Any, tmp_path: Path, eventually: Any
) -> None:
    state = tmp_path / "hub"

    poured, enough = 0, asyncio.Event()

    async def pour(uplink: Uplink) -> None:
        nonlocal poured
        while not enough.is_set():
            await measure(uplink, poured + 1, poured + 20)
            poured += 20
            await asyncio.sleep(0.01)

    async with edge_at(tmp_path / "edge", mosquitto.port) as uplink:
        async with hub_at(state, mosquitto.port) as store:
            pouring = asyncio.create_task(pour(uplink))
            await eventually(lambda: len(serials(store)) > 300, within=30)
            await asyncio.to_thread(copied, state, tmp_path / "backup")
            await eventually(lambda: len(serials(store)) > 1500, within=30)
        back(state, tmp_path / "backup")
        async with hub_at(state, mosquitto.port) as store:
            assert 300 < len(serials(store)) < 1500
            before = poured
            await eventually(lambda: poured > before + 200)
            enough.set()
            await pouring
            await eventually(lambda: serials(store) == counted(poured), within=45)
            await eventually(lambda: uplink.uncommitted() == 0)
