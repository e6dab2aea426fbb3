"""What every store of readings promises; each implementation is held to the same suite."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract.metrics import DataType
from contract.positions import Lineage, RangeSet
from hub.devices import DeviceKey, NodeKey
from hub.storage.embedded import EmbeddedStore
from hub.storage.timeseries import (
    Batch,
    EventRow,
    FloorRaised,
    Interval,
    Quarantined,
    Reach,
    StoreUnavailable,
    TimeSeries,
    Void,
)

KEY = DeviceKey("g", "n", "probe")
NODE = NodeKey("g", "n")
GOOD = 192 << 8


def batch(store: TimeSeries, *samples: tuple[int, float], metric: str = "x", mark: int = GOOD) -> Batch:
    made = Batch()
    number = store.series(KEY, metric, DataType.DOUBLE)
    for at, value in samples:
        made.numbers.series.append(number)
        made.numbers.at.append(at)
        made.numbers.value.append(value)
        made.numbers.marks.append(mark)
    return made


def test_what_is_committed_is_read_back_in_time_order(store: TimeSeries) -> None:
    store.commit(batch(store, (3, 30.0), (1, 10.0), (2, 20.0)), 9)
    raw = store.raw(KEY, "x", 1, 3, 10)
    assert (list(raw.at), list(raw.value)) == ([1, 2], [10.0, 20.0])
    assert list(raw.quality) == [192, 192]


def test_of_one_instant_the_last_committed_value_stands_and_is_counted(store: TimeSeries) -> None:
    store.commit(batch(store, (1, 10.0), (2, 5.0)), 9)
    store.commit(batch(store, (1, 11.0), (2, 5.0)), 9)
    assert list(store.raw(KEY, "x", 0, 9, 10).value) == [11.0, 5.0]
    stats = store.stats()
    assert (stats.samples, stats.conflicts) == (2, 1)


def test_integers_booleans_and_texts_come_back_as_they_were(store: TimeSeries) -> None:
    made = Batch()
    for column, kind, metric, value in (
        (made.integers, DataType.INT64, "big", 2**62 + 1),
        (made.integers, DataType.BOOLEAN, "flag", 1),
        (made.texts, DataType.STRING, "word", "Ấp Bình Hòa"),
        (made.texts, DataType.STRING, "gone", None),
    ):
        column.series.append(store.series(KEY, metric, kind))
        column.at.append(5)
        column.value.append(value)
        column.marks.append(GOOD)
    store.commit(made, 9)
    read = {metric: list(store.raw(KEY, metric, 0, 9, 9).value) for metric in ("big", "flag", "word", "gone")}
    assert read == {"big": [2**62 + 1], "flag": [1], "word": ["Ấp Bình Hòa"], "gone": [None]}


def test_ledger_events_and_quarantine_are_of_the_same_commit(store: TimeSeries) -> None:
    made = batch(store, (1, 1.0))
    lineage = Lineage("log", 2**62, "probe")
    made.committed += [(NODE, lineage, 0, 4), (NODE, lineage, 7, 9), (NODE, lineage, 5, 6)]
    made.events.append(EventRow(key=KEY, metric="e", at=1, received_at=2, value="on", lineage=lineage, offset=4))
    made.quarantined.append(Quarantined(key=KEY, reason="bad", payload=b"x", received_at=2, samples=3))
    store.commit(made, 9)
    assert store.ledger(NODE) == {lineage: RangeSet([(0, 9)])}
    (event,) = store.events(0, "e", 10)
    assert (event.value, event.offset, event.lineage) == ("on", 4, lineage)
    assert store.events(event.id, "e", 10) == []
    assert store.stats().quarantined == 3
    assert store.newest_received() == 9


def test_a_restart_forgets_nothing(opened: Any) -> None:
    lineage = Lineage("log", 1, "probe")
    with opened() as store:
        for number in range(20):
            made = batch(store, (number, float(number)))
            made.committed.append((NODE, lineage, number, number))
            store.commit(made, number)
    with opened() as again:
        assert list(again.raw(KEY, "x", 0, 99, 99).value) == [float(one) for one in range(20)]
        assert again.ledger(NODE) == {lineage: RangeSet([(0, 19)])}
        again.commit(batch(again, (0, 99.0)), 30)
        assert list(again.raw(KEY, "x", 0, 1, 9).value) == [99.0]


def test_bucket_means_are_weighted_by_time_and_carry_the_last_value_in(store: TimeSeries) -> None:
    # 10 from 0 s, 20 from 8 s, nothing more; a value stands for at most 6 s.
    store.commit(batch(store, (0, 10.0), (8_000, 20.0)), 9)
    found = store.buckets(KEY, "x", 4_000, 16_000, 3, 6_000)
    assert list(found.at) == [4_000, 8_000, 12_000]
    assert list(found.mean) == [10.0, 20.0, 20.0]
    assert list(found.covered_seconds) == [2.0, 4.0, 2.0]
    assert list(found.count) == [0, 1, 0]
    assert list(found.minimum) == [None, 20.0, None]


def test_a_bad_value_counts_for_nothing_and_ends_the_one_before(store: TimeSeries) -> None:
    store.commit(batch(store, (0, 10.0)), 9)
    store.commit(batch(store, (2_000, 99.0), mark=0), 9)
    found = store.buckets(KEY, "x", 0, 10_000, 1, 60_000)
    assert list(found.mean) == [10.0]
    assert list(found.covered_seconds) == [2.0]
    assert list(found.count) == [1]


def test_an_empty_series_is_all_gaps(store: TimeSeries) -> None:
    found = store.buckets(KEY, "never", 0, 1000, 4, 500)
    assert list(found.mean) == [None] * 4
    assert list(store.raw(KEY, "never", 0, 1000, 9).at) == []


samples = st.lists(st.tuples(st.integers(0, 1000), st.floats(-1e6, 1e6)), max_size=30)


def test_a_store_that_is_closed_under_a_question_answers_it_or_says_so(opened: Any) -> None:
    """A thread may still be asking when the hub ends; the process must not die of it."""
    ends: list[str] = []

    def ask(store: TimeSeries) -> None:
        try:
            while True:
                store.events(0, "e", 1000)
        except StoreUnavailable as exc:
            ends.append(str(exc))

    with opened() as store:
        made = Batch()
        made.events += [EventRow(key=KEY, metric="e", at=at, received_at=at, value="x" * 500) for at in range(2000)]
        store.commit(made, 9)
        asking = [threading.Thread(target=ask, args=(store,)) for _ in range(4)]
        for one in asking:
            one.start()
    for one in asking:
        one.join(20)
    assert len(ends) == 4


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(samples, st.integers(1, 7), st.integers(1, 400))
def test_buckets_agree_with_a_walk_second_by_second(
    opened: Any, given_samples: list[tuple[int, float]], count: int, hold: int
) -> None:
    with opened.fresh()() as store:
        store.commit(batch(store, *given_samples), 9)
        newest = dict(given_samples)
        start, end = 210, 210 + 90 * count
        found = store.buckets(KEY, "x", start, end, count, hold)
        for bucket in range(count):
            low, high = start + 90 * bucket, start + 90 * bucket + 90
            standing = []
            for at in range(low, high):
                last = max((one for one in newest if one <= at), default=None)
                if last is not None and at - last < hold and last >= start - hold:
                    standing.append(newest[last])
            inside = [value for at, value in newest.items() if low <= at < high]
            assert found.count[bucket] == len(inside)
            assert found.covered_seconds[bucket] == pytest.approx(len(standing) / 1000, abs=1e-9)
            mean = found.mean[bucket]
            if standing:
                assert mean == pytest.approx(sum(standing) / len(standing), rel=1e-6, abs=1e-6)
            else:
                assert mean is None
            assert found.minimum[bucket] == (min(inside) if inside else None)


WRITER = """
import sys
from pathlib import Path
from contract.catalog import Kind
from contract.metrics import DataType
from hub.devices import DeviceKey
from hub.storage.embedded import EmbeddedStore
from hub.storage.influxdb import InfluxStore, Settings
from hub.storage.timeseries import Batch
key = DeviceKey("g", "n", "probe")
with EmbeddedStore(Path(sys.argv[1])) as store:
    number = 0
    while True:
        made = Batch()
        for _ in range(50):
            made.numbers.series.append(store.series(key, "x", DataType.DOUBLE))
            made.numbers.at.append(number)
            made.numbers.value.append(float(number))
            made.numbers.marks.append(192 << 8)
            number += 1
        store.commit(made, number)
        print(number, flush=True)
