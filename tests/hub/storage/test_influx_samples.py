"""Samples in InfluxDB: whatever goes in comes out, under whatever name; a rewrite leaves nothing behind."""

import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract.catalog import CATALOG, PRESENCE, Kind
from contract.metrics import FLOATS, INTEGERS, TEXTS, DataType
from hub.devices import DeviceKey
from hub.storage.flux import text
from hub.storage.influxdb import InfluxStore
from hub.storage.line_protocol import STRANGER, names
from hub.storage.timeseries import HISTORICAL_BIT, Batch, Column

NOW = int(time.time() * 1000)
GOOD, BAD = 192 << 8, 0
SCALARS = sorted(FLOATS | INTEGERS | TEXTS | {DataType.BOOLEAN})

words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
ids = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zs"], exclude_characters="/+#"), min_size=1, max_size=8)


def value_of(kind: DataType) -> st.SearchStrategy[Any]:
    if kind in FLOATS:
        return st.floats(allow_nan=False, allow_infinity=False)
    if kind in TEXTS:
        return st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
    if kind is DataType.BOOLEAN:
        return st.integers(0, 1)
    if kind is DataType.UINT64:
        return st.integers(0, 2**64 - 1)
    return st.integers(-(2**63), 2**63 - 1)


samples = st.sampled_from(SCALARS).flatmap(
    lambda kind: st.tuples(
        ids, words, st.just(kind), st.none() | value_of(kind), st.sampled_from([0, 192, 500]), st.integers(0, 31)
    )
)


def put(batch: Batch, series: int, kind: DataType, at: int, value: Any, mark: int) -> None:
    column: Column = batch.numbers if kind in FLOATS else batch.texts if kind in TEXTS else batch.integers
    if kind is DataType.UINT64 and value is not None and value >= 2**63:
        column, value = batch.texts, str(value)
    column.put(series, at, float("nan") if value is None and column is batch.numbers else value, mark)


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(samples, min_size=1, max_size=40))
def test_every_value_under_every_name_comes_back(
    real_side: Any, tmp_path_factory: pytest.TempPathFactory, given_samples: list[Any]
) -> None:
    side = type(real_side)(
        server=real_side.server, real=True, bucket=real_side.server.bucket(), delivery=real_side.server.bucket()
    )
    folder = tmp_path_factory.mktemp("hub")
    expected: dict[tuple[str, str], Any] = {}
    with side.open(folder) as store:
        made = Batch()
        for device, metric, kind, value, quality, flags in given_samples:
            if (device, metric) in expected:
                continue
            series = store.series(DeviceKey("g", "n", device), metric, kind)
            put(made, series, kind, NOW, value, quality << 8 | flags)
            told = str(value) if kind is DataType.UINT64 and value is not None and value >= 2**63 else value
            expected[device, metric] = (told, quality, flags)
        store.commit(made, NOW)
        assert store.quarantined(0, 99) == []
    with side.open(folder) as store:
        for (device, metric), (value, quality, flags) in expected.items():
            raw = store.raw(DeviceKey("g", "n", device), metric, NOW, NOW + 1, 9)
            assert (list(raw.at), list(raw.value)) == ([NOW], [value])
            assert (list(raw.quality), list(raw.flags)) == ([quality], [flags])
        rows = store.last().to_pylist()
        assert {(one["device"], one["metric"]) for one in rows} == set(expected)
        exported = [row for piece in store.export(NOW, NOW + 1) for row in piece.to_pylist()]
        assert sorted(map(str, exported)) == sorted(map(str, rows))
        assert store.stats().samples == len(expected)


