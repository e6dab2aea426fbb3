"""A card copied while its agent ran: the floor that its copy earned must not cover what only this one wrote."""

from contract.positions import Lineage, RangeSet
from edge.listing import part, whole

HELD = {Lineage("log", 3, "probe"): RangeSet([(0, 20)]), Lineage("log", 4, "probe"): RangeSet([(0, 2)])}


def test_a_floor_whose_epoch_holds_more_here_than_the_hub_has_does_not_bind() -> None:
    copied = {Lineage("log", 3, "probe"): RangeSet([(0, 9)])}
    assert whole({2, 3}, HELD, copied) == {2}


def test_a_floor_whose_epoch_the_hub_has_whole_binds() -> None:
    assert whole({2, 3}, HELD, {Lineage("log", 3, "probe"): RangeSet([(0, 30)])}) == {2, 3}


def test_a_birth_names_epochs_in_the_order_of_the_log_whatever_order_they_were_read_in() -> None:
    read = {Lineage("log", epoch, "probe"): RangeSet([(0, 1)]) for epoch in (5, 3, 9, 4)}
    assert [one.epoch for one in part(read, (3, 4, 9))] == [3, 4, 9]
