"""What a horn let people hear: RTP packets laid out in time as one recording. Pure."""

import struct
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

MOST_SECONDS = 1200
"""A recording ends here, whatever timestamps a sender invents."""

_HEADER = struct.Struct(">BBHII")


def _ulaw_table() -> NDArray[np.int16]:
    """Return the 256 linear values of G.711 µ-law (ITU-T G.711, table 2a)."""
    code = ~np.arange(256, dtype=np.int32) & 0xFF
    magnitude = (((code & 0x0F) << 3) + 0x84) << ((code & 0x70) >> 4)
    return np.where(code & 0x80, 0x84 - magnitude, magnitude - 0x84).astype(np.int16)


ULAW = _ulaw_table()


@dataclass(frozen=True, slots=True)
class Packet:
    """The part of an RTP packet (RFC 3550, 5.1) that a receiver of one stream needs."""

    payload_type: int
    sequence: int
    timestamp: int
    ssrc: int
    payload: bytes


def packet(datagram: bytes) -> Packet | None:
    """Return the RTP packet of a datagram, None if it is none."""
    if len(datagram) < _HEADER.size or datagram[0] >> 6 != 2:
        return None
    first, second, sequence, timestamp, ssrc = _HEADER.unpack_from(datagram)
    start = _HEADER.size + 4 * (first & 0x0F)
    if first & 0x10:
        if len(datagram) < start + 4:
            return None
        start += 4 + 4 * int.from_bytes(datagram[start + 2 : start + 4], "big")
    end = len(datagram) - (datagram[-1] if first & 0x20 else 0)
    if end < start:
        return None
    return Packet(second & 0x7F, sequence, timestamp, ssrc, datagram[start:end])


def decoded(payload: bytes, codec: str) -> NDArray[np.int16]:
    """Return the samples of a PCMU (RFC 3551, 4.5.14) or L16 (4.5.11) payload."""
    if codec == "PCMU":
        return ULAW[np.frombuffer(payload, dtype=np.uint8)]
    return np.frombuffer(payload[: len(payload) // 2 * 2], dtype=">i2").astype(np.int16)


@dataclass(slots=True)
class RtpRecording:
    """Packets of one stream; the first one's source (SSRC) is the only one listened to."""

    codec: str
    sample_rate: int
    payload_type: int
    ssrc: int | None = None
    packets: int = 0
    strangers: int = 0
    chunks: list[tuple[int, NDArray[np.int16]]] = field(default_factory=list)
    _first: int = 0
    _sequences: list[int] = field(default_factory=list)

    def add(self, one: Packet) -> bool:
        """Take a packet in; return whether it belongs to the stream."""
        if one.payload_type != self.payload_type or (self.ssrc is not None and one.ssrc != self.ssrc):
            self.strangers += 1
            return False
        if self.ssrc is None:
            self.ssrc, self._first = one.ssrc, one.timestamp
        self.packets += 1
        # Timestamps wrap at 32 bits; a signed difference also lets a packet be older than the first to arrive.
        offset = (one.timestamp - self._first + 2**31) % 2**32 - 2**31
        if abs(offset) < MOST_SECONDS * self.sample_rate:
            self.chunks.append((offset, decoded(one.payload, self.codec)))
        self._sequences.append(one.sequence)
        return True

    @property
    def lost(self) -> int:
        """Return how many packets between the first and the last never came."""
        if not self._sequences:
            return 0
        start = self._sequences[0]
        steps = {(one - start + 2**15) % 2**16 - 2**15 for one in self._sequences}
        return max(steps) - min(steps) + 1 - len(steps)

    def samples(self) -> NDArray[np.int16]:
        """Return the recording from the earliest sample on; what never came is silence."""
        if not self.chunks:
            return np.zeros(0, dtype=np.int16)
        start = min(offset for offset, _ in self.chunks)
        end = max(offset + len(chunk) for offset, chunk in self.chunks)
        heard = np.zeros(end - start, dtype=np.int16)
        for offset, chunk in self.chunks:
            heard[offset - start : offset - start + len(chunk)] = chunk
        return heard
