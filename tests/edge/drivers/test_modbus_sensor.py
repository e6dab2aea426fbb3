"""The Modbus driver against simulated probes that speak the real protocol on a real pseudo-terminal."""

import asyncio
import contextlib
import json
import math
import socket
import struct
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from contract.catalog import STATE, Cause, Condition
from contract.clock import SystemClock
from contract.metrics import Instrument, Quality
from edge.config import FIRMWARE
from edge.drivers.modbus_bus import Bus, serial_bus, tcp_bus
from edge.drivers.modbus_sensor import ModbusSensor
from edge.drivers.register_map import RegisterMap, condition, load_map, samples
from edge.poller import DeviceMisconfigured, DeviceUnavailable
from simulators.faults import Fault, Faults
from simulators.modbus_probe import Layout, Probe, bus, gateway

CASES = sorted((Path(__file__).parents[2] / "cases" / "drivers").glob("modbus-*"))
MAPS = FIRMWARE / "register_maps"
MAP = load_map(MAPS / "generic-water-probe.yaml")


def probe(slave: int = 1) -> Probe:
    return Probe(
        id=f"probe-{slave}", slave=slave, seed=7, faults=Faults([], time.monotonic), now=lambda: 1_790_000_000.0
    )


def sensor(line: Bus, slave: int = 1) -> ModbusSensor:
    return ModbusSensor(line, slave=slave, mapping=MAP, timeout=0.3, clock=SystemClock())


def registers(*readings: float, status: int = 0) -> dict[int, int]:
    return dict(enumerate([*struct.unpack(">10H", struct.pack(">5f", *readings)), status]))


async def test_a_probe_is_read_with_units_of_its_map() -> None:
    async with bus([probe()], paced=False) as simulated:
        line = serial_bus(simulated.master_path, 9600, SystemClock())
        found = {one.metric: one for one in await sensor(line).read()}
        line.close()
    assert set(found) == {value.metric for value in MAP.values} | {STATE}
    assert found[STATE].value == "ok"
    assert 6.5 < float(found["Water/pH"].value or 0) < 8.0
    assert all(one.quality is Quality.GOOD for one in found.values())


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        (Fault.SILENT, Cause.SILENT),
        (Fault.CORRUPT, Cause.NONSENSE),
        (Fault.TRUNCATED, Cause.NONSENSE),
        (Fault.ILLEGAL_ADDRESS, Cause.NOT_FOUND),
    ],
)
async def test_failures_of_a_probe_are_told_apart(fault: Fault, cause: Cause) -> None:
    one = probe()
    one.faults.forced = fault
    async with bus([one], paced=False) as simulated:
        line = serial_bus(simulated.master_path, 9600, SystemClock())
        with pytest.raises(DeviceUnavailable) as caught:
            await sensor(line).read()
        line.close()
    assert caught.value.cause is cause


async def test_an_absent_port_is_unreachable() -> None:
    with pytest.raises(DeviceUnavailable) as caught:
        await sensor(serial_bus("/dev/does-not-exist", 9600, SystemClock())).read()
    assert caught.value.cause is Cause.UNREACHABLE


async def test_a_dead_slave_costs_the_line_its_time_limit_and_no_more() -> None:
    dead, alive = probe(1), probe(2)
    dead.faults.forced = Fault.SILENT
    async with bus([dead, alive], paced=False) as simulated:
        line = serial_bus(simulated.master_path, 9600, SystemClock())
        with pytest.raises(DeviceUnavailable):
            await sensor(line, 1).read()
        assert len(await sensor(line, 2).read()) == 6
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


@given(st.lists(st.integers(0, 65_535), min_size=11, max_size=11))
def test_whatever_the_registers_hold_becomes_samples(words: list[int]) -> None:
    found = samples(dict(enumerate(words)), MAP, at=1)
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
    wrong.write_text(json.dumps({"name": "x", "kind": "water_probe", "source": "generic", "values": [value]}))
    with pytest.raises(DeviceMisconfigured, match=message):
        load_map(wrong)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_registers_become_the_samples_that_a_map_says(case: Path) -> None:
    mapping = load_map(case / "map.yaml")
    registers = [int(word, 16) for word in (case / "registers.txt").read_text().split()]
    found = [
        {
            "metric": one.metric,
            "value": one.value,
            "quality": one.quality.name.lower(),
            "instrument": one.instrument.name.lower(),
        }
        for one in samples(dict(enumerate(registers, mapping.questions[0][0])), mapping, at=0)
    ]
    assert found == [json.loads(line) for line in (case / "expected.jsonl").read_text().splitlines()]


