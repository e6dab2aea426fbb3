"""Particulate sensors on a UART: frames in a dirty stream, and the driver against a simulated sensor."""

import json
import time
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.catalog import STATE, Cause
from contract.clock import Clock, SystemClock
from contract.metrics import Quality
from edge.drivers.particulate_frames import MODELS, Frames
from edge.drivers.uart_sensor import MOST_AT_ONCE, UartSensor, samples
from edge.poller import DeviceMisconfigured, DeviceUnavailable
from simulators.air import Air, air
from simulators.faults import Fault, Faults
from simulators.uart_sensor import Particulates, pms5003, sds011, serving

CASES = sorted((Path(__file__).parents[2] / "cases" / "uart").iterdir())
AT = 1_790_000_000.0
Model = Literal["pms5003", "sds011"]


def simulated(model: Model = "pms5003") -> Particulates:
    return Particulates(id="dust", model=model, seed=7, faults=Faults([], time.monotonic), now=lambda: AT, every=0.02)


def driver(port: str, model: str = "pms5003", clock: Clock | None = None) -> UartSensor:
    return UartSensor(model=model, port=port, timeout=0.3, clock=clock or SystemClock())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_frames_are_found_whatever_stands_around_them(case: Path, step: int) -> None:
    received = bytes.fromhex((case / "received.hex").read_text(encoding="utf-8"))
    expected = json.loads((case / "expected.json").read_text(encoding="utf-8"))
    frames = Frames(MODELS[expected["model"]])
    found = [one for start in range(0, len(received), step) for one in frames.feed(received[start : start + step])]
    assert found == expected["readings"]


@given(junk=st.binary(max_size=40), model=st.sampled_from(sorted(MODELS)))
def test_after_any_junk_the_second_whole_frame_is_found(junk: bytes, model: str) -> None:
    frame = (pms5003 if model == "pms5003" else sds011)(Air(5, 12, 20, 28, 70, 1009))
    frames = Frames(MODELS[model])
    # Junk that ends like a header swallows at most what one frame holds.
    found = frames.feed(junk + frame * 6)
    assert len(found) >= 4
    assert found[-1]["Air/PM2.5"] == 12.0


@pytest.mark.parametrize("model", sorted(MODELS))
def test_a_flood_without_a_frame_takes_little_time_and_memory(model: str) -> None:
    frames = Frames(MODELS[model])
    started = time.process_time()
    for _ in range(100):
        assert frames.feed((MODELS[model].header * MOST_AT_ONCE)[:MOST_AT_ONCE]) == []
    assert time.process_time() - started < 0.5, "100 kB: a hundred seconds of talk"
    assert len(frames._kept) < MODELS[model].length


@pytest.mark.parametrize("model", ["pms5003", "sds011"])
async def test_a_sensor_is_read_and_reports_what_its_model_measures(model: Model) -> None:
    truth = air(7, "dust", AT)
    async with serving(simulated(model)) as port, driver(port, model) as sensor:
        found = {one.metric: one for one in await sensor.read()}
    assert set(found) == {one.name for one in sensor.metrics}
    assert found["Air/PM2.5"].value == pytest.approx(truth.pm25, abs=0.51)
    assert found["Air/PM10"].value == pytest.approx(truth.pm10, abs=0.51)
    assert ("Air/PM1" in found) == (model == "pms5003")
    assert found[STATE].value == "ok"
    assert len({one.at for one in found.values()}) == 1


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        (Fault.SILENT, Cause.SILENT),
        (Fault.MAINS_LOST, Cause.SILENT),
        (Fault.CORRUPT, Cause.NONSENSE),
        (Fault.TRUNCATED, Cause.NONSENSE),
        (Fault.NONSENSE, Cause.NONSENSE),
    ],
)
@pytest.mark.parametrize("model", ["pms5003", "sds011"])
async def test_failures_are_told_apart_and_pass(model: Model, fault: Fault, cause: Cause) -> None:
    one = simulated(model)
    one.faults.forced = fault
    async with serving(one) as port, driver(port, model) as sensor:
        with pytest.raises(DeviceUnavailable) as caught:
            await sensor.read()
        one.faults.forced = None
        assert len(await sensor.read()) == len(sensor.metrics)
    assert caught.value.cause is cause


async def test_noise_between_frames_loses_none() -> None:
    one = simulated()
    one.faults.forced = Fault.NOISE
    async with serving(one) as port, driver(port) as sensor:
        for _ in range(3):
            assert (await sensor.read())[-1].value == "ok"


async def test_a_frame_from_before_a_silence_does_not_pass_for_now(clock: Any, eventually: Any) -> None:
    one = simulated()
    async with serving(one) as port, driver(port, clock=clock) as sensor:
        await eventually(lambda: one.sent >= 3)
        assert len(await sensor.read()) == 4
        sent = one.sent
        await eventually(lambda: one.sent > sent + 3)
        one.faults.forced = Fault.SILENT
        sent = one.sent
        await eventually(lambda: one.sent > sent + 1)
        await clock.advance(60)
        with pytest.raises(DeviceUnavailable) as caught:
            await sensor.read()
    assert caught.value.cause is Cause.SILENT


async def test_a_port_that_is_not_there_is_unreachable_and_a_taken_one_refuses() -> None:
    with pytest.raises(DeviceUnavailable) as absent:
        await driver("/dev/does-not-exist").__aenter__()
    async with serving(simulated()) as port, driver(port):
        with pytest.raises(DeviceUnavailable) as taken:
            await driver(port).__aenter__()
    assert (absent.value.cause, taken.value.cause) == (Cause.UNREACHABLE, Cause.REFUSED)


async def test_an_adapter_that_is_pulled_out_is_unreachable_and_comes_back(tmp_path: Path) -> None:
    link = tmp_path / "ttyUSB0"
    sensor = driver(str(link))
    async with serving(simulated(), link=link):
        await sensor.__aenter__()
        assert len(await sensor.read()) == 4
    with pytest.raises(DeviceUnavailable) as caught:
        await sensor.read()
    await sensor.__aexit__(None, None, None)
    with pytest.raises(DeviceUnavailable) as again:
        await sensor.__aenter__()
    async with serving(simulated(), link=link), sensor:
        assert len(await sensor.read()) == 4
    assert (caught.value.cause, again.value.cause) == (Cause.UNREACHABLE, Cause.UNREACHABLE)


async def test_a_file_in_the_place_of_a_port_is_unreachable(tmp_path: Path) -> None:
    (tmp_path / "port").write_text("no terminal")
    with pytest.raises(DeviceUnavailable) as caught:
        await driver(str(tmp_path / "port")).__aenter__()
    assert caught.value.cause is Cause.UNREACHABLE
    assert str(tmp_path) in str(caught.value)


def test_a_reading_beyond_the_instrument_is_marked_bad() -> None:
    found = {one.metric: one for one in samples({"Air/PM2.5": 1200.0, "Air/PM10": 20.0}, 1000.0, at=5)}
    assert found["Air/PM2.5"].quality is Quality.BAD
    assert found["Air/PM10"].quality is Quality.GOOD
    assert found[STATE].value == "out_of_range"


def test_an_unknown_model_is_a_mistake_of_the_configuration() -> None:
    with pytest.raises(DeviceMisconfigured, match="known are pms5003, sds011"):
        driver("/dev/ttyUSB0", "pms9999")
