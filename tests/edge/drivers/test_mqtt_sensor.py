"""Sensors on the box's own broker: hostile payloads as files, and the driver against simulated sensors."""

import asyncio
import json
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from contract.catalog import STATE, Cause
from contract.clock import Clock, SystemClock
from contract.metrics import Quality
from edge.broker import Message, Server, connect
from edge.config import FIRMWARE
from edge.drivers.local_broker import LocalBroker
from edge.drivers.mqtt_mapping import MqttMapping, Unusable, load_mapping, samples, topics
from edge.drivers.mqtt_sensor import MqttSensor
from edge.poller import DeviceMisconfigured, DeviceUnavailable
from simulators.faults import Fault, Faults
from simulators.mqtt_sensor import Station, publishing

CASES = sorted((Path(__file__).parents[2] / "cases" / "mqtt").iterdir())
MAPPINGS = FIRMWARE / "mqtt_mappings"
EUI = "a8404121e1843d01"
AIR, TASMOTA, LORA = "esphome-air.yaml", "tasmota-pms5003-bme280.yaml", "chirpstack-hydro.yaml"
TOPICS = {AIR: "hamlet/air-01", TASMOTA: "air-02", LORA: f"application/1/device/{EUI}"}


def station(mapping: str) -> Station:
    shape, layout = {AIR: ("esphome", "air"), TASMOTA: ("tasmota", "air"), LORA: ("chirpstack", "hydro")}[mapping]
    return Station(
        id=f"station-{shape}",
        shape=shape,  # type: ignore[arg-type]  # one of the three
        layout=layout,  # type: ignore[arg-type]  # one of the three
        topic=TOPICS[mapping],
        seed=7,
        faults=Faults([], time.monotonic),
        now=time.time,
        every=0.05,
    )


def sensor(
    broker: LocalBroker, mapping: str = AIR, *, clock: Clock | None = None, silent_after: float = 60, timeout: float = 5
) -> MqttSensor:
    return MqttSensor(
        broker,
        topic=TOPICS[mapping],
        mapping=load_mapping(MAPPINGS / mapping),
        silent_after=silent_after,
        timeout=timeout,
        clock=clock or SystemClock(),
    )


@asynccontextmanager
async def local(mosquitto: Any, clock: Clock | None = None) -> AsyncIterator[LocalBroker]:
    broker = LocalBroker(Server(host=mosquitto.host, port=mosquitto.port), clock or SystemClock())
    try:
        yield broker
    finally:
        listening = broker._listening
        broker.close()
        while listening is not None and not listening.done():
            # The client library may lose a cancellation that comes together with an answer.
            listening.cancel()
            await asyncio.wait({listening}, timeout=0.5)


async def read_until(driver: MqttSensor, wanted: set[str]) -> dict[str, Any]:
    """Return the newest samples by metric once all that are wanted came."""
    found: dict[str, Any] = {}
    async with asyncio.timeout(10):
        while not wanted <= set(found):
            found.update({one.metric: one for one in await driver.read()})
            await asyncio.sleep(0.02)
    return found


async def failure(driver: MqttSensor) -> DeviceUnavailable:
    """Return why it fails, once it does."""
    async with asyncio.timeout(10):
        while True:
            try:
                async with driver:
                    await driver.read()
            except DeviceUnavailable as exc:
                return exc
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_payload_becomes_the_samples_that_a_mapping_says_or_a_reason(case: Path) -> None:
    expected = json.loads((case / "expected.json").read_text(encoding="utf-8"))
    mapping = load_mapping(MAPPINGS / expected["mapping"])
    values = topics(mapping, expected["device"]).values[expected["topic"]]
    payload, received_at = (case / "payload").read_bytes(), expected["received_at"]
    started = time.process_time()
    if "unusable" in expected:
        with pytest.raises(Unusable, match=expected["unusable"]):
            samples(mapping, values, topic=expected["device"], payload=payload, received_at=received_at)
    else:
        found = samples(mapping, values, topic=expected["device"], payload=payload, received_at=received_at)
        told = [
            {"metric": one.metric, "value": one.value, "quality": one.quality.name.lower(), "at": one.at}
            for one in found
        ]
        assert told == expected["samples"]
    assert time.process_time() - started < 0.05


