"""A card copied while its agent ran: the floor that its copy earned must not cover what only this one wrote."""

from contract.positions import Lineage, RangeSet
from edge.listing import whole

HELD = {Lineage("log", 3, "probe"): RangeSet([(0, 20)]), Lineage("log", 4, "probe"): RangeSet([(0, 2)])}


def test_a_floor_whose_epoch_holds_more_here_than_the_hub_has_does_not_bind() -> None:
    copied = {Lineage("log", 3, "probe"): RangeSet([(0, 9)])}
    assert whole({2, 3}, HELD, copied) == {2}


def test_a_floor_whose_epoch_the_hub_has_whole_binds() -> None:
    assert whole({2, 3}, HELD, {Lineage("log", 3, "probe"): RangeSet([(0, 30)])}) == {2, 3}
