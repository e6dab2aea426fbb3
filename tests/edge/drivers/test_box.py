"""What a box says of itself, from files as Linux keeps them: whole, missing, and full of garbage."""

import asyncio
import contextlib
import os
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.catalog import CATALOG, Kind
from edge.drivers import box as box_module
from edge.drivers.box import Box, kernel_clock, uplink, worn
from simulators.faults import Fault, Faults
from simulators.power_supply import PowerSupply, serving

IPV4 = """\
Iface	Destination	Gateway 	Flags	RefCnt	Use	Metric	Mask		MTU	Window	IRTT
wwan0	00000000	010200C0	0003	0	0	700	00000000	0	0	0
eth0	00000000	010200C0	0003	0	0	100	00000000	0	0	0
eth0	000200C0	00000000	0001	0	0	0	00FFFFFF	0	0	0
"""
IPV6 = f"""\
{"fd" + "0" * 30} 40 {"0" * 32} 00 {"0" * 32} 00000100 00000001 00000000 00000001     eth0
{"0" * 32} 00 {"0" * 32} 00 {"fd" + "0" * 29 + "1"} 00000400 00000003 00000000 00000003     wlan0
{"0" * 32} 00 {"0" * 32} 00 {"0" * 32} ffffffff 00000001 00000000 00200200       lo
"""


