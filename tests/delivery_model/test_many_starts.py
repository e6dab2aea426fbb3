"""A box that starts four hundred times: what a birth and a ledger say of it stays small, with and without a hub."""

import pytest

from hub.devices import NodeKey
from tests.delivery_model.moves import restarts
from tests.delivery_model.promises import GROUP
from tests.delivery_model.schedules import quiet
from tests.delivery_model.world import World

STARTS = 400
BIG = 3
"""A seed of a world whose bounds are those of the product: 40 epochs in a birth."""

MOST_BIRTH = 12_000
"""Bytes: 40 epochs with three streams each, beside what a birth says anyway."""
MOST_LEDGER = 3 * 2 * 41
"""Ledger rows: of a whole list, and of the one before while the floor has not passed it."""


def rows(world: World) -> int:
    return sum(len(list(ranges)) for ranges in world.centre.shelf.ledger(NodeKey(GROUP, "n-01")).values())


@pytest.mark.timeout(300)
def test_with_a_hub_the_ledger_and_the_births_stay_small() -> None:
    with quiet(), World(BIG, nodes=1) as world:
        (box,) = world.boxes
        most = 0
        for _ in range(STARTS):
            world.read_all(0.7)
            for seconds in (1, 4, 8):
                world.beat(seconds)
            box.kill()
            world.broken_line(box.line)
            box.start(world.now)
            world.disturbed()
            most = max(most, rows(world))
        world.settle()
        world.watch.verdict()
        assert box.starts >= STARTS
        assert world.watch.largest_birth <= MOST_BIRTH
        assert 0 < most <= MOST_LEDGER


@pytest.mark.timeout(300)
def test_without_a_hub_the_births_stay_small_and_all_is_delivered_once_there_is_one() -> None:
    with quiet(), World(BIG, nodes=1) as world:
        (box,) = world.boxes
        restarts(world, 0, STARTS)
        assert len({lineage.epoch for lineage in box.card.durable}) > STARTS / 2
        world.settle()
        world.watch.verdict()
        assert world.watch.largest_birth <= MOST_BIRTH
        assert rows(world) <= MOST_LEDGER