@given(payload=st.binary(max_size=200), mapping=st.sampled_from([AIR, TASMOTA, LORA]))
def test_whatever_is_published_becomes_samples_or_a_reason(payload: bytes, mapping: str) -> None:
    read = load_mapping(MAPPINGS / mapping)
    for values in topics(read, TOPICS[mapping]).values.values():
        try:
            found = samples(read, values, topic=TOPICS[mapping], payload=payload, received_at=5)
        except Unusable:
            continue
        assert found


def test_scale_offset_and_numbers_between_quotes_are_data() -> None:
    mapping = MqttMapping.model_validate(
        {
            "name": "x",
            "kind": "hydro_station",
            "source": "generic",
            "shape": "chirpstack",
            "values": [
                {"metric": "Water/Level", "path": ["object", "mm"], "scale": 0.001, "offset": -1, "range": [-5, 20]},
                {"metric": "Rain/Total", "path": ["object", "rain"], "as_text": True, "range": [0, 1000]},
            ],
        }
    )
    payload = json.dumps({"object": {"mm": 2345, "rain": "12.5"}}).encode()
    found = samples(mapping, mapping.values, topic=TOPICS[LORA], payload=payload, received_at=5)
    assert [one.value for one in found] == [1.345, 12.5]


@pytest.mark.parametrize(
    ("mapping", "topic"), [(AIR, "hamlet/+"), (AIR, "#"), (AIR, "/"), (LORA, "application/1/device/+"), (LORA, "canal")]
)
def test_a_topic_that_names_no_single_device_is_a_mistake_of_the_configuration(mapping: str, topic: str) -> None:
    with pytest.raises(DeviceMisconfigured):
        topics(load_mapping(MAPPINGS / mapping), topic)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"values": [{"metric": "Air/Colour", "path": ["x"], "range": [0, 1]}]}, "no metric of a air_station"),
        ({"values": [{"metric": "Air/PM1", "path": [one], "range": [0, 1]} for one in "ab"]}, "mapped twice"),
        ({"values": [{"metric": "Air/PM1", "path": ["x"], "range": [1, 0]}]}, "upside down"),
        ({"values": [{"metric": "Air/PM1", "path": ["a", "b"], "range": [0, 1]}]}, "one name"),
        ({"values": [{"metric": "Air/PM1", "path": ["a/b"], "range": [0, 1]}]}, "one name"),
        ({"shape": "zigbee"}, "shape"),
    ],
)
def test_a_wrong_mapping_names_what_is_wrong(tmp_path: Path, change: dict[str, object], message: str) -> None:
    whole = yaml.safe_load((MAPPINGS / AIR).read_text(encoding="utf-8")) | change
    wrong = tmp_path / "mapping.yaml"
    wrong.write_text(yaml.safe_dump(whole), encoding="utf-8")
    with pytest.raises(DeviceMisconfigured, match=message):
        load_mapping(wrong)


def test_the_schema_beside_the_mappings_is_the_one_that_is_enforced() -> None:
    schema = json.loads((MAPPINGS / "mqtt_mapping.schema.json").read_text(encoding="utf-8"))
    assert {key: value for key, value in schema.items() if key != "$schema"} == MqttMapping.model_json_schema()
    for path in MAPPINGS.glob("*.yaml"):
        jsonschema.validate(yaml.safe_load(path.read_text(encoding="utf-8")), schema)
        assert load_mapping(path).values


@pytest.mark.parametrize("mapping", [AIR, TASMOTA, LORA])
async def test_each_shape_is_read_with_all_its_metrics(mosquitto: Any, mapping: str) -> None:
    async with local(mosquitto) as broker:
        driver = sensor(broker, mapping)
        async with driver, publishing(station(mapping), host=mosquitto.host, port=mosquitto.port):
            found = await read_until(driver, {one.name for one in driver.metrics})
    assert all(one.quality is Quality.GOOD for one in found.values())
    assert found[STATE].value == "ok"
    assert abs(found[STATE].at - time.time() * 1000) < 5000


