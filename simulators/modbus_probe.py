"""Probes that answer Modbus: RTU on an RS-485 line, or TCP as a gateway does."""

import asyncio
import contextlib
import math
import socket
import struct
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusSerialServer, ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from simulators.air import air
from simulators.faults import Fault, Faults
from simulators.hydro import hydro
from simulators.pty_bridge import Piece, PtyBridge
from simulators.water import water

READ_HOLDING = 3
REGISTERS = 12
"""Ten of readings, then status and serial counter; the layouts are in README.md."""

SLOW_SECONDS = 3.0
Layout = Literal["water", "air", "hydro"]


@dataclass(slots=True)
class Probe:
    """One probe; `answers` counts how often it told its readings since it has power: its serial counter register."""

    id: str
    slave: int
    seed: int
    faults: Faults
    now: Callable[[], float]
    layout: Layout = "water"
    status: int = 0
    answers: int = 0
    held: list[int] | None = field(default=None)

    def registers(self) -> list[int]:
        """Return what the probe measures now, as holding registers 0 to 11, big-endian words."""
        fault = self.faults.now()
        readings = self._readings(not_a_number=fault is Fault.NOT_A_NUMBER)
        self.held = (self.held or readings) if fault is Fault.STUCK else None
        self.answers = 0 if fault is Fault.MAINS_LOST else self.answers + 1
        return [*(self.held or readings), self.status, self.answers & 0xFFFF]

    def _readings(self, *, not_a_number: bool) -> list[int]:
        at = self.now()
        match self.layout:
            case "water":
                told: tuple[float, ...] = water(self.seed, self.id, at).as_tuple()
                told = (math.nan, *told[1:]) if not_a_number else told
                return list(struct.unpack(">10H", struct.pack(">5f", *told)))
            case "air":
                tenths = [round(one * 10) for one in air(self.seed, self.id, at).as_tuple()]
                if not_a_number:
                    tenths[0] = 0xFFFF
                return [one & 0xFFFF for one in tenths] + [0] * 4
            case "hydro":
                one = hydro(self.seed, self.id, at)
                level = 0x7FFFFFFF if not_a_number else round(one.level * 1000)
                packed = struct.pack(">iIH", level, round(one.rain * 10), round(one.battery * 100))
                return [*struct.unpack(">5H", packed), *([0] * 5)]

    def device(self) -> SimDevice:
        """Return the probe as the Modbus server wants it."""

        async def action(
            function: int, start: int, address: int, count: int, registers: list[int], values: object
        ) -> ExcCodes | None:
            if function != READ_HOLDING or values is not None:
                return ExcCodes.ILLEGAL_FUNCTION
            if self.faults.now() is Fault.ILLEGAL_ADDRESS:
                return ExcCodes.ILLEGAL_ADDRESS
            registers[:] = self.registers()
            return None

        data = SimData(0, values=[0] * REGISTERS, datatype=DataType.REGISTERS)
        return SimDevice(id=self.slave, simdata=[data], action=action)


def distorted(probes: Mapping[int, Probe], slave_at: int = 0) -> Callable[[bytes], list[Piece]]:
    """Return what becomes of an answer on the wire, by the fault of the probe whose number stands at `slave_at`."""

    def distort(frame: bytes) -> list[Piece]:
        probe = probes.get(frame[slave_at]) if len(frame) > slave_at else None
        if probe is None:
            return []  # the server answers for absent slaves; on a real line nobody does
        match probe.faults.now():
            case Fault.SILENT | Fault.MAINS_LOST:
                return []
            case Fault.SLOW:
                return [(SLOW_SECONDS, frame)]
            case Fault.CORRUPT:
                # The check sum of RTU; in TCP the protocol's own number, which must be zero.
                place = 3 if slave_at else len(frame) - 1
                return [(0.0, frame[:place] + bytes([frame[place] ^ 0xFF]) + frame[place + 1 :])]
            case Fault.TRUNCATED:
                return [(0.0, frame[: len(frame) // 2])]
            case Fault.NOISE:
                return [(0.0, b"\x00\xff\x55" + frame)]
            case _:
                return [(0.0, frame)]

    return distort


@asynccontextmanager
async def bus(
    probes: Sequence[Probe], *, link: Path | None = None, baud: int = 9600, paced: bool = True
) -> AsyncIterator[PtyBridge]:
    """Run probes on one line for as long as the context is open."""
    by_slave = {probe.slave: probe for probe in probes}
    async with PtyBridge(link=link, baud=baud, paced=paced, distort=distorted(by_slave)) as bridge:
        server = ModbusSerialServer([probe.device() for probe in probes], port=bridge.device_path, baudrate=baud)
        await server.serve_forever(background=True)
        try:
            yield bridge
        finally:
            with contextlib.suppress(asyncio.CancelledError):
                await server.shutdown()  # type: ignore[no-untyped-call]  # untyped in pymodbus


@asynccontextmanager
async def gateway(probes: Sequence[Probe], *, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[tuple[str, int]]:
    """Run probes behind a Modbus TCP gateway; yield its host and port."""
    inner = _free(host)
    server = ModbusTcpServer([probe.device() for probe in probes], address=(host, inner))
    await server.serve_forever(background=True)
    distort = distorted({probe.slave: probe for probe in probes}, slave_at=6)
    serving: set[asyncio.Task[None]] = set()

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # a coroutine of the loop has one
        serving.add(task)
        slaves, master = await asyncio.open_connection(host, inner)
        asking = asyncio.create_task(_copy(reader, master))
        try:
            while frame := await slaves.read(4096):
                for wait, piece in distort(frame):
                    await asyncio.sleep(wait)
                    writer.write(piece)
        except OSError:
            return
        finally:
            asking.cancel()
            serving.discard(task)
            master.close()
            writer.close()

    front = await asyncio.start_server(client, host, port)
    try:
        yield front.sockets[0].getsockname()[:2]
    finally:
        front.close()
        for task in list(serving):
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        with contextlib.suppress(asyncio.CancelledError):
            await server.shutdown()  # type: ignore[no-untyped-call]  # untyped in pymodbus


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(4096):
        writer.write(piece)
    writer.close()


def _free(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
