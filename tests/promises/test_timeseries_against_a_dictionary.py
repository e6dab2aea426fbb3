"""A store of readings against the plainest model of one, through late and repeated samples, seals, merges, restarts."""

import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract.metrics import DataType, Value
from hub.devices import DeviceKey, NodeKey
from hub.storage.buckets import buckets, edges_of, mean_of
from hub.storage.embedded import EmbeddedStore
from hub.storage.timeseries import STREAM_GAP_MS, Batch, Buckets, Reach, TimeSeries

DAY, HOUR = 86_400_000, 3_600_000
BASE = 20_000 * DAY
END = BASE + 2 * DAY
STEP = 431_000
"""Samples stand on a grid of 7 min 11 s, so that hours and silences begin anywhere."""

NODE = NodeKey("g", "n")
SERIES = (
    (DeviceKey("g", "n", "a"), "x", DataType.DOUBLE),
    (DeviceKey("g", "n", "b"), "x", DataType.DOUBLE),
    (DeviceKey("h", "m", "a"), "x", DataType.DOUBLE),
    (DeviceKey("h", "m", "a"), "whole", DataType.INT64),
    (DeviceKey("g", "n", ""), "Presence/a", DataType.STRING),
    (DeviceKey("g", "n", ""), "Presence/b", DataType.STRING),
    (DeviceKey("g", "n", ""), "load", DataType.DOUBLE),
)
WORDS = ("online", "unreachable", None)


@dataclass(slots=True)
class Model:
    """What was committed: by series and instant the values in the order of their commits."""

    committed: dict[int, dict[int, list[tuple[Value, int]]]] = field(default_factory=dict)

    def put(self, series: int, at: int, value: Value, mark: int) -> None:
        self.committed.setdefault(series, {}).setdefault(at, []).append((value, mark))

    def of(self, series: int) -> list[tuple[int, Value, int]]:
        return [(at, *told[-1]) for at, told in sorted(self.committed.get(series, {}).items())]

    def conflicts(self, which: Sequence[int]) -> int:
        return sum(
            len({value for value, _ in told}) > 1 for one in which for told in self.committed.get(one, {}).values()
        )


sample = st.tuples(st.integers(0, len(SERIES) - 1), st.integers(0, 399), st.integers(0, 3), st.sampled_from([192, 0]))
run = st.tuples(st.integers(0, len(SERIES) - 1), st.integers(0, 399), st.integers(1, 60), st.integers(0, 3))
step = st.one_of(
    st.lists(sample, max_size=12).map(lambda one: ("samples", one)),
    run.map(lambda one: ("run", one)),
    st.sampled_from([("hour", None), ("day", None), ("restart", None)]),
)


def value_of(series: int, drawn: int) -> Value:
    kind = SERIES[series][2]
    return WORDS[drawn % 3] if kind == DataType.STRING else drawn if kind == DataType.INT64 else drawn / 2


def put(store: TimeSeries, model: Model, batch: Batch, series: int, place: int, drawn: int, quality: int) -> None:
    key, metric, kind = SERIES[series]
    column = {DataType.STRING: batch.texts, DataType.INT64: batch.integers}.get(kind, batch.numbers)
    value, mark = value_of(series, drawn), quality << 8 | (4 if drawn == 3 else 0)
    column.put(store.series(key, metric, kind), BASE + place * STEP, value, mark)
    model.put(series, BASE + place * STEP, value, mark)


steps_of = st.lists(step, min_size=1, max_size=14)


@pytest.mark.timeout(240)
@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps_of)
def test_the_embedded_store_answers_as_a_dictionary_would(tmp_path: Path, steps: list[tuple[str, Any]]) -> None:
    folder = tmp_path / uuid.uuid4().hex
    follow(lambda: EmbeddedStore(folder), steps)


A_WEEK_END: list[tuple[str, Any]] = [
    ("run", (4, 0, 60, 0)),
    ("run", (6, 0, 60, 1)),
    ("run", (0, 3, 50, 2)),
    ("samples", [(0, 70, 1, 192), (1, 5, 2, 0), (1, 5, 3, 192), (3, 9, 3, 192), (2, 390, 1, 192)]),
    ("hour", None),
    ("run", (4, 40, 30, 1)),
    ("run", (0, 0, 20, 3)),
    ("restart", None),
    ("samples", [(5, 30, 2, 192), (0, 70, 2, 192), (6, 100, 1, 192), (4, 100, 0, 192)]),
    ("day", None),
    ("samples", [(0, 60, 1, 192), (0, 2, 1, 192), (4, 100, 1, 192)]),
]


@pytest.mark.timeout(180)
def test_any_store_answers_as_a_dictionary_would(opened: Any) -> None:
    follow(opened, A_WEEK_END)


def follow(place: Callable[[], AbstractContextManager[TimeSeries]], steps: Sequence[tuple[str, Any]]) -> None:
    model, now = Model(), END
    opened = place()
    store = opened.__enter__()
    try:
        for what, drawn in steps:
            match what, drawn:
                case "samples", list() as several:
                    batch = Batch()
                    for series, at, value, quality in several:
                        put(store, model, batch, series, at, value, quality)
                    store.commit(batch, now)
                case "run", (series, first, length, value):
                    batch = Batch()
                    for at in range(first, min(first + length, 400)):
                        put(store, model, batch, series, at, value, 192)
                    store.commit(batch, now)
                case "restart", _:
                    opened.__exit__(None, None, None)
                    opened = place()
                    store = opened.__enter__()
                case _:
                    now += HOUR if what == "hour" else DAY
                    store.tend(now)
        compare(store, model)
    finally:
        opened.__exit__(None, None, None)


