"""When an edge node is told what is committed, and when it is better not told."""

import pytest

from contract.delivery import Committed, Ledger
from contract.positions import Lineage, RangeSet
from hub.answers import (
    ALL_WINDOWS,
    BETWEEN_LEDGERS,
    COMMITTED_EVERY,
    LEAST_WINDOW,
    LEDGER_EVERY,
    WINDOW,
    Answers,
    TimeFaults,
    window_among,
)

OURS, OTHERS = Lineage("log", 1, "probe"), Lineage("other", 1, "probe")


def told() -> Answers:
    answers = Answers()
    answers.born(0)
    answers.told(Ledger(positions={}, window=1), 0)
    return answers


def test_after_a_birth_the_whole_ledger_is_due_and_then_every_minute() -> None:
    answers = told()
    assert answers.due(LEDGER_EVERY - 0.1, held=False) is None
    assert answers.due(LEDGER_EVERY, held=False) is Ledger
    answers.born(5)
    assert answers.due(5, held=False) is Ledger


def test_news_are_told_every_five_seconds_or_at_half_a_window() -> None:
    answers = told()
    answers.committed(OURS, 0, 4, 100)
    assert answers.due(COMMITTED_EVERY - 0.1, held=False) is None
    assert answers.due(COMMITTED_EVERY, held=False) is Committed
    answers.committed(OURS, 5, 9, WINDOW // 2)
    assert answers.due(1, held=False) is Committed
    assert answers.news("log") == Committed(positions={OURS: RangeSet([(0, 9)])})
    answers.told(answers.news("log"), 1)
    assert answers.due(20, held=False) is None


def test_many_that_drain_share_what_may_be_under_way_so_that_live_readings_are_not_late() -> None:
    assert window_among(0) == window_among(24) == WINDOW
    assert window_among(80) * 80 <= ALL_WINDOWS
    assert window_among(100_000) == LEAST_WINDOW, "but nobody stands still"
    answers = told()
    answers.window = window_among(80)
    answers.committed(OURS, 0, 9, answers.window // 2)
    assert answers.due(1, held=False) is Committed, "half of the window it was told"


def test_nothing_is_acknowledged_while_held() -> None:
    answers = told()
    answers.committed(OURS, 0, 4, 100)
    assert answers.due(10, held=True) is None
    assert answers.due(100, held=True) is None


def test_with_the_window_closed_all_that_is_committed_is_still_told() -> None:
    ledger = told().ledger({OURS: RangeSet([(0, 1)])}, "log", floors=frozenset({1}), closed=True)
    assert ledger == Ledger(positions={OURS: RangeSet([(0, 1)])}, window=0, floors=frozenset({1}))


def test_a_changed_window_is_told_soon_but_not_at_once() -> None:
    answers = told()
    answers.ledger_wanted()
    assert answers.due(BETWEEN_LEDGERS - 0.1, held=False) is None
    assert answers.due(BETWEEN_LEDGERS, held=False) is Ledger


def test_a_log_is_told_of_itself_only() -> None:
    ledger = {OURS: RangeSet([(0, 1)]), OTHERS: RangeSet([(0, 9)])}
    assert told().ledger(ledger, "log", floors=frozenset(), closed=False).positions == {OURS: RangeSet([(0, 1)])}


def test_what_may_not_be_told_does_not_pile_up() -> None:
    answers = told()
    for number in range(1000):
        answers.committed(OURS, number, number, 1)
    assert answers.news("log") == Committed(positions={OURS: RangeSet([(0, 999)])})
    assert len(answers._positions[OURS]) == 1


@pytest.mark.parametrize(
    ("samples", "wrong", "wild"),
    [
        (9_900, 100, False),
        (9_899, 101, True),
        (735, 1, False),
        (0, 736, True),
        (10**6, 1000, False),
        (10**6, 1001, True),
    ],
)
def test_a_wild_clock_is_told_from_a_device_with_one_wrong_sample(samples: int, wrong: int, wild: bool) -> None:
    faults = TimeFaults()
    faults.note(0, samples, wrong)
    assert faults.wild(59) is wild
    assert not faults.wild(60), "once the minute is over, it is believed again"
