"""Records as they lie on the card: many in one compressed piece, and told apart again. Pure."""

import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from contract.positions import EMPTY, Lineage, RangeSet

_HEAD = struct.Struct("<QQqBHI")
_EVENT, _HANDED = 1, 2

MOST_CHUNK = 32 * 1024
"""Bytes of metrics in one chunk: a message of history holds one or two."""


class RecordsUnreadable(ValueError):
    """Bytes that are no records, or not whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One read of one device at one instant, as it is logged and sent: `metrics` is an encoded payload, by alias.

    `handed`: a session lived when it was made, so it went out at once.
    """

    lineage: Lineage
    offset: int
    at: int
    metrics: bytes
    event: bool = False
    handed: bool = False


def packed(records: Iterable[Record]) -> bytes:
    """Return the records in one piece, in their order."""
    parts: list[bytes] = []
    for one in records:
        stream = one.lineage.stream.encode()
        marks = _EVENT * one.event | _HANDED * one.handed
        parts += [
            _HEAD.pack(one.lineage.epoch, one.offset, one.at, marks, len(stream), len(one.metrics)),
            stream,
            one.metrics,
        ]
    return zlib.compress(b"".join(parts))


def unpacked(raw: bytes, log: str) -> Sequence[Record]:
    """Return the records of a piece that belongs to a log; raise RecordsUnreadable where it is damaged."""
    try:
        whole = zlib.decompress(raw)
        found: list[Record] = []
        place = 0
        while place < len(whole):
            epoch, offset, at, marks, stream_length, length = _HEAD.unpack_from(whole, place)
            place += _HEAD.size
            stream = whole[place : place + stream_length].decode()
            place += stream_length
            metrics = whole[place : place + length]
            place += length
            found.append(
                Record(
                    lineage=Lineage(log, epoch, stream),
                    offset=offset,
                    at=at,
                    metrics=metrics,
                    event=bool(marks & _EVENT),
                    handed=bool(marks & _HANDED),
                )
            )
    except (zlib.error, struct.error, UnicodeDecodeError) as exc:
        raise RecordsUnreadable(f"a piece of {len(raw)} bytes cannot be read: {exc}") from exc
    if place != len(whole):
        raise RecordsUnreadable(f"a piece of {len(raw)} bytes ends too early")
    return found


def chunks_of(records: Sequence[Record]) -> Iterable[tuple[int, int, int, int, bytes]]:
    """Yield first and last offset, oldest and newest instant, and the bytes of runs of consecutive records."""
    run: list[Record] = []
    size = 0
    for one in records:
        if run and (one.offset != run[-1].offset + 1 or size + len(one.metrics) > MOST_CHUNK):
            yield _chunk(run)
            run, size = [], 0
        run.append(one)
        size += len(one.metrics)
    if run:
        yield _chunk(run)


def _chunk(run: Sequence[Record]) -> tuple[int, int, int, int, bytes]:
    instants = [one.at for one in run]
    return run[0].offset, run[-1].offset, min(instants), max(instants), packed(run)


def positions_of(records: Iterable[Record]) -> dict[Lineage, RangeSet]:
    """Return where records stand."""
    found: dict[Lineage, RangeSet] = {}
    for one in records:
        found[one.lineage] = found.get(one.lineage, EMPTY).add(one.offset, one.offset)
    return found
