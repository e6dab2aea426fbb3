"""A particulate sensor on a UART: a PMS5003 or an SDS011 that sends a frame each second on a pseudo-terminal."""

import asyncio
import os
import struct
import tty
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from simulators.air import Air, air
from simulators.faults import Fault, Faults

BABBLE = bytes(range(7, 60)) + b"\x42\xaa"
"""Bytes before a frame; they end with what could be the beginning of one."""

SLOW_FRAMES = 30
"""A slow sensor leaves out all but each so manieth frame, as these do in their power-saving modes."""


@dataclass(slots=True)
class Particulates:
    """One sensor; `every` is seconds between frames, `sent` counts them since it has power."""

    id: str
    model: Literal["pms5003", "sds011"]
    seed: int
    faults: Faults
    now: Callable[[], float]
    every: float = 1.0
    sent: int = 0
    held: Air | None = None

    def talk(self) -> bytes:
        """Return what it puts on the line now."""
        fault = self.faults.now()
        if fault is Fault.MAINS_LOST:
            self.sent, self.held = 0, None
            return b""
        measured = air(self.seed, self.id, self.now())
        self.held = (self.held or measured) if fault is Fault.STUCK else None
        self.sent += 1
        frame = (pms5003 if self.model == "pms5003" else sds011)(self.held or measured)
        match fault:
            case Fault.SILENT:
                return b""
            case Fault.SLOW:
                return frame if self.sent % SLOW_FRAMES == 0 else b""
            case Fault.CORRUPT:
                return frame[:4] + bytes([frame[4] ^ 0x55]) + frame[5:]
            case Fault.TRUNCATED:
                return frame[: len(frame) // 2]
            case Fault.NOISE:
                return BABBLE + frame
            case Fault.NONSENSE:
                return BABBLE
            case _:
                return frame


def pms5003(measured: Air) -> bytes:
    """Return a frame of 32 bytes: header, length, 13 big-endian words, the sum of all before."""
    outdoors = [min(65_535, max(0, round(one))) for one in (measured.pm1, measured.pm25, measured.pm10)]
    counts = [min(65_535, outdoors[1] * each) for each in (180, 52, 9, 2, 1, 0)]
    frame = b"\x42\x4d" + struct.pack(">14H", 28, *outdoors, *outdoors, *counts, 0x9700)
    return frame + struct.pack(">H", sum(frame))


def sds011(measured: Air) -> bytes:
    """Return a frame of 10 bytes: two little-endian words in tenths, a device number, the sum of these, a tail."""
    tenths = [min(9999, max(0, round(one * 10))) for one in (measured.pm25, measured.pm10)]
    body = struct.pack("<2H", *tenths) + b"\xa1\x60"
    return b"\xaa\xc0" + body + bytes([sum(body) & 0xFF, 0xAB])


@asynccontextmanager
async def serving(sensor: Particulates, *, link: Path | None = None) -> AsyncIterator[str]:
    """Run a sensor and yield the port to open, which is `link` where one is given."""
    device, port = os.openpty()
    path = _prepared(device, port, link)
    talking = asyncio.create_task(_talk(sensor, device), name=f"{sensor.id}: talk")
    try:
        yield path
    finally:
        talking.cancel()
        await asyncio.gather(talking, return_exceptions=True)
        _closed(device, port, link)


def _closed(device: int, port: int, link: Path | None) -> None:
    if link is not None:
        link.unlink(missing_ok=True)
    for side in (device, port):
        os.close(side)


def _prepared(device: int, port: int, link: Path | None) -> str:
    for side in (device, port):
        tty.setraw(side)
    os.set_blocking(device, False)
    path = os.ttyname(port)
    if link is None:
        return path
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(path)
    return str(link)


async def _talk(sensor: Particulates, device: int) -> None:
    while True:
        with suppress(BlockingIOError):  # nobody reads: a UART loses it
            os.write(device, sensor.talk())
        await asyncio.sleep(sensor.every)
