"""Mains and a battery behind it, as Linux shows them: a folder like /sys/class/power_supply that others read."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from simulators.faults import Fault, Faults

FLOATING_VOLTS, FULL_VOLTS, EMPTY_VOLTS = 13.6, 12.8, 10.5
"""A lead battery: on its charger, just off it, and at the end."""

VOLTS_PER_HOUR = 0.4
WRITE_EVERY = 0.2


def battery_volts(seconds_without_mains: float | None) -> float:
    """Return the voltage of a battery that has fed its device for so long; None: it is on its charger."""
    if seconds_without_mains is None:
        return FLOATING_VOLTS
    return max(EMPTY_VOLTS, FULL_VOLTS - VOLTS_PER_HOUR * seconds_without_mains / 3600)


@dataclass(slots=True)
class PowerSupply:
    """What feeds a box; `mains_lost` is the one fault it knows. Run it with `serving`."""

    folder: Path
    faults: Faults
    now: Callable[[], float] = time.monotonic
    lost_at: float | None = None

    def write(self) -> None:
        """Bring the files up to date."""
        if self.faults.now() is not Fault.MAINS_LOST:
            self.lost_at = None
        elif self.lost_at is None:
            self.lost_at = self.now()
        microvolts = round(battery_volts(None if self.lost_at is None else self.now() - self.lost_at) * 1e6)
        _write(self.folder / "mains", {"type": "Mains", "online": "1" if self.lost_at is None else "0"})
        status = "Full" if self.lost_at is None else "Discharging"
        _write(
            self.folder / "battery",
            {"type": "Battery", "present": "1", "status": status, "voltage_now": str(microvolts)},
        )


@asynccontextmanager
async def serving(supply: PowerSupply) -> AsyncIterator[Path]:
    """Keep the files up to date and yield their folder; leaves them as they were last."""
    supply.write()
    writing = asyncio.create_task(_keep_writing(supply), name=f"power supply {supply.folder}")
    try:
        yield supply.folder
    finally:
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)


async def _keep_writing(supply: PowerSupply) -> None:
    while True:
        await asyncio.sleep(WRITE_EVERY)
        supply.write()


def _write(folder: Path, files: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        # Whoever reads meanwhile finds the old value or the new one, as in /sys.
        aside = folder / f".{name}"
        aside.write_text(f"{text}\n", encoding="ascii")
        aside.replace(folder / name)
