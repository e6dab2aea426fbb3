"""The faults of a run follow from its seed; each comes, and none where it could not be made good again."""

import pytest

from tests.chaos.failpoints import failpoints
from tests.chaos.plan import WEIGHTS, halfway, planned

NODES = ("a", "b", "c")


def test_the_same_seed_gives_the_same_faults_in_the_same_order() -> None:
    assert planned(7, 50, WEIGHTS, NODES) == planned(7, 50, sorted(WEIGHTS, reverse=True), NODES)
    assert planned(7, 50, WEIGHTS, NODES) != planned(8, 50, WEIGHTS, NODES)


@pytest.mark.parametrize("cycles", [1, 2, 3, 7, 50])
@pytest.mark.parametrize("seed", range(20))
def test_each_kind_comes(cycles: int, seed: int) -> None:
    plan = planned(seed, cycles, WEIGHTS, NODES)
    assert len(plan) == cycles
    assert {step.kind for cycle in plan for step in cycle} == set(WEIGHTS)
    assert all(cycle for cycle in plan)


@pytest.mark.parametrize("seed", range(20))
def test_no_hub_is_restored_from_a_backup_older_than_what_a_box_forgot(seed: int) -> None:
    plan = planned(seed, 50, WEIGHTS, NODES)
    images = [number for number, cycle in enumerate(plan) for step in cycle if step.kind == "edge_disk_image"]
    restored = [number for number, cycle in enumerate(plan) for step in cycle if step.kind == "hub_restore"]
    assert max(images) < halfway(50) <= min(restored)


@pytest.mark.parametrize("seed", range(20))
def test_no_disk_is_cloned_twice(seed: int) -> None:
    plan = planned(seed, 50, WEIGHTS, NODES)
    cloned = [step.node for cycle in plan for step in cycle if step.kind == "edge_disk_clone"]
    assert len(cloned) == len(set(cloned)) > 0


def test_only_what_was_asked_for_comes() -> None:
    plan = planned(7, 20, ["edge_kill"], NODES)
    assert {step.kind for cycle in plan for step in cycle} == {"edge_kill"}


def test_every_planned_kind_has_an_act() -> None:
    class World:
        import asyncio

        hub_turn = broker_turn = asyncio.Lock()

    assert failpoints(World()).keys() == WEIGHTS.keys()  # type: ignore[arg-type]  # nothing is done to it