async def test_noise_before_an_answer_does_not_pass_for_silence() -> None:
    one = probe()
    one.faults.forced = Fault.NOISE
    async with bus([one], paced=False) as simulated:
        line = serial_bus(simulated.master_path, 9600, SystemClock())
        try:
            assert len(await sensor(line).read()) == 6
        except DeviceUnavailable as exc:
            assert exc.cause is Cause.NONSENSE
        line.close()


async def test_the_line_is_good_again_right_after_each_fault() -> None:
    one = probe()
    async with bus([one], paced=False) as simulated:
        line = serial_bus(simulated.master_path, 9600, SystemClock())
        for fault in (Fault.SILENT, Fault.CORRUPT, Fault.TRUNCATED, Fault.ILLEGAL_ADDRESS, Fault.NOISE):
            one.faults.forced = fault
            with contextlib.suppress(DeviceUnavailable):
                await sensor(line).read()
            one.faults.forced = None
            assert len(await sensor(line).read()) == 6, fault
        line.close()


async def test_devices_that_ask_at_once_take_turns_on_the_line() -> None:
    probes = [probe(slave) for slave in range(1, 6)]
    async with bus(probes, paced=True) as simulated:
        line = serial_bus(simulated.master_path, 9600, SystemClock())
        found = await asyncio.gather(*(sensor(line, one.slave).read() for one in probes))
        line.close()
    assert [one.answers for one in probes] == [1] * 5
    assert len({read[0].value for read in found}) > 1, "each answer went to the one who asked"


async def test_a_port_that_was_pulled_out_is_unreachable_and_comes_back(tmp_path: Path) -> None:
    port = tmp_path / "ttyUSB0"
    line = serial_bus(str(port), 9600, SystemClock())
    async with bus([probe()], link=port, paced=False):
        assert len(await sensor(line).read()) == 6
    causes = []
    for _ in range(2):
        with pytest.raises(DeviceUnavailable) as caught:
            await sensor(line).read()
        causes.append(caught.value.cause)
    assert causes[-1] is Cause.UNREACHABLE
    async with bus([probe()], link=port, paced=False):
        assert len(await sensor(line).read()) == 6
    line.close()


