"""Topics that are read, and those that are not."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.topics import MessageType, Topic, TopicUnreadable, parse, state, state_host, valid_id

ids = st.text(min_size=1, max_size=100).filter(valid_id)


@given(ids, ids, ids)
def test_a_topic_comes_back_as_it_was(group: str, node: str, device: str) -> None:
    for topic in (Topic(group, MessageType.NDATA, node), Topic(group, MessageType.DDATA, node, device)):
        assert parse(str(topic)) == topic


@pytest.mark.parametrize(
    "text",
    [
        "",
        "spBv1.0",
        "spAv1.0/g/NDATA/n",
        "spBv1.0/g/NDATA",
        "spBv1.0/g/NDATA/n/d",
        "spBv1.0/g/DDATA/n",
        "spBv1.0/g/WHAT/n",
        "spBv1.0//NDATA/n",
        "spBv1.0/g/DDATA/n/d/e",
        "spBv1.0/g/DDATA/n/+",
        "spBv1.0/g/NDATA/a b",
    ],
)
def test_what_is_no_sparkplug_topic_is_refused(text: str) -> None:
    with pytest.raises(TopicUnreadable):
        parse(text)


@given(st.text())
def test_any_text_is_a_topic_or_unreadable(text: str) -> None:
    with contextlib.suppress(TopicUnreadable):
        assert str(parse(text)) == text


def test_a_state_topic_names_its_host() -> None:
    assert state_host(state("hub")) == "hub"
    assert state_host("spBv1.0/STATE/") is None
    assert state_host("spBv1.0/g/NDATA/n") is None
