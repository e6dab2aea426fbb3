"""The log against a plain list of what was appended, with power cuts as moves."""

import shutil
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
from edge.delivery_log import FOLD_AFTER, MOST_PENDING, DeliveryLog
from edge.retention import KEEP_DAYS

KNOWN = {one.name: one for one in CATALOG[Kind.WATER_PROBE].metrics}
SPEAKER = {one.name: one for one in CATALOG[Kind.LOUDSPEAKER].metrics}
DAY = 86_400_000


def all_of_it(lineage: Lineage, ranges: RangeSet) -> RangeSet:
    """Nothing is committed."""
    return ranges


def nothing_of_it(lineage: Lineage, ranges: RangeSet) -> RangeSet:
    """Everything is committed."""
    return RangeSet()


def ph(at: int, value: float = 7.0) -> list[Sample]:
    return [Sample(metric="Water/pH", at=at, value=value)]


def power_cut(log: DeliveryLog) -> None:
    """Take the files away from the log without a word to it."""
    for day in log._days.values():
        if day._writer is not None:
            day._writer.close()
    log._register.close()


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
    power_cut(log)
    with DeliveryLog(tmp_path, clock) as again:
        assert records(again) == [1000]
        assert again.log_id == log.log_id
        assert again.epoch > log.epoch
        assert list(again.held.values()) == [RangeSet([(0, 0)])]


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


def test_bdseq_goes_on_where_the_disk_refuses(tmp_path: Path, clock: Any) -> None:
    with DeliveryLog(tmp_path, clock) as log:
        assert log.next_bdseq() == 0
        log._register._connection.execute("PRAGMA query_only = ON")
        assert [log.next_bdseq() for _ in range(2)] == [1, 2]
        log._register._connection.execute("PRAGMA query_only = OFF")
        assert log.next_bdseq() == 3
    with DeliveryLog(tmp_path, clock) as log:
        assert log.next_bdseq() == 4


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
        log.expire(all_of_it, under=(), hub_known=True, clock_known=True)
        assert len(list(tmp_path.glob("????-??-??.db"))) == 2, "what the hub has not is kept, however old"
        log.expire(nothing_of_it, under=(), hub_known=True, clock_known=False)
        assert len(list(tmp_path.glob("????-??-??.db"))) == 2, "a clock that nobody knows makes no day old"
        log.expire(nothing_of_it, under=(), hub_known=True, clock_known=True)
        assert len(list(tmp_path.glob("????-??-??.db"))) == 1
        assert records(log) == [now]
        assert log.untold_lost == 0


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


def refusing(log: DeliveryLog, name: str) -> sqlite3.Connection:
    """Let a day file grow no more; return the connection on which that can be taken back."""
    writer = log._days[name]._writer
    assert writer is not None
    pages = writer.execute("PRAGMA page_count").fetchone()[0]
    writer.execute(f"PRAGMA max_page_count = {pages}")
    return writer


def test_a_full_disk_keeps_a_bounded_tail_and_recovers(tmp_path: Path, clock: Any) -> None:
    with DeliveryLog(tmp_path, clock) as log:
        log.append("probe", 1000, ph(1000), KNOWN)
        log.commit()
        writer = refusing(log, "1970-01-01")
        for number in range(2000):
            log.append("probe", 2000 + number, ph(2000 + number), KNOWN)
        with pytest.raises(sqlite3.OperationalError, match="full"):
            log.commit()
        assert (log.pending, log.refused) == (2000, True)
        writer.execute("PRAGMA max_page_count = 1000000")
        log.commit()
        assert (log.pending, log.refused) == (0, False)
        assert len(records(log)) == 2001
        assert MOST_PENDING >= 2000


