"""The production drivers against simulated devices that speak the real protocol."""

import json
import math
import struct
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.catalog import Cause
from contract.clock import SystemClock
from contract.metrics import Instrument, Quality
from edge.config import MAPS
from edge.drivers.ip_speaker import IpSpeaker, Status, answer
from edge.drivers.modbus_sensor import ModbusSensor, SerialLine, load_map, samples
from edge.poller import DeviceMisconfigured, DeviceUnavailable
from simulators.faults import Fault, Faults
from simulators.ip_speaker import Speaker, serving
from simulators.modbus_probe import Probe, bus

MAP = load_map(MAPS / "generic-water-probe.yaml")


def probe(slave: int = 1) -> Probe:
    return Probe(
        id=f"probe-{slave}", slave=slave, seed=7, faults=Faults([], time.monotonic), now=lambda: 1_790_000_000.0
    )


def sensor(line: SerialLine, slave: int = 1) -> ModbusSensor:
    return ModbusSensor(line, slave=slave, mapping=MAP, timeout=0.3, clock=SystemClock())


def registers(*readings: float, status: int = 0) -> list[int]:
    return [*struct.unpack(">10H", struct.pack(">5f", *readings)), status]


async def test_a_probe_is_read_with_units_of_its_map() -> None:
    async with bus([probe()], paced=False) as simulated:
        line = SerialLine(simulated.master_path, 9600)
        found = {one.metric: one for one in await sensor(line).read()}
        line.close()
    assert set(found) == {value.metric for value in MAP.values}
    assert 6.5 < float(found["Water/pH"].value or 0) < 8.0
    assert all(one.quality is Quality.GOOD for one in found.values())


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        (Fault.SILENT, Cause.SILENT),
        (Fault.CORRUPT, Cause.NONSENSE),
        (Fault.TRUNCATED, Cause.NONSENSE),
        (Fault.ILLEGAL_ADDRESS, Cause.REFUSED),
    ],
)
async def test_failures_of_a_probe_are_told_apart(fault: Fault, cause: Cause) -> None:
    one = probe()
    one.faults.forced = fault
    async with bus([one], paced=False) as simulated:
        line = SerialLine(simulated.master_path, 9600)
        with pytest.raises(DeviceUnavailable) as caught:
            await sensor(line).read()
        line.close()
    assert caught.value.cause is cause


async def test_an_absent_port_is_unreachable() -> None:
    with pytest.raises(DeviceUnavailable) as caught:
        await sensor(SerialLine("/dev/does-not-exist", 9600)).read()
    assert caught.value.cause is Cause.UNREACHABLE


async def test_a_dead_slave_costs_the_line_its_time_limit_and_no_more() -> None:
    dead, alive = probe(1), probe(2)
    dead.faults.forced = Fault.SILENT
    async with bus([dead, alive], paced=False) as simulated:
        line = SerialLine(simulated.master_path, 9600)
        with pytest.raises(DeviceUnavailable):
            await sensor(line, 1).read()
        assert len(await sensor(line, 2).read()) == 5
        line.close()


def test_no_number_has_no_value_and_an_impossible_one_is_marked_bad() -> None:
    found = samples(registers(math.nan, 99.0, 1400.0, 5.0, 3.0), MAP, at=5)
    assert (found[0].value, found[0].quality) == (None, Quality.BAD)
    assert (found[1].value, found[1].quality) == (99.0, Quality.BAD)
    assert found[2].quality is Quality.GOOD


@pytest.mark.parametrize(
    ("status", "instrument"), [(0, Instrument.MEASURING), (1, Instrument.CALIBRATING), (2, Instrument.FAULT)]
)
def test_the_status_register_says_what_the_instrument_does(status: int, instrument: Instrument) -> None:
    found = samples(registers(7, 28, 1400, 5, 3, status=status), MAP, at=5)
    assert {one.instrument for one in found} == {instrument}


@given(st.lists(st.integers(0, 65_535), max_size=20))
def test_whatever_the_registers_hold_becomes_samples_or_a_clear_refusal(words: list[int]) -> None:
    try:
        found = samples(words, MAP, at=1)
    except DeviceUnavailable as exc:
        assert exc.cause is Cause.NONSENSE
        assert len(words) != MAP.count
    else:
        assert all(one.value is None or math.isfinite(float(one.value)) for one in found)