def compare(store: TimeSeries, model: Model) -> None:
    exported = [
        (*(row[name] for name in ("group", "node", "device", "metric", "at")), plain(row), row["quality"], row["flags"])
        for rows in store.export(BASE, END)
        for row in rows.to_pylist()
    ]
    ordered = sorted(range(len(SERIES)), key=lambda one: SERIES[one][:2])
    assert exported == [
        (key.group, key.node, key.device, metric, at, value, mark >> 8, mark & 0xFF)
        for series in ordered
        for key, metric, _ in [SERIES[series]]
        for at, value, mark in model.of(series)
    ]
    for series, (key, metric, _) in enumerate(SERIES):
        raw = store.raw(key, metric, BASE, END, 10_000)
        assert list(zip(raw.at, raw.value, strict=True)) == [(at, value) for at, value, _ in model.of(series)]
        assert (
            list(store.raw(key, metric, BASE + 40 * STEP, END, 3).at)
            == [at for at, _, _ in model.of(series) if at >= BASE + 40 * STEP][:3]
        )
    last = {(row["group"], row["node"], row["device"], row["metric"]): row for row in store.last().to_pylist()}
    assert {key: (row["at"], plain(row)) for key, row in last.items()} == {
        (key.group, key.node, key.device, metric): model.of(series)[-1][:2]
        for series, (key, metric, _) in enumerate(SERIES)
        if model.of(series)
    }
    everything = range(len(SERIES))
    stats = store.stats()
    assert stats.samples == sum(len(model.of(one)) for one in everything)
    assert stats.conflicts == model.conflicts(everything)
    of_node = [one for one in everything if SERIES[one][0].of_node == NODE]
    told = store.completeness(NODE, BASE, END)
    assert told.samples == sum(len(model.of(one)) for one in of_node)
    assert told.historical == sum(mark & 4 != 0 for one in of_node for _, _, mark in model.of(one))
    assert told.conflicts == model.conflicts(of_node)
    assert told.records == len({(SERIES[one][0].device, at) for one in of_node for at, _, _ in model.of(one)})
    for start, end, count in ((BASE, END, 48), (BASE, END, 576), (BASE + 7_000, END - 1_003, 31)):
        found = {}
        for series in (0, 1, 2, 3):
            key, metric, _ = SERIES[series]
            found[key, metric] = store.buckets(key, metric, start, end, count, 300_000)
            same(found[key, metric], plain_buckets(model, series, start, end, count))
    grouped = store.by_group("x", BASE, END, 48, 300_000)
    by_device = {key: store.buckets(key, "x", BASE, END, 48, 300_000) for key in {SERIES[one][0] for one in (0, 1, 2)}}
    known = {SERIES[one][0] for one in (0, 1, 2) if model.of(one)}
    for group in {key.group for key in known}:
        same(grouped[group], mean_of([by_device[key] for key in sorted(known) if key.group == group]))
    check_availability(store, model)


def plain(row: Mapping[str, Value]) -> Value:
    return next((row[name] for name in ("number", "integer", "text") if row[name] is not None), None)


def plain_buckets(model: Model, series: int, start: int, end: int, count: int) -> Buckets:
    rows = [one for one in model.of(series) if start - 300_000 <= one[0] < end]
    at = np.array([one[0] for one in rows], dtype=np.int64)
    value = np.array([np.nan if one[1] is None else float(one[1]) for one in rows])
    good = np.array([one[2] >> 8 == 192 for one in rows], dtype=bool) & ~np.isnan(value)
    return buckets(at, value, good, edges=edges_of(start, end, count), hold_ms=300_000)


def same(left: Buckets, right: Buckets) -> None:
    for name in Buckets.__slots__:
        for one, other in zip(getattr(left, name), getattr(right, name), strict=True):
            assert one == (other if other is None else pytest.approx(other, rel=1e-9, abs=1e-6)), name


def check_availability(store: TimeSeries, model: Model) -> None:
    start, end = BASE + HOUR // 3, END - HOUR // 7
    devices = [DeviceKey("g", "n", "a"), DeviceKey("g", "n", "b"), DeviceKey("h", "m", "a")]
    found = store.availability(devices, start, end)
    heard = sorted({at for one in (4, 5, 6) for at, _, _ in model.of(one)})
    for device, series in zip(devices, (4, 5, None), strict=True):
        intervals = found[device]
        assert [one.start for one in intervals] == [start, *(one.end for one in intervals[:-1])]
        assert intervals[-1].end == end
        for one in intervals:
            for at in {one.start, one.end - 1, (one.start + one.end) // 2}:
                claim = next((v for when, v, _ in reversed(model.of(series)) if when <= at), None) if series else None
                before = max((when for when in heard if when <= at), default=None)
                after = min((when for when in heard if when > at), default=max(end, (before or 0)))
                silent = series is None or before is None or after - before > STREAM_GAP_MS
                if silent or claim is None:
                    assert one.state is Reach.UNKNOWN, (device, at)
                else:
                    assert one.state is (Reach.UP if claim == "online" else Reach.DOWN), (device, at)
                    assert one.cause == ("" if claim == "online" else claim)
