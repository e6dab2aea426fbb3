"""Data as it nearly always comes: like an earlier message of its device but for times, numbers and values.

A message that was read in full and held nothing to note becomes a template: its bytes are cut into those that must be
equal and those that may differ, and the next message of its length is read by one call of `struct`. That is a fifth of
the cost of walking it. Whatever is not exactly alike is no match, and goes the long way.
"""

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import isfinite
from operator import itemgetter
from struct import Struct
from typing import Any, NamedTuple

from contract.delivery import EPOCH, FIRST, LAST
from hub.alias_tables import TWO_63, Entry, Table
from hub.live_state import Slot
from hub.storage.timeseries import HISTORICAL_BIT

MOST_TEMPLATES = 64
"""A device whose messages never look alike must not make us learn for ever."""

MOST_OF_A_SIZE = 4

_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5
"""Wire types of protobuf (protobuf.dev, Encoding)."""

_SIZES = {_EIGHT: 8, _FOUR: 4}

_TOLD, _METRIC, _SEQ = 1, 2, 3
_ALIAS, _TIMESTAMP, _CONSTANT = 2, 3, frozenset({4, 5, 9})
_VALUES = {
    "double_value": (13, _EIGHT, "d"),
    "float_value": (12, _FOUR, "f"),
    "long_value": (11, _VARINT, ""),
    "boolean_value": (14, _VARINT, "B"),
    "string_value": (15, _BYTES, ""),
}
"""Field numbers of Payload and Metric in contract/sparkplug.proto; how a value's bytes are unpacked, "" as bytes."""

_TRUTHS = {"boolean_value"}
_SIDES = (
    ("numbers", {"double_value", "float_value"}),
    ("integers", {"long_value"}),
    ("integers", _TRUTHS),
    ("texts", {"string_value"}),
)
"""Columns of a batch, and which values go there from which fields."""

_TWO_64 = 1 << 64


class Alike(NamedTuple):
    """What differs in a message of one record: instants in ms, and the values of each side."""

    at: int
    told_at: int
    seq: int
    epoch: int
    offset: int
    values: tuple[Sequence[Any], ...]


@dataclass(frozen=True, slots=True)
class Side:
    """The entries whose values are of one kind, and what of them goes into a column of the batch as it is."""

    column: str
    series: "array[int]"
    marks: "array[int]"
    slots: tuple[Slot, ...]
    signed: tuple[bool, ...]
    truths: bool
    pick: Callable[[Sequence[Any]], Sequence[Any]]


class Template:
    """One message, cut; `read` another one by it."""

    def __init__(self, raw: bytes, cuts: Sequence["_Cut"], marks: Sequence[int]) -> None:
        form, end = "<", 0
        for cut in cuts:
            form += f"{cut.start - end}s{cut.form or f'{cut.end - cut.start}s'}"
            end = cut.end
        layout = Struct(f"{form}{len(raw) - end}s")
        self._unpack = layout.unpack
        self._constants = layout.unpack(raw)[0::2]
        self._times = _picker([place for place, cut in enumerate(cuts) if cut.what == "at"])
        self._count = sum(cut.what == "at" for cut in cuts)
        self._frame = itemgetter(*(_place(cuts, what) for what in ("told_at", "seq", EPOCH, FIRST, LAST)))
        values = [(place, cut.entry) for place, cut in enumerate(cuts) if cut.what == "value" and cut.entry is not None]
        self.sides = tuple(_side(column, fields, values, marks) for column, fields in _SIDES)
        self.samples = len(values)
        self.last_mark = marks[-1]
        self.live = not any(mark & HISTORICAL_BIT for mark in marks)
        self.mark = marks[0] if len(set(marks)) == 1 else None
        """What all samples are marked with, None where they differ."""

    def read(self, raw: bytes) -> Alike | None:
        """Return what differs in a message of the same length, None if it is not alike."""
        fields = self._unpack(raw)
        if fields[0::2] != self._constants:
            return None
        fields = fields[1::2]
        times = self._times(fields)
        told_at, seq, epoch, first, last = self._frame(fields)
        if times.count(times[0]) != self._count or first != last:
            return None
        at = varint(times[0])
        frame = at, at if told_at == times[0] else varint(told_at), _often(seq), _often(epoch), varint(first)
        numbers, counts, truths, words = [side.pick(fields) for side in self.sides]
        if -1 in frame or not isfinite(sum(numbers)) or (truths and max(truths) > 1):
            return None
        integers: list[int] = []
        for raw_value, signed in zip(counts, self.sides[1].signed, strict=True):
            value = varint(raw_value)
            if value >= TWO_63 and signed:
                value -= _TWO_64
            elif not 0 <= value < TWO_63:
                return None
            integers.append(value)
        try:
            texts = [word.decode() for word in words]
        except UnicodeDecodeError:
            return None
        return Alike(*frame, (numbers, integers, truths, texts))


@dataclass(frozen=True, slots=True)
class _Cut:
    """Bytes that may differ, and what they are."""

    start: int
    end: int
    what: str
    form: str = ""
    entry: Entry | None = None


