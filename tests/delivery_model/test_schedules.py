"""Worlds at random: whatever happens to cards, lines, clocks and the hub, nothing is lost, twice, altered or old."""

from collections import Counter
from collections.abc import Sequence

import pytest

from tests.delivery_model.moves import FAULTS, generate, perform
from tests.delivery_model.schedules import quiet, run_part, shorter
from tests.delivery_model.world import Move, World

SCHEDULES, PART = 300, 20
SEED = 7_000_000


@pytest.mark.parametrize("part", range(SCHEDULES // PART))
def test_no_schedule_breaks_a_promise(part: int) -> None:
    first = SEED + part * PART
    tally = run_part((first, first + PART))
    assert tally.failures == {}
    assert tally.schedules == PART


def test_every_kind_of_fault_is_met() -> None:
    met = Counter(name for seed in range(SEED, SEED + SCHEDULES) for name, *_ in generate(seed))
    assert {name for name in FAULTS if met[name] < 5} == set()


def test_a_schedule_comes_out_the_same_again() -> None:
    def lived(seed: int) -> object:
        with quiet(), World(seed) as world:
            for move in generate(seed):
                perform(world, move)
            stored = {number: dict(rows) for number, rows in world.centre.shelf.samples.rows.items()}
            return world.now, world.happened, list(world.truth.readings), stored

    assert [lived(seed) for seed in range(5)] == [lived(seed) for seed in range(5)]


def test_a_failing_schedule_is_made_as_short_as_it_fails() -> None:
    def fails(moves: Sequence[Move], seed: int) -> str:
        names = [name for name, *_ in moves]
        return "broken" if {"kill", "clone"} <= {*names} else ""

    moves: list[Move] = [("beats", 1, 5), ("kill", 0, 1), *[("beats", 2, 5)] * 9, ("clone", 0, 0), ("stop", 1)]
    assert shorter(moves, 1, fails) == [("kill", 0, 1), ("clone", 0, 0)]
