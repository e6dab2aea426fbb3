"""A sensor that publishes by MQTT as ESPHome, Tasmota or ChirpStack do; the only simulator that is a client."""

import asyncio
import base64
import hashlib
import json
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import aiomqtt

from simulators.air import air
from simulators.faults import Fault, Faults
from simulators.hydro import hydro
from simulators.water import water

RECONNECT_SECONDS = 0.2
KEEP_ALIVE = 15
SLOW_MESSAGES = 30
DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class Published:
    """One message."""

    topic: str
    payload: bytes
    retained: bool = False


@dataclass(slots=True)
class Station:
    """One sensor; `every` is seconds between messages, `sent` counts them since it has power.

    `topic` is ESPHome's topic prefix, Tasmota's topic, or ChirpStack's application/ID/device/EUI. Tasmota has air only.
    """

    id: str
    shape: Literal["esphome", "tasmota", "chirpstack"]
    layout: Literal["water", "air", "hydro"]
    topic: str
    seed: int
    faults: Faults
    now: Callable[[], float]
    every: float = 10.0
    sent: int = 0
    held: Mapping[str, float] | None = None

    def status(self, *, online: bool) -> Published | None:
        """Return what tells that it is there, or, as its last will, that it is not."""
        match self.shape:
            case "esphome":
                return Published(f"{self.topic}/status", b"online" if online else b"offline", retained=True)
            case "tasmota":
                return Published(f"tele/{self.topic}/LWT", b"Online" if online else b"Offline", retained=True)
            case "chirpstack":
                return None

    def messages(self) -> list[Published]:
        """Return what it publishes now."""
        fault = self.faults.now()
        self.sent += 1
        if fault is Fault.SILENT or (fault is Fault.SLOW and self.sent % SLOW_MESSAGES):
            return []
        measured = self._readings()
        self.held = (self.held or measured) if fault is Fault.STUCK else None
        told = self._told({**(self.held or measured)}, fault)
        match fault:
            case Fault.NONSENSE:
                return [Published(one.topic, b"<html>\xff\x00", one.retained) for one in told]
            case Fault.TRUNCATED:
                return [Published(one.topic, one.payload[: len(one.payload) // 2], one.retained) for one in told]
            case Fault.CORRUPT:
                return [Published(one.topic, b"{" * 60_000 + one.payload, one.retained) for one in told]
            case _:
                return told

    def _readings(self) -> Mapping[str, float]:
        at = self.now()
        match self.layout:
            case "air":
                of_air = ("pm1", "pm2_5", "pm10", "temperature", "humidity", "pressure")
                return dict(zip(of_air, air(self.seed, self.id, at).as_tuple(), strict=True))
            case "water":
                of_water = ("ph", "temperature", "conductivity", "dissolved_oxygen", "turbidity")
                return dict(zip(of_water, water(self.seed, self.id, at).as_tuple(), strict=True))
            case "hydro":
                one = hydro(self.seed, self.id, at)
                return {"level": one.level, "rain_total": one.rain, "battery": one.battery}

    def _told(self, measured: dict[str, float], fault: Fault | None) -> list[Published]:
        # An ESPHome sensor that cannot measure says nan; the others' JSON has null there.
        bad = next(iter(measured)) if fault is Fault.NOT_A_NUMBER else ""
        match self.shape:
            case "esphome":
                written = {name: "nan" if name == bad else f"{value:.3f}" for name, value in measured.items()}
                return [
                    Published(f"{self.topic}/sensor/{name}/state", text.encode(), retained=True)
                    for name, text in written.items()
                ]
            case "tasmota":
                whole = _tasmota({name: None if name == bad else value for name, value in measured.items()})
                clock = datetime.fromtimestamp(self.now(), UTC).strftime("%Y-%m-%dT%H:%M:%S")
                return [Published(f"tele/{self.topic}/SENSOR", json.dumps({"Time": clock, **whole}).encode())]
            case "chirpstack":
                told = {name: None if name == bad else round(value, 3) for name, value in measured.items()}
                off = DAY if fault is Fault.CLOCK_JUMP else 0.0
                return [Published(f"{self.topic}/event/up", json.dumps(self._uplink(told, self.now() + off)).encode())]

    def _uplink(self, told: Mapping[str, float | None], at: float) -> dict[str, Any]:
        digest = hashlib.blake2b(f"{self.seed}/{self.id}/{self.sent}".encode(), digest_size=16).hexdigest()
        application, eui = self.topic.split("/")[1], self.topic.rpartition("/")[2]
        return {
            "deduplicationId": f"{digest[:8]}-{digest[8:12]}-{digest[12:16]}-{digest[16:20]}-{digest[20:]}",
            "time": datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds"),
            "deviceInfo": {
                "tenantId": "52f14cd4-c6f1-4fbd-8f87-4025e1d49242",
                "tenantName": "hamlet",
                "applicationId": application,
                "applicationName": "sensors",
                "deviceProfileId": "605d08d4-65f5-4d2c-8a5a-3d2457662f79",
                "deviceProfileName": self.layout,
                "deviceName": self.id,
                "devEui": eui,
                "tags": {},
            },
            "devAddr": digest[:8],
            "adr": True,
            "dr": 3,
            "fCnt": self.sent,
            "fPort": 2,
            "confirmed": False,
            "data": base64.b64encode(digest.encode()).decode(),
            "object": told,
            "rxInfo": [{"gatewayId": "0016c001f153a14c", "rssi": -88, "snr": 7.5}],
            "txInfo": {"frequency": 921_400_000},
        }


def _tasmota(told: Mapping[str, float | None]) -> dict[str, Any]:
    def whole(name: str) -> int | None:
        value = told[name]
        return None if value is None else round(value)

    climate = {"temperature": "Temperature", "humidity": "Humidity", "pressure": "Pressure"}
    dust = {"PM1": whole("pm1"), "PM2.5": whole("pm2_5"), "PM10": whole("pm10")}
    return {
        "BME280": {key: round(told[name] or 0.0, 1) for name, key in climate.items()},
        "PMS5003": {"CF1": dust["PM1"], "CF2.5": dust["PM2.5"], "CF10": dust["PM10"], **dust},
        "PressureUnit": "hPa",
        "TempUnit": "C",
    }


@asynccontextmanager
async def publishing(
    station: Station, *, host: str, port: int, username: str | None = None, password: str | None = None
) -> AsyncIterator[None]:
    """Have a sensor publish on a broker for as long as the context is open, connecting again after each loss."""
    will = station.status(online=False)

    def client() -> aiomqtt.Client:
        return aiomqtt.Client(
            host,
            port,
            identifier=f"sensor-{station.id}",
            username=username,
            password=password,
            keepalive=KEEP_ALIVE,
            will=None if will is None else aiomqtt.Will(will.topic, will.payload, qos=1, retain=True),
        )

    task = asyncio.create_task(_publish(station, client), name=f"{station.id}: publish")
    try:
        yield
    finally:
        # Once is not enough: the library's waiting loses a cancellation that comes together with an answer, and a
        # goodbye that fails takes the place of one.
        while not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=0.5)


async def _publish(station: Station, new_client: Callable[[], aiomqtt.Client]) -> None:
    while True:
        if station.faults.now() is not Fault.MAINS_LOST:
            try:
                async with new_client() as client:
                    await _talk(station, client)
            except aiomqtt.MqttError:
                pass  # a broker that is away, or the line that was cut
        await asyncio.sleep(RECONNECT_SECONDS)


async def _talk(station: Station, client: aiomqtt.Client) -> None:
    birth = station.status(online=True)
    if birth is not None:
        await client.publish(birth.topic, birth.payload, qos=1, retain=True)
    while station.faults.now() is not Fault.MAINS_LOST:
        for one in station.messages():
            await client.publish(one.topic, one.payload, retain=one.retained)
        await asyncio.sleep(station.every)
    station.sent, station.held = 0, None
    # Without a goodbye, so that the broker tells the last will.
    line = client._client.socket()  # noqa: SLF001  # aiomqtt knows no way to go without one
    if isinstance(line, socket.socket):
        line.shutdown(socket.SHUT_RDWR)