class Machine:
    """A machine that has what a test writes."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "root"
        self.signal = folder / "signal"
        self.supplies = self.root / "sys/class/power_supply"
        self.supplies.mkdir(parents=True)

    def write(self, name: str, text: str) -> Path:
        file = self.root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def box(self, clock: Any, *, modem: bool = False) -> Box:
        return Box(
            self.root,
            clock,
            power_supply=self.supplies,
            modem_signal=self.signal if modem else None,
            root=self.root,
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


async def told(box: Box) -> dict[str, object]:
    async with box:
        return {one.metric: one.value for one in await box.read()}


def whole(machine: Machine) -> None:
    for name, text in {
        "sys/class/power_supply/mains/type": "Mains\n",
        "sys/class/power_supply/mains/online": "1\n",
        "sys/class/power_supply/bat/type": "Battery\n",
        "sys/class/power_supply/bat/voltage_now": "12640000\n",
        "sys/class/thermal/thermal_zone0/temp": "48312\n",
        "sys/class/thermal/thermal_zone1/temp": "51000\n",
        "sys/block/mmcblk0/device/life_time": "0x01 0x02\n",
        "proc/net/route": IPV4,
        "proc/net/ipv6_route": IPV6,
    }.items():
        machine.write(name, text)


async def test_a_box_tells_what_it_has(machine: Machine, clock: Any) -> None:
    whole(machine)
    machine.signal.write_text("-87\n")
    os.utime(machine.signal, (clock.now_ms() / 1000 - 5,) * 2)
    box = machine.box(clock, modem=True)
    before = box.mains
    found = await told(box)
    assert (before, box.mains) == (None, True), "not known before the first read"
    assert found["Power/Mains"] is True
    assert found["Power/BatteryV"] == pytest.approx(12.64)
    assert found["Box/Temperature"] == 51.0
    assert found["Box/DiskWear"] == 20.0
    assert found["Uplink/Interface"] == "eth0"
    assert found["Modem/Signal"] == -87
    declared = {one.name for one in box.metrics}
    assert found.keys() <= declared <= {one.name for one in CATALOG[Kind.EDGE_NODE].metrics}


async def test_a_machine_that_has_none_of_it_declares_none_of_it(machine: Machine, clock: Any) -> None:
    box = machine.box(clock)
    assert {one.name for one in box.metrics} == {
        "Box/CPU",
        "Box/Memory",
        "Box/Disk",
        "Box/ClockSynchronised",
        "Box/ClockError",
        "Agent/Version",
    }
    assert (await told(box)).keys() <= {one.name for one in box.metrics}
    assert box.mains is None


@pytest.mark.parametrize("garbage", ["", "\x00\xff", "on", "-1", "nan", "9" * 400, "1\n" * 100_000], ids=repr)
async def test_garbage_costs_the_one_value_and_is_said_once(
    machine: Machine, clock: Any, caplog: pytest.LogCaptureFixture, garbage: str
) -> None:
    whole(machine)
    box = machine.box(clock)
    for name in ("mains/online", "bat/voltage_now"):
        (machine.supplies / name).write_text(garbage, encoding="latin-1")
    for _ in range(3):
        found = await told(box)
    assert not {"Power/Mains", "Power/BatteryV"} & found.keys()
    assert box.mains is None
    assert found["Box/Temperature"] == 51.0
    assert [one.getMessage().split()[0] for one in caplog.records] == ["Power/Mains", "Power/BatteryV"]
    whole(machine)
    assert (await told(box))["Power/Mains"] is True


async def test_a_supply_that_vanishes_leaves_mains_unknown_and_a_zone_that_sleeps_leaves_the_others(
    machine: Machine, clock: Any
) -> None:
    whole(machine)
    box = machine.box(clock)
    (machine.supplies / "mains/online").unlink()
    machine.write("sys/class/thermal/thermal_zone1/temp", "")
    found = await told(box)
    assert "Power/Mains" not in found
    assert box.mains is None
    assert found["Box/Temperature"] == pytest.approx(48.312)


async def test_a_battery_is_no_mains_and_a_charger_is_no_battery(machine: Machine, clock: Any) -> None:
    for name, text in {
        "usb/type": "USB",
        "usb/online": "0",
        "usb/voltage_now": "5000000",
        "ups/type": "UPS",
        "ups/online": "1",
        "ups/voltage_now": "11900000",
    }.items():
        machine.write(f"sys/class/power_supply/{name}", text)
    found = await told(machine.box(clock))
    assert found["Power/Mains"] is False
    assert found["Power/BatteryV"] == 11.9


async def test_a_signal_that_nobody_brings_up_to_date_is_not_reported(machine: Machine, clock: Any) -> None:
    machine.signal.write_text("-87\n")
    os.utime(machine.signal, (clock.now_ms() / 1000 - 700,) * 2)
    box = machine.box(clock, modem=True)
    assert "Modem/Signal" in {one.name for one in box.metrics}
    assert "Modem/Signal" not in await told(box)


async def test_a_gauge_that_hangs_delays_one_look_and_begins_no_second(
    machine: Machine, clock: Any, monkeypatch: pytest.MonkeyPatch, eventually: Any
) -> None:
    whole(machine)
    box, released, looks = machine.box(clock), Event(), []

    def hang() -> tuple[bool, None]:
        looks.append(1)
        released.wait(20)
        return True, None

    monkeypatch.setattr(box_module, "kernel_clock", hang)
    try:
        for _ in range(3):
            reading = asyncio.create_task(box.read())
            await eventually(lambda: looks)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
        assert len(looks) == 1
    finally:
        released.set()
    assert await told(box)


async def test_a_box_sees_the_simulated_mains_fail_and_the_battery_sink(
    machine: Machine, clock: Any, eventually: Any
) -> None:
    faults = Faults([], clock.monotonic)
    supply = PowerSupply(machine.supplies, faults, now=clock.monotonic)
    async with serving(supply):
        box = machine.box(clock)
        assert (await told(box))["Power/Mains"] is True
        faults.forced = Fault.MAINS_LOST
        await eventually(lambda: (machine.supplies / "mains/online").read_text() == "0\n")
        just_lost = await told(box)
        await clock.advance(3600)
        supply.write()
        later = await told(box)
        faults.forced = None
        supply.write()
        back = await told(box)
    assert [one["Power/Mains"] for one in (just_lost, later, back)] == [False, False, True]
    assert [one["Power/BatteryV"] for one in (just_lost, later, back)] == pytest.approx([12.8, 12.4, 13.6])


@pytest.mark.parametrize(
    ("ipv4", "ipv6", "interface"),
    [
        (IPV4, IPV6, "eth0"),
        (IPV4.replace("eth0	00000000", "eth0	00000001"), IPV6, "wwan0"),
        (IPV4.replace("	0003	", "	0203	"), IPV6, "wlan0"),
        (IPV4.splitlines()[0], IPV6, "wlan0"),
        ("", "", "none"),
        (IPV4.splitlines()[0], IPV6.replace("00000003     wlan0", "00000200     wlan0"), "none"),
    ],
    ids=["both", "by metric", "rejecting", "IPv6 alone", "no table", "no way out"],
)
def test_the_uplink_is_the_default_routes_interface(ipv4: str, ipv6: str, interface: str) -> None:
    assert uplink(ipv4, ipv6) == interface


@given(st.text(max_size=200), st.text(max_size=200))
def test_whatever_stands_in_the_tables_of_routes_is_an_interface_or_a_value_error(ipv4: str, ipv6: str) -> None:
    with contextlib.suppress(ValueError):
        assert uplink(ipv4, ipv6)


@pytest.mark.parametrize(
    ("life_times", "percent"),
    [(["0x01 0x02"], 20.0), (["0x0b 0x01", "0x01 0x01"], 110.0), (["0x00 0x00"], None), (["0x03"], 30.0)],
)
def test_wear_is_the_worst_of_all_kinds_of_memory(life_times: list[str], percent: float | None) -> None:
    assert worn(life_times) == percent


@pytest.mark.parametrize("garbage", [[""], ["0xff 0x01"], ["worn"], ["-1"]])
def test_wear_that_is_no_estimate_is_a_value_error(garbage: list[str]) -> None:
    with pytest.raises(ValueError, match=r"."):
        worn(garbage)


def test_the_kernel_tells_of_its_clock_and_an_unkept_clock_has_no_estimate() -> None:
    synchronised, error = kernel_clock()
    assert synchronised or error is None
    assert error is None or 0 < error < 100
