"""From a recorded sample to a committed row and back: edge uplink, real broker, hub ingest, embedded store."""

from pathlib import Path
from typing import Any

import pytest

from contract.catalog import Kind
from contract.clock import SystemClock
from contract.metrics import Sample
from edge.uplink import Uplink
from hub.devices import DeviceKey
from hub.presence import State
from tests.flow.hub_and_edge_node import NODE, PROBE, edge_at, hub_at

pytestmark = pytest.mark.broker


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