class FullCard(sqlite3.Connection):
    """A connection to a card that may be full."""

    full = False

    def executemany(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
        if FullCard.full:
            raise sqlite3.OperationalError("database or disk is full")
        return super().executemany(sql, *arguments)


def test_a_box_that_starts_on_a_full_card_begins_its_life_in_memory_and_writes_it_down_later(
    tmp_path: Path, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = sqlite3.connect

    def connect_to_card(*arguments: Any, **options: Any) -> sqlite3.Connection:
        return connect(*arguments, **options, factory=FullCard)

    monkeypatch.setattr(sqlite3, "connect", connect_to_card)
    monkeypatch.setattr(FullCard, "full", False)
    before = DeliveryLog(tmp_path, clock).__enter__()
    before.append("probe", 1000, ph(1000), KNOWN)
    before.commit()
    power_cut(before)
    FullCard.full = True
    with DeliveryLog(tmp_path, clock) as log:
        assert log.refused
        assert records(log) == [1000], "what is on the card can be read and sent"
        assert (log.place(before.epoch), log.place(log.epoch)) == (1, 2)
        alias = log.alias("probe", "Water/Turbidity", DataType.DOUBLE)
        log.append("probe", 2000, ph(2000), KNOWN)
        with pytest.raises(sqlite3.OperationalError, match="full"):
            log.commit()
        FullCard.full = False
        log.commit()
        assert records(log) == [1000, 2000]
    with DeliveryLog(tmp_path, clock) as again:
        assert [again.place(one.epoch) for one in (before, log, again)] == [1, 2, 3]
        assert again.alias("probe", "Water/Turbidity", DataType.DOUBLE) == alias
        assert sorted(records(again)) == [1000, 2000]


def test_a_box_without_a_log_does_not_begin_one_on_a_full_card(
    tmp_path: Path, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *told, **named: connect(*told, **named, factory=FullCard))
    monkeypatch.setattr(FullCard, "full", True)
    with pytest.raises(sqlite3.OperationalError, match="full"):
        DeliveryLog(tmp_path, clock).__enter__()


def test_what_memory_cannot_hold_while_the_disk_is_full_goes_oldest_first_and_is_counted(
    tmp_path: Path, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.delivery_log.MOST_PENDING", 100)
    with DeliveryLog(tmp_path, clock) as log:
        log.append("probe", 1000, ph(1000), KNOWN)
        log.commit()
        writer = refusing(log, "1970-01-01")
        for number in range(2000):
            log.append("probe", 2000 + number, ph(2000 + number), KNOWN)
        with pytest.raises(sqlite3.OperationalError):
            log.commit()
        assert (log.pending, log.untold_lost) == (100, 1900)
        assert log.append("probe", 2000, ph(2000), KNOWN).at == 2000, "a dropped record's instant is free again"
        writer.execute("PRAGMA max_page_count = 1000000")
        log.commit()
        held = log.held[Lineage(log.log_id, log.epoch, "probe")]
        assert held == RangeSet([(0, 0), (1901, 2001)]), "what is between is void: neither held nor committed"
        log.told_lost(1900)
        assert log.untold_lost == 0


def test_over_the_budget_committed_days_go_first_and_what_is_lost_is_on_disk_before(tmp_path: Path, clock: Any) -> None:
    now = clock.now_ms()
    days = [now - back * DAY for back in (3, 2, 1, 0)]
    with DeliveryLog(tmp_path, clock, budget=1) as log:
        for at in days:
            for number in range(3):
                log.append("probe", at + number, ph(at + number), KNOWN)
            log.commit()
        of_yesterday = RangeSet([(6, 8)])
        log.expire(lambda lineage, ranges: ranges - of_yesterday, under=(), hub_known=False, clock_known=True)
        assert log.held == {Lineage(log.log_id, log.epoch, "probe"): RangeSet([(0, 5), (9, 11)])}
        assert log.untold_lost == 0, "before any hub has answered nothing uncommitted goes"
        log.expire(all_of_it, under=(), hub_known=True, clock_known=True)
        assert log.held == {Lineage(log.log_id, log.epoch, "probe"): RangeSet([(9, 11)])}, "today stays"
        assert log.untold_lost == 6
        epoch, log_id = log.epoch, log.log_id
        power_cut(log)
    with DeliveryLog(tmp_path, clock) as again:
        assert again.untold_lost == 6, "it will be told after a power cut, too"
        assert again.lost == {Lineage(log_id, epoch, "probe"): RangeSet([(0, 5)])}
        again.expire(nothing_of_it, under=[epoch], hub_known=True, clock_known=True)
        assert again.lost, "while something of that life is held the hub may still ask"


def test_a_day_that_begins_on_a_full_disk_is_written_once_there_is_room(
    tmp_path: Path, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: object) -> bytes:
        raise sqlite3.OperationalError("database or disk is full")

    with DeliveryLog(tmp_path, clock) as log:
        log.append("probe", clock.now_ms(), ph(clock.now_ms()), KNOWN)
        with monkeypatch.context() as patched:
            patched.setattr("edge.day_file.packed", full)
            with pytest.raises(sqlite3.OperationalError) as refused:
                log.commit()
        log.commit()
        assert records(log) == [clock.now_ms()]
        assert refused.value is not None, "whoever still holds the refusal holds no lock with it"


def test_what_was_let_go_in_good_faith_is_lost_once_a_restored_hub_has_it_no_more(tmp_path: Path, clock: Any) -> None:
    with DeliveryLog(tmp_path, clock) as log:
        for stream, count in (("probe", 3), ("loa", 2)):
            for number in range(count):
                log.append(stream, clock.now_ms() + number, ph(clock.now_ms() + number), KNOWN)
        log.commit()
        clock.wall += (KEEP_DAYS + 2) * DAY
        log.append("probe", clock.now_ms(), ph(clock.now_ms()), KNOWN)
        log.commit()
        log.expire(nothing_of_it, under=(), hub_known=True, clock_known=True)
        let_go = {Lineage(log.log_id, log.epoch, "probe"): 3, Lineage(log.log_id, log.epoch, "loa"): 2}
        gone = {lineage: RangeSet([(0, count - 1)]) for lineage, count in let_go.items()}
        assert log.expired == gone
        log.give_up_expired(nothing_of_it)
        assert (log.lost, log.untold_lost) == ({}, 0), "the hub has it"
        power_cut(log)
    with DeliveryLog(tmp_path, clock) as again:
        assert again.expired == gone, "a power cut does not make it forget"
        again.give_up_expired(all_of_it)
        assert (again.lost, again.untold_lost) == (gone, 5)
        assert again.take_changes()[2] == gone, "the list of the last birth is not true any more"
        again.give_up_expired(all_of_it)
        assert again.untold_lost == 5, "it is counted once"


def test_folding_changes_nothing_that_can_be_read(tmp_path: Path, clock: Any) -> None:
    with DeliveryLog(tmp_path, clock) as log:
        for number in range(3 * FOLD_AFTER):
            for stream in ("probe", "loa"):
                log.append(stream, clock.now_ms() + 10 * number, ph(clock.now_ms() + 10 * number), KNOWN)
            log.commit()
        (day,) = log._days.values()
        assert 0 < day.commits < FOLD_AFTER or day.commits == 0
        assert len(records(log)) == 3 * FOLD_AFTER
        lineage = Lineage(log.log_id, log.epoch, "probe")
        assert [one.offset for one in log.read(lineage, 100, 120, 10**9)] == list(range(100, 121))
        assert log.append("probe", clock.now_ms() + 50, ph(0), KNOWN).at == clock.now_ms() + 51
        size = day.size()
    with DeliveryLog(tmp_path, clock) as again:
        assert len(records(again)) == 3 * FOLD_AFTER + 1
        assert not list(tmp_path.glob("*-wal")) or list(tmp_path.glob("*-wal")) == [tmp_path / "log.db-wal"]
        assert again.size <= size * 2


def test_a_day_that_could_not_be_sealed_is_read_all_the_same(tmp_path: Path, clock: Any) -> None:
    with DeliveryLog(tmp_path, clock) as log:
        for _ in range(FOLD_AFTER + 5):
            clock.wall += 1000
            log.append("probe", clock.now_ms(), ph(clock.now_ms()), KNOWN)
            log.commit()
        (day,) = log._days.values()
        day._close()
        assert len(records(log)) == FOLD_AFTER + 5


def test_a_damaged_piece_costs_its_own_records_and_is_counted(tmp_path: Path, clock: Any) -> None:
    with DeliveryLog(tmp_path, clock) as log:
        for number in range(2000):
            log.append("probe", 1000 + number, ph(1000 + number), KNOWN)
        log.commit()
    with sqlite3.connect(tmp_path / "1970-01-01.db") as connection:
        first, last = connection.execute("SELECT first, last FROM chunks ORDER BY first LIMIT 1").fetchone()
        connection.execute("UPDATE chunks SET records = x'00' WHERE first = ?", (first,))
    connection.close()
    with DeliveryLog(tmp_path, clock) as log:
        (lineage,) = log.held
        assert log.read(lineage, 0, 1999, 10**6) == []
        assert log.held[lineage] == RangeSet([(last + 1, 1999)])
        assert log.take_changes()[2] == {lineage: RangeSet([(first, last)])}
        assert log.read(lineage, last + 1, 1999, 10**6)


def test_days_that_somebody_removed_are_not_claimed_and_the_log_works_on(tmp_path: Path, clock: Any) -> None:
    now = clock.now_ms()
    with DeliveryLog(tmp_path, clock) as log:
        for at in (now - DAY, now):
            log.append("probe", at, ph(at), KNOWN)
            log.commit()
        lineage = Lineage(log.log_id, log.epoch, "probe")
        for file in tmp_path.glob("????-??-??.db*"):
            file.unlink()
        with pytest.raises(sqlite3.OperationalError):
            log.read(lineage, 0, 1, 10**6)
        assert log.held == {}
        assert log.take_changes()[2] == {lineage: RangeSet([(0, 1)])}
        log.append("probe", now + 1, ph(now + 1), KNOWN)
        log.commit()
        assert records(log) == [now + 1]
    with DeliveryLog(tmp_path, clock) as log:
        assert records(log) == [now + 1]


def test_a_clock_set_back_a_day_goes_on_in_the_day_it_names(tmp_path: Path, clock: Any) -> None:
    now = clock.now_ms()
    with DeliveryLog(tmp_path, clock) as log:
        for back in (1, 0, 1, 0, 1):
            clock.wall = now - back * DAY
            at = log.append("probe", clock.now_ms(), ph(now), KNOWN).at
            assert at >= clock.now_ms()
            log.commit()
        assert len(set(records(log))) == 5
        lineage = Lineage(log.log_id, log.epoch, "probe")
        assert log.held == {lineage: RangeSet([(0, 4)])}
        assert [one.offset for one in log.read(lineage, 0, 4, 10**6)] == [0, 1], "instants go back: another message"
        assert [one.offset for one in log.read(lineage, 2, 4, 10**6)] == [2, 3]
    with DeliveryLog(tmp_path, clock) as log:
        assert len(set(records(log))) == 5


def test_a_lost_register_begins_a_new_log_with_new_numbers(tmp_path: Path, clock: Any) -> None:
    with DeliveryLog(tmp_path, clock) as log:
        log.append("probe", 1000, ph(1000), KNOWN)
        old = (log.log_id, log.alias("probe", "Water/pH", DataType.DOUBLE))
    for file in tmp_path.glob("log.db*"):
        file.unlink()
    with DeliveryLog(tmp_path, clock) as log:
        assert log.log_id != old[0]
        assert log.alias("probe", "Water/Turbidity", DataType.DOUBLE) >> 20 != old[1] >> 20
        assert log.held == {}
        assert log.set_aside, "that its records are not delivered is said"
    assert list(tmp_path.glob("*.of-*"))


def test_a_damaged_register_begins_a_new_log(tmp_path: Path, clock: Any) -> None:
    with DeliveryLog(tmp_path, clock) as log:
        old = log.log_id
        for number in range(500):
            log.alias("probe", f"Some/Metric{number}", DataType.DOUBLE)
    raw = bytearray((tmp_path / "log.db").read_bytes())
    raw[4096 : 4096 * 3] = b"\xff" * 8192
    (tmp_path / "log.db").write_bytes(raw)
    with DeliveryLog(tmp_path, clock) as log:
        assert log.log_id != old
    assert list(tmp_path.glob("log.broken-*"))


def test_days_newer_than_a_register_from_a_backup_are_not_read_by_its_numbers(tmp_path: Path, clock: Any) -> None:
    with DeliveryLog(tmp_path, clock) as log:
        log.append("probe", 1000, ph(1000), KNOWN)
    backup = (tmp_path / "log.db").read_bytes()
    with DeliveryLog(tmp_path, clock) as log:
        log.append("probe", 5000, [Sample(metric="Water/Turbidity", at=5000, value=1.0)], KNOWN)
    (tmp_path / "log.db").write_bytes(backup)
    with DeliveryLog(tmp_path, clock) as log:
        assert log.held == {}
        assert log.set_aside


def test_lives_are_in_the_logs_own_order_after_their_days_went(tmp_path: Path, clock: Any) -> None:
    epochs = []
    for _ in range(3):
        with DeliveryLog(tmp_path, clock) as log:
            epochs.append(log.epoch)
            log.append("probe", 1000, ph(1000), KNOWN)
    (tmp_path / "1970-01-01.db").unlink()
    with DeliveryLog(tmp_path, clock) as log:
        places = [log.place(epoch) for epoch in epochs]
        assert None not in places
        assert places == sorted(places, key=lambda place: place or 0)
        assert log.place(log.epoch) > max(place or 0 for place in places)  # type: ignore[operator]  # it has one
        assert log.place(12345) is None


def test_a_card_restored_from_an_image_goes_on_in_a_life_of_its_own(tmp_path: Path, clock: Any) -> None:
    with DeliveryLog(tmp_path / "card", clock) as log:
        log.append("probe", 1000, ph(1000), KNOWN)
    shutil.copytree(tmp_path / "card", tmp_path / "image")
    lives = {}
    for card in ("card", "image"):
        with DeliveryLog(tmp_path / card, clock) as log:
            log.append("probe", 2000, ph(2000), KNOWN)
            lives[card] = log.epoch
    assert lives["card"] != lives["image"]
    assert lives["card"] >> 32 == lives["image"] >> 32, "which is how a hub tells two boxes from one card"
    with DeliveryLog(tmp_path / "image", clock) as log:
        assert log.place(lives["card"]) is None


def test_what_no_session_was_given_survives_a_power_cut_and_is_given_once(tmp_path: Path, clock: Any) -> None:
    with DeliveryLog(tmp_path, clock) as log:
        log.append("probe", 1000, ph(1000), KNOWN, handed=True)
        log.append("probe", 2000, ph(2000), KNOWN)
        log.append("probe", 3000, ph(3000), KNOWN)
        log.commit()
        log.append("probe", 4000, ph(4000), KNOWN, handed=True)
        log.commit()
        lineage = Lineage(log.log_id, log.epoch, "probe")
        power_cut(log)
    with DeliveryLog(tmp_path, clock) as log:
        assert log.unhanded == {lineage: RangeSet([(1, 2)])}
        log.hand_over(lineage, 1, 1)
        power_cut(log)
    with DeliveryLog(tmp_path, clock) as log:
        assert log.unhanded == {lineage: RangeSet([(2, 2)])}
        log.not_handed({lineage: RangeSet([(3, 3)])})
        assert log.unhanded == {lineage: RangeSet([(2, 3)])}
        log.all_handed()
    with DeliveryLog(tmp_path, clock) as log:
        assert log.unhanded == {}


def test_how_far_a_session_has_handed_over_is_stored_with_each_group_commit(tmp_path: Path, clock: Any) -> None:
    with DeliveryLog(tmp_path, clock) as log:
        lineage = Lineage(log.log_id, log.epoch, "probe")
        log.append("probe", 1000, ph(1000), KNOWN)
        log.commit()
        log.hand_over(lineage, 0, 0)
        log.append("probe", 2000, ph(2000), KNOWN)
        log.commit()
        power_cut(log)
    with DeliveryLog(tmp_path, clock) as log:
        assert log.unhanded == {lineage: RangeSet([(1, 1)])}


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
                power_cut(log)
                pending = []
                log = DeliveryLog(folder, clock)
                log.__enter__()
        for stream in ("probe", "loa", ""):
            assert sorted(records(log, stream)) == sorted(durable.get(stream, []))
            assert len(set(records(log, stream))) == len(records(log, stream))
    finally:
        log.__exit__(None, None, None)