@pytest.mark.parametrize("mapping", [AIR, TASMOTA, LORA])
@pytest.mark.parametrize("fault", [Fault.NONSENSE, Fault.CORRUPT])
async def test_unusable_messages_are_nonsense_until_a_usable_one_comes(
    mosquitto: Any, mapping: str, fault: Fault
) -> None:
    one = station(mapping)
    one.faults.forced = fault
    async with local(mosquitto) as broker, publishing(one, host=mosquitto.host, port=mosquitto.port):
        driver = sensor(broker, mapping)
        assert (await failure(driver)).cause is Cause.NONSENSE
        one.faults.forced = None
        async with asyncio.timeout(10):
            while True:
                try:
                    await driver.read()
                    break
                except DeviceUnavailable as exc:
                    assert exc.cause is Cause.NONSENSE
                    await asyncio.sleep(0.02)


@pytest.mark.parametrize("mapping", [AIR, TASMOTA, LORA])
async def test_no_number_is_out_of_range_and_the_rest_is_good(mosquitto: Any, mapping: str) -> None:
    one = station(mapping)
    one.faults.forced = Fault.NOT_A_NUMBER
    async with local(mosquitto) as broker, publishing(one, host=mosquitto.host, port=mosquitto.port):
        driver = sensor(broker, mapping)
        async with driver:
            found = await read_until(driver, {one.name for one in driver.metrics})
    assert found[STATE].value == "out_of_range"
    assert sum(one.quality is Quality.BAD for one in found.values()) == 1


@pytest.mark.parametrize("mapping", [AIR, TASMOTA])
async def test_a_last_will_is_silence_at_once_and_a_birth_ends_it(mosquitto: Any, mapping: str) -> None:
    one = station(mapping)
    async with local(mosquitto) as broker, publishing(one, host=mosquitto.host, port=mosquitto.port):
        driver = sensor(broker, mapping)
        async with driver:
            await read_until(driver, {"Air/PM2.5"})
        one.faults.forced = Fault.MAINS_LOST
        lost = await failure(driver)
        one.faults.forced = None
        async with asyncio.timeout(10):
            while True:
                try:
                    await driver.read()
                    break
                except DeviceUnavailable:
                    await asyncio.sleep(0.02)
    assert lost.cause is Cause.SILENT
    assert "last will" in str(lost)


async def test_nothing_for_too_long_is_silence(mosquitto: Any, clock: Any, eventually: Any) -> None:
    async with local(mosquitto) as broker:
        driver = sensor(broker, LORA, clock=clock, silent_after=900)
        one = station(LORA)
        async with driver, publishing(one, host=mosquitto.host, port=mosquitto.port):
            await read_until_heard(driver, clock, one)
            await fall_silent(one, eventually)
            await clock.advance(890)
            assert [sample.metric for sample in await driver.read()][-1] == STATE
            assert [sample.metric for sample in await driver.read()] == [STATE], "nothing new, and still there"
            await clock.advance(20)
            with pytest.raises(DeviceUnavailable, match="nothing heard for 9") as caught:
                await driver.read()
    assert caught.value.cause is Cause.SILENT


async def read_until_heard(driver: MqttSensor, clock: Any, one: Station) -> None:
    reading = asyncio.create_task(driver.read())
    async with asyncio.timeout(10):
        while not reading.done():
            await asyncio.sleep(0.02)
    assert len(await reading) > 1
    assert one.sent


async def fall_silent(one: Station, eventually: Any) -> None:
    """Return once the last message is long out."""
    one.faults.forced = Fault.SILENT
    sent = one.sent
    await eventually(lambda: one.sent >= sent + 3)


async def test_what_the_broker_kept_from_before_is_no_reading(mosquitto: Any, eventually: Any) -> None:
    one = station(AIR)
    async with publishing(one, host=mosquitto.host, port=mosquitto.port), local(mosquitto) as broker:
        driver = sensor(broker)
        async with driver:
            await read_until(driver, {"Air/PM2.5"})
        await fall_silent(one, eventually)
        async with local(mosquitto) as anew:
            late = sensor(anew)
            async with late:
                assert [sample.metric for sample in await late.read()] == [STATE], "online, by its retained birth"