@given(st.dictionaries(st.text(max_size=10), st.none() | st.integers() | st.text(max_size=10), max_size=5))
def test_whatever_stands_in_a_map_file_is_a_map_or_a_clear_refusal(told: dict[str, object]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "map.yaml"
        file.write_text(yaml.safe_dump(told), encoding="utf-8")
        with pytest.raises(DeviceMisconfigured, match=r"map\.yaml: "):
            load_map(file)


async def test_a_gateway_is_read_as_a_line_is() -> None:
    async with gateway([probe(3)]) as (host, port):
        line = tcp_bus(host, port, SystemClock())
        found = {one.metric: one.value for one in await sensor(line, 3).read()}
        line.close()
    assert 6.5 < float(found["Water/pH"] or 0) < 8.0


@pytest.mark.parametrize(
    ("fault", "cause"),
    [(Fault.SILENT, Cause.SILENT), (Fault.TRUNCATED, Cause.NONSENSE), (Fault.ILLEGAL_ADDRESS, Cause.NOT_FOUND)],
)
async def test_failures_behind_a_gateway_are_told_apart_and_pass(fault: Fault, cause: Cause) -> None:
    one = probe()
    async with gateway([one]) as (host, port):
        line = tcp_bus(host, port, SystemClock())
        one.faults.forced = fault
        with pytest.raises(DeviceUnavailable) as caught:
            await sensor(line).read()
        line.close()
        one.faults.forced = None
        assert len(await sensor(line).read()) == 6
        line.close()
    assert caught.value.cause is cause


async def test_a_gateway_that_is_gone_refuses() -> None:
    async with gateway([probe()]) as (host, port):
        line = tcp_bus(host, port, SystemClock())
    with pytest.raises(DeviceUnavailable) as caught:
        await sensor(line).read()
    assert caught.value.cause is Cause.REFUSED


async def test_a_dead_slave_is_left_alone_for_longer_and_longer_and_is_found_again_within_a_minute(clock: Any) -> None:
    dead, alive = probe(1), probe(2)
    dead.faults.forced = Fault.SILENT
    async with bus([dead, alive], paced=False) as simulated:
        line = serial_bus(simulated.master_path, 9600, clock)
        asked_at, dead_since = [], clock.monotonic()
        for _ in range(4 * 60):
            before = time.monotonic()
            with pytest.raises(DeviceUnavailable) as caught:
                await sensor(line, 1).read()
            took = time.monotonic() - before
            assert caught.value.cause is Cause.SILENT
            if took > 0.25:
                asked_at.append(round(clock.monotonic() - dead_since))
            before = time.monotonic()
            assert len(await sensor(line, 2).read()) == 6
            assert time.monotonic() - before < 0.25, "the living one waits for nobody"
            await clock.advance(1.0)
        assert asked_at[:7] == [0, 1, 2, 12, 32, 72, 132], "three times, then after 10, 20, 40 and 60 s"
        dead.faults.forced = None
        await clock.advance(60)
        assert len(await sensor(line, 1).read()) == 6
        dead.faults.forced = Fault.SILENT
        with pytest.raises(DeviceUnavailable, match="did not answer"):
            await sensor(line, 1).read()
        line.close()


async def test_a_slave_that_talks_rubbish_is_left_alone_like_a_dead_one_and_keeps_its_cause(clock: Any) -> None:
    one = probe(1)
    one.faults.forced = Fault.CORRUPT
    async with bus([one], paced=False) as simulated:
        line = serial_bus(simulated.master_path, 9600, clock)
        told = []
        for _ in range(4):
            with pytest.raises(DeviceUnavailable) as caught:
                await sensor(line, 1).read()
            told.append(caught.value)
        line.close()
    assert {one.cause for one in told} == {Cause.NONSENSE}
    assert "asked again in 10 s" in str(told[3])


async def test_a_slow_slave_costs_its_neighbours_one_time_limit_and_nothing_while_it_rests(clock: Any) -> None:
    slow, alive = probe(1), probe(2)
    slow.faults.forced = Fault.SLOW
    async with bus([slow, alive], paced=False) as simulated:
        line = serial_bus(simulated.master_path, 9600, clock)
        longest = []
        for _ in range(5):
            before = time.monotonic()
            failing = asyncio.create_task(sensor(line, 1).read())
            await asyncio.sleep(0)
            assert len(await sensor(line, 2).read()) == 6
            longest.append(time.monotonic() - before)
            with pytest.raises(DeviceUnavailable):
                await failing
        line.close()
    assert max(longest[:3]) < 0.3 + 0.2
    assert max(longest[3:]) < 0.2


async def test_a_late_answer_never_passes_for_the_answer_to_another_question(clock: Any) -> None:
    one = probe(1)
    one.faults.forced = Fault.SLOW
    async with bus([one], paced=False) as simulated:
        line = serial_bus(simulated.master_path, 9600, clock)
        with pytest.raises(DeviceUnavailable):
            await line.ask(1, 3, 0, 4, 0.3)
        one.faults.forced = None
        with pytest.raises(DeviceUnavailable, match="earlier question") as caught:
            await line.ask(1, 3, 4, 4, 0.3)
        await clock.advance(5)
        assert len(await line.ask(1, 3, 4, 4, 0.3)) == 4
        line.close()
    assert caught.value.cause is Cause.SILENT


async def test_devices_behind_one_dead_gateway_learn_of_it_together() -> None:
    # A listener that never accepts, with its queue full: connecting hangs as it does to a gateway without power.
    with socket.socket() as deaf, socket.socket() as first, socket.socket() as second:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        for one in (first, second):
            one.setblocking(False)
            one.connect_ex(deaf.getsockname())
        line = tcp_bus("127.0.0.1", deaf.getsockname()[1], SystemClock())
        before = time.monotonic()
        found = await asyncio.gather(*(sensor(line, slave).read() for slave in range(1, 7)), return_exceptions=True)
        took = time.monotonic() - before
    assert {one.cause for one in found if isinstance(one, DeviceUnavailable)} == {Cause.UNREACHABLE}
    assert took < 3 * 0.3


def made(*values: dict[str, Any], **more: Any) -> RegisterMap:
    whole = [{"type": "uint16", "range": [0, 65535], **one} for one in values]
    return RegisterMap.model_validate(
        {"name": "x", "kind": "water_probe", "source": "generic", "values": whole, **more}
    )


def test_values_far_apart_are_asked_in_questions_of_their_own() -> None:
    near = made({"metric": "Water/pH", "address": 10}, {"metric": "Water/Turbidity", "address": 20})
    far = made(
        {"metric": "Water/pH", "address": 1000, "type": "float32"},
        {"metric": "Water/Turbidity", "address": 10},
        status={"address": 12, "fault": [1]},
    )
    assert near.questions == [(10, 11)]
    assert far.questions == [(10, 3), (1000, 2)]


def test_a_map_may_say_which_questions_to_ask() -> None:
    told = made({"metric": "Water/pH", "address": 11}, blocks=[[10, 2]])
    assert told.questions == [(10, 2)]
    with pytest.raises(ValueError, match="register 12 is in none of the blocks"):
        made({"metric": "Water/pH", "address": 12}, blocks=[[10, 2]])
    with pytest.raises(ValueError, match="less than or equal to 125"):
        made({"metric": "Water/pH", "address": 12}, blocks=[[0, 126]])


def test_byte_order_and_word_order_are_data() -> None:
    value = {"metric": "Water/pH", "address": 0, "type": "float32", "range": [0, 14]}
    packed = struct.unpack(">2H", struct.pack(">f", 7.25))
    swapped = [int.from_bytes(word.to_bytes(2, "big"), "little") for word in packed]
    for mapping, words in (
        (made(value), packed),
        (made(value, word_order="little"), packed[::-1]),
        (made(value, byte_order="little"), swapped),
        (made(value, byte_order="little", word_order="little"), swapped[::-1]),
    ):
        assert samples(dict(enumerate(words)), mapping, at=0)[0].value == 7.25


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([{"metric": "Water/pH", "address": 0}, {"metric": "Water/pH", "address": 5}], "mapped twice"),
        (
            [
                {"metric": "Water/pH", "address": 0, "type": "float32"},
                {"metric": "Water/Turbidity", "address": 1},
            ],
            "register 1 belongs to Water/pH and to Water/Turbidity",
        ),
        ([{"metric": "Water/pH", "address": 65535, "type": "float32"}], "beyond register 65535"),
    ],
)
def test_maps_that_contradict_themselves_are_refused(values: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        made(*values)


def test_the_worst_condition_is_told() -> None:
    still = made({"metric": "Water/pH", "address": 0, "range": [0, 14]}, stuck_after_reads=3, status={"address": 1})
    good = samples({0: 7, 1: 0}, still, at=0)
    bad = samples({0: 99, 1: 0}, still, at=0)
    assert condition(good, still, 2) is Condition.OK
    assert condition(good, still, 3) is Condition.STUCK
    assert condition(bad, still, 1) is Condition.OUT_OF_RANGE
    ill = made({"metric": "Water/pH", "address": 0}, status={"address": 1, "fault": [2], "calibrating": [1]})
    assert condition(samples({0: 7, 1: 2}, ill, at=0), ill, 1) is Condition.INSTRUMENT_FAULT
    assert condition(samples({0: 7, 1: 1}, ill, at=0), ill, 1) is Condition.CALIBRATING


async def test_readings_that_stand_still_are_stuck_and_moving_ones_are_not_any_more() -> None:
    now = 1_790_000_000.0
    one = Probe(id="p", slave=1, seed=7, faults=Faults([], time.monotonic), now=lambda: now)
    mapping = MAP.model_copy(update={"stuck_after_reads": 2})
    async with bus([one], paced=False) as simulated:
        line = serial_bus(simulated.master_path, 9600, SystemClock())
        driver = ModbusSensor(line, slave=1, mapping=mapping, timeout=0.3, clock=SystemClock())
        states = []
        for fault in (None, Fault.STUCK, Fault.STUCK, None, None):
            one.faults.forced = fault
            now += 10
            states.append((await driver.read())[-1].value)
        line.close()
    assert states == ["ok", "ok", "stuck", "ok", "ok"]


def test_the_schema_beside_the_maps_is_the_one_that_is_enforced() -> None:
    schema = json.loads((MAPS / "register_map.schema.json").read_text(encoding="utf-8"))
    assert {key: value for key, value in schema.items() if key != "$schema"} == RegisterMap.model_json_schema()
    for path in MAPS.glob("*.yaml"):
        jsonschema.validate(yaml.safe_load(path.read_text(encoding="utf-8")), schema)


@pytest.mark.parametrize(("layout", "name"), [("air", "generic-air-station"), ("hydro", "generic-hydro-station")])
async def test_the_other_stations_are_read_by_their_maps(layout: Layout, name: str) -> None:
    one = Probe(id="s", slave=1, seed=7, faults=Faults([], time.monotonic), now=time.time, layout=layout)
    mapping = load_map(MAPS / f"{name}.yaml")
    async with bus([one], paced=False) as simulated:
        line = serial_bus(simulated.master_path, 9600, SystemClock())
        driver = ModbusSensor(line, slave=1, mapping=mapping, timeout=0.3, clock=SystemClock())
        good = {one.metric: one for one in await driver.read()}
        one.faults.forced = Fault.NOT_A_NUMBER
        bad = {one.metric: one for one in await driver.read()}
        line.close()
    assert all(one.quality is Quality.GOOD for one in good.values())
    assert set(good) == {one.name for one in driver.metrics}
    assert bad[STATE].value == "out_of_range"
