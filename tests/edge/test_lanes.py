"""What is owed, what is in the air, and which answers can be true."""

from contract.positions import Lineage, RangeSet
from edge.lanes import (
    FIRST_PATIENCE,
    MESSAGE_BYTES,
    MOST_PATIENCE,
    Flight,
    aloft,
    believable,
    flying,
    longer,
    patient,
    room,
    under_way,
)

OLD, NEW = Lineage("log", 1, "probe"), Lineage("log", 2, "probe")


def flight(lineage: Lineage, first: int, last: int, sent: float = 0.0, size: int = 100) -> Flight:
    return Flight(lineage=lineage, first=first, last=last, size=size, sent=sent)


def test_a_flight_lands_when_all_of_it_is_covered() -> None:
    flights = (flight(NEW, 0, 4), flight(NEW, 5, 9))
    committed = {NEW: RangeSet([(0, 7)])}
    assert aloft(flights, lambda lineage, ranges: ranges - committed[lineage]) == flights[1:]
    assert under_way(flights) == 200
    assert flying(flights) == {NEW: RangeSet([(0, 9)])}


def test_history_waits_for_half_a_message_of_room_and_never_sends_crumbs() -> None:
    window = 4 * MESSAGE_BYTES
    assert room(window, 0) == MESSAGE_BYTES
    assert room(window, window - MESSAGE_BYTES // 2) == MESSAGE_BYTES // 2
    assert room(window, window - MESSAGE_BYTES // 2 + 1) == 0
    assert room(window, 2 * window) == 0


def test_a_window_of_nothing_holds_history_and_a_small_one_lets_it_through() -> None:
    assert room(0, 0) == 0
    assert room(1000, 0) == 1000
    assert room(1000, 501) == 0


def test_patience_ends_and_doubles_up_to_ten_minutes() -> None:
    flights = (flight(NEW, 0, 1, sent=0), flight(NEW, 2, 3, sent=20))
    assert patient(flights, FIRST_PATIENCE, FIRST_PATIENCE) == flights[1:]
    patience = FIRST_PATIENCE
    for _ in range(9):
        patience = longer(patience)
    assert patience == MOST_PATIENCE


def test_ranges_of_another_log_are_ignored_and_reported() -> None:
    good, doubts = believable({Lineage("other", 2, "probe"): RangeSet([(0, 9)])}, "log", 2, {"probe": 9})
    assert good == {}
    assert "other" in doubts[0]


def test_offsets_never_sent_are_ignored_and_reported() -> None:
    good, doubts = believable({NEW: RangeSet([(0, 20)])}, "log", 2, {"probe": 9})
    assert good == {NEW: RangeSet([(0, 9)])}
    assert "10" in doubts[0]
    assert believable({NEW: RangeSet([(0, 0)])}, "log", 2, {})[0] == {NEW: RangeSet()}


def test_a_restored_cards_former_life_is_believed_as_it_stands() -> None:
    assert believable({OLD: RangeSet([(0, 99)])}, "log", 2, {}) == ({OLD: RangeSet([(0, 99)])}, [])
