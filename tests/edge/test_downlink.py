"""What commands ask for, and what is refused in a sentence."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.delivery import Committed, answer
from contract.metrics import DataType
from contract.payload import Payload, WireMetric, encode
from contract.positions import Lineage, RangeSet
from edge.downlink import Answer, Asked, Broadcast, HostState, Instruction, Rebirth, Refused, instructions


def asked(topic: str, raw: bytes) -> list[Instruction]:
    return instructions(topic, raw, group="g", node="n", primary_host="hub")


def command(name: str, datatype: DataType, value: object) -> bytes:
    return encode(Payload(at=1, metrics=(WireMetric(name=name, at=1, datatype=datatype, value=value),)))  # type: ignore[arg-type]


def test_a_rebirth_is_read_and_its_denial_is_not() -> None:
    assert asked("spBv1.0/g/NCMD/n", command("Node Control/Rebirth", DataType.BOOLEAN, True)) == [Rebirth()]
    assert asked("spBv1.0/g/NCMD/n", command("Node Control/Rebirth", DataType.BOOLEAN, False)) == []


def test_the_hubs_answers_and_broadcasts_are_read() -> None:
    committed = Committed(positions={Lineage("log", 1, ""): RangeSet([(0, 3)])})
    assert asked("spBv1.0/g/NCMD/n", encode(answer(committed, 1))) == [Answer(committed)]
    assert asked("spBv1.0/g/NCMD/n", command("Broadcast/Envelope", DataType.STRING, "{}")) == [
        Broadcast("Broadcast/Envelope", "{}")
    ]


def test_a_command_is_handed_on_as_text() -> None:
    assert asked("spBv1.0/g/NCMD/n", command("Command/Request", DataType.STRING, "{}")) == [Asked("{}")]
    for topic, datatype, value in (
        ("spBv1.0/g/NCMD/n", DataType.INT64, 1),
        ("spBv1.0/g/DCMD/n/speaker-01", DataType.STRING, "{}"),
    ):
        (found,) = asked(topic, command("Command/Request", datatype, value))
        assert isinstance(found, Refused)


@pytest.mark.parametrize(
    ("topic", "raw"),
    [
        ("spBv1.0/g/DCMD/n/speaker-01", command("Audio/Volume", DataType.INT64, 100)),
        ("spBv1.0/g/NCMD/n", command("Playback/State", DataType.STRING, "playing")),
        ("spBv1.0/g/NCMD/other", command("Node Control/Rebirth", DataType.BOOLEAN, True)),
        ("spBv1.0/g/NCMD/n", b"\xff\xff"),
        ("spBv1.0/STATE/hub", b"ONLINE"),
        ("spBv1.0/STATE/hub", b'{"online": "true", "timestamp": 1}'),
        ("spBv1.0/STATE/hub", b"[" * 5000),
    ],
)
def test_what_is_not_done_here_is_refused_in_a_sentence(topic: str, raw: bytes) -> None:
    (found,) = asked(topic, raw)
    assert isinstance(found, Refused)
    assert found.reason


def test_only_the_primary_hosts_state_counts() -> None:
    state = json.dumps({"online": True, "timestamp": 5}).encode()
    assert asked("spBv1.0/STATE/hub", state) == [HostState(True, 5)]
    assert asked("spBv1.0/STATE/other", state) == []


@given(st.sampled_from(["spBv1.0/g/NCMD/n", "spBv1.0/g/DCMD/n/d", "spBv1.0/STATE/hub", "x"]), st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(topic: str, raw: bytes) -> None:
    assert isinstance(asked(topic, raw), list)
