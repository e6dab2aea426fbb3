"""Hub, broker, box and horn as they are: a technician asks, a stranger repeats and forges, a hub is restored."""

import asyncio
import itertools
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiomqtt
import httpx
import pytest
from aiohttp import web

from contract.actions import Action
from contract.catalog import COMMAND, COMMAND_OUTCOME
from contract.clock import SystemClock
from contract.commands import Command, Stage, read_command, read_outcome, written
from contract.metrics import DataType
from contract.payload import Payload, WireMetric, decode, encode
from contract.topics import MessageType, Topic
from simulators import demo_people
from simulators.faults import Faults
from simulators.ip_speaker import Speaker, serving
from tests.flow.program import program

pytestmark = [pytest.mark.broker, pytest.mark.timeout(150)]

NUMBERS = itertools.count()
GROUP, NODE, HORN = "c7k2m", "c7k2m-01", "speaker-01"
ENDS_WITHIN = 40.0

HUB = """
[hub]
host_id = "hamlet-hub"
state_dir = "hub"
port = 0
clock = "trusted"
status_file = "hub.json"
[broker]
port = {port}
[[edge_nodes]]
group = "c7k2m"
id = "c7k2m-01"
commune = "Xã An Thạnh"
hamlet = "Ấp Bình Hòa"
"""

EDGE = """
[node]
group = "c7k2m"
id = "c7k2m-01"
state_dir = "box"
status_file = "box.json"
clock = "trusted"
birth_jitter_seconds = 0
commit_interval_seconds = 0.2
[[brokers]]
host = "127.0.0.1"
port = {port}
[[devices]]
id = "speaker-01"
kind = "loudspeaker"
driver = "ip_speaker"
poll_seconds = 3600
url = "{horn}"
username = "box"
password_file = "horn.password"
"""


