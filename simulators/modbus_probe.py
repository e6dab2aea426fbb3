"""Probes that answer Modbus: RTU on an RS-485 line, or TCP as a gateway does."""

import asyncio
import contextlib
import itertools
import math
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusSerialServer, ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from simulators.air import air
from simulators.answers import AnswerFile, newest_serial
from simulators.faults import Fault, Faults
from simulators.hydro import hydro
from simulators.pty_bridge import Piece, PtyBridge
from simulators.water import water

READ_HOLDING = 3
REGISTERS = 12
"""Ten of readings, then status and serial counter; the layouts are in README.md."""

STATUS = 10
SLOW_SECONDS = 3.0
Layout = Literal["water", "air", "hydro", "serial"]
_askers = itertools.count(time.time_ns() // 1_000_000)
"""Numbers of connections; those of a simulator that was started later are higher."""


@dataclass(slots=True)
class Probe:
    """One probe; `answers` counts how often it told its readings since it has power: its serial counter register.

    With the layout `serial` its reading is a number that no two answers share, from `first` on; its status goes through
    `states`; two answers are at least `apart` seconds apart, whoever asks; and what it answers is in the file `told`
    before it leaves.
    """

    id: str
    slave: int
    seed: int
    faults: Faults
    now: Callable[[], float]
    layout: Layout = "water"
    status: int = 0
    answers: int = 0
    held: list[int] | None = field(default=None)
    first: int = 1
    states: Sequence[int] = (0,)
    apart: float = 0.0
    told: Path | None = None
    _file: AnswerFile | None = field(init=False, default=None)
    _turn: asyncio.Lock = field(init=False, default_factory=asyncio.Lock)
    _free_at: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        if self.told is not None:
            newest = newest_serial(self.told)
            self.first = self.first if newest is None else newest + 1
            self._file = AnswerFile(self.told)

    def registers(self) -> list[int]:
        """Return what the probe measures now, as holding registers 0 to 11, big-endian words."""
        fault = self.faults.now()
        readings = self._readings(not_a_number=fault is Fault.NOT_A_NUMBER)
        self.held = (self.held or readings) if fault is Fault.STUCK else None
        self.answers = 0 if fault is Fault.MAINS_LOST else self.answers + 1
        if self.layout == "serial":
            self.status = self.states[self.first % len(self.states)]
            self.first += 1
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
            case "serial":
                return [*struct.unpack(">2H", struct.pack(">I", self.first)), *([0] * 8)]

    async def turn(self) -> None:
        """Return when the next answer may leave."""
        async with self._turn:
            await asyncio.sleep(self._free_at - time.monotonic())
            self._free_at = time.monotonic() + self.apart

    def leaves(self, registers: bytes, asker: int) -> None:
        """Write down an answer of the layout `serial` that leaves now; `asker` is the connection it leaves by."""
        if self._file is not None:
            serial, status = struct.unpack_from(">I16xH", registers)
            self._file.tell(device=self.id, serial=serial, status=status, asker=asker, at=time.time_ns() // 1_000_000)

    def device(self) -> SimDevice:
        """Return the probe as the Modbus server wants it."""

        async def action(
            function: int, start: int, address: int, count: int, registers: list[int], values: object
        ) -> ExcCodes | None:
            if function != READ_HOLDING or values is not None:
                return ExcCodes.ILLEGAL_FUNCTION
            if self.faults.now() is Fault.ILLEGAL_ADDRESS:
                return ExcCodes.ILLEGAL_ADDRESS
            if self.layout == "serial":
                if address or count <= STATUS:
                    return ExcCodes.ILLEGAL_ADDRESS  # each answer tells its number and its status
                await self.turn()
            registers[:] = self.registers()
            return None

        data = SimData(0, values=[0] * REGISTERS, datatype=DataType.REGISTERS)
        return SimDevice(id=self.slave, simdata=[data], action=action)


def distorted(probes: Mapping[int, Probe], slave_at: int = 0) -> Callable[[bytes], list[Piece]]:
    """Return what becomes of an answer on one connection, by the fault of the probe whose number is at `slave_at`."""
    asker = next(_askers)

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
                if frame[slave_at + 1] == READ_HOLDING:
                    probe.leaves(frame[slave_at + 3 :], asker)
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
    by_slave = {probe.slave: probe for probe in probes}
    serving: set[asyncio.Task[None]] = set()

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # a coroutine of the loop has one
        serving.add(task)
        distort = distorted(by_slave, slave_at=6)
        slaves, master = await asyncio.open_connection(host, inner)
        asking = asyncio.create_task(_copy(reader, master))
        try:
            while frame := await slaves.read(4096):
                for wait, piece in distort(frame):
                    if wait:
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
