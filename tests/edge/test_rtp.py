"""Packets as RFC 3550 and G.711 want them, on time, with a clock that the test moves."""

import array
import asyncio
import math
import socket
import struct
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.clock import SystemClock
from edge.audio import Encoding, Form
from edge.rtp import RtpSender


@pytest.fixture
def receiver() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        one.settimeout(2)
        yield one


WIDE = Form(encoding=Encoding.L16, rate=16_000)
NARROW = Form(encoding=Encoding.PCMU, rate=8_000)
FRAME = b"\x00\x01" * 320


def sender(receiver: socket.socket, clock: Any, form: Form = WIDE) -> RtpSender:
    return RtpSender(socket.AF_INET, receiver.getsockname(), form=form, payload_type=96, clock=clock)


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
    writing = asyncio.create_task(rtp.write(FRAME * 50))
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
    await rtp.write(FRAME)
    await clock.advance(0.1)
    for _ in range(5):
        await rtp.write(FRAME)
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
        rtp = sender(one, Now(), NARROW)
        for length in lengths:
            await rtp.write(b"\x21" * length)
        await rtp.finish()
        rtp.close()
        assert sum(packet[5] for packet in received(one)) == -(-sum(lengths) // 160) * 160


async def test_a_receiver_that_went_away_costs_packets_and_no_error(receiver: socket.socket, clock: Any) -> None:
    rtp = sender(receiver, clock)
    receiver.close()
    for _ in range(3):
        await clock.advance(0.02)
        await rtp.write(FRAME)
    rtp.close()
    assert rtp.sent == 3


async def test_a_rest_is_filled_up_with_the_silence_of_its_encoding(receiver: socket.socket, clock: Any) -> None:
    for form, rest, last in ((NARROW, b"\x21", b"\x21" + b"\xff" * 159), (WIDE, b"ab", b"ab" + bytes(638))):
        rtp = sender(receiver, clock, form)
        await rtp.write(rest)
        await rtp.finish()
        rtp.close()
        assert receiver.recv(4096)[12:] == last


def joined(group: str) -> socket.socket:
    """Return a member of a group at some free port, on the loopback."""
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    one.bind((group, 0))
    membership = socket.inet_aton(group) + socket.inet_aton("127.0.0.1")
    one.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
    one.settimeout(2)
    return one


SDP = """\
v=0
o=- 0 0 IN IP4 127.0.0.1
s=horn
c=IN IP4 239.18.7.5/1
t=0 0
m=audio {port} RTP/AVP 96
a=rtpmap:96 L16/16000/1
"""


async def test_ffmpeg_hears_the_group_through_a_session_description(tmp_path: Path) -> None:
    """A receiver that others wrote: the stream is RTP as they understand it, and the samples are those that left."""
    tone = array.array("h", (int(12_000 * math.sin(sample / 9)) for sample in range(16_000)))
    with joined("239.18.7.5") as member:
        port = member.getsockname()[1]
    (tmp_path / "horn.sdp").write_text(SDP.format(port=port))
    options = {"protocol_whitelist": "file,rtp,udp", "localaddr": "127.0.0.1", "analyzeduration": "100000"}

    def listen() -> bytes:
        heard = b""
        with av.open(str(tmp_path / "horn.sdp"), options=options, timeout=(10, 5)) as stream:
            assert stream.streams.audio[0].codec_context.name == "pcm_s16be"
            for frame in stream.decode(audio=0):
                heard += bytes(frame.planes[0])[: frame.samples * 2]
                if len(heard) > 8000:
                    break
        return heard

    async def speak() -> None:
        rtp = RtpSender(
            socket.AF_INET,
            ("239.18.7.5", port),
            form=WIDE,
            payload_type=96,
            clock=SystemClock(),
            interface="127.0.0.1",
        )
        big = array.array("h", tone)
        big.byteswap()
        try:
            while True:
                await rtp.write(big.tobytes())
        finally:
            rtp.close()

    speaking = asyncio.create_task(speak())
    heard = await asyncio.to_thread(listen)
    speaking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await speaking
    assert heard[:8000] in tone.tobytes() * 2


async def test_a_group_hears_the_stream_by_the_interface_that_was_named_and_no_further(clock: Any) -> None:
    with joined("239.18.7.1") as member:
        rtp = RtpSender(
            socket.AF_INET, member.getsockname(), form=WIDE, payload_type=96, clock=clock, interface="127.0.0.1"
        )
        assert rtp._socket.getsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL) == 1
        await rtp.write(FRAME)
        rtp.close()
        heard, (source, _) = member.recvfrom(4096)
    assert heard[12:] == FRAME
    assert source == "127.0.0.1"
