"""What the embedded store does with its files: when it seals, what a full disk costs, what goes and what stays."""

import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from contract.metrics import DataType
from contract.positions import Lineage
from hub.devices import DeviceKey, NodeKey
from hub.storage import embedded, embedded_questions
from hub.storage.embedded import EmbeddedStore
from hub.storage.segments import Kind, Segment
from hub.storage.timeseries import Batch, EventRow, Quarantined, StoreUnavailable, Void

KEY, NODE = DeviceKey("g", "n", "probe"), NodeKey("g", "n")
HOUR, DAY = 3_600_000, 86_400_000
BASE = 20_000 * DAY


def batch(store: EmbeddedStore, *instants: int, metric: str = "x", device: DeviceKey = KEY) -> Batch:
    made = Batch()
    for at in instants:
        made.numbers.put(store.series(device, metric, DataType.DOUBLE), at, at / 7, 192 << 8)
    return made


def segments(store: EmbeddedStore, kind: Kind = Kind.SAMPLES) -> list[Segment]:
    return [one for one in store._segments.listed if one.kind is kind]


def all_of(store: EmbeddedStore) -> list[int]:
    return [at for rows in store.export(0, 2 * BASE) for at in rows["at"].to_pylist()]


@contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """The kernel refuses to let any file of this process grow beyond so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_the_tail_is_sealed_in_the_first_call_of_the_next_hour_and_not_before(tmp_path: Path) -> None:
    with EmbeddedStore(tmp_path) as store:
        store.commit(batch(store, BASE), BASE + 5 * 60_000)
        store.tend(BASE + HOUR - 1)
        assert (store.stats().unsealed, segments(store)) == (1, [])
    with EmbeddedStore(tmp_path) as store:
        store.tend(BASE + HOUR)
        assert store.stats().unsealed == 0
        assert [one.rows for one in segments(store)] == [1]
        store.tend(BASE + 2 * HOUR)
        assert len(segments(store)) == 1, "nothing came, nothing is sealed"


def test_the_tail_is_sealed_when_it_is_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "SEAL_ROWS", 10)
    with EmbeddedStore(tmp_path) as store:
        store.commit(batch(store, *range(BASE, BASE + 10)), BASE)
        store.tend(BASE + 1)
        assert store.stats().unsealed == 0


def test_segments_are_cut_at_the_day_and_late_ones_are_merged_in_the_night(tmp_path: Path) -> None:
    with EmbeddedStore(tmp_path) as store:
        store.commit(batch(store, BASE + DAY - 1, BASE + DAY), BASE + DAY)
        store.tend(BASE + DAY + HOUR)
        assert sorted(one.day for one in segments(store)) == [20_000, 20_001]
        store.commit(batch(store, BASE, BASE + DAY - 1), BASE + DAY + HOUR)
        store.tend(BASE + DAY + 2 * HOUR)
        assert [one.day for one in segments(store)].count(20_000) == 2, "the night's merge was already done"
        store.tend(BASE + 2 * DAY)
        assert sorted((one.day, one.rows) for one in segments(store)) == [(20_000, 2), (20_001, 1)]
        assert {path.name for path in (tmp_path / "segments").iterdir()} == {
            one.file for kind in Kind for one in segments(store, kind)
        }
        assert all_of(store) == [BASE, BASE + DAY - 1, BASE + DAY]


def test_a_disk_that_is_full_while_sealing_costs_nothing_and_is_tried_again(tmp_path: Path) -> None:
    instants = range(BASE, BASE + 60_000)
    with EmbeddedStore(tmp_path) as store:
        store.commit(batch(store, *instants), BASE)
        with no_file_larger_than(60_000), pytest.raises(StoreUnavailable, match=r"segments: .*nothing is lost"):
            store.tend(BASE + HOUR)
        assert list((tmp_path / "segments").iterdir()) == []
        assert store.stats().samples == len(instants)
        store.commit(batch(store, BASE - 1), BASE)
        store.tend(BASE + HOUR)
        assert store.stats().unsealed == 0
        assert all_of(store) == [BASE - 1, *instants]


def test_a_disk_that_is_full_while_merging_costs_nothing_and_is_tried_again(tmp_path: Path) -> None:
    with EmbeddedStore(tmp_path) as store:
        for half in (0, 1):
            store.commit(batch(store, *range(BASE + half, BASE + 60_000, 2)), BASE)
            store.tend(BASE + HOUR)
        largest = max(one.bytes for one in segments(store))
        with no_file_larger_than(largest + 1000), pytest.raises(StoreUnavailable, match="nothing is lost"):
            store.tend(BASE + DAY)
        assert len(segments(store)) == 2
        assert len(all_of(store)) == 60_000
        store.tend(BASE + DAY)
        assert len(segments(store)) == 1
        assert len(all_of(store)) == 60_000


def test_retention_takes_whole_days_and_what_was_noted_of_them(tmp_path: Path) -> None:
    other = DeviceKey("g", "n", "old")
    with EmbeddedStore(tmp_path, retention_days=60) as store:
        made = batch(store, BASE, device=other)
        made.events.append(EventRow(key=KEY, metric="e", at=BASE, received_at=BASE, value="on"))
        made.quarantined.append(Quarantined(key=KEY, reason="bad", payload=b"x", received_at=BASE, samples=3))
        made.voids.append(Void(node=NODE, lineage=Lineage("log", 1, "probe"), first=0, last=1, at=BASE))
        store.commit(made, BASE)
        store.commit(batch(store, BASE + DAY, BASE + 61 * DAY), BASE + 61 * DAY)
        store.tend(BASE + 61 * DAY + HOUR)
        store.tend(BASE + 61 * DAY + 2 * HOUR)
        assert all_of(store) == [BASE + DAY, BASE + 61 * DAY]
        assert store.last()["device"].to_pylist() == ["probe"]
        assert (store.stats().events, store.stats().quarantined, list(store.voids(NODE, 9))) == (0, 0, [])
        assert store.stats().samples == 2
        assert not [one for kind in Kind for one in segments(store, kind) if one.day < 20_001]


def test_a_clock_that_jumps_years_ahead_does_not_empty_the_store(tmp_path: Path) -> None:
    with EmbeddedStore(tmp_path, retention_days=60) as store:
        store.commit(batch(store, BASE), BASE)
        store.tend(BASE + HOUR)
        store.tend(BASE + 4000 * DAY)
        store.tend(BASE + 4001 * DAY)
        assert all_of(store) == [BASE]


def test_an_export_under_way_reads_to_its_end_what_merging_and_retention_take_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded_questions, "PIECE_ROWS", 2)
    with EmbeddedStore(tmp_path, retention_days=60) as store:
        for device in ("a", "b", "c", "d"):
            store.commit(batch(store, BASE, BASE + 1, device=DeviceKey("g", "n", device)), BASE)
            store.tend(BASE + HOUR)
        exporting = store.export(0, 2 * BASE)
        first = next(exporting)
        store.commit(batch(store, BASE + 200 * DAY), BASE + 200 * DAY)
        store.tend(BASE + 201 * DAY)
        store.tend(BASE + 202 * DAY)
        assert all_of(store) == [BASE + 200 * DAY]
        assert sum(map(len, (first, *exporting))) == 8
        named = {one.file for kind in Kind for one in segments(store, kind)}
        assert {path.name for path in (tmp_path / "segments").iterdir()} == named, "unlinked when nobody reads them"


def test_questions_asked_while_it_seals_and_merges_see_every_sample_once(tmp_path: Path) -> None:
    told: list[str] = []
    ended = threading.Event()
    with EmbeddedStore(tmp_path) as store:
        committed = [0]

        def ask() -> None:
            while not ended.is_set():
                before = committed[0]
                found = list(store.raw(KEY, "x", 0, 2 * BASE, 10**6).at)
                if len(found) < before or found != list(range(BASE, BASE + len(found))):
                    told.append(f"{len(found)} of {before}")

        asking = [threading.Thread(target=ask) for _ in range(2)]
        for one in asking:
            one.start()
        try:
            for number in range(12):
                instants = range(BASE + number * 50, BASE + number * 50 + 50)
                store.commit(batch(store, *instants), BASE)
                committed[0] = number * 50 + 50
                if number % 2:
                    store.tend(BASE + HOUR)
                if number % 4 == 3:
                    store.tend(BASE + (number + 1) * DAY)
        finally:
            ended.set()
            for one in asking:
                one.join(30)
    assert told == []


def test_a_segment_that_is_missing_is_named_and_what_no_row_names_is_unlinked(tmp_path: Path) -> None:
    with EmbeddedStore(tmp_path) as store:
        store.commit(batch(store, BASE), BASE)
        store.tend(BASE + HOUR)
        (one,) = segments(store)
    (tmp_path / "segments" / "samples-1-1-1.parquet").write_bytes(b"left by a crash")
    with EmbeddedStore(tmp_path) as store:
        assert not (tmp_path / "segments" / "samples-1-1-1.parquet").exists()
    (tmp_path / "segments" / one.file).unlink()
    with pytest.raises(Exception, match=f"1 segments are missing, the first is {one.file}; restore a backup"):
        EmbeddedStore(tmp_path).__enter__()


def test_rollups_of_five_minutes_go_after_forty_days_and_answers_stay_what_they_were(tmp_path: Path) -> None:
    with EmbeddedStore(tmp_path) as store:
        store.commit(batch(store, BASE, BASE + 400_000), BASE)
        store.tend(BASE + HOUR)
        asked = (KEY, "x", BASE, BASE + HOUR, 12, 300_000)
        before = store.buckets(*asked)
        store.commit(batch(store, BASE + 50 * DAY), BASE + 50 * DAY)
        store.tend(BASE + 50 * DAY + HOUR)
        store.tend(BASE + 50 * DAY + 2 * HOUR)
        assert {one.day for one in segments(store, Kind.MINUTES)} == {20_050}
        assert store.buckets(*asked) == before
        store.commit(batch(store, BASE + 900_000), BASE + 50 * DAY)
        store.tend(BASE + 51 * DAY)
        assert {one.day for one in segments(store, Kind.MINUTES)} == {20_050}
        assert sum(store.buckets(*asked).count) == 3
        assert store.buckets(KEY, "x", BASE, BASE + HOUR, 1, 300_000).count == [3]
    with EmbeddedStore(tmp_path) as store:
        assert sum(store.buckets(*asked).count) == 3


def test_a_damaged_segment_is_said_and_neither_answered_from_nor_merged_away(tmp_path: Path) -> None:
    with EmbeddedStore(tmp_path) as store:
        for half in (0, 1):
            store.commit(batch(store, *range(BASE + half, BASE + 1000, 2)), BASE)
            store.tend(BASE + HOUR)
        damaged = segments(store)[0].file
    path = tmp_path / "segments" / damaged
    path.write_bytes(path.read_bytes()[:-200] + bytes(200))
    with EmbeddedStore(tmp_path) as store:
        with pytest.raises(StoreUnavailable, match=damaged):
            store.raw(KEY, "x", BASE, BASE + DAY, 10)
        with pytest.raises(StoreUnavailable, match="nothing is lost"):
            store.tend(BASE + DAY)
        assert {one.file for one in segments(store)} == {one.name for one in path.parent.glob("samples*")}
        store.commit(batch(store, BASE + DAY), BASE + DAY)
        with pytest.raises(StoreUnavailable):
            store.tend(BASE + DAY + HOUR)
        assert store.stats().unsealed == 0, "sealing goes on"
