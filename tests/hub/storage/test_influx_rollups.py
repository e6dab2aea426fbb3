"""Long questions to InfluxDB: rolled up, owed, late, after a lost cache: the answers are the embedded store's."""

import math
import random
from pathlib import Path
from typing import Any

import pytest

from contract.catalog import report_seconds
from contract.metrics import DataType
from hub.devices import DeviceKey, NodeKey
from hub.storage.embedded import EmbeddedStore
from hub.storage.influx_rollups import Owed, owed_by, spans
from hub.storage.rollups import HOURS_MS
from hub.storage.timeseries import Batch, Buckets, TimeSeries

START = 1_790_000_000_000 // HOURS_MS * HOURS_MS
DAY = 24 * HOURS_MS
METRIC = "Water/pH"
HOLD = report_seconds(METRIC) * 1000
KEYS = [DeviceKey("g", f"n{node}", f"d{device}") for node in range(2) for device in range(2)]
SETTLED = 600_000


def batches(seed: int, start: int, end: int, count: int) -> list[list[tuple[int, int, float, int]]]:
    """Return batches of samples: which device, when, what, and its mark."""
    dice = random.Random(seed)
    marks = [192 << 8, 192 << 8, 192 << 8, 0, 192 << 8 | 2]

    def one() -> tuple[int, int, float, int]:
        return dice.randrange(len(KEYS)), dice.randrange(start, end, 1000), dice.uniform(-5, 5), dice.choice(marks)

    return [[one() for _ in range(count)] for _ in range(4)]


def commit(store: TimeSeries, samples: list[tuple[int, int, float, int]]) -> None:
    made = Batch()
    for device, at, value, mark in samples:
        made.numbers.put(store.series(KEYS[device], METRIC, DataType.DOUBLE), at, value, mark)
    store.commit(made, START)


def same(one: Buckets, other: Buckets) -> None:
    assert list(one.at) == list(other.at)
    for name in Buckets.__slots__:
        left, right = ([math.nan if told is None else told for told in getattr(each, name)] for each in (one, other))
        assert left == pytest.approx(right, rel=1e-9, abs=1e-9, nan_ok=True), name


def compared(store: TimeSeries, other: TimeSeries) -> None:
    for key in KEYS:
        for start, end, count in (
            (START - DAY, START + 4 * DAY, 20),
            (START - 45 * DAY, START + 4 * DAY + 5000, 49),
            (START + 5, START + DAY, 3),
        ):
            same(
                store.buckets(key, METRIC, start, end, count, HOLD), other.buckets(key, METRIC, start, end, count, HOLD)
            )
    groups = [each.by_group(METRIC, START, START + 3 * DAY, 12, HOLD) for each in (store, other)]
    assert set(groups[0]) == set(groups[1]) == {"g"}
    same(groups[0]["g"], groups[1]["g"])


def test_long_answers_are_those_of_the_embedded_store_whatever_is_rolled_up(real_side: Any, tmp_path: Path) -> None:
    rollups = real_side.server.bucket()
    with EmbeddedStore(tmp_path / "embedded") as other:
        with real_side.open(tmp_path / "hub", rollup_bucket=rollups) as store:
            store.tend(START + SETTLED)
            for samples in batches(1, START - DAY // 2, START + 3 * DAY, 400):
                commit(store, samples)
                commit(other, samples)
            compared(store, other)  # nothing is rolled up yet
            for day in range(1, 4):
                store.tend(START + day * DAY + SETTLED)
            assert store._rolling.owed == {}
            assert store._rolling.until == START + 3 * DAY
            assert real_side.server.count(rollups) > 1000
            compared(store, other)
            for samples in batches(2, START - DAY // 2, START + 3 * DAY, 20):  # late
                commit(store, samples)
                commit(other, samples)
            assert store._rolling.owed
            compared(store, other)  # what is owed is read from samples
        (tmp_path / "hub" / "store.db").unlink()
        with real_side.open(tmp_path / "hub", rollup_bucket=rollups) as store:
            assert store._rolling.owed
            store.tend(START + 3 * DAY + SETTLED)
            assert store._rolling.owed == {}
            compared(store, other)


def test_what_comes_while_its_hour_is_rolled_up_is_still_owed(real_side: Any, tmp_path: Path) -> None:
    with real_side.open(tmp_path, rollup_bucket=real_side.server.bucket()) as store:
        store.tend(START + SETTLED)
        commit(store, [(0, START + 5000, 1.0, 192 << 8)])
        asked = store._rolling._read

        def meanwhile(node: NodeKey, start: int, end: int) -> Any:
            found = asked(node, start, end)
            if node == KEYS[0].of_node and start + HOURS_MS == START and not late:
                late.append(True)
                commit(store, [(0, START + 9000, 2.0, 192 << 8)])
            return found

        late: list[bool] = []
        store._rolling._read = meanwhile
        store._plan_hours(START + HOURS_MS + SETTLED)
        store._roll()
        assert Owed(START, KEYS[0].of_node) in store._rolling.owed
        store.tend(START + HOURS_MS + SETTLED)
        assert store._rolling.owed == {}
        found = store.buckets(KEYS[0], METRIC, START, START + 6 * HOURS_MS, 1, HOLD)
        assert list(found.count) == [2]


def test_a_sample_owes_its_hour_and_the_one_it_may_stand_into() -> None:
    node = NodeKey("g", "n")
    until = START + 2 * HOURS_MS
    assert owed_by([(node, START + 5)], until) == {Owed(START, node), Owed(START + HOURS_MS, node)}
    assert owed_by([(node, until - 1)], until) == {Owed(START + HOURS_MS, node)}
    assert owed_by([(node, until)], until) == set()
    assert Owed.read(Owed(START, node).mark) == Owed(START, node)


def test_hours_are_read_from_rollups_only_where_they_stand() -> None:
    hours = [START + HOURS_MS * number for number in range(6)]
    good, raw = spans(hours[0], hours[5], (hours[1], hours[4]), [hours[2]])
    assert good == [hours[1], hours[3]]
    assert raw == [(hours[0], hours[1]), (hours[2], hours[3]), (hours[4], hours[5])]
