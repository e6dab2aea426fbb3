"""What becomes of messages: good ones are stored once, bad ones never as good, nothing undecided is acknowledged."""

import math
from dataclasses import replace
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract import sparkplug_pb2
from contract.catalog import Kind
from contract.delivery import Committed, Ledger
from contract.metrics import DataType
from contract.payload import Payload, encode
from contract.positions import Lineage, RangeSet
from contract.topics import MessageType
from hub.devices import DeviceKey, NodeKey
from hub.presence import State
from hub.storage.timeseries import StoreUnavailable

NODE = NodeKey("g", "n-01")
PROBE = DeviceKey("g", "n-01", "probe")
PH, TEMPERATURE = 20, 21
LINEAGE = Lineage("log", 1, "probe")


def counted(counter: Any) -> dict[str, float]:
    return {
        sample.labels.get("reason", ""): sample.value
        for family in counter.collect()
        for sample in family.samples
        if sample.name.endswith("_total") and sample.value
    }


async def test_good_samples_are_live_stored_and_accounted(intake: Any, make: Any) -> None:
    now = intake.clock.now_ms()
    intake.births()
    ph = make.by_alias(PH, DataType.DOUBLE, 7.2, now)
    intake.give(MessageType.DDATA, make.data(ph, at=now), "probe")
    await intake.commit()
    assert intake.store.stats().samples == 1
    assert intake.store.ledger(NODE) == {LINEAGE: RangeSet([(0, 0)])}
    probe = next(one for one in intake.live.devices() if one.key == PROBE)
    assert probe.kind is Kind.WATER_PROBE
    assert (probe.values["Water/pH"].value, probe.values["Water/pH"].unit) == (7.2, "")
    raw = intake.store.raw(PROBE, "Water/pH", now, now + 1, 10)
    assert raw.value == [7.2]


async def test_what_comes_again_is_neither_stored_nor_acted_on_again(intake: Any, make: Any) -> None:
    now = intake.clock.now_ms()
    intake.births(kind=Kind.LOUDSPEAKER)
    playing = make.by_alias(20, DataType.STRING, "playing", now)
    for _ in range(3):
        intake.give(MessageType.DDATA, make.data(playing, at=now), "probe")
    await intake.commit()
    assert intake.store.stats().samples == 1
    assert len(intake.store.events(0, "Playback/State", 10)) == 1


async def test_a_partly_known_message_brings_only_what_is_new(intake: Any, make: Any) -> None:
    now = intake.clock.now_ms()
    intake.births()
    samples = [make.by_alias(PH, DataType.DOUBLE, 7.0 + one / 10, now + one) for one in range(4)]
    intake.give(MessageType.DDATA, make.data(*samples[:2], at=now, last=1), "probe")
    intake.give(MessageType.DDATA, make.data(*samples, at=now, last=3), "probe")
    await intake.commit()
    assert intake.store.stats().samples == 4
    assert sum(map(len, [intake.store.raw(PROBE, "Water/pH", now, now + 9, 99).at])) == 4
    assert intake.store.ledger(NODE) == {LINEAGE: RangeSet([(0, 3)])}


async def test_old_news_goes_to_history_and_never_to_live_state(intake: Any, make: Any) -> None:
    now = intake.clock.now_ms()
    intake.births()
    new = make.by_alias(PH, DataType.DOUBLE, 7.5, now)
    intake.give(MessageType.DDATA, make.data(new, at=now, first=1, last=1), "probe")
    for offset, historical in ((0, True), (2, False)):
        old = make.by_alias(PH, DataType.DOUBLE, 6.1, now - 60_000 - offset, historical=historical)
        intake.give(MessageType.DDATA, make.data(old, at=now, first=offset, last=offset), "probe")
    await intake.commit()
    probe = next(one for one in intake.live.devices() if one.key == PROBE)
    assert probe.values["Water/pH"].value == 7.5
    assert intake.store.stats().samples == 3


@pytest.mark.parametrize(
    ("value", "field", "reason"),
    [
        (math.nan, "double_value", "not_a_number"),
        (math.inf, "double_value", "not_a_number"),
        ("7", "string_value", "wrong_datatype"),
        (7, "int_value", "wrong_datatype"),
    ],
)
async def test_what_can_never_be_good_goes_to_quarantine_and_is_acknowledged(
    intake: Any, make: Any, value: object, field: str, reason: str
) -> None:
    now = intake.clock.now_ms()
    intake.births()
    raw = sparkplug_pb2.Payload.FromString(encode(make.data(at=now)))
    raw.metrics.add(alias=PH, timestamp=now, **{field: value})
    raw.metrics.add(alias=TEMPERATURE, timestamp=now, double_value=28.5)
    intake.give(MessageType.DDATA, raw.SerializeToString(), "probe")
    await intake.commit()
    stats = intake.store.stats()
    assert (stats.samples, stats.quarantined) == (1, 1), "its good neighbour is stored"
    assert counted(intake.counters.quarantined) == {reason: 1}
    assert intake.store.ledger(NODE) == {LINEAGE: RangeSet([(0, 0)])}


