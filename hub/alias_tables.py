"""What a birth declared, ready for data to be read by: alias tables, and the marks a sample carries."""

from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Any

from contract.catalog import INSTRUMENT, ONLINE, PRESENCE, QUALITY, TIME
from contract.metrics import DataType, Quality
from contract.payload import read_properties
from contract.positions import Lineage
from hub.devices import DeviceKey, NodeKey
from hub.live_state import DeviceState, LiveState, Slot
from hub.storage.timeseries import TIME_SHIFT

OLDEST = 400 * 86_400_000
NEWEST = 5 * 60_000
"""Milliseconds around now within which an instant can be true."""

GOOD_MARK = int(Quality.GOOD) << 8
TWO_63 = 1 << 63

_FIELDS = {
    DataType.DOUBLE: "double_value",
    DataType.FLOAT: "float_value",
    DataType.INT64: "long_value",
    DataType.UINT64: "long_value",
    DataType.DATETIME: "long_value",
    DataType.BOOLEAN: "boolean_value",
    DataType.STRING: "string_value",
}
"""Where a value of a wide datatype is: read without asking protobuf which field is set (a third of the whole cost)."""


class Entry:
    """What an alias stands for; `get` reads the field its datatype prescribes, "" for those that need more care."""

    __slots__ = ("column", "datatype", "event", "field", "get", "name", "series", "signed", "slot")

    def __init__(self, *, name: str, datatype: int, series: int, column: str, slot: Slot | None, event: bool) -> None:
        self.name = name
        self.datatype = datatype
        self.series = series
        self.column = column
        self.slot = slot
        self.event = event
        self.field = _FIELDS.get(datatype, "")  # type: ignore[call-overload]  # an int is found as its DataType
        self.get = attrgetter(self.field or "name")
        self.signed = datatype == DataType.INT64


@dataclass(slots=True)
class Table:
    """The metrics of one birth, by alias and by name."""

    by_alias: dict[int, Entry] = field(default_factory=dict)
    by_name: dict[str, Entry] = field(default_factory=dict)
    templates: dict[int, list[Any]] = field(default_factory=dict)
    """By their length, messages that went the long way without anything to note (hub/templates.py)."""
    state: DeviceState | None = None
    """Whose metrics these are, None where no birth made the table."""
    newest: int | None = None
    """The newest instant in any of its slots, None where it must be looked up."""
    lineage: Lineage | None = None
    """What its data came from last: kept, since it is asked for at every message."""
    retired: bool = False
    """Its edge node has no such device any more and only delivers what it still owes of it."""


@dataclass(slots=True)
class Taken:
    """What a message brought besides samples."""

    hello: str | None = None
    again: int = 0
    samples: int = 0
    faults: list[str] = field(default_factory=list)
    depth: dict[str, int | None] = field(default_factory=dict)
    """What it says of how deep its log is, by metric (contract/delivery.py)."""
    positioned: bool = False


def mark_of(metric: Any) -> int:
    """Return quality << 8 | flags of a protobuf metric, from its properties; what they cannot mean is ignored."""
    told = read_properties(metric)
    quality, instrument, time = told.get(QUALITY), told.get(INSTRUMENT), told.get(TIME)
    code = quality if isinstance(quality, int) and quality in {0, 192, 500} else int(Quality.GOOD)
    state = instrument if isinstance(instrument, int) and instrument in {1, 2} else 0
    timing = time if isinstance(time, int) and time in {1, 2} else 0
    return code << 8 | timing << TIME_SHIFT | state


def depth_of(metric: Any) -> int | None:
    """Return the number in a metric that says how deep a log is, None where there is none."""
    number = metric.long_value
    return number if metric.HasField("long_value") and number < TWO_63 else None


def claim(live: LiveState, node: NodeKey, name: str, slot: Slot) -> None:
    """Take over what the edge node says of a device's presence."""
    device = name.removeprefix(PRESENCE)
    if not device or not isinstance(slot.value, str):
        return
    state = live.state(DeviceKey(node.group, node.node, device))
    if state.facts.claim != slot.value or state.facts.claimed is None:
        claim = slot.value if slot.value == ONLINE else slot.value[:40]
        state.facts = replace(state.facts, claim=claim, claimed=slot.at)
