"""The short way of reading data does exactly what the long way does, or stands aside."""

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract import sparkplug_pb2
from contract.catalog import KIND
from contract.delivery import EPOCH, FIRST, LAST
from contract.metrics import DataType
from contract.payload import Payload
from contract.topics import MessageType
from hub import decode, templates
from hub.devices import NodeKey

NODE = NodeKey("g", "n-01")
BASE = 1 << 40
TYPES = [DataType.DOUBLE, DataType.INT64, DataType.BOOLEAN, DataType.STRING, DataType.FLOAT, DataType.UINT64]
FIELDS = ["double_value", "long_value", "boolean_value", "string_value", "float_value", "long_value"]


def births(hub: Any, make: Any) -> None:
    now = hub.clock.now_ms()
    hub.give(MessageType.NBIRTH, make.node_birth("log", now))
    metrics = [make.wire(KIND, DataType.STRING, "water_probe", now)]
    metrics += [
        make.wire(name, DataType.UINT64, None, now, BASE + place) for place, name in enumerate((EPOCH, FIRST, LAST))
    ]
    metrics += [make.wire(f"M/{place}", kind, None, now, BASE + 10 + place) for place, kind in enumerate(TYPES)]
    hub.give(MessageType.DBIRTH, Payload(at=now, seq=1, metrics=tuple(metrics)), "probe")


def message(now: int, number: int, values: tuple[Any, ...], *, seq: int | None = None) -> sparkplug_pb2.Payload:
    made = sparkplug_pb2.Payload(timestamp=now + number, seq=(number + 2) % 256 if seq is None else seq)
    for place, value in enumerate((1, number, number)):
        made.metrics.add(alias=BASE + place, timestamp=now + number, long_value=value)
    for place, (field, value) in enumerate(zip(FIELDS, values, strict=True)):
        made.metrics.add(alias=BASE + 10 + place, timestamp=now + number, **{field: value})
    return made


def taken(hub: Any) -> dict[str, Any]:
    """Return all that a hub made of what it was given."""
    hub.ingest.tally.bring_up()
    batch = hub.ingest.committing.batch
    columns = {
        name: sorted(zip(one.series, one.at, map(repr, one.value), one.marks, strict=True))
        for name, one in (("numbers", batch.numbers), ("integers", batch.integers), ("texts", batch.texts))
    }
    view = hub.ingest._nodes[NODE]
    live = [
        (one.id, one.last_seen, {name: repr(told) for name, told in one.values.items()}) for one in hub.live.devices()
    ]
    counted = {
        (sample.name, *sample.labels.values()): sample.value
        for family in hub.counters.registry.collect()
        for sample in family.samples
        if not sample.name.endswith("_created")
    }
    return {
        **columns,
        "committed": batch.committed,
        "events": batch.events,
        "quarantined": batch.quarantined,
        "bytes": batch.wire_bytes,
        "accepted": view.accepted,
        "session": view.session,
        "live": live,
        "counted": counted,
        "wild": view.answers.times.wild(hub.clock.monotonic()),
    }


@pytest.fixture
def short_and_long(another: Any, make: Any) -> Callable[[], tuple[Any, Any]]:
    """Return a maker of a hub that may take the short way and one that never does, an edge node born at both."""

    def made() -> tuple[Any, Any]:
        short, long = another(), another()
        long.ingest._take_alike = lambda *_: False
        for hub in (short, long):
            births(hub, make)
        return short, long

    return made


def both(hubs: tuple[Any, Any], raw: bytes) -> None:
    for hub in hubs:
        hub.give(MessageType.DDATA, raw, "probe")


