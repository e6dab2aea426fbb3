"""Sound into RTP packets, and packets onto the wire in time (RFC 3550; PCMU and L16 of RFC 3551)."""

import contextlib
import secrets
import socket
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.clock import Clock

FRAME_SECONDS = 0.02
EXPEDITED = 0xB8
"""DSCP EF (46) in the upper six bits of the traffic class (RFC 3246)."""

_HEADER = struct.Struct(">BBHII")
_BIAS, _CLIP = 0x84, 32_635

Sound = NDArray[np.int16]


def pcmu(sound: Sound) -> bytes:
    """Return G.711 µ-law of 16-bit samples (ITU-T G.711, table 2a)."""
    linear = sound.astype(np.int32)
    magnitude = np.minimum(np.abs(linear), _CLIP) + _BIAS
    exponent = np.floor(np.log2(magnitude)).astype(np.int32) - 7
    mantissa = (magnitude >> (exponent + 3)) & 0x0F
    code = ~(np.where(linear < 0, 0x80, 0) | (exponent << 4) | mantissa)
    return bytes((code & 0xFF).astype(np.uint8))


def l16(sound: Sound) -> bytes:
    """Return samples as network-order 16-bit (RFC 3551, 4.5.11)."""
    return sound.astype(">i2").tobytes()


class RtpSender:
    """One stream to one receiver, a packet every 20 ms by absolute deadlines, so that nothing drifts."""

    def __init__(
        self,
        family: int,
        address: tuple[Any, ...],
        *,
        codec: str,
        sample_rate: int,
        payload_type: int,
        clock: Clock,
    ) -> None:
        self.sent = 0
        self.first_at: int | None = None
        self._encode = pcmu if codec == "PCMU" else l16
        self._payload_type = payload_type
        self._clock = clock
        self._frame = int(sample_rate * FRAME_SECONDS)
        self._rest: Sound = np.zeros(0, dtype=np.int16)
        self._start = 0.0
        self._sequence = secrets.randbits(16)
        self._timestamp = secrets.randbits(32)
        self._ssrc = secrets.randbits(32)
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        if family == socket.AF_INET6:
            self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, EXPEDITED)
        else:
            self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, EXPEDITED)
        self._socket.connect(address)

    async def write(self, sound: Sound) -> None:
        """Send every whole frame of it at real-time pace; return when the last one is out. A rest waits for more."""
        sound = np.concatenate([self._rest, sound])
        whole = len(sound) // self._frame * self._frame
        self._rest = sound[whole:]
        for start in range(0, whole, self._frame):
            await self._send(sound[start : start + self._frame])

    async def finish(self) -> None:
        """Send the rest, filled up with silence."""
        if len(self._rest):
            last = np.zeros(self._frame, dtype=np.int16)
            last[: len(self._rest)] = self._rest
            self._rest = self._rest[:0]
            await self._send(last)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    async def _send(self, frame: Sound) -> None:
        if self.sent == 0:
            self._start, self.first_at = self._clock.monotonic(), self._clock.now_ms()
        due = self._start + self.sent * FRAME_SECONDS
        wait = due - self._clock.monotonic()
        if wait > 0:
            await self._clock.sleep(wait)
        marker = 0x80 if self.sent == 0 else 0
        header = _HEADER.pack(0x80, marker | self._payload_type, self._sequence, self._timestamp, self._ssrc)
        # A full buffer, a lost route or a closed port costs this packet, as it would on the wire; what arrived is the
        # receiver's word, at the end.
        with contextlib.suppress(OSError):
            self._socket.send(header + self._encode(frame))
        self.sent += 1
        self._sequence = (self._sequence + 1) % 2**16
        self._timestamp = (self._timestamp + self._frame) % 2**32
