"""The simulated mains and battery, as Linux shows them."""

from pathlib import Path
from typing import Any

from simulators.faults import Fault, FaultEntry, Faults
from simulators.power_supply import EMPTY_VOLTS, PowerSupply, battery_volts


def said(folder: Path) -> tuple[str, str, str]:
    battery = folder / "battery"
    names = folder / "mains" / "online", battery / "status", battery / "voltage_now"
    return tuple(one.read_text().strip() for one in names)  # type: ignore[return-value]  # three names, three texts


async def test_the_timetable_takes_the_mains_and_gives_it_back(tmp_path: Path, clock: Any) -> None:
    outage = FaultEntry(kind=Fault.MAINS_LOST, after_seconds=60, lasts_seconds=1800)
    supply = PowerSupply(tmp_path, Faults([outage], clock.monotonic), now=clock.monotonic)
    found = []
    for wait in (0, 60, 900, 1000):
        await clock.advance(wait)
        supply.write()
        found.append(said(tmp_path))
    assert found == [
        ("1", "Full", "13600000"),
        ("0", "Discharging", "12800000"),
        ("0", "Discharging", "12700000"),
        ("1", "Full", "13600000"),
    ]
    assert (tmp_path / "mains" / "type").read_text() == "Mains\n"
    assert (tmp_path / "battery" / "type").read_text() == "Battery\n"
    assert not list(tmp_path.rglob(".*")), "nothing half-written is left"


def test_a_battery_sinks_slowly_and_not_below_empty() -> None:
    hours = [battery_volts(hour * 3600) for hour in range(12)]
    assert hours == sorted(hours, reverse=True)
    assert hours[-1] == EMPTY_VOLTS
