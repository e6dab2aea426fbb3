"""Video frames as RTP packets: H.264 (RFC 6184) and JPEG (RFC 2435). Pure."""

import struct
from collections.abc import Iterator

from simulators.camera.picture import HEIGHT, WIDTH, Frame

MOST_PAYLOAD = 1300
CLOCK = 90_000


def payloads(frame: Frame) -> Iterator[bytes]:
    """Yield the payloads of a frame's packets; the last one gets the marker."""
    if frame.units[0][:2] == b"\xff\xd8":
        yield from _jpeg(frame.units[0])
        return
    for unit in frame.units:
        yield from _h264(unit)


def packet(payload: bytes, *, kind: int, sequence: int, timestamp: int, ssrc: int, last: bool) -> bytes:
    """Return an RTP packet (RFC 3550, 5.1)."""
    marker = 0x80 if last else 0
    return struct.pack(">BBHII", 0x80, marker | kind, sequence & 0xFFFF, timestamp & 0xFFFFFFFF, ssrc) + payload


def _h264(unit: bytes) -> Iterator[bytes]:
    if len(unit) <= MOST_PAYLOAD:
        yield unit
        return
    indicator, kind = unit[0] & 0xE0 | 28, unit[0] & 0x1F
    rest = unit[1:]
    for start in range(0, len(rest), MOST_PAYLOAD):
        first, last = start == 0, start + MOST_PAYLOAD >= len(rest)
        yield (
            bytes([indicator, kind | (0x80 if first else 0) | (0x40 if last else 0)])
            + rest[start : start + MOST_PAYLOAD]
        )


def _jpeg(image: bytes) -> Iterator[bytes]:
    tables, scan = _parts(image)
    # Type 1 is 4:2:0; Q 255 says that the tables follow in the first packet of each frame.
    header = bytes([1, 255, WIDTH // 8, (HEIGHT + 7) // 8])
    for start in range(0, len(scan), MOST_PAYLOAD):
        more = struct.pack(">BBH", 0, 0, len(tables)) + tables if start == 0 else b""
        yield b"\x00" + start.to_bytes(3, "big") + header + more + scan[start : start + MOST_PAYLOAD]


def _parts(image: bytes) -> tuple[bytes, bytes]:
    """Return the quantization tables and the entropy-coded data of a baseline JPEG."""
    tables, at = b"", 2
    while True:
        marker, length = image[at + 1], int.from_bytes(image[at + 2 : at + 4], "big")
        body = image[at + 4 : at + 2 + length]
        at += 2 + length
        if marker == 0xDB:
            while body:
                tables, body = tables + body[1:65], body[65:]
        if marker == 0xDA:
            scan = image[at:].removesuffix(b"\xff\xd9")
            # One table for luma and chroma alike is sent twice: receivers expect two.
            return tables if len(tables) >= 128 else tables * 2, scan