"""


@pytest.mark.parametrize("after", [1, 3, 17])
def test_a_killed_store_keeps_every_batch_it_acknowledged(tmp_path: Path, after: int) -> None:
    with subprocess.Popen([sys.executable, "-c", WRITER, tmp_path], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        acknowledged = 0
        for _ in range(after):
            acknowledged = int(writer.stdout.readline())
        os.kill(writer.pid, signal.SIGKILL)
        rest = writer.stdout.read().split()
        acknowledged = int(rest[-1]) if rest else acknowledged
    with EmbeddedStore(tmp_path) as store:
        found = list(store.raw(KEY, "x", 0, 10**9, 10**6).at)
    assert found == list(range(len(found)))
    assert len(found) >= acknowledged
    assert len(found) % 50 == 0, "a batch is there whole or not at all"


def test_a_floor_takes_the_ledger_rows_under_it_and_is_still_there_after_a_restart(opened: Any) -> None:
    first, second, third = (Lineage("log", epoch, "probe") for epoch in (1, 2, 3))
    with opened() as store:
        store.commit(Batch(committed=[(NODE, one, 0, 9) for one in (first, second, third)]), 1)
        store.commit(Batch(floors=[FloorRaised(node=NODE, log="log", floor=1, over=(1,))]), 2)
        store.commit(Batch(floors=[FloorRaised(node=NODE, log="log", floor=2, over=(1, 2))]), 3)
        assert dict(store.floors(NODE)) == {"log": frozenset({2})}
        assert set(store.ledger(NODE)) == {third}
    with opened() as again:
        assert dict(again.floors(NODE)) == {"log": frozenset({2})}
        assert set(again.ledger(NODE)) == {third}
        again.commit(Batch(floors=[FloorRaised(node=NODE, log="log", floor=3, over=())]), 4)
        assert dict(again.floors(NODE)) == {"log": frozenset({2, 3})}, "a copied card's lineage keeps its own"


def test_a_void_range_is_told_once_however_often_it_is_reported(store: TimeSeries) -> None:
    void = Void(node=NODE, lineage=Lineage("log", 1, "probe"), first=3, last=7, at=50)
    store.commit(Batch(voids=[void]), 50)
    store.commit(Batch(voids=[void]), 60)
    assert list(store.voids(NODE, 10)) == [void]
    assert store.completeness(NODE, 0, 100).void == 5


def test_what_is_put_aside_is_told_by_reason(store: TimeSeries) -> None:
    def bad(reason: str, samples: int, received_at: int) -> Quarantined:
        return Quarantined(key=KEY, reason=reason, payload=b"x", received_at=received_at, samples=samples)

    store.commit(Batch(quarantined=[bad("old", 3, 5), bad("new", 1, 7), bad("old", 2, 6)]), 9)
    assert [(one.reason, one.samples, one.newest) for one in store.put_aside(NODE)] == [("new", 1, 7), ("old", 5, 6)]
    assert list(store.put_aside(NodeKey("g", "other"))) == []


def test_what_leaves_quarantine_is_stored_by_the_same_commit(store: TimeSeries) -> None:
    bad = Quarantined(key=KEY, reason="bad", payload=b"x", received_at=2, samples=3)
    store.commit(Batch(quarantined=[bad, bad]), 9)
    one, other = store.quarantined(0, 10)
    made = batch(store, (1, 1.0))
    made.released.append(one.id)
    store.commit(made, 10)
    assert [each.id for each in store.quarantined(0, 10, NODE)] == [other.id]
    assert list(store.quarantined(other.id, 10)) == []
    assert list(store.quarantined(0, 10, NodeKey("g", "other"))) == []
    assert list(store.raw(KEY, "x", 0, 9, 9).value) == [1.0]


HOUR, DAY = 3_600_000, 86_400_000


def test_a_conflict_is_counted_once_whether_found_in_the_tail_in_sealing_or_across_seals(opened: Any) -> None:
    with opened() as store:
        store.commit(batch(store, (1, 10.0), (2, 5.0), (3, 7.0)), 9)
        store.tend(HOUR)
        store.commit(batch(store, (1, 11.0), (2, 5.0)), HOUR)
        assert (store.stats().samples, store.stats().conflicts) == (3, 1), "found between tail and segment"
        store.tend(2 * HOUR)
        assert (store.stats().samples, store.stats().conflicts) == (3, 1), "found between two segments"
        store.commit(batch(store, (1, 12.0), (3, 8.0)), 2 * HOUR)
        assert (store.stats().samples, store.stats().conflicts) == (3, 2)
        store.tend(2 * DAY)
        assert (store.stats().samples, store.stats().conflicts) == (3, 2), "still known when the other row is gone"
        assert store.completeness(NODE, 0, 9).conflicts == 2
    with opened() as again:
        assert (again.stats().samples, again.stats().conflicts) == (3, 2)
        assert list(again.raw(KEY, "x", 0, 9, 9).value) == [12.0, 5.0, 8.0]
        assert set(again.raw(KEY, "x", 0, 9, 9).flags) == {0}


def test_a_silence_is_none_where_a_slower_metric_of_the_stream_was_heard(store: TimeSeries) -> None:
    # "load" is silent for 25 minutes, but "name", told twice, stands in the middle of that.
    minute, stream = 60_000, DeviceKey("g", "n", "")
    made = Batch()
    for metric, minutes in (("load", [0, 5, 10, 35, 40, 45]), ("name", [1, 22, 45])):
        for one in minutes:
            made.numbers.put(store.series(stream, metric, DataType.DOUBLE), one * minute, 1.0, GOOD)
    made.texts.put(store.series(stream, "Presence/probe", DataType.STRING), 0, "online", GOOD)
    store.commit(made, 9)
    up = [Interval(start=0, end=45 * minute, state=Reach.UP, cause="")]
    assert list(store.availability([KEY], 0, 45 * minute)[KEY]) == up
    store.tend(HOUR)
    assert list(store.availability([KEY], 0, 45 * minute)[KEY]) == up
    assert [one.state for one in store.availability([KEY], 0, 61 * minute)[KEY]] == [Reach.UP, Reach.UNKNOWN]


def test_availability_names_the_cause_and_never_counts_what_is_unknown(store: TimeSeries) -> None:
    minute, stream = 60_000, DeviceKey("g", "n", "")
    made = Batch()
    for one in range(0, 60, 5):
        made.numbers.put(store.series(stream, "load", DataType.DOUBLE), one * minute, 1.0, GOOD)
    for one, told in ((5, "online"), (20, "unreachable"), (25, "unreachable"), (40, None)):
        made.texts.put(store.series(stream, "Presence/probe", DataType.STRING), one * minute, told, GOOD)
    store.commit(made, 9)
    found = store.availability([KEY], 0, 60 * minute)[KEY]
    assert [(one.start // minute, one.end // minute, one.state.value, one.cause) for one in found] == [
        (0, 5, "unknown", ""),
        (5, 20, "up", ""),
        (20, 40, "down", "unreachable"),
        (40, 60, "unknown", ""),
    ]


def test_export_gives_every_sample_in_order_and_keeps_what_it_began_with(store: TimeSeries) -> None:
    other = DeviceKey("a", "n", "probe")
    made = batch(store, (2, 20.0), (1, 10.0))
    made.integers.put(store.series(other, "flag", DataType.BOOLEAN), 7, 1, GOOD | 0b01001)
    store.commit(made, 9)
    exporting = store.export(0, 10)
    first = next(exporting)
    store.tend(HOUR)
    store.tend(2 * DAY)
    rows = [row for piece in (first, *exporting) for row in piece.to_pylist()]
    assert [(row["group"], row["metric"], row["at"], row["number"], row["integer"]) for row in rows] == [
        ("a", "flag", 7, None, 1),
        ("g", "x", 1, 10.0, None),
        ("g", "x", 2, 20.0, None),
    ]
    assert rows[0]["flags"] == 0b01001
    assert [row["metric"] for piece in store.export(0, 10, groups=["a"]) for row in piece.to_pylist()] == ["flag"]
    assert [row["at"] for piece in store.export(0, 2, metrics=["x"]) for row in piece.to_pylist()] == [1]
