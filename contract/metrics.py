"""What is measured: a metric, one sample of it, and how far the sample can be trusted."""

from dataclasses import dataclass
from enum import IntEnum

Value = bool | int | float | str | bytes | None


class DataType(IntEnum):
    """Sparkplug B data types that we send or accept (Sparkplug 3.0.0, 6.4.16)."""

    INT8 = 1
    INT16 = 2
    INT32 = 3
    INT64 = 4
    UINT8 = 5
    UINT16 = 6
    UINT32 = 7
    UINT64 = 8
    FLOAT = 9
    DOUBLE = 10
    BOOLEAN = 11
    STRING = 12
    DATETIME = 13
    TEXT = 14
    UUID = 15
    DATASET = 16
    BYTES = 17


INTEGERS = frozenset(
    {
        DataType.INT8,
        DataType.INT16,
        DataType.INT32,
        DataType.INT64,
        DataType.UINT8,
        DataType.UINT16,
        DataType.UINT32,
        DataType.UINT64,
        DataType.DATETIME,
    }
)
FLOATS = frozenset({DataType.FLOAT, DataType.DOUBLE})
TEXTS = frozenset({DataType.STRING, DataType.TEXT, DataType.UUID})


class Quality(IntEnum):
    """OPC-style quality codes as Sparkplug defines them (6.4.14, property `Quality`)."""

    BAD = 0
    GOOD = 192
    STALE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One thing a device reports.

    `unit` is UCUM. A change of at most `deadband` is not worth a message; `max_report_seconds` is how long a value may
    go unrepeated, and therefore how long it counts as current. An `event` is fsynced before it is sent and acted on
    once whenever it arrives.
    """

    name: str
    datatype: DataType
    unit: str = ""
    event: bool = False
    deadband: float = 0.0
    max_report_seconds: int = 300
    label_vi: str = ""
    label_en: str = ""


class Instrument(IntEnum):
    """What the measuring instrument says of itself (status codes of Circular 10/2021/TT-BTNMT)."""

    MEASURING = 0
    CALIBRATING = 1
    FAULT = 2


class Timing(IntEnum):
    """How good the clock was by which a sample's instant was told (property `time`; absent: synchronised)."""

    SYNCHRONISED = 0
    HOLDOVER = 1
    """It was synchronised in this boot and is not any more."""
    UNKNOWN = 2
    """It was not synchronised in this boot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One value of one metric at one instant (`at`: milliseconds since 1970 UTC); None where nothing could be read."""

    metric: str
    at: int
    value: Value
    quality: Quality = Quality.GOOD
    instrument: Instrument = Instrument.MEASURING
    time: Timing = Timing.SYNCHRONISED
