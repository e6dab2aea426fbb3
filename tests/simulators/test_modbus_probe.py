"""Simulated probes read by a plain Modbus client."""

import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
from pymodbus import FramerType, ModbusException
from pymodbus.client import AsyncModbusSerialClient, AsyncModbusTcpClient

from simulators.faults import Fault, FaultEntry, Faults
from simulators.hydro import hydro
from simulators.modbus_probe import Probe, bus, gateway
from simulators.water import water

AT = 1_790_000_000.0


def probe(name: str = "probe-01", slave: int = 1, at: float = AT) -> Probe:
    return Probe(id=name, slave=slave, seed=7, faults=Faults([], time.monotonic), now=lambda: at)


@asynccontextmanager
async def client(path: str) -> AsyncIterator[AsyncModbusSerialClient]:
    one = AsyncModbusSerialClient(path, framer=FramerType.RTU, baudrate=9600, timeout=0.3, retries=0)
    assert await one.connect()
    try:
        yield one
    finally:
        one.close()


async def test_a_plain_client_reads_what_the_water_is() -> None:
    one = probe()
    async with bus([one], paced=False) as line, client(line.master_path) as master:
        answer = await master.read_holding_registers(0, count=12, device_id=1)
        again = await master.read_holding_registers(0, count=12, device_id=1)
    told = struct.unpack(">5f", struct.pack(">10H", *answer.registers[:10]))
    assert told == pytest.approx(water(7, "probe-01", AT).as_tuple(), rel=1e-6)
    assert (answer.registers[11], again.registers[11]) == (1, 2)


async def test_two_probes_share_a_line_and_differ() -> None:
    async with bus([probe("a", 1), probe("b", 2)], paced=False) as line, client(line.master_path) as master:
        first = await master.read_holding_registers(0, count=10, device_id=1)
        second = await master.read_holding_registers(0, count=10, device_id=2)
    assert first.registers != second.registers


async def test_an_absent_slave_stays_silent() -> None:
    async with bus([probe()], paced=False) as line, client(line.master_path) as master:
        with pytest.raises(ModbusException, match="No response"):
            await master.read_holding_registers(0, count=10, device_id=9)


@pytest.mark.parametrize("fault", [Fault.SILENT, Fault.SLOW, Fault.CORRUPT, Fault.TRUNCATED])
async def test_a_faulty_wire_gives_no_answer_and_the_next_question_is_answered(fault: Fault) -> None:
    one = probe()
    async with bus([one], paced=False) as line, client(line.master_path) as master:
        one.faults.forced = fault
        with pytest.raises(ModbusException):
            await master.read_holding_registers(0, count=10, device_id=1)
        if fault is Fault.SLOW:
            return  # its answer still comes, later
        one.faults.forced = None
        assert not (await master.read_holding_registers(0, count=10, device_id=1)).isError()


async def test_an_illegal_address_is_refused_in_words_of_the_protocol() -> None:
    one = probe()
    one.faults.forced = Fault.ILLEGAL_ADDRESS
    async with bus([one], paced=False) as line, client(line.master_path) as master:
        answer = await master.read_holding_registers(0, count=10, device_id=1)
    assert answer.isError()
    assert answer.exception_code == 2


def test_the_same_seed_gives_the_same_water_and_another_seed_another() -> None:
    assert water(7, "x", AT) == water(7, "x", AT)
    assert water(7, "x", AT) != water(8, "x", AT)
    assert water(7, "x", AT) != water(7, "x", AT + 10)


def test_a_timetable_of_faults_begins_and_ends() -> None:
    now = 0.0
    faults = Faults([FaultEntry(kind=Fault.SILENT, after_seconds=10, lasts_seconds=5)], lambda: now)

    def at(instant: float) -> Fault | None:
        nonlocal now
        now = instant
        return faults.now()

    assert [at(0.0), at(10.0), at(14.9), at(15.0)] == [None, Fault.SILENT, Fault.SILENT, None]


async def test_bytes_take_as_long_as_the_baud_rate_says() -> None:
    async with bus([probe()], baud=2400, paced=True) as line, client(line.master_path) as master:
        started = time.monotonic()
        await master.read_holding_registers(0, count=12, device_id=1)
        took = time.monotonic() - started
    # 8 bytes there, 29 back, 10 bits each.
    assert took >= (8 + 29) * 10 / 2400 * 0.95


async def test_a_plain_client_reads_a_gateway_and_absent_slaves_stay_silent() -> None:
    async with gateway([probe()]) as (host, port):
        master = AsyncModbusTcpClient(host, port=port, timeout=0.3, retries=0)
        assert await master.connect()
        answer = await master.read_holding_registers(0, count=10, device_id=1)
        assert struct.unpack(">5f", struct.pack(">10H", *answer.registers)) == pytest.approx(
            water(7, "probe-01", AT).as_tuple(), rel=1e-6
        )
        with pytest.raises(ModbusException, match="No response"):
            await master.read_holding_registers(0, count=10, device_id=9)
        master.close()


def test_rain_only_ever_adds_up_and_the_tide_comes_and_goes() -> None:
    told = [hydro(7, "gauge", AT + 600 * step) for step in range(6 * 24 * 10)]
    assert all(after.rain >= before.rain for before, after in pairwise(told))
    assert told[-1].rain > told[0].rain
    levels = [one.level for one in told]
    assert max(levels) - min(levels) > 1.5
