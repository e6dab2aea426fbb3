"""Records that lie on the card come back as they were, or are known to be damaged."""

import zlib
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.positions import Lineage
from edge.record_bytes import MOST_CHUNK, Record, RecordsUnreadable, chunks_of, packed, unpacked

records = st.builds(
    Record,
    lineage=st.builds(Lineage, st.just("log"), st.integers(0, 2**63 - 1), st.text(max_size=20)),
    offset=st.integers(0, 2**40),
    at=st.integers(-(2**40), 2**50),
    metrics=st.binary(max_size=300),
    event=st.booleans(),
    handed=st.booleans(),
)


@given(st.lists(records, max_size=30))
def test_what_is_packed_comes_back_as_it_was(found: list[Record]) -> None:
    assert unpacked(packed(found), "log") == found


@given(st.lists(records, min_size=1, max_size=5), st.integers(0, 10**6), st.integers(1, 255))
def test_a_flipped_byte_is_never_taken_for_a_record(found: list[Record], place: int, flip: int) -> None:
    raw = bytearray(packed(found))
    raw[place % len(raw)] ^= flip
    with suppress(RecordsUnreadable):
        assert unpacked(bytes(raw), "log") == found


@pytest.mark.parametrize("raw", [b"", b"garbage", zlib.compress(b"x" * 40), packed([])[:-1]])
def test_what_is_no_piece_or_ends_too_early_is_unreadable(raw: bytes) -> None:
    with pytest.raises(RecordsUnreadable):
        unpacked(raw, "log")


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 20_000)), max_size=40))
def test_chunks_are_runs_without_holes_no_larger_than_a_message_holds(steps: list[tuple[int, int]]) -> None:
    lineage, offset, found = Lineage("log", 1, "s"), -1, []
    for step, size in steps:
        offset += step + 1
        found.append(Record(lineage=lineage, offset=offset, at=1000 - offset, metrics=b"x" * size))
    chunks = list(chunks_of(found))
    assert [one for chunk in chunks for one in unpacked(chunk[4], "log")] == found
    for first, last, oldest, newest, raw in chunks:
        inside = unpacked(raw, "log")
        assert [one.offset for one in inside] == list(range(first, last + 1))
        assert (oldest, newest) == (1000 - last, 1000 - first)
        assert len(inside) == 1 or sum(len(one.metrics) for one in inside) <= MOST_CHUNK
