"""Stages only go forward; commands mean one thing only, and none of them sounds."""

import contextlib
import json
import re
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.actions import ACTIONS, Action, offered
from contract.catalog import Kind
from contract.commands import (
    FINAL,
    Command,
    CommandUnreadable,
    Stage,
    read_command,
    read_outcome,
    settle,
    written,
)


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


commands = st.builds(
    Command,
    id=st.from_regex(r"[0-9a-f]{32}", fullmatch=True),
    action=st.text(min_size=1, max_size=40),
    device=st.text(max_size=100),
    arguments=st.dictionaries(st.text(max_size=10), st.text(max_size=10), max_size=3),
    issued_at=st.integers(0, 2**52),
    expires_at=st.integers(0, 2**52),
    issuer=st.text(max_size=100),
)


@given(commands)
def test_a_command_is_read_as_it_was_written(command: Command) -> None:
    assert read_command(written(command)) == command


@given(st.text(max_size=300) | commands.map(written))
def test_any_text_is_read_or_refused(text: str) -> None:
    for read in (read_command, read_outcome):
        with contextlib.suppress(CommandUnreadable):
            read(text)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"id": "a" * 31}, "id"),
        ({"id": "A" * 32}, "id"),
        ({"id": "a" * 32 + "\n"}, "id"),
        ({"action": ""}, "action"),
        ({"issued_at": "1"}, "issued_at"),
        ({"issued_at": 1.5}, "issued_at"),
        ({"expires_at": -1}, "expires_at"),
        ({"arguments": {"volume": 100}}, "arguments.volume"),
        ({"priority": 1}, "priority"),
    ],
)
def test_what_is_wrong_with_a_command_is_named(change: dict[str, object], named: str) -> None:
    good: dict[str, object] = {"id": "a" * 32, "action": "ask_now", "issued_at": 1, "expires_at": 2}
    read_command(json.dumps(good))
    with pytest.raises(CommandUnreadable, match=named):
        read_command(json.dumps({**good, **change}))


def test_a_key_that_stands_twice_is_refused() -> None:
    with pytest.raises(CommandUnreadable, match="twice"):
        read_command(f'{{"id": "{"a" * 32}", "action": "x", "action": "ask_now", "issued_at": 1, "expires_at": 2}}')


def test_no_action_makes_a_loudspeaker_sound_or_changes_how_loud_it_is() -> None:
    assert set(ACTIONS) == set(Action)
    assert set(offered(Kind.LOUDSPEAKER)) <= {Action.ASK_NOW}, "reading a loudspeaker is all that can be asked of it"
    loud = re.compile(
        "play|sound|audio|speak|volume|mute|announce|siren|tone|stream|voice|live|emergency", re.IGNORECASE
    )
    assert [action for action, offer in ACTIONS.items() if loud.search(f"{action} {offer.label_en}")] == []


def test_of_equipment_of_unknown_kind_nothing_can_be_asked() -> None:
    assert offered(None) == []
