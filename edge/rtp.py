"""Encoded sound into RTP packets, and packets onto the wire in time (RFC 3550; PCMU and L16 of RFC 3551)."""

import contextlib
import secrets
import socket
import struct
from typing import Any

from contract.clock import Clock
from edge.audio import Form

FRAME_SECONDS = 0.02
EXPEDITED = 0xB8
"""DSCP EF (46) in the upper six bits of the traffic class (RFC 3246)."""

MULTICAST_HOPS = 1
"""A loudspeaker's group never leaves the box's own network."""

_HEADER = struct.Struct(">BBHII")


class RtpSender:
    """One stream to one receiver or group, a packet every 20 ms by absolute deadlines, so that nothing drifts.

    `interface` is the local IPv4 address by which multicast leaves; None lets the routes decide.
    """

    def __init__(
        self,
        family: int,
        address: tuple[Any, ...],
        *,
        form: Form,
        payload_type: int,
        clock: Clock,
        interface: str | None = None,
    ) -> None:
        self.sent = 0
        self.first_at: int | None = None
        self._payload_type = payload_type
        self._clock = clock
        self._frame = form.length(FRAME_SECONDS)
        self._samples = self._frame // form.sample_bytes
        self._silence = form.silence * self._samples
        self._rest = b""
        self._start = 0.0
        self._sequence = secrets.randbits(16)
        self._timestamp = secrets.randbits(32)
        self._ssrc = secrets.randbits(32)
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        try:
            self._socket.setblocking(False)
            if family == socket.AF_INET6:
                self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, EXPEDITED)
            else:
                self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, EXPEDITED)
                self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, MULTICAST_HOPS)
                if interface is not None:
                    self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(interface))
            self._socket.connect(address)
        except OSError:
            self._socket.close()
            raise

    async def write(self, sound: bytes) -> None:
        """Send every whole frame of it at real-time pace; return when the last one is out. A rest waits for more."""
        sound = self._rest + sound
        whole = len(sound) // self._frame * self._frame
        self._rest = sound[whole:]
        for start in range(0, whole, self._frame):
            await self._send(sound[start : start + self._frame])

    async def finish(self) -> None:
        """Send the rest, filled up with silence."""
        if self._rest:
            last, self._rest = self._rest + self._silence[len(self._rest) :], b""
            await self._send(last)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    async def _send(self, frame: bytes) -> None:
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
            self._socket.send(header + frame)
        self.sent += 1
        self._sequence = (self._sequence + 1) % 2**16
        self._timestamp = (self._timestamp + self._samples) % 2**32