class Horn(Speaker):
    """A horn that counts how often it was read, and what else was wanted of it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.read = 0
        self.other: list[str] = []

    async def _status(self, request: web.Request) -> web.Response:
        self.read += 1
        return await super()._status(request)

    async def _open(self, request: web.Request) -> web.Response:
        self.other.append("open")
        return await super()._open(request)

    async def _set_volume(self, request: web.Request) -> web.Response:
        self.other.append("volume")
        return await super()._set_volume(request)


@dataclass
class Broker:
    """Somebody with every right on the broker: hears all commands, and sends what it likes."""

    client: aiomqtt.Client
    caught: list[Command] = field(default_factory=list)

    async def listen(self) -> None:
        async for message in self.client.messages:
            assert isinstance(message.payload, bytes)
            for metric in decode(message.payload).metrics:
                if metric.name == COMMAND:
                    self.caught.append(read_command(str(metric.value)))

    async def send(self, command: Command) -> None:
        at = SystemClock().now_ms()
        metric = WireMetric(name=COMMAND, at=at, datatype=DataType.STRING, value=written(command))
        topic = str(Topic(GROUP, MessageType.NCMD, NODE))
        await self.client.publish(topic, encode(Payload(at=at, metrics=(metric,))))


@dataclass
class Place:
    folder: Path
    port: int
    horn: Horn
    stranger: Broker

    @asynccontextmanager
    async def hub(self) -> AsyncIterator[httpx.AsyncClient]:
        status = self.folder / "hub.json"
        status.unlink(missing_ok=True)
        async with program("hub", "serve", str(self.folder / "hub.toml"), ends_within=ENDS_WITHIN):
            await until(status.exists)
            url = json.loads(status.read_text())["url"]
            who = replace(demo_people.JUDGE, name=f"judge-{next(NUMBERS)}")
            cookie = await demo_people.cookie(url, self.folder / "hub.toml", who)
            async with httpx.AsyncClient(base_url=url, headers={"Origin": url, "Cookie": cookie}, timeout=20) as api:
                yield api

    @asynccontextmanager
    async def box(self) -> AsyncIterator[None]:
        async with program("edge", "run", str(self.folder / "edge.toml"), ends_within=ENDS_WITHIN):
            yield


async def until(condition: Any, within: float = 40.0) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, f"not within {within} s"
        await asyncio.sleep(0.05)


async def outcomes(api: httpx.AsyncClient) -> dict[str, set[Stage]]:
    """Return what the box told of commands, whoever sent them, by command; acceptance left out."""
    devices = (await api.get("/api/devices")).json()["devices"]
    (node,) = (one["id"] for one in devices if (one["node"], one["device"]) == (NODE, ""))
    answer = await api.get(f"/api/devices/{node}/history", params={"metric": COMMAND_OUTCOME})
    found: dict[str, set[Stage]] = {}
    for raw in answer.json().get("value", []):
        told = read_outcome(raw)
        if told.stage is not Stage.ACCEPTED:
            found.setdefault(told.command, set()).add(told.stage)
    return found


async def until_told(api: httpx.AsyncClient, commands: set[str]) -> dict[str, set[Stage]]:
    deadline = time.monotonic() + 40
    while True:
        found = await outcomes(api)
        if commands <= set(found):
            return found
        assert time.monotonic() < deadline, (commands, found)
        await asyncio.sleep(0.05)


async def horn_of(api: httpx.AsyncClient) -> str:
    deadline = time.monotonic() + 40
    while True:
        devices = (await api.get("/api/devices")).json()["devices"]
        ids = [one["id"] for one in devices if one["device"] == HORN and one["presence"]["state"] == "online"]
        if ids:
            return str(ids[0])
        assert time.monotonic() < deadline, devices
        await asyncio.sleep(0.05)


async def ask(api: httpx.AsyncClient, device: str) -> str:
    answer = await api.post(f"/api/devices/{device}/commands", json={"action": "ask_now"})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


async def stage(api: httpx.AsyncClient, device: str, command: str, wanted: str) -> dict[str, Any]:
    deadline = time.monotonic() + 40
    while True:
        # A hub that has just started knows no device yet.
        told = (await api.get(f"/api/devices/{device}/commands")).json().get("commands", [])
        found: dict[str, Any] = next((one for one in told if one["id"] == command), {})
        if found.get("stage") == wanted:
            return found
        assert time.monotonic() < deadline, told
        await asyncio.sleep(0.05)


@pytest.fixture
async def place(mosquitto: Any, tmp_path: Path) -> AsyncIterator[Place]:
    horn = Horn(
        id=HORN, user="box", password="geheim", recordings=tmp_path / "heard", faults=Faults([], time.monotonic)
    )
    (tmp_path / "horn.password").write_text("geheim")
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(serving(horn))
        (tmp_path / "hub.toml").write_text(HUB.format(port=mosquitto.port))
        (tmp_path / "edge.toml").write_text(EDGE.format(port=mosquitto.port, horn=url))
        client = await stack.enter_async_context(aiomqtt.Client("127.0.0.1", mosquitto.port))
        await client.subscribe("spBv1.0/+/NCMD/#")
        stranger = Broker(client)
        listening = asyncio.create_task(stranger.listen())
        yield Place(tmp_path, mosquitto.port, horn, stranger)
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


async def test_what_a_technician_asks_is_done_once_though_it_comes_thrice_and_late_ones_never(place: Place) -> None:
    async with place.hub() as api, place.box():
        device = await horn_of(api)
        await until(lambda: place.horn.read == 1)
        before = place.horn.read
        command = await ask(api, device)
        told = await stage(api, device, command, "done")
        assert told["reason"] == ""
        assert place.horn.read == before + 1
        page = (await api.get(f"/devices/{device}?lang=en")).text
        assert "done" in page.split('id="commands"')[1]
        (genuine,) = {one.id: one for one in place.stranger.caught}.values()
        for _ in range(3):
            await place.stranger.send(genuine)
        now = SystemClock().now_ms()
        late = genuine.model_copy(update={"id": "1" * 32, "issued_at": now - 60_000, "expires_at": now - 30_000})
        loud = [
            genuine.model_copy(update={"id": f"{number:032x}", "action": action, "device": target, "arguments": wish})
            for number, (action, target, wish) in enumerate(
                [
                    ("play", HORN, {}),
                    ("set_volume", HORN, {"volume": "100"}),
                    ("Audio/Volume", HORN, {}),
                    ("restart", HORN, {}),
                    *((str(action), HORN, {"volume": "100"}) for action in Action),
                ],
                start=100,
            )
        ]
        for one in (late, *loud):
            await place.stranger.send(one)
        found = await until_told(api, {command, late.id, *(one.id for one in loud)})
        assert found[command] == {Stage.DONE}
        assert found[late.id] == {Stage.EXPIRED}
        assert all(found[one.id] == {Stage.REFUSED} for one in loud)
        assert place.horn.read == before + 1
        # Every action there is, by somebody with every right on the broker, ends in silence at the horn.
        for number, action in enumerate(Action, start=200):
            await place.stranger.send(genuine.model_copy(update={"id": f"{number:032x}", "action": str(action)}))
        await until_told(api, {f"{number:032x}" for number, _ in enumerate(Action, start=200)})
    assert place.horn.other == []
    assert list(place.folder.glob("heard/*.wav")) == []


async def test_a_command_waits_for_its_box_and_a_hub_that_comes_back_sends_nothing_twice(place: Place) -> None:
    async with place.hub() as api:
        async with place.box():
            device = await horn_of(api)
        away = await ask(api, device)
    before = place.horn.read
    backup = place.folder / "backup"
    async with place.hub() as api:
        saved = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "hub", "backup", str(place.folder / "hub.toml"), str(backup)
        )
        assert await asyncio.wait_for(saved.wait(), 60) == 0
        async with place.box():
            await stage(api, device, away, "done")
        # Read once in its turn at the start of the box, and once because it was asked.
        assert place.horn.read <= before + 2
    sent = len(place.stranger.caught)
    async with place.hub() as api, place.box():
        await horn_of(api)
        await stage(api, device, away, "done")
        assert len(place.stranger.caught) == sent
    restored = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "hub", "restore", str(place.folder / "hub.toml"), str(backup)
    )
    assert await asyncio.wait_for(restored.wait(), 60) == 0
    before = place.horn.read
    async with place.hub() as api, place.box():
        await horn_of(api)
        # The restored hub knows it as not sent yet; the box knows it as done, and says so.
        await stage(api, device, away, "done")
        await until(lambda: place.horn.read > before)
    assert place.horn.read == before + 1, "in its turn, at the start of the box"
