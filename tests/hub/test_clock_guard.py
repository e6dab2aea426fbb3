"""When a hub must not believe its own clock."""

from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.clock_guard import ENOUGH_WITNESSES, FAR_OFF, FRESH, Witnesses, clock_fault
from hub.devices import NodeKey

NOW = 1_790_000_000_000


def fault(*, synchronised: bool = True, early: bool = False, newest: int = 0, ahead: tuple[int, ...] = ()) -> str:
    return clock_fault(synchronised=synchronised, started_early=early, now_ms=NOW, newest_received=newest, ahead=ahead)


def test_a_clock_that_nothing_speaks_against_is_believed() -> None:
    assert fault(newest=NOW, ahead=(0, 10, -10, 299_999, -5)) == ""


def test_an_unsynchronised_kernel_holds() -> None:
    assert "not synchronised" in fault(synchronised=False)


def test_a_hub_that_starts_before_its_newest_reading_holds_until_it_is_past() -> None:
    assert "1 s behind the newest reading" in fault(early=True, newest=NOW + 1000)
    assert fault(early=True, newest=NOW) == ""


def test_a_running_hub_may_be_set_back_a_little_but_not_far() -> None:
    assert fault(newest=NOW + FAR_OFF) == ""
    assert "1 h behind" not in fault(newest=NOW + 3_600_000)
    assert "60 min behind the newest reading" in fault(newest=NOW + 3_600_000)


@pytest.mark.parametrize(("off", "words"), [(FAR_OFF, "5 min behind 5"), (-FAR_OFF, "5 min ahead of 5")])
def test_five_edge_nodes_that_agree_are_believed_over_the_hub(off: int, words: str) -> None:
    assert words in fault(ahead=(off,) * 5)
    assert fault(ahead=(off,) * 4) == "", "four are too few"


@given(st.lists(st.integers(-10 * FAR_OFF, 10 * FAR_OFF), max_size=15))
def test_it_holds_exactly_where_the_median_of_enough_is_far_off(ahead: list[int]) -> None:
    expected = len(ahead) >= ENOUGH_WITNESSES and abs(median(ahead)) >= FAR_OFF
    assert bool(fault(ahead=tuple(ahead))) is expected


@given(st.lists(st.integers(-1000, 1000), min_size=5, max_size=15), st.data())
def test_a_minority_of_wild_clocks_changes_nothing(honest: list[int], data: st.DataObject) -> None:
    wild = data.draw(st.lists(st.integers(-(10**12), 10**12), max_size=len(honest) - 1))
    assert fault(ahead=(*honest, *wild)) == ""


def test_what_an_edge_node_said_long_ago_does_not_count() -> None:
    witnesses = Witnesses()
    witnesses.heard(NodeKey("g", "a"), 5, 100.0)
    witnesses.heard(NodeKey("g", "a"), 7, 200.0)
    witnesses.heard(NodeKey("g", "b"), 9, 250.0)
    assert sorted(witnesses.ahead(300.0)) == [7, 9], "each counts once, by what it said last"
    assert witnesses.ahead(200.0 + FRESH) == [9]
