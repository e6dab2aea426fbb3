"""Packets as RFC 3550 and G.711 want them, on time, with a clock that the test moves."""

import asyncio
import socket
import struct
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.rtp import RtpSender, l16, pcmu


@pytest.fixture
def receiver() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        one.settimeout(2)
        yield one


def sender(receiver: socket.socket, clock: Any, codec: str = "L16", rate: int = 16_000) -> RtpSender:
    return RtpSender(
        socket.AF_INET, receiver.getsockname(), codec=codec, sample_rate=rate, payload_type=96, clock=clock
    )


def received(receiver: socket.socket) -> list[tuple[int, ...]]:
    """Return version, marker and type, sequence, timestamp, ssrc and payload length of all that came."""
    receiver.setblocking(False)
    found: list[tuple[int, ...]] = []
    while True:
        try:
            packet = receiver.recv(4096)
        except BlockingIOError:
            return found
        found.append((*struct.unpack(">BBHII", packet[:12]), len(packet) - 12))


async def test_a_second_of_sound_is_fifty_packets_20_ms_apart_that_do_not_drift(
    receiver: socket.socket, clock: Any
) -> None:
    rtp = sender(receiver, clock)
    writing = asyncio.create_task(rtp.write(np.ones(16_000, dtype=np.int16)))
    await clock.advance(0.01)  # looking halfway between packets
    for number in range(50):
        assert rtp.sent == number + 1, "one packet is out at once, each other in its turn"
        await clock.advance(0.02)
    await writing
    rtp.close()
    packets = received(receiver)
    assert len(packets) == 50
    assert [one[0] for one in packets] == [0x80] * 50
    assert [one[1] for one in packets] == [0x80 | 96] + [96] * 49
    assert {(after[2] - before[2]) % 2**16 for before, after in pairwise(packets)} == {1}
    assert {(after[3] - before[3]) % 2**32 for before, after in pairwise(packets)} == {320}
    assert len({one[4] for one in packets}) == 1
    assert {one[5] for one in packets} == {640}


async def test_a_sender_that_was_held_up_catches_up_instead_of_drifting(receiver: socket.socket, clock: Any) -> None:
    rtp = sender(receiver, clock)
    sound = np.ones(320, dtype=np.int16)
    await rtp.write(sound)
    await clock.advance(0.1)
    for _ in range(5):
        await rtp.write(sound)
    rtp.close()
    assert rtp.sent == 6


@given(st.lists(st.integers(0, 1000), max_size=10))
async def test_pieces_of_any_length_come_out_as_one_programme_padded_with_silence(lengths: list[int]) -> None:
    class Now:
        def now_ms(self) -> int:
            return 0

        def monotonic(self) -> float:
            return 0.0

        async def sleep(self, seconds: float) -> None: ...

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        rtp = sender(one, Now(), codec="PCMU", rate=8000)
        for length in lengths:
            await rtp.write(np.full(length, 1000, dtype=np.int16))
        await rtp.finish()
        rtp.close()
        assert sum(packet[5] for packet in received(one)) == -(-sum(lengths) // 160) * 160


async def test_a_receiver_that_went_away_costs_packets_and_no_error(receiver: socket.socket, clock: Any) -> None:
    rtp = sender(receiver, clock)
    receiver.close()
    for _ in range(3):
        await clock.advance(0.02)
        await rtp.write(np.ones(320, dtype=np.int16))
    rtp.close()
    assert rtp.sent == 3


def decoded(code: int) -> int:
    """Return the 16-bit value of a µ-law code, by the formula of G.711."""
    code = ~code & 0xFF
    magnitude = (((code & 0x0F) << 3) + 0x84 << ((code >> 4) & 7)) - 0x84
    return -magnitude if code & 0x80 else magnitude


def test_every_code_of_mu_law_survives_a_round_trip() -> None:
    for code in range(256):
        value = decoded(code)
        again = pcmu(np.array([value], dtype=np.int16))[0]
        assert decoded(again) == value
    assert pcmu(np.array([0, -32_768, 32_767], dtype=np.int16)) == b"\xff\x00\x80"


@given(st.integers(-32_768, 32_767))
def test_mu_law_is_as_near_as_its_segment_allows(value: int) -> None:
    off = abs(decoded(pcmu(np.array([value], dtype=np.int16))[0]) - value)
    assert off <= max(4, abs(value) // 16 + 8) or abs(value) > 32_124


def test_l16_is_in_network_order() -> None:
    assert l16(np.array([1, -2], dtype=np.int16)) == b"\x00\x01\xff\xfe"
