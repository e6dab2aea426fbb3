"""The box itself: how busy, how full, whether its clock is kept, which agent it runs."""

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from contract.catalog import CATALOG, Kind
from contract.clock import Clock, kernel_synchronised
from contract.metrics import Metric, Sample, Value


class Box:
    """A Driver for the machine the agent runs on; `folder` tells which disk counts."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._folder = folder
        self._clock = clock
        self._version = _version()
        psutil.cpu_percent()  # the first call only starts the measurement
        self.metrics: Sequence[Metric] = tuple(
            one for one in CATALOG[Kind.EDGE_NODE].metrics if one.name.startswith(("Box/", "Agent/"))
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def read(self) -> Sequence[Sample]:
        at = self._clock.now_ms()
        values: dict[str, Value] = {
            "Box/CPU": psutil.cpu_percent(),
            "Box/Memory": psutil.virtual_memory().percent,
            "Box/Disk": psutil.disk_usage(str(self._folder)).percent,
            "Box/ClockSynchronised": kernel_synchronised(),
            "Agent/Version": self._version,
        }
        return [Sample(metric=name, at=at, value=value) for name, value in values.items()]


def _version() -> str:
    try:
        return version("smart-hamlet")
    except PackageNotFoundError:
        return "unknown"
