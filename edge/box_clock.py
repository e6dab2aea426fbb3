"""The clock of a box: the system's, but never behind the log after a boot, and it knows how good it is."""

from collections.abc import Callable
from pathlib import Path

from contract.clock import Clock
from contract.metrics import Timing
from edge import timekeeping
from edge.delivery_log import DeliveryLog

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
REAL_TIME_CLOCKS = Path("/sys/class/rtc")


class BoxClock:
    """A Clock over another one; `begin` once the log is open, until then it says what that one says.

    `synchronised` asks the kernel; with `trusted` it is not asked.
    """

    def __init__(self, clock: Clock, *, trusted: bool, synchronised: Callable[[], bool]) -> None:
        self._clock = clock
        self._synchronised = synchronised
        self._kept = timekeeping.Timekeeping(began=clock.monotonic(), trusted=trusted)

    def begin(self, delivery_log: DeliveryLog, *, boot_id: Path = BOOT_ID, clocks: Path = REAL_TIME_CLOCKS) -> None:
        """Take in when this box last logged something, and whether its clock was synchronised in this boot."""
        self._log = delivery_log
        self._boot = boot_id.read_text(encoding="ascii").strip() if boot_id.exists() else ""
        self._kept = timekeeping.begun(
            self._clock.monotonic(),
            trusted=self._kept.trusted,
            has_clock=any(clocks.glob("rtc*")),
            last_logged=delivery_log.last_logged,
            was_synchronised=bool(self._boot) and delivery_log.synchronised_boot == self._boot,
        )

    def now_ms(self) -> int:
        return timekeeping.told(self._kept, self._clock.now_ms(), self._clock.monotonic())

    def monotonic(self) -> float:
        return self._clock.monotonic()

    async def sleep(self, seconds: float) -> None:
        await self._clock.sleep(seconds)

    def timing(self) -> Timing:
        """Ask the kernel, and return how good the clock is now."""
        if not self._kept.trusted:
            first = not self._kept.was_synchronised
            self._kept = timekeeping.asked(self._kept, self._synchronised())
            if first and self._kept.was_synchronised:
                self._log.note_synchronised(self._boot)
        return timekeeping.timing(self._kept)

    def holds(self) -> bool:
        """Ask the kernel, and return whether readings wait for it."""
        self.timing()
        return timekeeping.holds(self._kept, self._clock.monotonic())
