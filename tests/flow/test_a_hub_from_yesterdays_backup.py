"""A hub restored from a backup gets the missing time back from the edge nodes by itself."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from contract.clock import SystemClock
from contract.metrics import Sample
from edge.lanes import FIRST_PATIENCE
from edge.uplink import Uplink
from hub.backup import back_up
from hub.restore import restore
from tests.flow.hub_and_edge_node import NODE, PROBE, Hub, edge_at, hub_at

pytestmark = [pytest.mark.broker, pytest.mark.timeout(150)]
SENT_AGAIN = FIRST_PATIENCE + 30
"""Seconds: what was under way when the old hub went is sent again once the edge node's patience is over."""

START = SystemClock().now_ms() - 3_600_000


async def measure(uplink: Uplink, first: int, last: int) -> None:
    """Let the probe be read; each reading is its own serial number."""
    for serial in range(first, last + 1):
        await uplink.record("probe-01", [Sample(metric="Water/pH", at=START + serial * 1000, value=float(serial))])


def serials(hub: Hub) -> list[Any]:
    return list(hub.store.raw(PROBE, "Water/pH", START, START + 10_000_000, 100_000).value)


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
        async with hub_at(state, mosquitto.port) as hub:
            await measure(uplink, 1, 200)
            await eventually(lambda: len(serials(hub)) == 200)
            await eventually(lambda: uplink.uncommitted() == 0)
            await asyncio.to_thread(copied, state, tmp_path / "backup")
            await measure(uplink, 201, 600)
            await eventually(lambda: serials(hub) == counted(600))
            await eventually(lambda: uplink.uncommitted() == 0)
        back(state, tmp_path / "backup")
        async with hub_at(state, mosquitto.port) as hub:
            assert serials(hub) == counted(200), "what the hub remembers now"
            await measure(uplink, 601, 650)
            await eventually(lambda: serials(hub) == counted(650), within=SENT_AGAIN)
            await eventually(lambda: uplink.uncommitted() == 0)
            assert hub.store.stats().conflicts == 0


async def test_an_agent_that_was_started_anew_meanwhile_still_brings_all_of_it(
    mosquitto: Any, tmp_path: Path, eventually: Any
) -> None:
    state, backup = tmp_path / "hub", tmp_path / "backup"
    async with hub_at(state, mosquitto.port) as hub, edge_at(tmp_path / "edge", mosquitto.port) as uplink:
        await measure(uplink, 1, 50)
        await eventually(lambda: len(serials(hub)) == 50)
        await eventually(lambda: uplink.uncommitted() == 0)
        await asyncio.to_thread(copied, state, backup)
    for last in (100, 150):
        async with hub_at(state, mosquitto.port) as hub, edge_at(tmp_path / "edge", mosquitto.port) as uplink:
            await measure(uplink, last - 49, last)
            await eventually(lambda hub=hub, last=last: len(serials(hub)) == last)
            await eventually(lambda: uplink.uncommitted() == 0)
    back(state, backup)
    async with hub_at(state, mosquitto.port) as hub, edge_at(tmp_path / "edge", mosquitto.port) as uplink:
        await eventually(lambda: serials(hub) == counted(150), within=SENT_AGAIN)
        await eventually(lambda: uplink.uncommitted() == 0)
        assert hub.store.voids(NODE, 10) == []


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
        async with hub_at(state, mosquitto.port) as hub:
            pouring = asyncio.create_task(pour(uplink))
            await eventually(lambda: len(serials(hub)) > 300, within=SENT_AGAIN)
            await asyncio.to_thread(copied, state, tmp_path / "backup")
            await eventually(lambda: len(serials(hub)) > 1500, within=SENT_AGAIN)
        back(state, tmp_path / "backup")
        async with hub_at(state, mosquitto.port) as hub:
            assert 300 < len(serials(hub)) < 1500
            before = poured
            await eventually(lambda: poured > before + 200)
            enough.set()
            await pouring
            await eventually(lambda: serials(hub) == counted(poured), within=SENT_AGAIN)
            await eventually(lambda: uplink.uncommitted() == 0)
