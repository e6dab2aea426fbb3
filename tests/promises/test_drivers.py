"""What every driver promises, kept by all of them alike; and every fault there is, by its name and over again."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pytest

from contract.catalog import CATALOG, ONLINE, STATE, Cause, Kind
from contract.clock import SystemClock
from contract.metrics import Metric, Quality, Sample
from edge.config import FIRMWARE
from edge.drivers.ip_speaker import IpSpeaker
from edge.drivers.modbus_bus import serial_bus, tcp_bus
from edge.drivers.modbus_sensor import ModbusSensor
from edge.drivers.onvif_camera import Address, OnvifCamera
from edge.drivers.openwrt_hotspot import OpenwrtHotspot
from edge.drivers.reachability import Reachability
from edge.drivers.register_map import load_map
from edge.drivers.snmp_hotspot import Login, SnmpHotspot
from edge.drivers.snmp_profile import load_profile
from edge.drivers.uart_sensor import UartSensor
from edge.health import Health, Rhythm
from edge.poller import DeviceUnavailable, Driver, Poller
from edge.workers import Pool, Worker
from simulators import ip_speaker, modbus_probe, openwrt_hotspot, snmp_hotspot, uart_sensor
from simulators.camera import camera
from simulators.camera.device import Camera
from simulators.faults import Fault, Faults

SECRETS = ("demo-pass", "demo-privacy")
TIMEOUT = 2.0


@dataclass
class Device:
    """A simulated device and the driver that reads it."""

    driver: Driver
    faults: Faults
    kind: Kind
    simulated: Any = None
    """Where its uptime can be moved."""


Opened = Callable[[Path], AbstractAsyncContextManager[Device]]
DEVICES: dict[str, Opened] = {}


def device(opened: Opened) -> Opened:
    DEVICES[getattr(opened, "__name__", "")] = opened
    return opened


def faults() -> Faults:
    return Faults([], time.monotonic)


def probe(layout: Any = "water") -> modbus_probe.Probe:
    return modbus_probe.Probe(id="p", slave=1, seed=7, faults=faults(), now=time.time, layout=layout)


MAP = load_map(FIRMWARE / "register_maps" / "generic-water-probe.yaml").model_copy(update={"stuck_after_reads": 2})


@device
@asynccontextmanager
async def modbus_rtu(folder: Path) -> AsyncIterator[Device]:
    one = probe()
    async with modbus_probe.bus([one], paced=False) as line:
        bus = serial_bus(line.master_path, 9600, SystemClock())
        driver = ModbusSensor(bus, slave=1, mapping=MAP, timeout=0.3, clock=SystemClock())
        yield Device(driver, one.faults, Kind.WATER_PROBE)
        bus.close()


@device
@asynccontextmanager
async def modbus_tcp(folder: Path) -> AsyncIterator[Device]:
    one = probe()
    async with modbus_probe.gateway([one]) as (host, port):
        bus = tcp_bus(host, port, SystemClock())
        driver = ModbusSensor(bus, slave=1, mapping=MAP, timeout=0.5, clock=SystemClock())
        yield Device(driver, one.faults, Kind.WATER_PROBE)
        bus.close()


@device
@asynccontextmanager
async def uart(folder: Path) -> AsyncIterator[Device]:
    one = uart_sensor.Particulates(id="d", model="pms5003", seed=7, faults=faults(), now=time.time, every=0.05)
    async with uart_sensor.serving(one) as port:
        driver = UartSensor(model="pms5003", port=port, timeout=0.5, clock=SystemClock())
        yield Device(driver, one.faults, Kind.AIR_STATION)


@device
@asynccontextmanager
async def loudspeaker(folder: Path) -> AsyncIterator[Device]:
    one = ip_speaker.Speaker(id="s", user="box", password=SECRETS[0], recordings=folder, faults=faults())
    async with ip_speaker.serving(one) as url:
        driver = IpSpeaker(
            url=url, username="box", password=SECRETS[0], codec="L16/16000", timeout=TIMEOUT, clock=SystemClock()
        )
        yield Device(driver, one.faults, Kind.LOUDSPEAKER, one)


@device
@asynccontextmanager
async def onvif(folder: Path) -> AsyncIterator[Device]:
    async with seen(folder, by="url") as one:
        yield one


@device
@asynccontextmanager
async def rtsp(folder: Path) -> AsyncIterator[Device]:
    async with seen(folder, by="stream_url") as one:
        yield one


@asynccontextmanager
async def seen(folder: Path, by: str) -> AsyncIterator[Device]:
    one = Camera(id="c", user="box", password=SECRETS[0], faults=faults())
    async with AsyncExitStack() as stack:
        desk = await stack.enter_async_context(Worker("edge.camera.onvif_worker", exclusive=False))
        frames = Pool("edge.camera.frame_worker", 1)
        stack.push_async_callback(frames.end)
        found = await stack.enter_async_context(camera.serving(one))
        address = Address(url=found.url) if by == "url" else Address(stream=found.stream_url)
        driver = OnvifCamera(
            "c",
            address,
            username="box",
            password=SECRETS[0],
            serial=None,
            events=True,
            timeout=4.0,
            desk=desk,
            frames=frames,
            clock=SystemClock(),
        )
        yield Device(driver, one.faults, Kind.CAMERA)


@device
@asynccontextmanager
async def openwrt(folder: Path) -> AsyncIterator[Device]:
    one = openwrt_hotspot.Router(id="w", user="box", password=SECRETS[0], faults=faults())
    async with openwrt_hotspot.serving(one) as url:
        driver = OpenwrtHotspot(
            url=url, username="box", password=SECRETS[0], uplink="wan", timeout=TIMEOUT / 2, clock=SystemClock()
        )
        yield Device(driver, one.faults, Kind.HOTSPOT, one)


@device
@asynccontextmanager
async def snmp(folder: Path) -> AsyncIterator[Device]:
    one = snmp_hotspot.Agent(
        id="w", community="c", user="box", auth_password=SECRETS[0], privacy_password=SECRETS[1], faults=faults()
    )
    async with snmp_hotspot.serving(one) as (host, port):
        driver = SnmpHotspot(
            host=host,
            port=port,
            login=Login(username="box", auth=("sha1", SECRETS[0]), privacy=("aes128", SECRETS[1])),
            profile=load_profile(FIRMWARE / "snmp_profiles" / "simulated.yaml"),
            uplink_interface="eth0",
            timeout=TIMEOUT,
            clock=SystemClock(),
        )
        yield Device(driver, one.faults, Kind.HOTSPOT, one)


@device
@asynccontextmanager
async def reachable(folder: Path) -> AsyncIterator[Device]:
    one = openwrt_hotspot.Router(id="w", user="box", password=SECRETS[0], faults=faults())
    async with openwrt_hotspot.serving(one) as url:
        port = int(url.rsplit(":", 1)[1])
        driver = Reachability(
            kind=Kind.NETWORK_DEVICE, host="127.0.0.1", tcp_port=port, timeout=TIMEOUT, clock=SystemClock()
        )
        driver._may_ping = False  # this machine itself always answers a ping
        yield Device(driver, one.faults, Kind.NETWORK_DEVICE)


@pytest.mark.parametrize("name", DEVICES)
async def test_what_it_reports_is_known_before_it_is_reached_and_true_to_the_catalogue(
    name: str, tmp_path: Path
) -> None:
    async with DEVICES[name](tmp_path) as one:
        declared = list(one.driver.metrics)
        assert declared
        assert [metric for metric in CATALOG[one.kind].metrics if metric in declared] == declared
        async with one.driver as driver:
            before = SystemClock().now_ms()
            found = await driver.read()
    assert {sample.metric for sample in found} <= {metric.name for metric in declared}
    assert len({sample.metric for sample in found}) == len(found), "a metric has one value in a read"
    assert len({sample.at for sample in found}) == 1
    assert before - 5000 <= found[0].at <= SystemClock().now_ms()
    assert any(sample.quality is Quality.GOOD for sample in found)
    for sample in found:
        kind = next(metric.datatype for metric in declared if metric.name == sample.metric)
        assert type(sample.value) is {"DOUBLE": float, "INT64": int, "BOOLEAN": bool, "STRING": str}[kind.name]


@pytest.mark.parametrize("name", DEVICES)
async def test_a_read_that_is_cancelled_leaves_it_usable(name: str, tmp_path: Path) -> None:
    async with DEVICES[name](tmp_path) as one:
        async with one.driver as driver:
            reading = asyncio.ensure_future(driver.read())
            await asyncio.sleep(0)
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        assert await eventually_read(one)


@pytest.mark.parametrize("name", DEVICES)
async def test_it_can_be_opened_again_and_again(name: str, tmp_path: Path) -> None:
    async with DEVICES[name](tmp_path) as one:
        for _ in range(3):
            async with one.driver as driver:
                assert await driver.read()


async def eventually_read(one: Device) -> Sequence[Sample]:
    async with asyncio.timeout(30):
        while True:
            try:
                async with one.driver as driver:
                    return await driver.read()
            except DeviceUnavailable:
                await asyncio.sleep(0.05)


SILENCE, REFUSAL = {Cause.SILENT.value}, {Cause.REFUSED.value}
HTTP: dict[Fault, set[str]] = {
    Fault.SILENT: SILENCE,
    Fault.REFUSE: REFUSAL,
    Fault.UNAUTHORISED: {"unauthorised"},
    Fault.NONSENSE: {"nonsense"},
    Fault.MAINS_LOST: REFUSAL,
}
CAMERA: dict[Fault, set[str]] = {
    **HTTP,
    Fault.FROZEN: {"frozen"},
    Fault.BLACK: {"black"},
    Fault.NO_KEY_FRAMES: {"no_picture"},
}
WIRE: dict[Fault, set[str]] = {
    Fault.SILENT: SILENCE,
    Fault.ILLEGAL_ADDRESS: {"not_found"},
    Fault.STUCK: {"stuck"},
    Fault.NOT_A_NUMBER: {"out_of_range"},
    Fault.MAINS_LOST: SILENCE,
    Fault.TRUNCATED: {"nonsense"},
}
NAMED: dict[str, dict[Fault, set[str]]] = {
    "modbus_rtu": {**WIRE, Fault.CORRUPT: {"nonsense"}, Fault.SLOW: SILENCE},
    # A gateway passes no frame on that it cannot read: garbage on its line is silence, or its own complaint.
    "modbus_tcp": {**WIRE, Fault.CORRUPT: {"nonsense", "silent"}},
    "uart": {
        Fault.SILENT: SILENCE,
        Fault.CORRUPT: {"nonsense"},
        Fault.TRUNCATED: {"nonsense"},
        Fault.MAINS_LOST: SILENCE,
    },
    "loudspeaker": {
        **HTTP,
        Fault.SLOW: SILENCE,
        Fault.AMPLIFIER_FAILED: {"amplifier_failed"},
        Fault.LINE_OPEN: {"line_failed"},
        Fault.MUTED: {"muted"},
    },
    "onvif": {**CAMERA, Fault.NO_STREAM: {"no_stream"}, Fault.CLOCK_JUMP: {"clock_off"}},
    "rtsp": {**CAMERA, Fault.NO_STREAM: {"not_found"}},
    "openwrt": {**HTTP, Fault.SLOW: SILENCE, Fault.NO_UPLINK: {"no_uplink"}, Fault.RADIO_OFF: {"no_radio"}},
    "snmp": {
        **HTTP,
        Fault.SLOW: SILENCE,
        Fault.NO_UPLINK: {"no_uplink"},
        Fault.RADIO_OFF: {"no_radio"},
        Fault.STUCK: {"nonsense"},
    },
    "reachable": {Fault.REFUSE: REFUSAL, Fault.MAINS_LOST: REFUSAL},
}
REBOOTS = {"loudspeaker": "rebooted", "openwrt": "rebooted", "snmp": "rebooted"}


class Watched:
    """A driver whose attempts are counted, and whose last word is kept."""

    def __init__(self, one: Device) -> None:
        self._driver = one.driver
        self.metrics: Sequence[Metric] = one.driver.metrics
        self.attempts = 0
        self.state = ""

    async def __aenter__(self) -> Self:
        await self._driver.__aenter__()
        return self

    async def __aexit__(self, *exc: Any) -> None:
        await self._driver.__aexit__(*exc)

    async def read(self) -> Sequence[Sample]:
        try:
            found = await self._driver.read()
            self.state = str(next((one.value for one in found if one.metric == STATE), "ok"))
            return found
        finally:
            self.attempts += 1


class Story:
    """One device under a poller in quick rhythm: what is said of it, and after how many attempts."""

    def __init__(self, one: Device) -> None:
        self.driver = Watched(one)
        self.presence: str | None = None
        self.texts: list[str] = []
        self.poller = Poller(
            "x",
            self.driver,
            rhythm=Rhythm(poll=0.2, deadline=12.0, grace=0.0),
            record=self._record,
            attempted=self._attempted,
            clock=SystemClock(),
            chance=random.Random(1),
        )

    async def _record(self, stream: str, samples: Sequence[Sample]) -> None: ...

    async def _attempted(self, stream: str, health: Health) -> None:
        self.presence = health.told

    @property
    def named(self) -> str:
        """Return what is said of it now."""
        return self.driver.state if self.presence == ONLINE else str(self.presence)

    async def until(self, wanted: set[str], within: float = 40.0) -> int:
        """Return after how many more attempts one of the names was said."""
        before = self.driver.attempts
        async with asyncio.timeout(within):
            while self.named not in wanted or self.driver.attempts == before:
                self.poller.ask_now()
                await asyncio.sleep(0.02)
        return self.driver.attempts - before


@asynccontextmanager
async def told(name: str, folder: Path) -> AsyncIterator[tuple[Story, Device]]:
    async with DEVICES[name](folder) as one:
        story = Story(one)
        running = asyncio.create_task(story.poller.run())
        try:
            await story.until({"ok"})
            yield story, one
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize(
    ("name", "fault"), [(name, fault) for name, known in NAMED.items() for fault in known], ids=str
)
async def test_every_fault_ends_in_its_named_state_within_two_polls_and_clears_by_itself(
    name: str, fault: Fault, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with told(name, tmp_path) as (story, one):
        one.faults.forced = fault
        await asyncio.sleep(0.12)  # a simulator that closes its ports does so within 50 ms
        # One attempt may have begun before the fault did.
        assert await story.until(NAMED[name][fault]) <= 3
        one.faults.forced = None
        await story.until({"ok"})
    assert not any(secret in caplog.text for secret in SECRETS)


@pytest.mark.parametrize("name", REBOOTS)
async def test_a_device_that_started_anew_says_so_and_then_is_well(name: str, tmp_path: Path) -> None:
    async with told(name, tmp_path) as (story, one):
        one.simulated.started -= 100
        await story.until({"ok"})
        one.faults.forced = Fault.REBOOT
        await story.until({REBOOTS[name]})
        await story.until({"ok"})
