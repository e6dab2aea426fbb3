"""With any rule of delivery turned round the model fails: each of them is needed, and the model sees it.

A schedule of each was found at random or written by hand, and shortened. The one rule that today's parts enforce twice,
so that the model cannot see half of it go, is the random base of aliases: the hub takes no data of an epoch that no
birth named, and so never reads a new log's numbers by an old log's names. A foreign host has no such check, so it is
shown on the log alone.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from contract.metrics import DataType
from edge.log_register import LogRegister
from tests.delivery_model.rules import RULES, turned
from tests.delivery_model.schedules import quiet, run
from tests.delivery_model.world import Move

ON_THE_LOG_ALONE = "aliases_from_a_random_base"

RESTORED_OLDER: Sequence[Move] = (
    ("kill", 1, 2),
    ("hub_restore", 1, 2),
    ("beats", 6, 20),
    ("kill", 3, 3),
    ("beats", 6, 5),
    ("kill", 1, 2),
    ("beats", 3, 20),
    ("hub_restore", 1, 1),
)

SHOWN_BY: dict[str, tuple[int, Sequence[Move]]] = {
    "aliases_kept": (1_000_000, [("beats", 4, 1)]),
    "few_epochs_named": (4, [("restarts", 0, 9)]),
    "oldest_named_first": (4, [("restarts", 0, 9)]),
    "floor_named": (2_000_001, RESTORED_OLDER),
    "births_carry_uncovered": (1_000_004, [("beats", 2, 5), ("devices", 2, 4)]),
    "uncovered_born_first": (1_000_003, [("beats", 7, 10), ("beats", 4, 20), ("beats", 4, 10)]),
    "window_in_every_ledger": (4, [("beats", 4, 5), ("power", 0, 0, 2, 0), ("store_down", 8)]),
    "floor_restored_with_ledger": (2_000_001, RESTORED_OLDER),
    "floor_in_every_ledger": (1_000_001, [("beats", 5, 10), ("stop", 3), ("beats", 4, 10)]),
    "floor_binds_by_name": (
        1_000_017,
        [("image", 2), ("clone", 2, -2), ("clone", 1, 1), ("beats", 2, 20), ("kill", 3, 1)],
    ),
    "floor_of_each_lineage": (
        1_000_027,
        [("beats", 5, 10), ("image", 1), ("restore", 3, 2), ("clone", 0, 1), ("beats", 1, 20)],
    ),
    "floor_over_covered_only": (
        2_000_005,
        [("power", 1, 4, 0, 1), ("kill", 2, 3), ("lose_data", 0, 2), ("beats", 5, 5), ("kill", 0, 0), ("beats", 3, 1)],
    ),
    "floor_from_where_it_stands": (2_000_001, RESTORED_OLDER),
    "only_under_forgotten": (4, [("beats", 3, 5), ("restarts", 2, 7), ("beats", 30, 5)]),
    "wild_not_acknowledged": (1_000_005, [("clock", 0, 1973, 0), ("beats", 4, 5)]),
    "backoff_resets_late": (4, [("beats", 4, 5), ("image", 0), ("clone", 0, 1), ("beats", 70, 1)]),
    "client_id_is_node_id": (4, [("beats", 4, 5), ("image", 0), ("clone", 0, 1), ("beats", 60, 20)]),
    "handed_over_stored": (4, [("beats", 4, 5), ("foreign_host", 40, 0, 6)]),
}


def test_every_rule_is_shown_to_be_needed() -> None:
    assert RULES.keys() == {*SHOWN_BY, ON_THE_LOG_ALONE}


@pytest.mark.parametrize("rule", SHOWN_BY)
def test_the_model_fails_with_a_rule_turned_round(rule: str) -> None:
    seed, moves = SHOWN_BY[rule]
    with quiet():
        assert run(moves, seed) == "", "with the rule as it is the schedule breaks nothing"
        with turned(rule):
            assert run(moves, seed) != "", RULES[rule].text


def test_two_logs_share_no_alias(tmp_path: Path, clock: Any) -> None:
    def aliases(folder: str) -> set[int]:
        register = LogRegister(tmp_path / f"{folder}.db", clock)
        found = {register.alias("probe", f"Water/{number}", DataType.DOUBLE) for number in range(20)}
        register.close()
        return found

    assert not aliases("one") & aliases("another")
    with turned(ON_THE_LOG_ALONE):
        assert aliases("three") & aliases("four")
