"""The host's side of a session: gaps, deaths and how often a birth is asked for."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from hub.session import ASK_AGAIN, NodeSession, asks, birth, death, message, overdue, unreadable

BORN = birth(NodeSession(), bdseq=5, seq=0)


def test_data_before_birth_wants_one() -> None:
    assert message(NodeSession(), 3, 0).wants_birth


def test_messages_in_order_leave_no_gap() -> None:
    session = BORN
    for number in range(1, 600):
        session = message(session, number % 256, number)
        assert session.gap_since is None


def test_a_gap_that_is_filled_in_time_asks_for_nothing() -> None:
    session = message(message(BORN, 2, 10), 1, 12)
    assert session.gap_since is None
    assert not overdue(session, 99, 5).wants_birth


def test_a_gap_only_asks_when_its_time_is_over() -> None:
    session = message(BORN, 2, 10)
    assert not session.wants_birth, "a host that asks at once instead of waiting is wrong"
    assert not overdue(session, 14.9, 5).wants_birth
    assert overdue(session, 15, 5).wants_birth


def test_the_sequence_goes_on_after_a_gap_and_over_255() -> None:
    session = message(replace(BORN, expected=254), 1, 10)
    assert session.missing == {254, 255, 0}
    assert message(session, 2, 11).expected == 3


def test_a_death_counts_only_for_the_birth_in_force() -> None:
    assert death(BORN, 4) is None
    assert death(NodeSession(), 5) is None
    dead = death(BORN, 5)
    assert dead is not None
    assert not dead.born


def test_a_birth_is_asked_for_at_most_once_a_minute() -> None:
    first = asks(unreadable(BORN), 100)
    assert first is not None
    assert asks(first, 200) is None, "nothing is wanted any more"
    assert asks(unreadable(first), 100 + ASK_AGAIN - 1) is None
    assert asks(unreadable(first), 100 + ASK_AGAIN) is not None


@given(st.lists(st.integers(0, 255), max_size=80))
def test_whatever_comes_a_gap_is_open_exactly_while_something_is_missing(numbers: list[int]) -> None:
    session = BORN
    for at, number in enumerate(numbers):
        session = message(session, number, at)
        assert (session.gap_since is not None) == bool(session.missing)
        assert 0 <= session.expected < 256
