"""The accounts between a log and its hub: what is owed, what waits, what the floor has done with."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from contract.catalog import CATALOG, Kind
from contract.delivery import FIRST_WINDOW_BYTES, MOST_HELD, Committed, Ledger
from contract.metrics import Sample
from contract.positions import Lineage, RangeSet
from edge.day_file import DayFile
from edge.delivery import LIST_AGAIN_EVERY, Delivery
from edge.delivery_log import DeliveryLog
from edge.lanes import FIRST_PATIENCE, MESSAGE_BYTES

KNOWN = {one.name: one for one in CATALOG[Kind.WATER_PROBE].metrics}
WINDOW = 256 * 1024


def write(log: DeliveryLog, clock: Any, count: int = 1, stream: str = "probe") -> None:
    for _ in range(count):
        clock.wall += 1
        log.append(stream, clock.now_ms(), [Sample(metric="Water/pH", at=clock.now_ms(), value=7.0)], KNOWN)
    log.commit()


def lived(folder: Path, clock: Any, lives: int) -> list[int]:
    """Let the agent start so many times and log one record in each life; return the epochs in their order."""
    epochs = []
    for _ in range(lives):
        with DeliveryLog(folder, clock) as log:
            write(log, clock)
            epochs.append(log.epoch)
    return epochs


def written(folder: Path, clock: Any, lives: int) -> list[int]:
    """As `lived`, in one go: what so many starts leave on the card."""
    with DeliveryLog(folder, clock) as log:
        write(log, clock)
        (record,) = log.read(lineage(log), 0, 0, 10**6)
        epochs = [(one << 32) + 7 for one in range(1000, 1000 + lives)]
        day = DayFile(folder / "2020-01-01.db", log.log_id)
    day.write([replace(record, lineage=replace(record.lineage, epoch=epoch)) for epoch in epochs])
    day.fold({})
    day.seal()
    return [log.epoch, *epochs]


def lineage(log: DeliveryLog, epoch: int | None = None, stream: str = "probe") -> Lineage:
    return Lineage(log.log_id, log.epoch if epoch is None else epoch, stream)


def ledger(log: DeliveryLog, *committed: tuple[int, int, int], floors: tuple[int, ...] = ()) -> Ledger:
    """Return a ledger of ranges as (epoch, first, last)."""
    found: dict[Lineage, RangeSet] = {}
    for epoch, first, last in committed:
        one = lineage(log, epoch)
        found[one] = found.get(one, RangeSet()) | RangeSet([(first, last)])
    return Ledger(positions=found, window=WINDOW, floors=frozenset(floors))


@pytest.fixture
def log(tmp_path: Path, clock: Any) -> Iterator[DeliveryLog]:
    with DeliveryLog(tmp_path, clock) as one:
        yield one


def test_history_is_owed_oldest_first_until_it_is_covered(log: DeliveryLog, clock: Any) -> None:
    delivery = Delivery(log, clock)
    write(log, clock, 10)
    delivery.answered(ledger(log))
    owed = delivery.next_owed()
    assert owed is not None
    assert (owed.first, owed.last, owed.most_bytes) == (0, 9, MESSAGE_BYTES)
    delivery.flew(owed.lineage, 0, 4, 500)
    assert delivery.next_owed() is not None
    delivery.flew(owed.lineage, 5, 9, 500)
    assert delivery.next_owed() is None, "all of it is in the air"
    delivery.answered(Committed(positions={lineage(log): RangeSet([(0, 9)])}))
    assert delivery.uncommitted_records() == 0


def test_what_is_not_covered_in_time_is_owed_again_and_patience_doubles(log: DeliveryLog, clock: Any) -> None:
    delivery = Delivery(log, clock)
    write(log, clock, 2)
    delivery.answered(ledger(log))
    waited = []
    for _ in range(4):
        delivery.flew(lineage(log), 0, 1, 100)
        start = clock.monotonic()
        while delivery.next_owed() is None:
            clock._move(clock.monotonic() + 1)
        waited.append(clock.monotonic() - start)
    assert waited == [FIRST_PATIENCE, 2 * FIRST_PATIENCE, 4 * FIRST_PATIENCE, 8 * FIRST_PATIENCE]


def test_a_ledger_that_knows_less_makes_records_owed_again(log: DeliveryLog, clock: Any) -> None:
    delivery = Delivery(log, clock)
    write(log, clock, 5)
    for first in range(5):
        delivery.flew(lineage(log), first, first, 100)
    delivery.answered(ledger(log, (log.epoch, 0, 4)))
    assert delivery.uncommitted_records() == 0
    delivery.answered(ledger(log, (log.epoch, 0, 1)))
    owed = delivery.next_owed()
    assert owed is not None
    assert (owed.first, owed.last) == (2, 4)


def test_a_lost_window_of_nothing_does_not_last(log: DeliveryLog, clock: Any) -> None:
    delivery = Delivery(log, clock)
    write(log, clock, 5)
    delivery.answered(Ledger(positions={}, window=0))
    assert delivery.next_owed() is None
    delivery.answered(Ledger(positions={}, window=WINDOW))
    assert delivery.next_owed() is not None


def test_live_data_counts_in_the_window_and_history_waits_for_it(log: DeliveryLog, clock: Any) -> None:
    delivery = Delivery(log, clock)
    write(log, clock, 5)
    delivery.answered(Ledger(positions={}, window=FIRST_WINDOW_BYTES))
    delivery.flew(lineage(log, stream="other"), 0, 99, FIRST_WINDOW_BYTES)
    assert delivery.next_owed() is None
    delivery.answered(Committed(positions={lineage(log, stream="other"): RangeSet([(0, 99)])}))
    assert delivery.next_owed() is not None


def test_under_the_floor_everything_counts_as_committed_and_above_it_nothing_does(tmp_path: Path, clock: Any) -> None:
    first, second, third = lived(tmp_path, clock, 3)
    with DeliveryLog(tmp_path, clock) as log:
        delivery = Delivery(log, clock)
        delivery.list_held()
        delivery.answered(ledger(log, (second, 0, 0), floors=(second,)))
        assert delivery.floor == second
        assert delivery.uncommitted_records() == 1
        owed = delivery.next_owed()
        assert owed is not None
        assert owed.lineage.epoch == third
        assert first


def test_a_floor_that_this_log_does_not_contain_binds_nothing(tmp_path: Path, clock: Any) -> None:
    lived(tmp_path, clock, 3)
    with DeliveryLog(tmp_path, clock) as log:
        delivery = Delivery(log, clock)
        delivery.answered(ledger(log, floors=(2**40 + 7, log.epoch)))
        assert delivery.floor is None
        assert delivery.uncommitted_records() == 3


def test_a_hub_from_a_backup_with_an_earlier_floor_makes_them_owed_and_named_again(tmp_path: Path, clock: Any) -> None:
    first, second, third = lived(tmp_path, clock, 3)
    with DeliveryLog(tmp_path, clock) as log:
        delivery = Delivery(log, clock)
        delivery.list_held()
        delivery.answered(ledger(log, (third, 0, 0), floors=(third,)))
        assert delivery.uncommitted_records() == 0
        held = delivery.list_held()
        assert (held.floor, held.positions) == (third, {})
        delivery.answered(ledger(log, (first, 0, 0), floors=(first,)))
        assert delivery.must_list_again()
        assert delivery.next_owed() is None, "the hub takes nothing of a life that no birth has named"
        held = delivery.list_held()
        assert held.floor == first
        assert {one.epoch for one in held.positions} == {second, third}
        assert delivery.uncommitted_records() == 2
        assert delivery.next_owed() is not None
        delivery.answered(ledger(log))
        assert delivery.must_list_again()
        assert delivery.list_held().floor is None
        assert delivery.uncommitted_records() == 3


def test_history_of_lives_that_no_birth_has_named_waits_but_that_of_the_running_one_does_not(
    tmp_path: Path, clock: Any
) -> None:
    epochs = written(tmp_path, clock, MOST_HELD + 2)
    with DeliveryLog(tmp_path, clock) as log:
        write(log, clock)
        delivery = Delivery(log, clock)
        held = delivery.list_held()
        assert list(dict.fromkeys(one.epoch for one in held.positions)) == epochs[:MOST_HELD]
        delivery.answered(ledger(log))
        sent = drain(delivery)
        assert sent == [*epochs[:MOST_HELD], log.epoch]
        delivery.answered(ledger(log, (epochs[MOST_HELD - 1], 0, 0), floors=(epochs[MOST_HELD - 1],)))
        assert delivery.must_list_again()
        assert {one.epoch for one in delivery.list_held().positions} == set(epochs[MOST_HELD:])
        assert not delivery.must_list_again()
        assert drain(delivery) == epochs[MOST_HELD:]


def drain(delivery: Delivery) -> list[int]:
    sent = []
    while (owed := delivery.next_owed()) is not None:
        delivery.flew(owed.lineage, owed.first, owed.last, 1)
        sent.append(owed.lineage.epoch)
    return sent


def test_after_four_hundred_starts_a_birth_stays_bounded_and_all_is_delivered(tmp_path: Path, clock: Any) -> None:
    epochs = written(tmp_path, clock, 399)
    with DeliveryLog(tmp_path, clock) as log:
        delivery = Delivery(log, clock)
        has: dict[int, int] = {}
        floor: int | None = None
        births = 0
        delivery.answered(ledger(log))
        while delivery.uncommitted_records():
            named = list(dict.fromkeys(one.epoch for one in delivery.list_held().positions))
            births += 1
            assert len(named) <= MOST_HELD
            has |= dict.fromkeys(drain(delivery), 0)
            floor = named[-1]  # the hub has all that was named
            delivery.answered(ledger(log, (floor, 0, 0), *((one, 0, 0) for one in has), floors=(floor,)))
            assert births <= 12
        assert sorted(has) == sorted(epochs)
        assert births == 400 // MOST_HELD


def test_a_list_that_is_not_true_any_more_is_taken_back_but_not_at_every_moment(tmp_path: Path, clock: Any) -> None:
    lived(tmp_path, clock, 2)
    with DeliveryLog(tmp_path, clock) as log:
        delivery = Delivery(log, clock)
        delivery.list_held()
        delivery.answered(ledger(log))
        (day,) = tmp_path.glob("????-??-??.db")
        raw = bytearray(day.read_bytes())
        raw[1024:] = b"\xff" * (len(raw) - 1024)
        day.write_bytes(raw)
        owed = delivery.next_owed()
        assert owed is not None
        assert log.read(owed.lineage, owed.first, owed.last, owed.most_bytes) == []
        delivery.reckon()
        assert delivery.uncommitted_records() == 0
        assert log.untold_lost == 2
        assert not delivery.must_list_again()
        clock._move(clock.monotonic() + LIST_AGAIN_EVERY)
        assert delivery.must_list_again()
        assert delivery.list_held().positions == {}


def test_how_deep_the_log_is_and_since_when(log: DeliveryLog, clock: Any) -> None:
    delivery = Delivery(log, clock)
    assert (delivery.depth().records, delivery.depth().oldest) == (0, None)
    oldest = clock.now_ms() + 1
    write(log, clock, 3)
    delivery.reckon()
    delivery.oldest = log.oldest(delivery.first_uncovered())
    depth = delivery.depth()
    assert (depth.records, depth.oldest) == (3, oldest)
    assert depth.size == sum(file.stat().st_size for file in log._folder.glob("????-??-??.db*"))
    delivery.answered(ledger(log, (log.epoch, 0, 0)))
    assert delivery.depth().records == 3, "offsets that were never sent cannot be committed"


def test_what_is_asked_at_each_tick_does_not_cost_more_when_the_log_is_long(tmp_path: Path, clock: Any) -> None:
    epochs = written(tmp_path, clock, 400)
    with DeliveryLog(tmp_path, clock) as log:
        delivery = Delivery(log, clock)
        delivery.list_held()
        delivery.answered(ledger(log))
        asked = 0
        place = log.place

        def counting(epoch: int) -> int | None:
            nonlocal asked
            asked += 1
            return place(epoch)

        log.place = counting  # type: ignore[method-assign]  # what it counts is the point
        for _ in range(100):
            delivery.reckon()
            assert delivery.next_owed() is not None
            delivery.uncommitted_records()
            delivery.depth()
        assert asked <= 100 * 6
        assert epochs


def test_the_first_birth_of_a_life_lists_from_the_floor_told_last_until_a_hub_tells_another(
    tmp_path: Path, clock: Any
) -> None:
    epochs = lived(tmp_path, clock, 3)
    with DeliveryLog(tmp_path, clock) as log:
        delivery = Delivery(log, clock)
        assert delivery.list_held().floor is None, "no hub ever told one"
        delivery.answered(ledger(log, (epochs[1], 0, 0), floors=(epochs[1],)))
        log.keep_floor(delivery.floor)
    with DeliveryLog(tmp_path, clock) as log:
        delivery = Delivery(log, clock)
        assert delivery.list_held().floor == epochs[1]
        assert not delivery.must_list_again(), "nobody has said anything else"
        delivery.answered(ledger(log))
        assert delivery.must_list_again(), "a hub restored from a backup has that floor no more"
        assert delivery.list_held().floor is None
