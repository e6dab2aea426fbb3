"""Our presence as a Sparkplug host at a real broker."""

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiomqtt
import pytest

from contract.clock import SystemClock
from hub.broker import Broker, Settings

pytestmark = pytest.mark.broker
STATE = "spBv1.0/STATE/hub"


class Watcher:
    """Sees everything at the broker, in order."""

    def __init__(self) -> None:
        self.seen: list[aiomqtt.Message] = []

    @property
    def states(self) -> list[dict[str, Any]]:
        return [json.loads(bytes(one.payload)) for one in self.seen if str(one.topic) == STATE]


@asynccontextmanager
async def watching(port: int) -> AsyncIterator[tuple[Watcher, aiomqtt.Client]]:
    watcher = Watcher()
    async with aiomqtt.Client("127.0.0.1", port) as client:
        await client.subscribe("spBv1.0/#", qos=1)

        async def watch() -> None:
            async for message in client.messages:
                watcher.seen.append(message)

        task = asyncio.create_task(watch())
        try:
            yield watcher, client
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def host(folder: Path, port: int) -> AsyncIterator[tuple[Broker, asyncio.Task[None]]]:
    settings = Settings(host="127.0.0.1", port=port, host_id="hub", keep_alive=5)
    broker = Broker(settings, state_file=folder / "host-state", clock=SystemClock())
    running = asyncio.create_task(broker.run())
    try:
        yield broker, running
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_it_is_born_online_and_leaves_offline_with_numbers(
    mosquitto: Any, tmp_path: Path, eventually: Any
) -> None:
    async with watching(mosquitto.port) as (watcher, _):
        async with host(tmp_path, mosquitto.port) as (broker, _task):
            await eventually(lambda: watcher.states)
            assert not broker.publish("spBv1.0/g/NCMD/n", b""), "nothing else in the first second"
            await eventually(lambda: broker.ready)
            assert broker.publish("spBv1.0/g/NCMD/n", b"")
        await eventually(lambda: len(watcher.states) == 2)
    online, offline = watcher.states
    assert (online["online"], offline["online"]) == (True, False)
    assert isinstance(online["timestamp"], int)
    assert offline["timestamp"] == online["timestamp"]
    assert [one.qos for one in watcher.seen if str(one.topic) == STATE] == [1, 1]


async def test_a_dead_host_leaves_its_will_retained_with_the_births_timestamp(
    mosquitto: Any, tmp_path: Path, eventually: Any
) -> None:
    async with watching(mosquitto.port) as (watcher, _), host(tmp_path, mosquitto.port) as (broker, _task):
        await eventually(lambda: watcher.states)
        assert broker._client is not None
        sock = broker._client.socket()
        assert sock is not None
        with socket.socket(fileno=os.dup(sock.fileno())) as same:
            same.shutdown(socket.SHUT_RDWR)
        await eventually(lambda: len(watcher.states) >= 3, within=15)
    born, died, again = watcher.states[:3]
    assert (died["online"], died["timestamp"]) == (False, born["timestamp"])
    assert again["online"]
    assert again["timestamp"] > born["timestamp"]


async def test_whoever_calls_it_offline_is_answered_at_once(mosquitto: Any, tmp_path: Path, eventually: Any) -> None:
    async with watching(mosquitto.port) as (watcher, client), host(tmp_path, mosquitto.port):
        await eventually(lambda: watcher.states)
        timestamp = watcher.states[0]["timestamp"]
        lie = json.dumps({"online": False, "timestamp": timestamp})
        await client.publish(STATE, lie, qos=1, retain=True)
        await eventually(lambda: len(watcher.states) >= 3)
        assert watcher.states[2] == {"online": True, "timestamp": timestamp}


async def test_a_newer_word_of_its_own_makes_it_connect_above_it(
    mosquitto: Any, tmp_path: Path, eventually: Any
) -> None:
    async with watching(mosquitto.port) as (watcher, client):
        ahead = SystemClock().now_ms() + 3_600_000
        await client.publish(STATE, json.dumps({"online": True, "timestamp": ahead}), qos=1, retain=True)
        await eventually(lambda: watcher.states)
        async with host(tmp_path, mosquitto.port) as (broker, _task):
            await eventually(
                lambda: any(one["timestamp"] > ahead and one["online"] for one in watcher.states), within=15
            )
            await eventually(lambda: broker.ready)


@pytest.mark.parametrize(
    "nonsense", [b"ONLINE", b"{}", b'{"online":1}', b"[" * 5000, b'{"timestamp":"x","online":false}']
)
async def test_nonsense_about_itself_changes_nothing(
    mosquitto: Any, tmp_path: Path, eventually: Any, nonsense: bytes
) -> None:
    async with watching(mosquitto.port) as (_, client), host(tmp_path, mosquitto.port) as (broker, running):
        await eventually(lambda: broker.ready)
        await client.publish(STATE, nonsense, qos=1)
        await client.publish("spBv1.0/g/NDATA/n", b"after", qos=1)
        found: list[Any] = []
        async with asyncio.timeout(20):
            while not any(one.payload == b"after" for one in found):
                found += await broker.take(5)
        assert broker.online
        assert not running.done()


async def test_a_broker_that_comes_back_finds_it_again(mosquitto: Any, tmp_path: Path, eventually: Any) -> None:
    async with host(tmp_path, mosquitto.port) as (broker, _):
        await eventually(lambda: broker.ready)
        mosquitto.stop()
        await eventually(lambda: not broker.online)
        mosquitto.start()
        await eventually(lambda: broker.ready, within=20)


async def test_a_disk_that_is_full_costs_the_host_no_connection(
    mosquitto: Any, tmp_path: Path, eventually: Any
) -> None:
    (tmp_path / "host-state.new").mkdir()  # nothing can be written there
    async with watching(mosquitto.port) as (watcher, _), host(tmp_path, mosquitto.port) as (broker, running):
        await eventually(lambda: broker.online)
        mosquitto.stop()
        await eventually(lambda: not broker.online)
        mosquitto.start()
        await eventually(lambda: broker.online)
        assert not running.done()
        async with watching(mosquitto.port) as (again, _):
            await eventually(lambda: again.states)
        assert again.states[-1]["timestamp"] > watcher.states[0]["timestamp"]
