"""The agent as a technician starts it: a process of its own, simulated devices, a real broker."""

import asyncio
import json
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiomqtt
import pytest

from contract.catalog import HELLO, KIND
from contract.payload import Payload, decode
from contract.topics import MessageType, parse
from edge.agent import Agent
from edge.config import load
from edge.delivery_log import DeliveryLog
from edge.timekeeping import LONGEST_HOLD
from simulators.faults import Fault, Faults
from simulators.ip_speaker import Speaker, serving
from simulators.modbus_probe import Probe, bus

NODE = """
[node]
group = "c7k2m"
id = "c7k2m-01"
state_dir = "state"
status_file = "status.json"
clock = "{clock}"
birth_jitter_seconds = 0
commit_interval_seconds = 0.2

[[brokers]]
host = "127.0.0.1"
port = {port}
"""
PROBE = """
[[devices]]
id = "probe-0{slave}"
kind = "water_probe"
driver = "modbus_sensor"
port = "line"
slave = {slave}
register_map = "generic-water-probe.yaml"
poll_seconds = 0.2
timeout_seconds = 0.2
grace_seconds = 0.5
"""
SPEAKER = """
[[devices]]
id = "speaker-01"
kind = "loudspeaker"
driver = "ip_speaker"
url = "{url}"
username = "box"
password_file = "speaker.password"
poll_seconds = 0.2
timeout_seconds = 1.0
grace_seconds = 0.5
"""


def written(folder: Path, *parts: str) -> Path:
    (folder / "speaker.password").write_text("geheim\n", encoding="utf-8")
    file = folder / "edge.toml"
    file.write_text("".join(parts), encoding="utf-8")
    return file