@pytest.mark.parametrize("path", sorted(MAPS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_register_map_is_valid(path: Path) -> None:
    assert load_map(path).values


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metric": "Water/Colour"}, "no metric of a water_probe"),
        ({"range": [14, 0]}, "upside down"),
        ({"address": 70000}, "less than or equal to 65535"),
        ({"typo": 1}, "Extra inputs"),
    ],
)
def test_a_wrong_register_map_names_the_key(tmp_path: Path, change: dict[str, object], message: str) -> None:
    value = {"metric": "Water/pH", "address": 0, "type": "float32", "range": [0, 14], **change}
    wrong = tmp_path / "map.yaml"
    wrong.write_text(json.dumps({"name": "x", "kind": "water_probe", "hardware": "generic", "values": [value]}))
    with pytest.raises(DeviceMisconfigured, match=message):
        load_map(wrong)


def speaker(folder: Path) -> Speaker:
    return Speaker(id="speaker-01", user="box", password="geheim", recordings=folder, faults=Faults([], time.monotonic))


def ip_speaker(url: str, password: str = "geheim", codec: str = "L16/16000") -> IpSpeaker:
    return IpSpeaker(url=url, username="box", password=password, codec=codec, timeout=0.5, clock=SystemClock())


async def test_a_loudspeaker_tells_volume_and_supervision(tmp_path: Path) -> None:
    async with serving(speaker(tmp_path)) as url, ip_speaker(url) as driver:
        found = {one.metric: one.value for one in await driver.read()}
    assert found["Audio/Volume"] == 50
    assert found["Amp/OK"] is True
    assert found["Playback/State"] == "idle"


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        (Fault.SILENT, Cause.SILENT),
        (Fault.UNAUTHORISED, Cause.UNAUTHORISED),
        (Fault.NONSENSE, Cause.NONSENSE),
    ],
)
async def test_failures_of_a_loudspeaker_are_told_apart(tmp_path: Path, fault: Fault, cause: Cause) -> None:
    one = speaker(tmp_path)
    one.faults.forced = fault
    async with serving(one) as url, ip_speaker(url) as driver:
        with pytest.raises(DeviceUnavailable) as caught:
            await driver.read()
    assert caught.value.cause is cause


async def test_a_wrong_password_and_a_closed_port_are_told_apart(tmp_path: Path) -> None:
    async with serving(speaker(tmp_path)) as url, ip_speaker(url, password="guess") as driver:
        with pytest.raises(DeviceUnavailable) as caught:
            await driver.read()
    assert caught.value.cause is Cause.UNAUTHORISED
    async with ip_speaker(url) as driver:
        with pytest.raises(DeviceUnavailable) as caught:
            await driver.read()
    assert caught.value.cause is Cause.REFUSED


@pytest.mark.parametrize(("codec", "tolerance"), [("L16/16000", 0), ("PCMU/8000", 600)])
async def test_what_is_played_is_what_the_horn_lets_people_hear(tmp_path: Path, codec: str, tolerance: int) -> None:
    rate = int(codec.partition("/")[2])
    tone = (12_000 * np.sin(np.arange(rate // 4) / 9)).astype(np.int16)
    async with serving(speaker(tmp_path)) as url, ip_speaker(url, codec=codec) as driver:
        async with driver.sounding(volume=100) as sink:
            assert driver.sample_rate == rate
            await sink.write(tone[:1000])
            await sink.write(tone[1000:])
    import wave

    with wave.open(str(tmp_path / "speaker-01-1.wav")) as recorded:
        heard = np.frombuffer(recorded.readframes(rate), dtype="<i2").astype(np.int32)
    assert np.max(np.abs(heard[: len(tone)] - tone)) <= tolerance
    assert len(heard) - len(tone) < rate * 0.02


@pytest.mark.parametrize("fault", [Fault.DEAF, Fault.MUTED, Fault.LINE_OPEN, Fault.AMPLIFIER_FAILED])
async def test_a_loudspeaker_that_did_not_sound_is_not_believed_to_have(tmp_path: Path, fault: Fault) -> None:
    one = speaker(tmp_path)
    async with serving(one) as url, ip_speaker(url) as driver:
        with pytest.raises(DeviceUnavailable):
            async with driver.sounding(volume=60) as sink:
                one.faults.forced = fault
                await sink.write(np.ones(1600, dtype=np.int16))


@given(
    st.binary(max_size=300)
    | st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists).map(
        lambda thing: json.dumps(thing).encode()
    )
)
def test_whatever_a_loudspeaker_answers_is_a_status_or_nonsense(raw: bytes) -> None:
    try:
        answer(Status, raw, "GET status")
    except DeviceUnavailable as exc:
        assert exc.cause is Cause.NONSENSE
