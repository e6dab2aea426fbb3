"""The log against a plain list of what was appended, with power cuts as moves."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract.catalog import CATALOG, Kind
from contract.metrics import DataType, Quality, Sample
from contract.payload import decode
from contract.positions import Lineage, RangeSet
from edge.delivery_log import KEEP_DAYS, MOST_PENDING, DeliveryLog

KNOWN = {one.name: one for one in CATALOG[Kind.WATER_PROBE].metrics}
SPEAKER = {one.name: one for one in CATALOG[Kind.LOUDSPEAKER].metrics}
DAY = 86_400_000


def ph(at: int, value: float = 7.0) -> list[Sample]:
    return [Sample(metric="Water/pH", at=at, value=value)]


def records(log: DeliveryLog, stream: str = "probe") -> list[int]:
    """Return the instants held of a stream, over all its lives."""
    found = []
    for lineage, ranges in log.held.items():
        if lineage.stream == stream:
            for first, last in ranges:
                part = log.read(lineage, first, last, 10**9)
                while part:
                    found += [one.at for one in part]
                    part = log.read(lineage, part[-1].offset + 1, last, 10**9) if part[-1].offset < last else []
    return found


def test_what_was_committed_is_there_after_a_power_cut_and_the_rest_is_void(tmp_path: Path, clock: Any) -> None:
    log = DeliveryLog(tmp_path, clock)
    log.__enter__()
    log.append("probe", 1000, ph(1000), KNOWN)
    log.commit()
    log.append("probe", 2000, ph(2000), KNOWN)
    for connection in (*log._days.values(), log._facts):  # the power goes: nothing is said to the log
        connection.close()
    with DeliveryLog(tmp_path, clock) as again:
        assert records(again) == [1000]
        assert again.log_id == log.log_id
        assert again.epoch > log.epoch
        assert list(again.closed(40).values()) == [RangeSet([(0, 0)])]


def test_two_records_of_one_instant_are_a_millisecond_apart(tmp_path: Path, clock: Any) -> None:
    with DeliveryLog(tmp_path, clock) as log:
        assert [log.append("probe", 5000, ph(5000), KNOWN).at for _ in range(3)] == [5000, 5001, 5002]
        log.commit()
        assert log.append("probe", 5001, ph(5001), KNOWN).at == 5003
        assert log.append("other", 5001, ph(5001), KNOWN).at == 5001


def test_a_clock_set_back_does_not_drag_an_hour_along(tmp_path: Path, clock: Any) -> None:
    with DeliveryLog(tmp_path, clock) as log:
        log.append("probe", 9_000_000, ph(9_000_000), KNOWN)
        assert log.append("probe", 5_400_000, ph(5_400_000), KNOWN).at == 5_400_000


def test_an_alias_is_never_given_to_another_metric(tmp_path: Path, clock: Any) -> None:
    with DeliveryLog(tmp_path, clock) as log:
        first = log.alias("probe", "Water/pH", DataType.DOUBLE)
    with DeliveryLog(tmp_path, clock) as log:
        assert log.alias("probe", "Water/pH", DataType.DOUBLE) == first
        others = {log.alias("probe", "Water/pH", DataType.INT64), log.alias("loa", "Water/pH", DataType.DOUBLE)}
        assert first not in others
        assert len(others) == 2
    with DeliveryLog(tmp_path / "another", clock) as other:
        assert other.alias("probe", "Water/pH", DataType.DOUBLE) != first


def test_bdseq_goes_on_after_a_restart_and_wraps_at_256(tmp_path: Path, clock: Any) -> None:
    with DeliveryLog(tmp_path, clock) as log:
        assert [log.next_bdseq() for _ in range(2)] == [0, 1]
    with DeliveryLog(tmp_path, clock) as log:
        assert [log.next_bdseq() for _ in range(255)][-2:] == [255, 0]


def test_the_newest_sample_survives_a_restart_with_its_quality(tmp_path: Path, clock: Any) -> None:
    with DeliveryLog(tmp_path, clock) as log:
        log.append("probe", 1000, ph(1000, 7.1), KNOWN)
        bad = Sample(metric="Water/pH", at=2000, value=None, quality=Quality.BAD)
        log.append("probe", 2000, [bad], KNOWN)
    with DeliveryLog(tmp_path, clock) as log:
        newest = log.newest("probe", KNOWN["Water/pH"])
        assert newest is not None
        assert newest[0] == bad


def test_a_record_reads_on_the_wire_as_it_was_logged(tmp_path: Path, clock: Any) -> None:
    with DeliveryLog(tmp_path, clock) as log:
        record = log.append("loa", 7, [Sample(metric="Amp/OK", at=7, value=False)], SPEAKER)
        assert record.event
        metric = decode(record.metrics).metrics[0]
        assert (metric.alias, metric.at, metric.value) == (log.alias("loa", "Amp/OK", DataType.BOOLEAN), 7, False)


def test_an_undeclared_metric_is_refused_by_name(tmp_path: Path, clock: Any) -> None:
    with DeliveryLog(tmp_path, clock) as log, pytest.raises(ValueError, match="'Water/Colour' is not in its birth"):
        log.append("probe", 1, [Sample(metric="Water/Colour", at=1, value=1.0)], KNOWN)


def test_days_are_files_and_only_old_committed_ones_go(tmp_path: Path, clock: Any) -> None:
    old, now = clock.now_ms() - (KEEP_DAYS + 5) * DAY, clock.now_ms()
    with DeliveryLog(tmp_path, clock) as log:
        log.append("probe", old, ph(old), KNOWN)
        log.append("probe", now, ph(now), KNOWN)
        log.commit()
        assert len(list(tmp_path.glob("????-??-??.db"))) == 2
        log.expire({})
        assert len(list(tmp_path.glob("????-??-??.db"))) == 2, "what the hub has not is kept, however old"
        log.expire({Lineage(log.log_id, log.epoch, "probe"): RangeSet([(0, 1)])})
        assert len(list(tmp_path.glob("????-??-??.db"))) == 1
        assert records(log) == [now]


def test_a_damaged_day_is_set_aside_and_the_log_works_on(tmp_path: Path, clock: Any) -> None:
    with DeliveryLog(tmp_path, clock) as log:
        log.append("probe", 1000, ph(1000), KNOWN)
    (tmp_path / "1970-01-01.db").write_bytes(b"SQLite format 3\0" + b"garbage" * 600)
    (tmp_path / "1970-01-01.db-wal").unlink(missing_ok=True)
    with DeliveryLog(tmp_path, clock) as log:
        log.append("probe", 1000, ph(1000), KNOWN)
        log.commit()
        assert records(log) == [1000]
    assert list(tmp_path.glob("*broken*"))


def test_a_day_of_another_log_is_not_taken_for_ours(tmp_path: Path, clock: Any) -> None:
    with DeliveryLog(tmp_path / "a", clock) as log:
        log.append("probe", 1000, ph(1000), KNOWN)
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / "1970-01-01.db").rename(tmp_path / "b" / "1970-01-01.db")
    with DeliveryLog(tmp_path / "b", clock) as log:
        assert log.held == {}


def test_a_full_disk_keeps_a_bounded_tail_and_recovers(tmp_path: Path, clock: Any) -> None:
    with DeliveryLog(tmp_path, clock) as log:
        log.append("probe", 1000, ph(1000), KNOWN)
        log.commit()
        connection = log._days["1970-01-01.db"]
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")
        for number in range(2000):
            log.append("probe", 2000 + number, ph(2000 + number), KNOWN)
        with pytest.raises(sqlite3.OperationalError, match="full"):
            log.commit()
        assert log.pending == 2000
        connection.execute("PRAGMA max_page_count = 1000000")
        log.commit()
        assert log.pending == 0
        assert len(records(log)) == 2001
        assert MOST_PENDING >= 2000


moves = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.sampled_from(["probe", "loa", ""]), st.integers(0, 5)),
        st.just(("commit", "", 0)),
        st.just(("cut", "", 0)),
    ),
    max_size=40,
)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moves)
def test_every_committed_record_is_held_once_whatever_happens(
    tmp_path_factory: pytest.TempPathFactory, clock: Any, moves: list[tuple[str, str, int]]
) -> None:
    folder = tmp_path_factory.mktemp("log")
    log = DeliveryLog(folder, clock)
    log.__enter__()
    durable: dict[str, list[int]] = {}
    pending: list[tuple[str, int]] = []
    try:
        for move, stream, at in moves:
            if move == "append":
                pending.append((stream, log.append(stream, at, ph(at), KNOWN).at))
            elif move == "commit":
                log.commit()
                for whose, instant in pending:
                    durable.setdefault(whose, []).append(instant)
                pending = []
            else:
                for connection in (*log._days.values(), log._facts):
                    connection.close()
                pending = []
                log = DeliveryLog(folder, clock)
                log.__enter__()
        for stream in ("probe", "loa", ""):
            assert sorted(records(log, stream)) == sorted(durable.get(stream, []))
            assert len(set(records(log, stream))) == len(records(log, stream))
    finally:
        log.__exit__(None, None, None)
