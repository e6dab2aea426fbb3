"""Whether a device is there: by its word, by death, and by silence."""

import pytest

from hub.presence import SILENCE, DeviceFacts, NodeFacts, Presence, State, of_device, of_node

ALIVE = NodeFacts(born=True, since=100, heard=1000)
ONLINE = Presence(State.ONLINE, "", 100)


@pytest.mark.parametrize(
    ("facts", "now", "state"),
    [
        (NodeFacts(), 0, State.UNKNOWN),
        (ALIVE, 1000, State.ONLINE),
        (ALIVE, 1000 + SILENCE - 1, State.ONLINE),
        (ALIVE, 1000 + SILENCE, State.OFFLINE),
        (NodeFacts(born=False, since=2000, heard=1000), 1001, State.OFFLINE),
    ],
)
def test_a_node_is_there_while_it_is_born_and_heard(facts: NodeFacts, now: int, state: State) -> None:
    assert of_node(facts, now).state is state


def test_silence_is_dated_from_the_last_word() -> None:
    assert of_node(ALIVE, 10**9) == Presence(State.OFFLINE, "node_silent", 1000)


@pytest.mark.parametrize(
    ("node", "facts", "expected"),
    [
        (ONLINE, DeviceFacts(born=True, since=5, claim="online", claimed=7), Presence(State.ONLINE, "", 7)),
        (ONLINE, DeviceFacts(born=True, since=5), Presence(State.ONLINE, "", 5)),
        (ONLINE, DeviceFacts(born=True, since=5, claim="silent", claimed=7), Presence(State.OFFLINE, "silent", 7)),
        (ONLINE, DeviceFacts(born=True, since=5, claim="upstream", claimed=7), Presence(State.STALE, "upstream", 7)),
        (ONLINE, DeviceFacts(born=True, since=5, claim="mains", claimed=7), Presence(State.STALE, "mains", 7)),
        (ONLINE, DeviceFacts(born=False, since=5, claim="online", claimed=3), Presence(State.OFFLINE, "dead", 5)),
        (ONLINE, DeviceFacts(), Presence(State.UNKNOWN)),
        (
            Presence(State.OFFLINE, "dead", 50),
            DeviceFacts(born=True, claim="online", claimed=7),
            Presence(State.STALE, "node_gone", 50),
        ),
        (Presence(State.UNKNOWN), DeviceFacts(claim="silent", claimed=7), Presence(State.UNKNOWN)),
    ],
)
def test_a_device_is_what_its_node_says_as_long_as_the_node_is_there(
    node: Presence, facts: DeviceFacts, expected: Presence
) -> None:
    assert of_device(node, facts) == expected