def learn(table: Table, raw: bytes, marks: Sequence[int]) -> None:
    """Make a template of a message that was read in full: one record, each sample good, in the order of `marks`."""
    alike = table.templates.setdefault(len(raw), [])
    if len(alike) >= MOST_OF_A_SIZE or sum(map(len, table.templates.values())) >= MOST_TEMPLATES:
        return
    cuts = list(_cuts(table, raw))
    told = [cut.what for cut in cuts]
    whole = all(told.count(what) == 1 for what in ("told_at", "seq", EPOCH, FIRST, LAST))
    whole &= "strange" not in told
    if whole and told.count("value") == len(marks) and told.count("at") == len(marks) + 3:
        alike.append(Template(raw, cuts, marks))


def _cuts(table: Table, raw: bytes) -> Iterator[_Cut]:
    for number, wire, start, end in _fields(raw, 0, len(raw)):
        if (number, wire) == (_METRIC, _BYTES):
            yield from _cut_metric(table, raw, start, end)
        elif wire == _VARINT and number in {_TOLD, _SEQ}:
            yield _Cut(start, end, "told_at" if number == _TOLD else "seq")
        else:
            yield _Cut(start, end, "strange")


def _cut_metric(table: Table, raw: bytes, start: int, end: int) -> Iterator[_Cut]:
    found = list(_fields(raw, start, end))
    numbers = [number for number, *_ in found]
    if sorted(set(numbers)) != numbers:
        yield _Cut(start, end, "strange")
        return
    entry: Entry | None = None
    for number, wire, first, last in found:
        if (number, wire) == (_ALIAS, _VARINT):
            entry = table.by_alias.get(varint(raw[first:last]))
        elif (number, wire) == (_TIMESTAMP, _VARINT):
            yield _Cut(first, last, "at")
        elif entry is not None and number not in _CONSTANT:
            prescribed, kind, form = _VALUES.get(entry.field, (0, 0, ""))
            alike = (number, wire) == (prescribed, kind) and (form != "B" or last - first == 1)
            what = "strange" if not alike else entry.name if entry.slot is None else "value"
            yield _Cut(first, last, what, form, entry)


def _fields(raw: bytes, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield number, wire type and the bounds of the value of each field; of bytes without their length."""
    while start < end:
        tag, start = _after(raw, start)
        number, wire = tag >> 3, tag & 7
        if wire == _BYTES:
            length, start = _after(raw, start)
            last = start + length
        else:
            last = start + _SIZES[wire] if wire in _SIZES else _after(raw, start)[1]
        yield number, wire, start, last
        start = last


def _after(raw: bytes, start: int) -> tuple[int, int]:
    end = start
    while raw[end] & 0x80:
        end += 1
    return varint(raw[start : end + 1]), end + 1


def varint(raw: bytes) -> int:
    """Return the number that these very bytes encode, -1 if they are not one varint of at most 64 bits."""
    size = len(raw)
    if size == 1:
        return raw[0] if raw[0] < 0x80 else -1
    if size == 2:
        a, b = raw
        return a & 0x7F | b << 7 if a > 0x7F > b else -1
    if size == 3:
        a, b, c = raw
        return a & 0x7F | (b & 0x7F) << 7 | c << 14 if a > 0x7F and b > 0x7F > c else -1
    if size == 6:  # instants, until the year 2109
        a, b, c, d, e, f = raw
        if f > 0x7F or not a & b & c & d & e & 0x80:
            return -1
        low = a & 0x7F | (b & 0x7F) << 7 | (c & 0x7F) << 14
        return low | (d & 0x7F) << 21 | (e & 0x7F) << 28 | f << 35
    number = 0
    for byte in reversed(raw):
        number = number << 7 | byte & 0x7F
    return -1 if raw[-1] > 0x7F or number >= _TWO_64 or min(raw[:-1]) < 0x80 else number


_often = lru_cache(maxsize=4096)(varint)
"""For numbers that come again and again."""


def _place(cuts: Sequence[_Cut], what: str) -> int:
    return next(place for place, cut in enumerate(cuts) if cut.what == what)


def _picker(places: Sequence[int]) -> Callable[[Sequence[Any]], Sequence[Any]]:
    """Return what takes these places out of a sequence, as a tuple."""
    if len(places) > 1:
        return itemgetter(*places)
    return lambda fields: tuple(fields[place] for place in places)


def _side(column: str, fields: set[str], values: Sequence[tuple[int, Entry]], marks: Sequence[int]) -> Side:
    mine = [(place, entry, mark) for (place, entry), mark in zip(values, marks, strict=True) if entry.field in fields]
    return Side(
        column=column,
        series=array("i", [entry.series for _, entry, _ in mine]),
        marks=array("i", [mark for _, _, mark in mine]),
        slots=tuple(entry.slot for _, entry, _ in mine if entry.slot is not None),
        signed=tuple(entry.signed for _, entry, _ in mine),
        truths=fields == _TRUTHS,
        pick=_picker([place for place, _, _ in mine]),
    )
