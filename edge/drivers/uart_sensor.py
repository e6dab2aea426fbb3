"""Particulate sensors that talk by themselves on a serial port of their own."""

import asyncio
import contextlib
import errno
import os
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import serial

from contract.catalog import CATALOG, STATE, Cause, Condition, Kind
from contract.clock import Clock
from contract.metrics import Metric, Quality, Sample
from edge.drivers.particulate_frames import MODELS, Frames, Reading
from edge.poller import DeviceMisconfigured, DeviceUnavailable

MOST_AT_ONCE = 1024
"""Bytes taken from the port in one go: a second of talk at 9600 baud."""

_TURNED_AWAY = frozenset({errno.EACCES, errno.EPERM, errno.EBUSY, errno.EAGAIN})


def samples(reading: Reading, most: float, at: int) -> list[Sample]:
    """Return what a frame says; more than `most` is beyond what the instrument can measure and marked bad."""
    found = [
        Sample(metric=metric, at=at, value=value, quality=Quality.GOOD if value <= most else Quality.BAD)
        for metric, value in reading.items()
    ]
    beyond = any(one.quality is Quality.BAD for one in found)
    state = Condition.OUT_OF_RANGE if beyond else Condition.OK
    return [*found, Sample(metric=STATE, at=at, value=state.value)]


class UartSensor:
    """A Driver for one sensor; raises DeviceMisconfigured where `model` is none it knows.

    A read returns the newest frame, if it is not older than `timeout` seconds, or waits so long for one.
    """

    def __init__(self, *, model: str, port: str, timeout: float, clock: Clock) -> None:
        if model not in MODELS:
            raise DeviceMisconfigured(f"model {model!r} is unknown; known are {', '.join(sorted(MODELS))}")
        self._model = MODELS[model]
        self._port = port
        self._timeout = timeout
        self._clock = clock
        self._line: serial.Serial | None = None
        self._frames = Frames(self._model)
        self._newest: tuple[Reading, int, float] | None = None
        self._bytes = 0
        self._gone = ""
        self._news = asyncio.Event()
        names = {STATE, *self._model.metrics}
        self.metrics: Sequence[Metric] = [one for one in CATALOG[Kind.AIR_STATION].metrics if one.name in names]

    async def __aenter__(self) -> Self:
        try:
            self._line = serial.Serial(self._port, self._model.baud, timeout=0, exclusive=True)
        except OSError as exc:  # pyserial's own errors are OSErrors
            cause = Cause.REFUSED if exc.errno in _TURNED_AWAY else Cause.UNREACHABLE
            raise DeviceUnavailable(cause, f"{self._port} cannot be opened: {exc.strerror or exc}") from exc
        self._frames, self._newest, self._bytes, self._gone = Frames(self._model), None, 0, ""
        asyncio.get_running_loop().add_reader(self._line.fileno(), self._take, self._line.fileno())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._line is not None:
            asyncio.get_running_loop().remove_reader(self._line.fileno())
            with contextlib.suppress(OSError):  # an adapter that was pulled out
                self._line.close()
            self._line = None

    async def read(self) -> Sequence[Sample]:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._timeout):
                while not self._fresh() and not self._gone:
                    self._news.clear()
                    await self._news.wait()
        newest = self._newest if self._fresh() else None
        self._newest, received, self._bytes = None, self._bytes, 0
        if self._gone:
            raise DeviceUnavailable(Cause.UNREACHABLE, f"{self._port} is gone: {self._gone}")
        if newest is not None:
            return samples(newest[0], self._model.most, newest[1])
        if received:
            unreadable = f"{self._port}: {received} bytes and no good frame among them"
            raise DeviceUnavailable(Cause.NONSENSE, unreadable)
        raise DeviceUnavailable(Cause.SILENT, f"{self._port}: not a byte within {self._timeout:g} s")

    def _fresh(self) -> bool:
        return self._newest is not None and self._clock.monotonic() - self._newest[2] <= self._timeout

    def _take(self, line: int) -> None:
        try:
            received = os.read(line, MOST_AT_ONCE)
            gone = "" if received else "end of file"
        except BlockingIOError:
            return
        except OSError as exc:
            received, gone = b"", os.strerror(exc.errno or 0)
        if gone:
            # A port that is gone is readable for ever.
            asyncio.get_running_loop().remove_reader(line)
            self._gone = gone
        self._bytes += len(received)
        for reading in self._frames.feed(received):
            self._newest, self._bytes = (reading, self._clock.now_ms(), self._clock.monotonic()), 0
        if self._gone or self._newest is not None:
            self._news.set()