@pytest.mark.parametrize("shift", [-401 * 86_400_000, 6 * 60_000, 10**18])
async def test_an_impossible_time_goes_to_quarantine(intake: Any, make: Any, shift: int) -> None:
    now = intake.clock.now_ms()
    intake.births()
    intake.give(MessageType.DDATA, make.data(make.by_alias(PH, DataType.DOUBLE, 7.0, now + shift), at=now), "probe")
    await intake.commit()
    assert (intake.store.stats().samples, intake.store.stats().quarantined) == (0, 1)


@pytest.mark.parametrize("last", [1, 5, 2**40, 2**64 - 1])
async def test_a_message_whose_count_is_wrong_is_quarantined_whole(intake: Any, make: Any, last: int) -> None:
    now = intake.clock.now_ms()
    intake.births()
    intake.give(MessageType.DDATA, make.data(make.by_alias(PH, DataType.DOUBLE, 7.0, now), at=now, last=last), "probe")
    await intake.commit()
    assert (intake.store.stats().samples, intake.store.stats().quarantined) == (0, 1)
    swallowed = sum(map(len, intake.store.ledger(NODE).values()))
    assert swallowed < 100, "a wild range must not acknowledge what was never sent"


@pytest.mark.parametrize("alias", [999, 2**63])
async def test_an_unknown_alias_is_not_acknowledged_and_asks_for_a_rebirth(intake: Any, make: Any, alias: int) -> None:
    now = intake.clock.now_ms()
    intake.births()
    good, bad = make.by_alias(PH, DataType.DOUBLE, 7.0, now), make.by_alias(alias, DataType.DOUBLE, 7.0, now)
    intake.give(MessageType.DDATA, make.data(good, bad, at=now), "probe")
    await intake.commit()
    assert intake.store.stats().samples == 0
    assert intake.store.ledger(NODE) == {}
    intake.ingest.answering.ask_for_births()
    intake.ingest.answering.ask_for_births()
    rebirths = [payload for topic, payload in intake.line.sent if topic == "spBv1.0/g/NCMD/n-01"]
    assert [one.metrics[0].name for one in rebirths] == ["Node Control/Rebirth"]
    assert rebirths[0].seq is None


async def test_data_before_birth_and_of_an_unborn_device_is_not_taken(intake: Any, make: Any) -> None:
    now = intake.clock.now_ms()
    ph = make.by_alias(PH, DataType.DOUBLE, 7.0, now)
    intake.give(MessageType.DDATA, make.data(ph, at=now), "probe")
    intake.births()
    intake.give(MessageType.DDATA, make.data(ph, at=now), "stranger")
    await intake.commit()
    assert intake.store.stats().samples == 0
    assert counted(intake.counters.dropped) == {"before_birth": 1, "unborn_device": 1}


async def test_an_alias_given_twice_stands_for_nothing(intake: Any, make: Any) -> None:
    now = intake.clock.now_ms()
    intake.give(MessageType.NBIRTH, make.node_birth("log", now))
    birth = make.device_birth(Kind.WATER_PROBE, now)
    twice = make.wire("Water/Lie", DataType.DOUBLE, None, now, PH)
    intake.give(MessageType.DBIRTH, Payload(at=now, seq=1, metrics=(*birth.metrics, twice)), "probe")
    intake.give(MessageType.DDATA, make.data(make.by_alias(PH, DataType.DOUBLE, 7.0, now), at=now), "probe")
    await intake.commit()
    assert intake.store.stats().samples == 0


async def test_a_stranger_is_stored_by_key_and_shown_as_foreign(intake: Any, make: Any) -> None:
    now = intake.clock.now_ms()
    intake.births(log=None)
    ph = make.by_alias(PH, DataType.DOUBLE, 7.0, now)
    intake.give(MessageType.DDATA, Payload(at=now, seq=2, metrics=(ph,)), "probe")
    await intake.commit()
    probe = next(one for one in intake.live.devices() if one.key == PROBE)
    assert probe.foreign
    assert probe.values["Water/pH"].value == 7.0
    assert intake.store.stats().samples >= 1
    assert intake.store.ledger(NODE) == {}


async def test_a_device_is_offline_by_its_nodes_word_and_stale_when_the_node_dies(intake: Any, make: Any) -> None:
    now = intake.clock.now_ms()
    intake.births()
    silent = make.by_alias(4, DataType.STRING, "silent", now)
    intake.give(MessageType.NDATA, make.data(silent, at=now, base=1))
    assert intake.live.presence(PROBE).state is State.OFFLINE
    assert intake.live.presence(PROBE).cause == "silent"
    death = Payload(at=now, metrics=(make.wire("bdSeq", DataType.INT64, 0, now),))
    intake.give(MessageType.NDEATH, death)
    assert intake.live.presence(PROBE).state is State.OFFLINE, "an old death changes nothing"
    death = Payload(at=now, metrics=(make.wire("bdSeq", DataType.INT64, 1, now),))
    intake.give(MessageType.NDEATH, death)
    assert intake.live.presence(PROBE).state is State.STALE


