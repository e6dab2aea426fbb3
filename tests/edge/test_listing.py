"""Which earlier lives a birth names, and when it must name others."""

from hypothesis import given
from hypothesis import strategies as st

from contract.positions import Lineage, Positions, RangeSet
from edge.listing import MOST_RANGES, Listing, binding, list_again, listing, part

RUNNING = 1000


def place(epoch: int) -> int | None:
    """Return an order that is not the numbers': a card restored from an image draws smaller ones later."""
    return {40: 1, 10: 2, 30: 3, 20: 4, RUNNING: 9}.get(epoch) if epoch < 100 or epoch == RUNNING else epoch


def held(*epochs: int, streams: int = 1) -> Positions:
    return {Lineage("log", one, f"s{stream}"): RangeSet([(0, 9)]) for one in epochs for stream in range(streams)}


def test_lives_are_named_oldest_first_in_the_logs_own_order() -> None:
    told = listing([held(30, 10, 40, RUNNING)], running=RUNNING, floor=None, most=40, place=place)
    assert told == Listing(epochs=(40, 10, 30))


def test_a_life_of_which_everything_had_to_go_is_named_too() -> None:
    told = listing([held(30), held(10)], running=RUNNING, floor=None, most=40, place=place)
    assert told.epochs == (10, 30)


def test_a_list_begins_after_the_floor_and_says_so() -> None:
    told = listing([held(10, 20, 30, 40)], running=RUNNING, floor=10, most=40, place=place)
    assert told == Listing(floor=10, epochs=(30, 20))


def test_what_does_not_fit_waits_until_the_floor_has_reached_the_last_one_named() -> None:
    told = listing([held(10, 20, 30, 40)], running=RUNNING, floor=None, most=2, place=place)
    assert told == Listing(epochs=(40, 10), cut=True)
    assert not list_again(told, None, place)
    assert not list_again(told, 40, place)
    assert list_again(told, 10, place)
    assert list_again(told, 30, place)


def test_a_list_that_is_whole_is_not_told_again_when_the_floor_rises() -> None:
    told = listing([held(10, 30)], running=RUNNING, floor=None, most=2, place=place)
    assert not told.cut
    assert not list_again(told, 30, place)


def test_a_hub_that_forgot_its_floor_is_told_from_where_it_stands_now() -> None:
    told = listing([held(10, 20, 30, 40)], running=RUNNING, floor=30, most=40, place=place)
    assert list_again(told, 10, place)
    assert list_again(told, None, place)
    assert not list_again(told, 30, place)
    assert not list_again(told, 20, place)


def test_only_a_floor_that_this_log_contains_binds_and_the_latest_of_them() -> None:
    assert binding({10, 30, 77}, place) == 30
    assert binding({20, 40}, place) == 20
    assert binding({77, 88}, place) is None
    assert binding((), place) is None


def test_a_log_full_of_holes_names_fewer_lives_but_always_one() -> None:
    holes = RangeSet([(2 * one, 2 * one) for one in range(MOST_RANGES)])
    shredded = {Lineage("log", epoch, "s"): holes for epoch in (10, 30)}
    told = listing([shredded], running=RUNNING, floor=None, most=40, place=place)
    assert told == Listing(epochs=(10,), cut=True)


def test_what_is_named_stands_in_the_order_of_the_lives() -> None:
    named = part(held(10, 20, 30, 40), (40, 10, 30))
    assert list(dict.fromkeys(one.epoch for one in named)) == [40, 10, 30]


@given(st.sets(st.integers(100, 999), max_size=120), st.integers(1, 40), st.none() | st.integers(100, 999))
def test_a_hub_that_raises_the_floor_over_each_list_comes_to_the_end_of_any_log(
    epochs: set[int], most: int, floor: int | None
) -> None:
    named: list[int] = []
    births, beneath = 0, floor or 0
    while True:
        told = listing([held(*epochs)], running=RUNNING, floor=floor, most=most, place=place)
        births += 1
        assert len(told.epochs) <= most
        assert not set(told.epochs) & set(named), "no life is named twice"
        named += told.epochs
        if not told.epochs or not list_again(told, told.epochs[-1], place):
            break
        floor = told.epochs[-1]
    assert births <= len(epochs) // most + 1
    assert named == sorted(one for one in epochs if one > beneath)
