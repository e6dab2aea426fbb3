"""The port to whatever keeps readings: what a batch is, and what may be asked of a store."""

from array import array
from collections.abc import Mapping, MutableSequence, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from contract.metrics import DataType, Value
from contract.positions import Lineage, RangeSet
from hub.devices import DeviceKey, NodeKey

INSTRUMENT_BITS = 0b11
HISTORICAL_BIT = 0b100
"""Layout of a sample's flags."""


class StoreUnavailable(Exception):
    """The store did not commit; nothing of the batch is in it. Trying again later may work."""


@dataclass(slots=True)
class Column:
    """Samples of one type side by side; `marks` is quality << 8 | flags.

    A null is None, or NaN in an array of doubles: no sample's value is ever NaN. Arrays go to the store without a look
    at each number.
    """

    value: MutableSequence[Any] = field(default_factory=list)
    series: "array[int]" = field(default_factory=lambda: array("i"))
    at: "array[int]" = field(default_factory=lambda: array("q"))
    marks: "array[int]" = field(default_factory=lambda: array("i"))

    def put(self, series: int, at: int, value: Value, mark: int) -> None:
        """Append one sample."""
        self.series.append(series)
        self.at.append(at)
        self.value.append(value)
        self.marks.append(mark)

    def __len__(self) -> int:
        return len(self.series)

    def cut(self, length: int) -> None:
        """Take back everything after the first `length` samples."""
        del self.series[length:], self.at[length:], self.value[length:], self.marks[length:]


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRow:
    """One sample of an event metric, to be acted on once; `id` is given by the store and only grows."""

    key: DeviceKey
    metric: str
    at: int
    received_at: int
    value: Value
    lineage: Lineage | None = None
    offset: int | None = None
    id: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantined:
    """What can never be stored as good, whole, with the reason and, where it has one, its position."""

    key: DeviceKey
    reason: str
    payload: bytes
    received_at: int
    samples: int
    metric: str | None = None
    at: int | None = None
    lineage: Lineage | None = None
    first: int | None = None
    last: int | None = None


@dataclass(slots=True)
class Batch:
    """What is committed together, or not at all."""

    numbers: Column = field(default_factory=lambda: Column(value=array("d")))
    integers: Column = field(default_factory=Column)
    texts: Column = field(default_factory=Column)
    committed: list[tuple[NodeKey, Lineage, int, int]] = field(default_factory=list)
    events: list[EventRow] = field(default_factory=list)
    quarantined: list[Quarantined] = field(default_factory=list)
    wire_bytes: int = 0

    @property
    def samples(self) -> int:
        """Return how many samples the batch holds."""
        return len(self.numbers) + len(self.integers) + len(self.texts)

    def __bool__(self) -> bool:
        return bool(self.samples or self.committed or self.events or self.quarantined)


@dataclass(frozen=True, slots=True, kw_only=True)
class Raw:
    """Samples of one series in time order; `at` in ms."""

    at: Sequence[int]
    value: Sequence[Value]
    quality: Sequence[int]
    flags: Sequence[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Buckets:
    """A series in equal spans of time; `at` is each span's start in ms. Where nothing was measured, values are None.

    `mean` is weighted by time: integral / covered, the last value carried in for as long as it counts as current.
    """

    at: Sequence[int]
    count: Sequence[int]
    minimum: Sequence[float | None]
    maximum: Sequence[float | None]
    mean: Sequence[float | None]
    first: Sequence[float | None]
    last: Sequence[float | None]
    covered_seconds: Sequence[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """What the store holds: distinct (series, instant), keys committed with differing values, and the rest."""

    samples: int
    conflicts: int
    quarantined: int
    events: int
    series: int
    commits: int
    bytes_on_disk: int


class TimeSeries(Protocol):
    """A store of samples. `series` is for the event loop; everything else blocks and belongs in a thread.

    `commit` is called by one thread at a time; the questions may be asked meanwhile and see whole commits only.
    """

    def series(self, key: DeviceKey, metric: str, datatype: DataType) -> int:
        """Return the number of a series, new ones being kept with the next commit."""
        ...

    def commit(self, batch: Batch, received_at: int) -> None:
        """Store the batch in one transaction that survives a power cut; raise StoreUnavailable with nothing stored."""
        ...

    def ledger(self, node: NodeKey) -> Mapping[Lineage, RangeSet]:
        """Return every range committed of one edge node."""
        ...

    def raw(self, key: DeviceKey, metric: str, start: int, end: int, most: int) -> Raw:
        """Return at most `most` samples with start <= at < end, the last committed of each instant."""
        ...

    def buckets(self, key: DeviceKey, metric: str, start: int, end: int, count: int, hold_ms: int) -> Buckets:
        """Return `count` spans of [start, end); a value counts as current for at most `hold_ms`."""
        ...

    def events(self, after: int, metric: str, most: int) -> Sequence[EventRow]:
        """Return events of one metric with an id above `after`, oldest first."""
        ...

    def stats(self) -> Stats:
        """Return what the store holds."""
        ...

    def newest_received(self) -> int:
        """Return when the newest commit was received (ms), 0 for an empty store."""
        ...
