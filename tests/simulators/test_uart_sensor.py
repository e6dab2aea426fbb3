"""Simulated particulate sensors read by a reader of the test's own, written from the makers' tables."""

import os
import time
from typing import Any

import pytest

from simulators.air import air
from simulators.faults import Fault, Faults
from simulators.uart_sensor import Particulates, serving

AT = 1_790_000_000.0


def sensor(model: str) -> Particulates:
    return Particulates(
        id="dust",
        model="sds011" if model == "sds011" else "pms5003",
        seed=7,
        faults=Faults([], time.monotonic),
        now=lambda: AT,
        every=0.02,
    )


class Reader:
    """Reads as a simple program on a small computer would: byte after byte until a header, then the rest."""

    def __init__(self, port: str) -> None:
        self.line = os.open(port, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        self.received = b""

    def more(self) -> int:
        try:
            self.received += os.read(self.line, 4096)
        except BlockingIOError:
            return len(self.received)
        return len(self.received)

    def pms5003(self) -> list[int] | None:
        for start in range(len(self.received) - 31):
            frame = self.received[start : start + 32]
            if frame[0] == 0x42 and frame[1] == 0x4D and frame[30] * 256 + frame[31] == sum(frame[:30]):
                return [frame[place] * 256 + frame[place + 1] for place in (10, 12, 14)]
        return None

    def sds011(self) -> list[float] | None:
        for start in range(len(self.received) - 9):
            frame = self.received[start : start + 10]
            if frame[0] == 0xAA and frame[1] == 0xC0 and frame[9] == 0xAB and frame[8] == sum(frame[2:8]) % 256:
                return [(frame[3] * 256 + frame[2]) / 10, (frame[5] * 256 + frame[4]) / 10]
        return None


async def test_a_reader_of_another_hand_understands_a_pms5003(eventually: Any) -> None:
    truth = air(7, "dust", AT)
    async with serving(sensor("pms5003")) as port:
        reader = Reader(port)
        await eventually(lambda: reader.more() >= 64)
        os.close(reader.line)
    assert reader.pms5003() == [round(truth.pm1), round(truth.pm25), round(truth.pm10)]


async def test_a_reader_of_another_hand_understands_an_sds011(eventually: Any) -> None:
    truth = air(7, "dust", AT)
    async with serving(sensor("sds011")) as port:
        reader = Reader(port)
        await eventually(lambda: reader.more() >= 20)
        os.close(reader.line)
    assert reader.sds011() == pytest.approx([truth.pm25, truth.pm10], abs=0.051)


def test_a_stuck_sensor_repeats_itself_and_one_without_power_starts_anew() -> None:
    now = AT
    one = Particulates(id="d", model="sds011", seed=7, faults=Faults([], time.monotonic), now=lambda: now)
    one.faults.forced = Fault.STUCK
    first = one.talk()
    now += 3600
    assert one.talk() == first
    one.faults.forced = Fault.MAINS_LOST
    assert (one.talk(), one.sent) == (b"", 0)
    one.faults.forced = None
    assert one.talk() != first
    assert one.sent == 1


def test_a_slow_sensor_sends_a_frame_each_half_minute() -> None:
    one = sensor("pms5003")
    one.faults.forced = Fault.SLOW
    assert [bool(one.talk()) for _ in range(60)] == [number % 30 == 29 for number in range(60)]
