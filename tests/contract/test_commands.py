"""Stages only go forward."""

from itertools import product

import pytest

from contract.commands import FINAL, Stage, settle


@pytest.mark.parametrize(("current", "reported"), list(product(Stage, Stage)))
def test_a_stage_never_goes_back_and_a_final_one_never_changes(current: Stage, reported: Stage) -> None:
    after = settle(current, reported)
    order = list(Stage)
    assert after in {current, reported}
    if current in FINAL:
        assert after is current
    elif reported in FINAL:
        assert after is reported
    else:
        assert order.index(after) == max(order.index(current), order.index(reported))