async def test_a_store_that_is_down_holds_acknowledgements_and_live_state_goes_on(
    intake: Any, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = intake.clock.now_ms()
    intake.births()
    intake.store._books._database.execute("PRAGMA max_page_count = 1")
    big = [make.by_alias(PH, DataType.DOUBLE, 7 + one / 1000, now + one) for one in range(4000)]
    intake.give(MessageType.DDATA, make.data(*big, at=now, last=3999), "probe")
    batch = intake.ingest.committing.batch
    with pytest.raises(StoreUnavailable, match="full"):
        intake.store.commit(batch, now)
    assert intake.store.ledger(NODE) == {}
    assert intake.store.stats().samples == 0
    assert next(one for one in intake.live.devices() if one.key == PROBE).values["Water/pH"].value == 10.999
    intake.store._books._database.execute("PRAGMA max_page_count = 1000000")
    intake.store.commit(batch, now)
    assert intake.store.stats().samples == 4000


async def test_the_hub_tells_its_ledger_after_a_birth_and_what_it_committed_since(intake: Any, make: Any) -> None:
    now = intake.clock.now_ms()
    intake.births()
    (ledger,) = intake.answer()
    assert isinstance(ledger, Ledger)
    assert ledger.window > 0
    intake.give(MessageType.DDATA, make.data(make.by_alias(PH, DataType.DOUBLE, 7.0, now), at=now), "probe")
    assert intake.answer() == [], "nothing is acknowledged before it is committed"
    await intake.commit()
    await intake.clock.advance(6)
    assert intake.answer(doubt="the clock is wrong") == [], "a hub that must not be believed acknowledges nothing"
    assert intake.answer() == [Committed(positions={LINEAGE: RangeSet([(0, 0)])})]


async def test_how_good_the_clock_was_is_stored_and_shown_with_the_sample(intake: Any, make: Any) -> None:
    now = intake.clock.now_ms()
    intake.births()
    for offset, properties in enumerate(({}, {"time": 1}, {"time": 2, "instrument": 1}, {"time": 7})):
        sample = replace(make.by_alias(PH, DataType.DOUBLE, 7.0, now + offset), properties=properties)
        intake.give(MessageType.DDATA, make.data(sample, at=now, first=offset, last=offset), "probe")
        shown = next(one for one in intake.live.devices() if one.key == PROBE).values["Water/pH"]
        assert (shown.time, shown.instrument) == (properties.get("time", 0) % 7, properties.get("instrument", 0))
    await intake.commit()
    flags = intake.store.raw(PROBE, "Water/pH", now, now + 9, 9).flags
    assert list(flags) == [0, 0b01000, 0b10001, 0]


async def test_a_hello_is_handed_on(intake: Any, make: Any) -> None:
    now = intake.clock.now_ms()
    intake.births()
    hello = make.wire("Broadcast/Hello", DataType.STRING, "signed", now)
    birth = make.node_birth("log", now)
    intake.give(MessageType.NBIRTH, Payload(at=now, seq=0, metrics=(*birth.metrics, hello)))
    intake.give(MessageType.NDATA, Payload(at=now, seq=1, metrics=(hello,)))
    assert intake.hellos == ["signed", "signed"]


offsets = count(2**40)
mutations = st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=6)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(mutations, st.integers(0, 400), st.binary(max_size=60))
async def test_mutilated_messages_never_stop_the_others(
    intake: Any, make: Any, changes: list[tuple[int, int]], cut: int, tail: bytes
) -> None:
    now = intake.clock.now_ms()
    intake.births()
    good = encode(make.data(make.by_alias(PH, DataType.DOUBLE, 7.0, now), at=now))
    raw = bytearray(good)
    for place, value in changes:
        raw[place % len(raw)] = value
    for kind, device in ((MessageType.DDATA, "probe"), (MessageType.NDATA, None), (MessageType.DBIRTH, "other")):
        intake.give(kind, bytes(raw[: len(raw) - cut % len(raw)]) + tail, device)
        intake.give(kind, tail, device)
    intake.births()
    number = next(offsets)
    fresh = make.data(make.by_alias(PH, DataType.DOUBLE, 7.3, now), at=now, first=number, last=number)
    intake.give(MessageType.DDATA, fresh, "probe")
    await intake.commit()
    raw_values = intake.store.raw(PROBE, "Water/pH", now, now + 1, 10).value
    assert raw_values == [7.3]
    for value in intake.store.raw(PROBE, "Water/pH", 0, 2**62, 10_000).value:
        assert value is None or math.isfinite(float(value))


@pytest.mark.parametrize("topic", ["", "x", "spBv1.0/g/NDATA", "spBv1.0/g/DDATA/n/d/e", "spBv1.0/STATE/other"])
def test_topics_that_are_none_of_ours_change_nothing(intake: Any, topic: str) -> None:
    from hub.broker import Message

    before = intake.live.version
    intake.ingest.take_in(Message(topic, b"\x00", intake.clock.now_ms()))
    assert intake.live.version == before
