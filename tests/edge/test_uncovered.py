"""What is uncovered, against a plain dictionary that is worked out anew each time."""

from hypothesis import given
from hypothesis import strategies as st

from contract.positions import Lineage, RangeSet, difference, union
from edge.uncovered import Uncovered

ORDER = {7: 0, 3: 1, 9: 2}
lineages = st.builds(Lineage, st.just("log"), st.sampled_from(sorted(ORDER)), st.sampled_from(["", "a", "b"]))
ranges = st.lists(
    st.tuples(st.integers(0, 20), st.integers(0, 5)).map(lambda one: (one[0], sum(one))), min_size=1, max_size=3
).map(RangeSet)
positions = st.dictionaries(lineages, ranges, max_size=4)
moves = st.lists(st.tuples(st.sampled_from(["add", "remove", "replace"]), positions), max_size=20)


@given(moves, st.integers(-1, 3))
def test_it_is_what_a_plain_set_would_be_and_in_the_logs_own_order(
    moves: list[tuple[str, dict[Lineage, RangeSet]]], place: int
) -> None:
    uncovered = Uncovered(ORDER.get)
    plain: dict[Lineage, RangeSet] = {}
    for move, what in moves:
        if move == "add":
            uncovered.add(what)
            plain = union(plain, what)
        elif move == "remove":
            gone = uncovered.remove(what)
            left = difference(plain, what)
            assert gone == sum(map(len, plain.values())) - sum(map(len, left.values()))
            plain = left
        else:
            uncovered.replace(what)
            plain = dict(what)
        assert len(uncovered) == sum(map(len, plain.values()))
        assert uncovered.streams == {one.stream for one in plain}
        walked = list(uncovered.from_place(place))
        expected = sorted((ORDER[one.epoch], one.stream) for one in plain if ORDER[one.epoch] >= place)
        assert [(where, one.stream) for where, one, _ in walked] == expected
        assert all(plain[one] == found == uncovered.of(one) for _, one, found in walked)
