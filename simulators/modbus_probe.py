"""Water probes on an RS-485 line, answering Modbus RTU."""

import asyncio
import contextlib
import math
import struct
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusSerialServer
from pymodbus.simulator import DataType, SimData, SimDevice

from simulators.faults import Fault, Faults
from simulators.pty_bridge import Piece, PtyBridge
from simulators.water import water

READ_HOLDING = 3
REGISTERS = 12
"""pH, temperature, conductivity, oxygen, turbidity as float32 (two registers each), status, serial counter."""

SLOW_SECONDS = 3.0


@dataclass(slots=True)
class Probe:
    """One probe; `answers` counts how often it told its readings, and is its serial counter register."""

    id: str
    slave: int
    seed: int
    faults: Faults
    now: Callable[[], float]
    status: int = 0
    answers: int = 0
    held: tuple[float, ...] | None = field(default=None)

    def registers(self) -> list[int]:
        """Return what the probe measures now, as holding registers 0 to 11, big-endian words."""
        readings: tuple[float, ...] = water(self.seed, self.id, self.now()).as_tuple()
        fault = self.faults.now()
        if fault is Fault.STUCK:
            readings = self.held = self.held or readings
        elif fault is Fault.NOT_A_NUMBER:
            readings = (math.nan, *readings[1:])
        self.answers += 1
        packed = struct.pack(">5f", *readings)
        return [*struct.unpack(">10H", packed), self.status, self.answers & 0xFFFF]

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


def distorted(probes: Mapping[int, Probe]) -> Callable[[bytes], list[Piece]]:
    """Return what becomes of an answer on the wire, by the fault of the probe that sent it."""

    def distort(frame: bytes) -> list[Piece]:
        probe = probes.get(frame[0]) if frame else None
        if probe is None:
            return []  # the server answers for absent slaves; on a real line nobody does
        match probe.faults.now():
            case Fault.SILENT:
                return []
            case Fault.SLOW:
                return [(SLOW_SECONDS, frame)]
            case Fault.CORRUPT:
                return [(0.0, frame[:-1] + bytes([frame[-1] ^ 0xFF]))]
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
