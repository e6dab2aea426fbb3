"""Samples as InfluxDB's line protocol, one line a record; where each series stands there, and how it is read. Pure."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from contract.catalog import PRESENCE, Kind, metric
from contract.metrics import FLOATS, TEXTS, DataType, Quality, Value
from hub.devices import DeviceKey
from hub.storage.timeseries import HISTORICAL_BIT, Batch, Column

NULL_BIT = 0b1000_0000
ENCODED_BIT = 0b0100_0000
"""Flags that exist in InfluxDB only: nothing was read; the text is percent-encoded, for CSV cannot carry all of it."""

OWN_FLAGS = NULL_BIT | ENCODED_BIT

QUALITY_FIELD = "__q"
FLAGS_FIELD = "__flags"
"""What follows a value's field name in the names of the two fields that say how far it can be trusted."""

STRANGER = "device"
"""The measurement of devices whose kind is not known."""

CONFLICT = "conflict"
"""The measurement in which keys are noted that were committed with differing values."""

_CONTROL = {code: f"%{code:02X}" for code in (*range(32), 127)}
_UNREADABLE = str.maketrans({**_CONTROL, "%": "%25", "\\": "%5C"})
_ESCAPED = str.maketrans({",": "\\,", " ": "\\ ", "=": "\\="})
_TEXT = str.maketrans({'"': '\\"', "\\": "\\\\"})
_GOOD = int(Quality.GOOD)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the samples of one series stand: `head` is measurement and tags as written, `name` the field as written.

    `letter` is the field's type in InfluxDB: f, i, u (unsigned), s or b.
    """

    measurement: str
    field: str
    letter: str
    head: str
    name: str


@dataclass(slots=True)
class Record:
    """One line: the samples of one device at one instant. `fields` are by the number of their series, as written."""

    head: str
    at: int
    fields: dict[int, str] = field(default_factory=dict)

    def text(self) -> str:
        """Return the line."""
        return f"{self.head} {','.join(self.fields.values())} {self.at}\n"


@dataclass(slots=True)
class Written:
    """A batch as lines; which of its samples may stand in the place of others, and which did so within the batch."""

    records: list[Record]
    late: list[tuple[int, int, Value]]
    conflicts: set[tuple[int, int]]


def names(key: DeviceKey, name: str, datatype: DataType, kind: Kind | None) -> tuple[str, str]:
    """Return the measurement and the field in which a new series shall stand.

    A field has one type within its measurement, whoever reports what: a metric that the catalogue knows, in the type it
    knows, has the bare name, every other one the type's letter behind it. No bare name has "__", so none is another's.
    """
    letter = _letter(datatype)
    if not key.device:
        kind = Kind.EDGE_NODE
    elif kind is Kind.EDGE_NODE:
        kind = None
    bare = kind is not None and _declared(kind, name, letter)
    return (kind.value if kind else STRANGER), stored(name if bare else f"{name}__{letter}")


def place(key: DeviceKey, datatype: DataType, measurement: str, field_name: str) -> Place:
    """Return where the samples of a series stand, whose measurement and field are given."""
    tags = "".join(
        f",{name}={_written(stored(value))}"
        for name, value in (("group", key.group), ("node", key.node), ("device", key.device))
        if value
    )
    return Place(
        measurement=measurement,
        field=field_name,
        letter=_letter(datatype),
        head=measurement + tags,
        name=_written(field_name),
    )


def stored(text: str) -> str:
    """Return a name or a tag's value as InfluxDB keeps it: what a line cannot carry is percent-encoded."""
    return text.translate(_UNREADABLE)


def _written(text: str) -> str:
    return text.translate(_ESCAPED)


def _letter(datatype: DataType) -> str:
    if datatype in FLOATS:
        return "f"
    if datatype in TEXTS:
        return "s"
    if datatype is DataType.BOOLEAN:
        return "b"
    return "u" if datatype is DataType.UINT64 else "i"


def _declared(kind: Kind, name: str, letter: str) -> bool:
    if "__" in name or name != name.translate(_UNREADABLE):
        return False
    if kind is Kind.EDGE_NODE and name.startswith(PRESENCE):
        return letter == "s"
    known = metric(kind, name)
    return known is not None and _letter(known.datatype) == letter


def write(batch: Batch, places: Sequence[Place], newest: "array[int]", *, most_late: int) -> Written:
    """Return the batch as lines; `newest` is each series' newest instant by number - 1, and is brought up to date.

    A sample that is not newer than all before it may replace another. Fields merge, so such a one says its quality and
    flags even where there is nothing to say; a newer one says them only where they are not good and zero. At most
    `most_late` + 1 late samples are named.
    """
    written = Written(records=[], late=[], conflicts=set())
    found: dict[tuple[str, int], Record] = {}
    for column in (batch.numbers, batch.integers, batch.texts):
        _column(column, places, newest, written, found, most_late)
    written.records = list(found.values())
    return written


def _column(
    column: Column,
    places: Sequence[Place],
    newest: "array[int]",
    written: Written,
    found: dict[tuple[str, int], Record],
    most_late: int,
) -> None:
    late = written.late
    for series, at, value, mark in zip(column.series, column.at, column.value, column.marks, strict=True):
        here = places[series - 1]
        record = found.get((here.head, at))
        if record is None:
            record = found[here.head, at] = Record(here.head, at)
        is_late = at <= newest[series - 1]
        if is_late:
            if len(late) <= most_late:
                late.append((series, at, None if value != value else value))  # noqa: PLR0124  # NaN is a null
        else:
            newest[series - 1] = at
        if not is_late and mark == _GOOD << 8 and here.letter == "f" and value == value:  # noqa: PLR0124  # as above
            text = f"{here.name}={value!r}"
        else:
            text = _fields(here, value, mark, plain=not is_late and not mark & HISTORICAL_BIT)
        before = record.fields.get(series)
        if before is not None and _value_of(here, before) != _value_of(here, text):
            written.conflicts.add((series, at))
        record.fields[series] = text


def _value_of(here: Place, text: str) -> str:
    """Return the value among a sample's fields as written, "" for none."""
    return text.partition(f",{here.name}__")[0] if text.startswith(here.name + "=") else ""


def _fields(here: Place, value: Any, mark: int, *, plain: bool) -> str:
    """Return a sample's fields as written; `plain`: quality and flags may be left out where good and zero."""
    quality, flags = mark >> 8, mark & 0xFF
    parts = []
    if value is None or value != value:  # noqa: PLR0124  # NaN is a null
        flags |= NULL_BIT
    else:
        match here.letter:
            case "f":
                told = repr(value)
            case "i":
                told = f"{value}i"
            case "u":
                told = f"{value}u"
            case "b":
                told = "true" if value else "false"
            case _:
                if not value.isprintable() and value != value.translate(_CONTROL):
                    value, flags = quote(value, safe=""), flags | ENCODED_BIT
                told = f'"{value.translate(_TEXT)}"'
        parts.append(f"{here.name}={told}")
    if not plain or quality != _GOOD or flags & NULL_BIT:
        parts.append(f"{here.name}{QUALITY_FIELD}={quality}i")
    if not plain or flags:
        parts.append(f"{here.name}{FLAGS_FIELD}={flags}i")
    return ",".join(parts)


def conflict(here: Place, at: int) -> str:
    """Return the line that notes a key committed with differing values."""
    return f"{CONFLICT}{here.head.removeprefix(here.measurement)} {here.name}=1i {at}\n"