def status(file: Path) -> dict[str, Any]:
    try:
        told: dict[str, Any] = json.loads(file.with_name("status.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {"devices": {}, "read": 0, "state": ""}
    return told


def presences(file: Path) -> dict[str, object]:
    return {name: one["presence"] for name, one in status(file)["devices"].items()}


@asynccontextmanager
async def running(file: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "edge", "run", str(file), stderr=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@asynccontextmanager
async def overheard(port: int) -> AsyncIterator[list[tuple[MessageType, str | None, Payload]]]:
    """Listen to everything on the broker."""
    found: list[tuple[MessageType, str | None, Payload]] = []

    async def listen(client: aiomqtt.Client) -> None:
        async for message in client.messages:
            topic = parse(str(message.topic))
            assert isinstance(message.payload, bytes)
            found.append((topic.kind, topic.device, decode(message.payload)))

    async with aiomqtt.Client("127.0.0.1", port) as client:
        await client.subscribe("spBv1.0/c7k2m/#")
        listening = asyncio.create_task(listen(client))
        try:
            yield found
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)


def probe(slave: int) -> Probe:
    return Probe(id=f"probe-{slave}", slave=slave, seed=7, faults=Faults([], time.monotonic), now=time.time)


def speaker(folder: Path) -> Speaker:
    return Speaker(id="speaker-01", user="box", password="geheim", recordings=folder, faults=Faults([], time.monotonic))


@pytest.mark.broker
async def test_an_agent_births_its_devices_tells_how_they_are_and_says_goodbye(
    mosquitto: Any, tmp_path: Path, eventually: Any
) -> None:
    async with (
        overheard(mosquitto.port) as heard,
        bus([probe(1)], link=tmp_path / "line", paced=False),
        serving(speaker(tmp_path)) as url,
    ):
        file = written(
            tmp_path,
            NODE.format(port=mosquitto.port, clock="trusted"),
            PROBE.format(slave=1),
            SPEAKER.format(url=url),
        )
        async with running(file) as process:
            await eventually(lambda: presences(file) == {"probe-01": "online", "speaker-01": "online"})
            assert status(file)["state"] == "born"
            process.send_signal(signal.SIGTERM)
            process.send_signal(signal.SIGTERM)  # a second one changes nothing
            _, said = await asyncio.wait_for(process.communicate(), 20)
        assert process.returncode == 0, said.decode()
        assert b"Traceback" not in said
        end = status(file)
        assert end["stopped"] is True
        assert end["read"] >= 13
        assert 0 < end["reported"] <= end["read"] + 2
        assert end["uncommitted"] > 0, "no hub was there to commit"
        await eventually(lambda: heard[-1][0] is MessageType.NDEATH)
    births = {
        device or "": payload for kind, device, payload in heard if kind in {MessageType.NBIRTH, MessageType.DBIRTH}
    }
    assert set(births) == {"", "probe-01", "speaker-01"}
    named = {one.name: one.value for one in births[""].metrics}
    assert named[KIND] == "edge_node"
    assert not named[HELLO], "a box without [broadcast] has nothing to say of it"


@pytest.mark.broker
async def test_a_dead_slave_and_a_refusing_loudspeaker_delay_nobody(
    mosquitto: Any, tmp_path: Path, eventually: Any
) -> None:
    dead, refusing = probe(1), speaker(tmp_path)
    dead.faults.forced, refusing.faults.forced = Fault.SILENT, Fault.REFUSE
    async with bus([dead, probe(2)], link=tmp_path / "line", paced=False), serving(refusing) as url:
        file = written(
            tmp_path,
            NODE.format(port=mosquitto.port, clock="trusted"),
            PROBE.format(slave=1),
            PROBE.format(slave=2),
            SPEAKER.format(url=url),
        )
        async with running(file):
            wanted = {"probe-01": "silent", "probe-02": "online", "speaker-01": "refused"}
            await eventually(lambda: presences(file) == wanted)
            before = status(file)["read"]
            await eventually(lambda: status(file)["read"] >= before + 5 * 5, what="five more readings of probe-02")
            dead.faults.forced = refusing.faults.forced = None
            await eventually(lambda: set(presences(file).values()) == {"online"}, within=40, what="both are back")


async def test_a_second_agent_on_the_same_state_folder_is_refused(tmp_path: Path, eventually: Any) -> None:
    file = written(tmp_path, NODE.format(port=9, clock="trusted"))
    async with running(file) as first:
        await eventually(lambda: status(file)["state"] == "waiting")
        async with running(file) as second:
            _, said = await asyncio.wait_for(second.communicate(), 20)
            assert second.returncode == 1
            assert "another agent is running" in said.decode()
        first.send_signal(signal.SIGINT)
        _, said = await asyncio.wait_for(first.communicate(), 20)
        assert first.returncode == 0, said.decode()


@pytest.mark.parametrize(
    ("section", "complaint"),
    [
        ('root = "root.json"\nidentity_key = "speaker.password"', "there is no file"),
        ('root = "speaker.password"\nidentity_key = "speaker.password"', "no private key"),
        ('root = "speaker.password"\nidentity_key = "speaker.password"', "broadcast root"),
    ],
)
async def test_trust_that_cannot_be_used_stops_the_start_with_a_sentence(
    tmp_path: Path, section: str, complaint: str
) -> None:
    broadcast = f'[broadcast]\ndeployment = "d"\naudio_url = "http://127.0.0.1:1"\n{section}\n'
    file = written(tmp_path, NODE.format(port=9, clock="trusted"), broadcast)
    async with running(file) as process:
        _, said = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 1
    assert complaint in said.decode()
    assert b"Traceback" not in said


async def test_readings_wait_for_the_clock_but_not_for_ever(
    clock: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synchronised = False
    monkeypatch.setattr("edge.agent.kernel_synchronised", lambda: synchronised)
    agent = Agent(load(written(tmp_path, NODE.format(port=9, clock="ntp"))), clock)
    with DeliveryLog(tmp_path / "log", clock) as log:
        agent._clock.begin(log)
        holding = asyncio.create_task(agent._hold_for_clock())
        await clock.advance(LONGEST_HOLD - 1)
        assert not holding.done()
        await clock.advance(2)
        assert holding.done()
        agent._clock.begin(log)
        holding = asyncio.create_task(agent._hold_for_clock())
        await clock.advance(5)
        assert not holding.done()
        synchronised = True
        await clock.advance(2)
        assert holding.done()