@pytest.mark.parametrize("kind", [DataType.DOUBLE, DataType.STRING, DataType.INT32, DataType.UINT64], ids=str)
def test_a_rewrite_leaves_nothing_of_what_stood_there(real_side: Any, tmp_path: Path, kind: DataType) -> None:
    value = "word" if kind is DataType.STRING else 7
    first = [(value, GOOD), (None, BAD | 1), (value, GOOD | HISTORICAL_BIT), ("a\r\nb" if value == "word" else 8, BAD)]
    key = DeviceKey("g", "n", "probe")
    with real_side.open(tmp_path) as store:
        at = 0
        for before in first:
            for after in first:
                at += 1
                for told, mark in (before, after):
                    made = Batch()
                    put(made, store.series(key, "x", kind), kind, at, told, mark)
                    store.commit(made, 10**9)
                raw = store.raw(key, "x", at, at + 1, 9)
                mark = after[1]
                assert list(raw.value) == [after[0]]
                assert (list(raw.quality), list(raw.flags)) == ([mark >> 8], [mark & 0xFF])


def test_one_name_in_two_datatypes_and_kinds_conflicts_nowhere(real_side: Any, tmp_path: Path) -> None:
    with real_side.open(tmp_path) as store:
        made = Batch()
        for number, kind in enumerate(SCALARS):
            key = DeviceKey("g", "n", f"d{number}")
            value = "1" if kind in TEXTS else 1
            put(made, store.series(key, "Water/pH", kind), kind, NOW, value, GOOD)
            put(made, store.series(DeviceKey("g", "n", "one"), "Water/pH", kind), kind, NOW + number, value, GOOD)
        store.commit(made, NOW)
        assert store.quarantined(0, 99) == []
        for number, kind in enumerate(SCALARS):
            raw = store.raw(DeviceKey("g", "n", f"d{number}"), "Water/pH", NOW, NOW + 1, 9)
            assert list(raw.value) == ["1" if kind in TEXTS else 1]
        assert len(store.raw(DeviceKey("g", "n", "one"), "Water/pH", NOW, NOW + 99, 99).at) == len(SCALARS)


def test_what_the_catalogue_knows_has_its_bare_name_and_no_catalogue_name_could_be_anothers() -> None:
    for kind, row in CATALOG.items():
        device = "" if kind is Kind.EDGE_NODE else "d"
        for metric in row.metrics:
            assert names(DeviceKey("g", "n", device), metric.name, metric.datatype, kind) == (kind.value, metric.name)
            assert "__" not in metric.name
    assert names(DeviceKey("g", "n", ""), f"{PRESENCE}cam-01", DataType.STRING, None)[1] == f"{PRESENCE}cam-01"
    assert names(DeviceKey("g", "n", ""), f"{PRESENCE}a__q", DataType.STRING, None)[1] == f"{PRESENCE}a__q__s"
    assert names(DeviceKey("g", "n", "d"), "Water/pH", DataType.INT64, Kind.WATER_PROBE)[1] == "Water/pH__i"
    assert names(DeviceKey("g", "n", "d"), "time", DataType.DOUBLE, None) == (STRANGER, "time__f")


def test_a_device_stays_in_the_measurement_it_began_in(real_side: Any, tmp_path: Path) -> None:
    key = DeviceKey("g", "n", "probe")
    with real_side.open(tmp_path) as store:
        made = Batch()
        made.numbers.put(store.series(key, "Water/pH", DataType.DOUBLE), 1, 7.0, GOOD)
        store.commit(made, 9)
        settings_of = store._settings
    with InfluxStore(tmp_path, settings_of, lambda key: Kind.AIR_STATION) as store:
        made = Batch()
        made.numbers.put(store.series(key, "Water/pH", DataType.DOUBLE), 1, 7.5, GOOD)
        store.commit(made, 9)
        assert list(store.raw(key, "Water/pH", 0, 9, 9).value) == [7.5]
        assert store.stats().conflicts == 1


@given(st.text())
def test_no_text_is_code_in_a_question(value: str) -> None:
    literal = text(value)
    assert literal[0] == literal[-1] == '"'
    assert set(literal[1:-1]) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_./-\\")
    raw = literal[1:-1].encode().decode("unicode_escape").encode("latin-1")
    assert raw.decode("utf-8", "surrogatepass") == value