async def test_a_sensor_that_never_spoke_is_silent(mosquitto: Any) -> None:
    async with local(mosquitto) as broker:
        caught = await failure(sensor(broker, LORA, timeout=0.2))
    assert caught.cause is Cause.SILENT
    assert "nothing heard yet" in str(caught)


async def test_a_broker_that_is_gone_is_unreachable_and_is_found_again(mosquitto: Any, eventually: Any) -> None:
    async with local(mosquitto) as broker:
        driver = sensor(broker)
        async with driver, publishing(station(AIR), host=mosquitto.host, port=mosquitto.port):
            await read_until(driver, {"Air/PM2.5"})
            mosquitto.stop()
            gone = await failure(driver)
            mosquitto.start()
            async with asyncio.timeout(20):
                while True:
                    try:
                        await driver.read()
                        break
                    except DeviceUnavailable as exc:
                        assert exc.cause is Cause.UNREACHABLE
                        await asyncio.sleep(0.05)
    assert gone.cause is Cause.UNREACHABLE


@contextmanager
def with_login(folder: Path, port: int) -> Iterator[None]:
    passwords, config = folder / "passwords", folder / "login.conf"
    passwords.touch()
    subprocess.run(["mosquitto_passwd", "-b", passwords, "box", "right"], check=True, timeout=10)
    config.write_text(
        f"user root\nlistener {port} 127.0.0.1\nallow_anonymous false\npassword_file {passwords}\n", encoding="utf-8"
    )
    broker = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
    with (folder / "log").open("wb") as log, subprocess.Popen([broker, "-c", config], stdout=log, stderr=log) as one:
        try:
            yield
        finally:
            one.terminate()


async def test_a_wrong_password_is_told_from_an_absent_broker_and_stays_secret(mosquitto: Any, tmp_path: Path) -> None:
    mosquitto.stop()  # its port is free now
    with with_login(tmp_path, mosquitto.port):
        causes = []
        for password in ("wrong-and-secret", "right"):
            server = Server(host=mosquitto.host, port=mosquitto.port, username="box", password=password)
            async with asyncio.timeout(10):
                while True:
                    broker = LocalBroker(server, SystemClock())
                    caught = await failure(sensor(broker, LORA, timeout=0.2))
                    broker.close()
                    if caught.cause is not Cause.UNREACHABLE:  # the broker is still starting
                        break
            causes.append(caught.cause)
            assert password not in str(caught)
    assert causes == [Cause.UNAUTHORISED, Cause.SILENT]


async def test_one_sensor_talking_rubbish_at_full_speed_costs_its_neighbour_nothing(mosquitto: Any) -> None:
    one = station(AIR)
    async with local(mosquitto) as broker:
        living, babbling = sensor(broker, AIR), sensor(broker, TASMOTA)
        server = Server(host=mosquitto.host, port=mosquitto.port)
        async with living, publishing(one, host=mosquitto.host, port=mosquitto.port):
            async with connect(server, client_id="flood", will=None, keep_alive=30) as flood:
                longest = 0.0
                for _ in range(40):
                    for _ in range(25):
                        await flood.publish("tele/air-02/SENSOR", b"[" * 100_000)
                    before = time.monotonic()
                    await living.read()
                    longest = max(longest, time.monotonic() - before)
                assert (await failure(babbling)).cause is Cause.NONSENSE
            found = await read_until(living, {"Air/PM2.5"})
    assert found["Air/PM2.5"].quality is Quality.GOOD
    assert longest < 1.0


async def test_the_will_of_a_former_connection_that_comes_late_does_not_silence_who_speaks(
    mosquitto: Any,
) -> None:
    async with local(mosquitto) as broker:
        driver = sensor(broker)
        driver._hear(Message("hamlet/air-01/status", b"online"))
        driver._hear(Message("hamlet/air-01/status", b"offline"))
        driver._hear(Message("hamlet/air-01/sensor/pm2_5/state", b"12.0"))
        async with driver:
            assert [one.metric for one in await driver.read()] == ["Air/PM2.5", STATE]
