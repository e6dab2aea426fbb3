"""Payloads there and back, and what is refused."""

import contextlib
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract import sparkplug_pb2
from contract.delivery import FLOORS, Committed, Held, Ledger, answer, held_metrics, read_answer, read_held
from contract.metrics import DataType
from contract.payload import MAX_BYTES, DataSet, Payload, PayloadUnreadable, WireMetric, decode, encode
from contract.positions import Lineage, RangeSet

VALUES = {
    DataType.INT8: st.integers(-128, 127),
    DataType.INT16: st.integers(-(2**15), 2**15 - 1),
    DataType.INT32: st.integers(-(2**31), 2**31 - 1),
    DataType.INT64: st.integers(-(2**63), 2**63 - 1),
    DataType.UINT8: st.integers(0, 255),
    DataType.UINT16: st.integers(0, 2**16 - 1),
    DataType.UINT32: st.integers(0, 2**32 - 1),
    DataType.UINT64: st.integers(0, 2**64 - 1),
    DataType.DATETIME: st.integers(0, 2**53),
    DataType.FLOAT: st.floats(width=32, allow_nan=False),
    DataType.DOUBLE: st.floats(allow_nan=False),
    DataType.BOOLEAN: st.booleans(),
    DataType.STRING: st.text(st.characters(exclude_categories=["Cs"])),
    DataType.BYTES: st.binary(),
}
typed = st.sampled_from(sorted(VALUES)).flatmap(lambda kind: st.tuples(st.just(kind), st.none() | VALUES[kind]))


@given(typed, st.booleans(), st.booleans(), st.integers(0, 2**53))
def test_what_is_encoded_comes_back(pair: tuple[DataType, object], historical: bool, transient: bool, at: int) -> None:
    kind, value = pair
    metric = WireMetric(
        name="Nước/pH",
        alias=7,
        at=at,
        datatype=kind,
        value=value,  # type: ignore[arg-type]  # drawn to fit its datatype
        historical=historical,
        transient=transient,
        properties={"Quality": 0, "engUnit": "Cel", "big": 2**40, "neg": -5, "yes": True, "half": 0.5},
    )
    payload = Payload(at=at, seq=255, metrics=(metric,))
    assert decode(encode(payload)) == payload


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (DataType.INT8, 128),
        (DataType.UINT8, 256),
        (DataType.INT32, 2**31),
        (DataType.BOOLEAN, "x"),
        (DataType.DOUBLE, "1"),
    ],
)
def test_a_value_that_does_not_fit_its_datatype_is_refused_by_name(kind: DataType, value: object) -> None:
    with pytest.raises(ValueError, match=r"Water/pH.*" + kind.name):
        encode(Payload(metrics=(WireMetric(name="Water/pH", datatype=kind, value=value),)))  # type: ignore[arg-type]


def test_a_negative_number_in_its_own_width_is_read_too() -> None:
    raw = sparkplug_pb2.Payload()
    raw.metrics.add(name="x", datatype=DataType.INT8, int_value=0xFF)
    assert decode(raw.SerializeToString()).metrics[0].value == -1


def test_a_value_in_the_wrong_field_is_unreadable() -> None:
    raw = sparkplug_pb2.Payload()
    raw.metrics.add(name="x", datatype=DataType.DOUBLE, string_value="7")
    with pytest.raises(PayloadUnreadable, match=r"'?x.*DOUBLE does not go with string_value"):
        decode(raw.SerializeToString())


@given(st.binary(max_size=400))
def test_any_bytes_are_a_payload_or_unreadable(raw: bytes) -> None:
    with contextlib.suppress(PayloadUnreadable):
        decode(raw)


def test_a_payload_over_a_mebibyte_is_refused_unread() -> None:
    with pytest.raises(PayloadUnreadable, match=str(MAX_BYTES)):
        decode(b"\0" * (MAX_BYTES + 1))


lineages = st.builds(
    Lineage, st.sampled_from(["a", "b"]), st.integers(0, 2**63 - 1), st.sampled_from(["", "probe", "loa"])
)
spans = st.lists(
    st.tuples(st.integers(0, 99), st.integers(0, 9)).map(lambda one: (one[0], sum(one))), min_size=1, max_size=4
)
positions = st.dictionaries(lineages, spans.map(RangeSet), max_size=5)


@given(positions, st.integers(0, 2**40), st.frozensets(st.integers(0, 2**63), max_size=3))
def test_a_ledger_comes_back_as_it_was(held: dict[Lineage, RangeSet], window: int, floors: frozenset[int]) -> None:
    ledger = Ledger(positions=held, window=window, floors=floors)
    assert list(read_answer(decode(encode(answer(ledger, 5))))) == [ledger]
    committed = Committed(positions=held)
    assert list(read_answer(decode(encode(answer(committed, 5))))) == [committed]


@given(positions, positions, st.none() | st.integers(0, 2**63))
def test_what_an_edge_node_holds_comes_back_as_it_was(
    held: dict[Lineage, RangeSet], lost: dict[Lineage, RangeSet], floor: int | None
) -> None:
    told = Held(log="a", epoch=2**40 + 1, positions=held, lost=lost, floor=floor)
    epoch = WireMetric(name="Delivery/Epoch", at=5, datatype=DataType.UINT64, value=told.epoch)
    assert read_held(decode(encode(Payload(metrics=(epoch, *held_metrics(told, 5)))))) == told


def test_a_birth_without_a_log_is_a_strangers() -> None:
    assert read_held(Payload()) is None


@pytest.mark.parametrize("columns", [("log",), ("log", "epoch", "stream", "last", "first")])
def test_an_answer_with_other_columns_is_unreadable(columns: tuple[str, ...]) -> None:
    table = DataSet(columns=columns, types=(DataType.STRING,) * len(columns), rows=())
    metric = WireMetric(name="Delivery/Committed", at=1, datatype=DataType.DATASET, value=table)
    with pytest.raises(PayloadUnreadable, match="Delivery/Committed"):
        list(read_answer(decode(encode(Payload(metrics=(metric,))))))


def test_floors_that_are_no_epochs_are_unreadable() -> None:
    table = DataSet(columns=("epoch",), types=(DataType.STRING,), rows=(("E1",),))
    ledger = answer(Ledger(positions={}, window=1), 5)
    metrics = tuple(replace(one, value=table) if one.name == FLOORS else one for one in ledger.metrics)
    with pytest.raises(PayloadUnreadable, match=FLOORS):
        list(read_answer(decode(encode(replace(ledger, metrics=metrics)))))


def test_infinity_and_no_number_are_returned_for_the_caller_to_judge() -> None:
    metric = WireMetric(name="x", datatype=DataType.DOUBLE, value=math.nan)
    value = decode(encode(Payload(metrics=(metric,)))).metrics[0].value
    assert isinstance(value, float)
    assert math.isnan(value)