def test_what_is_alike_takes_the_short_way(intake: Any, make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    births(intake, make)
    now, long_ways = intake.clock.now_ms(), list[int]()
    walk = decode._Walk.through

    def count(self: Any, metrics: Any, told_at: int) -> None:
        long_ways.append(told_at)
        walk(self, metrics, told_at)

    monkeypatch.setattr(decode._Walk, "through", count)
    for number in range(300):
        values = (number / 7, 1000 + number, number % 2 == 0, "idle", 0.5, 2**40 + number)
        intake.give(MessageType.DDATA, message(now - 1000, number, values).SerializeToString(), "probe")
    assert intake.ingest.committing.batch.samples == 300 * 6
    assert 0 < len(long_ways) <= 5, "the first, and when a number needs another byte"
    probe = next(one for one in intake.live.devices() if one.key.device == "probe")
    assert (probe.values["M/0"].value, probe.values["M/2"].value) == (299 / 7, False)


numbers = st.floats(width=32) | st.sampled_from([0.0, -0.0, math.nan, math.inf, 1e38])
counts = st.integers(0, 2**64 - 1) | st.integers(0, 300)
rows = st.tuples(numbers, counts, st.booleans(), st.sampled_from(["", "idle", "đang", "busy"]), numbers, counts)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(rows, st.integers(-3, 3), st.booleans()), min_size=2, max_size=12))
def test_any_values_are_taken_the_same_both_ways(
    short_and_long: Callable[[], tuple[Any, Any]], told: list[tuple[Any, int, bool]]
) -> None:
    hubs = short_and_long()
    now, start = hubs[0].clock.now_ms(), 4
    for number, (values, shift, historical) in enumerate(told):
        payload = message(now, start + number + shift * (number > 3), values, seq=(number + 2) % 256)
        for metric in payload.metrics[3:] if historical else ():
            metric.is_historical = True
        both(hubs, payload.SerializeToString())
    assert taken(hubs[0]) == taken(hubs[1])


@settings(deadline=None, max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=4),
    cut=st.integers(0, 3),
    tail=st.binary(max_size=3),
    ahead=st.sampled_from([0, 1, 5]),
)
def test_a_mutilated_message_is_taken_the_same_both_ways(
    short_and_long: Callable[[], tuple[Any, Any]], changes: list[tuple[int, int]], cut: int, tail: bytes, ahead: int
) -> None:
    hubs = short_and_long()
    now = hubs[0].clock.now_ms()
    good = (7.25, 1234, True, "idle", 0.5, 77)
    for number in range(3):
        both(hubs, message(now - 9, number, good).SerializeToString())
    assert hubs[0].ingest._nodes[NODE].tables["probe"].templates
    raw = bytearray(message(now - 9, 3 + ahead, good).SerializeToString())
    for place, value in changes:
        raw[place % len(raw)] = value
    both(hubs, bytes(raw[: len(raw) - cut]) + tail)
    both(hubs, message(now, 40, good, seq=6).SerializeToString())
    assert taken(hubs[0]) == taken(hubs[1])


def test_a_device_whose_messages_are_never_alike_is_not_learnt_for_ever(intake: Any, make: Any) -> None:
    births(intake, make)
    now = intake.clock.now_ms()
    for number in range(300):
        values = (1.0, 1 << (number % 60), True, "x" * (number % 70), 0.5, 1 << (number % 50))
        intake.give(MessageType.DDATA, message(now - 1000, number, values).SerializeToString(), "probe")
    known = intake.ingest._nodes[NODE].tables["probe"].templates
    assert 1 < sum(map(len, known.values())) <= templates.MOST_TEMPLATES
    assert intake.ingest.committing.batch.samples == 300 * 6


def test_a_birth_ends_what_was_learnt(intake: Any, make: Any) -> None:
    births(intake, make)
    now = intake.clock.now_ms()
    good = (7.25, 1234, True, "idle", 0.5, 77)
    intake.give(MessageType.DDATA, message(now, 0, good).SerializeToString(), "probe")
    assert intake.ingest._nodes[NODE].tables["probe"].templates
    intake.give(MessageType.NBIRTH, make.node_birth("log", now))
    intake.give(MessageType.DDATA, message(now, 1, good).SerializeToString(), "probe")
    assert intake.ingest.committing.batch.samples == 6, "its device is not born in this session"
