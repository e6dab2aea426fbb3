"""The Modbus driver against simulated probes that speak the real protocol on a real pseudo-terminal."""

import asyncio
import contextlib
import json
import math
import struct
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from contract.catalog import Cause
from contract.clock import SystemClock
from contract.metrics import Instrument, Quality
from edge.config import MAPS
from edge.drivers.modbus_sensor import ModbusSensor, SerialLine, load_map, samples
from edge.poller import DeviceMisconfigured, DeviceUnavailable
from simulators.faults import Fault, Faults
from simulators.modbus_probe import Probe, bus

CASES = sorted((Path(__file__).parents[2] / "cases" / "drivers").glob("modbus-*"))
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


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_registers_become_the_samples_that_a_map_says(case: Path) -> None:
    registers = [int(word, 16) for word in (case / "registers.txt").read_text().split()]
    found = [
        {
            "metric": one.metric,
            "value": one.value,
            "quality": one.quality.name.lower(),
            "instrument": one.instrument.name.lower(),
        }
        for one in samples(registers, load_map(case / "map.yaml"), at=0)
    ]
    assert found == [json.loads(line) for line in (case / "expected.jsonl").read_text().splitlines()]


async def test_noise_before_an_answer_does_not_pass_for_silence() -> None:
    one = probe()
    one.faults.forced = Fault.NOISE
    async with bus([one], paced=False) as simulated:
        line = SerialLine(simulated.master_path, 9600)
        try:
            assert len(await sensor(line).read()) == 5
        except DeviceUnavailable as exc:
            assert exc.cause is Cause.NONSENSE
        line.close()


async def test_the_line_is_good_again_right_after_each_fault() -> None:
    one = probe()
    async with bus([one], paced=False) as simulated:
        line = SerialLine(simulated.master_path, 9600)
        for fault in (Fault.SILENT, Fault.CORRUPT, Fault.TRUNCATED, Fault.ILLEGAL_ADDRESS, Fault.NOISE):
            one.faults.forced = fault
            with contextlib.suppress(DeviceUnavailable):
                await sensor(line).read()
            one.faults.forced = None
            assert len(await sensor(line).read()) == 5, fault
        line.close()


async def test_devices_that_ask_at_once_take_turns_on_the_line() -> None:
    probes = [probe(slave) for slave in range(1, 6)]
    async with bus(probes, paced=True) as simulated:
        line = SerialLine(simulated.master_path, 9600)
        found = await asyncio.gather(*(sensor(line, one.slave).read() for one in probes))
        line.close()
    assert [one.answers for one in probes] == [1] * 5
    assert len({read[0].value for read in found}) > 1, "each answer went to the one who asked"


async def test_a_port_that_was_pulled_out_is_unreachable_and_comes_back(tmp_path: Path) -> None:
    port = tmp_path / "ttyUSB0"
    line = SerialLine(str(port), 9600)
    async with bus([probe()], link=port, paced=False):
        assert len(await sensor(line).read()) == 5
    causes = []
    for _ in range(2):
        with pytest.raises(DeviceUnavailable) as caught:
            await sensor(line).read()
        causes.append(caught.value.cause)
    assert causes[-1] is Cause.UNREACHABLE
    async with bus([probe()], link=port, paced=False):
        assert len(await sensor(line).read()) == 5
    line.close()


def test_the_shipped_map_reads_everything_that_its_kind_reports() -> None:
    assert {value.metric for value in MAP.values} == {one.name for one in sensor(SerialLine("x", 9600)).metrics}


@given(st.dictionaries(st.text(max_size=10), st.none() | st.integers() | st.text(max_size=10), max_size=5))
def test_whatever_stands_in_a_map_file_is_a_map_or_a_clear_refusal(told: dict[str, object]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "map.yaml"
        file.write_text(yaml.safe_dump(told), encoding="utf-8")
        with pytest.raises(DeviceMisconfigured, match=r"map\.yaml: "):
            load_map(file)
