"""Time as something that is handed in, so that tests can move it."""

import asyncio
import ctypes
import time
from typing import Protocol


class Clock(Protocol):
    """What a loop may know of time."""

    def now_ms(self) -> int:
        """Return the wall clock, milliseconds since 1970 UTC; it may jump."""
        ...

    def monotonic(self) -> float:
        """Return seconds that only grow, from an arbitrary zero within this boot."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after that many seconds of this clock."""
        ...


_TIME_ERROR = 5
"""What adjtimex(2) returns while the kernel's clock is not synchronised."""


def kernel_synchronised() -> bool:
    """Return whether the kernel says that some time source keeps its clock; False where it cannot be asked."""
    try:
        state = ctypes.CDLL(None, use_errno=True).ntp_adjtime(ctypes.create_string_buffer(512))
    except (OSError, AttributeError):
        return False
    return isinstance(state, int) and 0 <= state < _TIME_ERROR


class SystemClock:
    """The machine's own clocks."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
