"""Simulated MQTT sensors heard by Mosquitto's own client."""

import asyncio
import json
import shutil
import time
from typing import Any, Literal

import pytest

from simulators.air import air
from simulators.faults import Fault, Faults
from simulators.hydro import hydro
from simulators.mqtt_sensor import Station, publishing

AT = 1_790_000_000.0
SUBSCRIBER = shutil.which("mosquitto_sub")
EUI = "a8404121e1843d01"


def station(shape: Literal["esphome", "tasmota", "chirpstack"], layout: Literal["air", "hydro"], topic: str) -> Station:
    return Station(
        id="s",
        shape=shape,
        layout=layout,
        topic=topic,
        seed=7,
        faults=Faults([], time.monotonic),
        now=lambda: AT,
        every=0.05,
    )


async def heard(broker: Any, topic: str, count: int = 1) -> list[str]:
    """Return the lines that mosquitto_sub prints for so many messages."""
    command = [str(SUBSCRIBER), "-h", broker.host, "-p", str(broker.port), "-t", topic, "-C", str(count), "-W", "10"]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert process.returncode == 0, f"mosquitto_sub heard nothing on {topic}"
    return out.decode().splitlines()


pytestmark = [
    pytest.mark.foreign,
    pytest.mark.skipif(SUBSCRIBER is None, reason="mosquitto_sub is not installed (apt-get install mosquitto-clients)"),
]


async def test_mosquitto_sub_hears_an_esphome_sensor_and_its_last_will(mosquitto: Any) -> None:
    one = station("esphome", "air", "hamlet/air-01")
    async with publishing(one, host=mosquitto.host, port=mosquitto.port):
        value = await heard(mosquitto, "hamlet/air-01/sensor/pm2_5/state")
        there = await heard(mosquitto, "hamlet/air-01/status")
        one.faults.forced = Fault.MAINS_LOST
        last = await heard(mosquitto, "hamlet/air-01/status", 2)
    assert float(value[0]) == pytest.approx(air(7, "s", AT).pm25, abs=0.001)
    assert there == ["online"]
    assert last == ["online", "offline"]


async def test_mosquitto_sub_hears_a_tasmota_sensor(mosquitto: Any) -> None:
    async with publishing(station("tasmota", "air", "air-02"), host=mosquitto.host, port=mosquitto.port):
        told = json.loads((await heard(mosquitto, "tele/air-02/SENSOR"))[0])
        there = await heard(mosquitto, "tele/air-02/LWT")
    assert told["PMS5003"]["PM2.5"] == round(air(7, "s", AT).pm25)
    assert there == ["Online"]


async def test_mosquitto_sub_hears_a_chirpstack_uplink(mosquitto: Any) -> None:
    one = station("chirpstack", "hydro", f"application/1/device/{EUI}")
    async with publishing(one, host=mosquitto.host, port=mosquitto.port):
        told = json.loads((await heard(mosquitto, f"application/1/device/{EUI}/event/up"))[0])
    assert told["deviceInfo"]["devEui"] == EUI
    assert told["object"]["level"] == pytest.approx(hydro(7, "s", AT).level, abs=0.001)
