"""Range sets against plain sets of numbers."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.positions import Lineage, RangeSet, difference, union

ranges = st.lists(
    st.tuples(st.integers(0, 40), st.integers(0, 8)).map(lambda one: (one[0], one[0] + one[1])), max_size=8
)


def numbers(one: RangeSet) -> set[int]:
    return {number for first, last in one for number in range(first, last + 1)}


@given(ranges, ranges)
def test_the_algebra_is_that_of_sets(left: list[tuple[int, int]], right: list[tuple[int, int]]) -> None:
    a, b = RangeSet(left), RangeSet(right)
    assert numbers(a | b) == numbers(a) | numbers(b)
    assert numbers(a - b) == numbers(a) - numbers(b)
    assert numbers(a & b) == numbers(a) & numbers(b)
    assert a.covers(b) == (numbers(b) <= numbers(a))
    assert len(a) == len(numbers(a))
    assert all((number in a) == (number in numbers(a)) for number in range(52))
    assert a.highest == max(numbers(a), default=-1)


@given(ranges, st.integers(0, 60), st.integers(0, 8))
def test_adding_a_range_is_a_union_and_keeps_ranges_apart(left: list[tuple[int, int]], first: int, size: int) -> None:
    grown = RangeSet(left).add(first, first + size)
    assert grown == RangeSet([*left, (first, first + size)])
    held = list(grown)
    assert all(before[1] + 1 < after[0] for before, after in pairwise(held))


@pytest.mark.parametrize("wrong", [(3, 2), (-1, 4)])
def test_a_range_that_is_none_is_refused(wrong: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="first <= last"):
        RangeSet([wrong])


def test_positions_of_different_lives_never_touch() -> None:
    before, after = Lineage("log", 1, "probe"), Lineage("log", 2, "probe")
    both = union({before: RangeSet([(0, 5)])}, {after: RangeSet([(3, 9)])})
    assert difference(both, {before: RangeSet([(0, 9)])}) == {after: RangeSet([(3, 9)])}
