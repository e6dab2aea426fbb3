"""A probe that counts its answers writes each down before it leaves."""

import asyncio
import json
import struct
import time
from pathlib import Path
from typing import Any

from pymodbus.client import AsyncModbusTcpClient

from simulators.faults import Fault, Faults
from simulators.modbus_probe import Probe, gateway


def probe(told: Path, **more: Any) -> Probe:
    return Probe(
        id="p",
        slave=1,
        seed=7,
        faults=Faults([], time.monotonic),
        now=time.time,
        layout="serial",
        told=told,
        states=(0, 1),
        **more,
    )


def lines(told: Path) -> list[dict[str, Any]]:
    return [json.loads(one) for one in told.read_text(encoding="utf-8").splitlines()]


async def ask(client: AsyncModbusTcpClient, address: int = 0, count: int = 11) -> tuple[int, int] | None:
    answer = await client.read_holding_registers(address, count=count, device_id=1)
    if answer.isError():
        return None
    (serial,) = struct.unpack(">I", struct.pack(">2H", *answer.registers[:2]))
    return serial, answer.registers[10]


async def connected(host: str, port: int) -> AsyncModbusTcpClient:
    client = AsyncModbusTcpClient(host, port=port, timeout=5, retries=0)
    assert await client.connect()
    return client


async def test_what_was_answered_is_what_stands_in_the_file(tmp_path: Path) -> None:
    told = tmp_path / "answers" / "p.jsonl"
    async with gateway([probe(told, first=41)]) as (host, port):
        client = await connected(host, port)
        heard = [await ask(client) for _ in range(3)]
        client.close()
    assert heard == [(41, 1), (42, 0), (43, 1)]
    assert [(one["serial"], one["status"]) for one in lines(told)] == heard
    assert {one["device"] for one in lines(told)} == {"p"}


async def test_two_askers_are_told_apart_and_never_get_the_same_number_nor_the_same_instant(tmp_path: Path) -> None:
    told = tmp_path / "p.jsonl"
    async with gateway([probe(told, apart=0.2)]) as (host, port):
        clients = [await connected(host, port) for _ in range(2)]
        await asyncio.gather(*(ask(one) for one in clients for _ in range(1)))
        for one in clients:
            one.close()
    first, second = lines(told)
    assert first["serial"] != second["serial"]
    assert first["asker"] != second["asker"]
    assert second["at"] - first["at"] >= 100


async def test_a_simulator_started_again_goes_on_counting(tmp_path: Path) -> None:
    told = tmp_path / "p.jsonl"
    for _ in range(2):
        async with gateway([probe(told)]) as (host, port):
            client = await connected(host, port)
            await ask(client)
            client.close()
    assert [one["serial"] for one in lines(told)] == [1, 2]


async def test_an_answer_that_does_not_leave_is_not_written_down(tmp_path: Path) -> None:
    told = tmp_path / "p.jsonl"
    one = probe(told)
    one.faults.forced = Fault.ILLEGAL_ADDRESS
    async with gateway([one]) as (host, port):
        client = await connected(host, port)
        assert await ask(client) is None
        one.faults.forced = None
        assert await ask(client, address=2, count=9) is None
        client.close()
    assert lines(told) == []


def test_a_file_silences_all_devices(tmp_path: Path) -> None:
    quiet = tmp_path / "quiet"
    faults = Faults([], time.monotonic, quiet=quiet.exists)
    assert faults.now() is None
    quiet.touch()
    assert faults.now() is Fault.SILENT
