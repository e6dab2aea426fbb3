"""How complete a day is: nothing unknown counts as good, nothing lost is smoothed over."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.completeness import DayReport, Verdict, day_report, silence
from hub.storage.timeseries import Completeness, Interval, Reach

DAY = 86_400_000
HOUR = 3_600_000


def counts(**told: int) -> Completeness:
    nothing = dict.fromkeys(("samples", "records", "historical", "conflicts", "quarantined", "void"), 0)
    return Completeness(**{**nothing, **told})


def report(counted: Completeness, **told: Any) -> DayReport:
    usual = {"start": 0, "end": DAY, "now": 2 * DAY, "silent_ms": 0, "owes": False, "foreign": False}
    return day_report(counted, **{**usual, **told})


def test_a_day_of_which_all_is_stored_is_whole() -> None:
    day = report(counts(samples=800, records=100, historical=200, conflicts=3))
    assert (day.complete_share, day.verdict, day.expected) == (1.0, Verdict.WHOLE, 100)
    assert (day.late_share, day.conflicts) == (0.25, 3)


def test_an_unknown_half_of_a_day_is_not_counted_as_good() -> None:
    day = report(counts(samples=800, records=100), silent_ms=12 * HOUR)
    assert (day.complete_share, day.verdict, day.expected) == (0.5, Verdict.GAPS, None)
    assert day.unknown_ms == 12 * HOUR


def test_lost_records_count_as_many_samples_as_a_record_has() -> None:
    day = report(counts(samples=900, records=90, void=10))
    assert (day.complete_share, day.verdict, day.expected) == (0.9, Verdict.LOSSES, 100)


def test_what_is_in_quarantine_is_not_stored() -> None:
    day = report(counts(samples=99, records=33, quarantined=1))
    assert (day.complete_share, day.verdict) == (0.99, Verdict.LOSSES)


@pytest.mark.parametrize("told", [{"owes": True}, {"now": DAY - 1}])
def test_while_more_may_come_a_day_is_open(told: dict[str, Any]) -> None:
    day = report(counts(samples=10, records=10, void=1), **told)
    assert (day.verdict, day.expected) == (Verdict.OPEN, None)


def test_of_a_day_that_is_not_over_only_what_has_passed_counts() -> None:
    assert report(counts(samples=1, records=1), now=6 * HOUR, silent_ms=3 * HOUR).complete_share == 0.5


def test_a_day_without_a_sign_of_life_is_unknown_and_complete_to_no_part() -> None:
    day = report(counts(), silent_ms=DAY)
    assert (day.complete_share, day.verdict, day.late_share) == (0.0, Verdict.UNKNOWN, None)


def test_a_live_edge_node_of_which_nothing_is_stored_is_no_whole_day() -> None:
    day = report(counts(), silent_ms=0)
    assert (day.complete_share, day.verdict) == (0.0, Verdict.GAPS)


def test_of_foreign_equipment_nobody_can_say() -> None:
    day = report(counts(samples=5, records=5), foreign=True)
    assert (day.complete_share, day.expected, day.verdict) == (None, None, Verdict.BEST_EFFORT)


few = st.integers(0, 1000)


@given(st.builds(counts, samples=few, records=few, quarantined=few, void=few), st.integers(-10, DAY + 10))
def test_a_share_is_a_share_and_whole_means_that_nothing_is_amiss(counted: Completeness, silent: int) -> None:
    day = report(counted, silent_ms=silent)
    assert day.complete_share is not None
    assert 0 <= day.complete_share <= 1
    if day.verdict is Verdict.WHOLE:
        assert (day.complete_share, day.void, day.quarantined, day.unknown_ms) == (1.0, 0, 0, 0)


def stretch(start: int, end: int, state: Reach) -> Interval:
    return Interval(start=start, end=end, state=state, cause="")


def test_an_edge_node_is_silent_where_it_says_nothing_of_any_device() -> None:
    up, down, unknown = Reach.UP, Reach.DOWN, Reach.UNKNOWN
    first = [stretch(0, 10, up), stretch(10, 40, unknown), stretch(40, 50, down), stretch(50, 60, unknown)]
    second = [stretch(0, 20, unknown), stretch(20, 30, up), stretch(30, 60, unknown)]
    assert silence([first, second], 0, 60) == 30
    assert silence([first], 0, 60) == 40
    assert silence([], 0, 60) == 60
