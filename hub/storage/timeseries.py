"""The port to whatever keeps readings: what a batch is, and what may be asked of a store."""

from array import array
from collections.abc import Collection, Iterator, Mapping, MutableSequence, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol, TypeAlias

import pyarrow as pa

from contract.metrics import DataType, Value
from contract.positions import Lineage, RangeSet
from hub.devices import DeviceKey, NodeKey

INSTRUMENT_BITS = 0b11
HISTORICAL_BIT = 0b100
TIME_BITS = 0b11000
TIME_SHIFT = 3
"""Layout of a sample's flags: what the instrument says of itself, whether it came late, how its instant is known."""

STREAM_GAP_MS = 900_000
"""An edge node whose own stream is silent for longer shows no life: what its devices did meanwhile is unknown."""

Rows: TypeAlias = pa.Table
"""Samples side by side, columns as ROWS. Of number, integer and text at most one is not null; all null is a null."""

ROWS = pa.schema(
    [
        ("group", pa.dictionary(pa.int32(), pa.string())),
        ("node", pa.dictionary(pa.int32(), pa.string())),
        ("device", pa.dictionary(pa.int32(), pa.string())),
        ("metric", pa.dictionary(pa.int32(), pa.string())),
        ("at", pa.int64()),
        ("number", pa.float64()),
        ("integer", pa.int64()),
        ("text", pa.string()),
        ("quality", pa.int16()),
        ("flags", pa.uint8()),
    ]
)


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
    id: int = 0
    """Given by the store; it only grows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FloorRaised:
    """The floor of one log now stands at epoch `floor`; epochs of `over` lose their ledger rows, and their floors."""

    node: NodeKey
    log: str
    floor: int
    over: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Void:
    """Positions first to last that no one holds any more and the hub never had; `at`: when the hub learnt it (ms)."""

    node: NodeKey
    lineage: Lineage
    first: int
    last: int
    at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PutAside:
    """What is in quarantine of one edge node for one reason: how many samples, and when the newest came (ms)."""

    reason: str
    samples: int
    newest: int


@dataclass(slots=True)
class Batch:
    """What is committed together, or not at all."""

    numbers: Column = field(default_factory=lambda: Column(value=array("d")))
    integers: Column = field(default_factory=Column)
    texts: Column = field(default_factory=Column)
    committed: list[tuple[NodeKey, Lineage, int, int]] = field(default_factory=list)
    events: list[EventRow] = field(default_factory=list)
    quarantined: list[Quarantined] = field(default_factory=list)
    floors: list[FloorRaised] = field(default_factory=list)
    voids: list[Void] = field(default_factory=list)
    released: list[int] = field(default_factory=list)
    """Ids in quarantine whose samples this batch stores; they leave quarantine with it."""
    wire_bytes: int = 0

    @property
    def samples(self) -> int:
        """Return how many samples the batch holds."""
        return len(self.numbers) + len(self.integers) + len(self.texts)

    def __bool__(self) -> bool:
        books = (self.committed, self.events, self.quarantined, self.floors, self.voids, self.released)
        return bool(self.samples or any(books))


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


class Reach(StrEnum):
    """Whether a device did its job for a while, as far as is known."""

    UP = "up"
    DOWN = "down"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """One stretch of a device's time, [start, end) in ms; `cause` is what its edge node gave where it is not up.

    A cause of "" beside `unknown`: nothing was heard.
    """

    start: int
    end: int
    state: Reach
    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Completeness:
    """What the store has of one edge node for a span of time.

    Counted by the samples' instants: distinct `samples`, `records` (reads: distinct stream and instant), `historical`
    samples, keys in `conflicts` (committed with differing values). Counted by when the hub learnt it: samples
    `quarantined` and still there, and positions `void`.
    """

    samples: int
    records: int
    historical: int
    conflicts: int
    quarantined: int
    void: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """What the store holds: distinct (series, instant), keys committed with differing values, and the rest.

    `unsealed` samples wait to be written to `segments`, the immutable files; stores without such files have none.
    """

    samples: int
    conflicts: int
    quarantined: int
    events: int
    series: int
    commits: int
    bytes_on_disk: int
    unsealed: int = 0
    segments: int = 0


class TimeSeries(Protocol):
    """A store of samples. `series` is for the event loop; everything else blocks and belongs in a thread.

    `commit` is called by one thread at a time, and so is `tend`; the questions may be asked meanwhile and see whole
    commits only. Whatever the store cannot answer or do for now raises StoreUnavailable.
    """

    @property
    def name(self) -> str:
        """Return what the store calls itself: "embedded", or "influxdb 2.9.1"."""
        ...

    def series(self, key: DeviceKey, metric: str, datatype: DataType) -> int:
        """Return the number of a series, new ones being kept with the next commit."""
        ...

    def commit(self, batch: Batch, received_at: int) -> None:
        """Store the batch in one transaction that survives a power cut; raise StoreUnavailable with nothing stored."""
        ...

    def ledger(self, node: NodeKey) -> Mapping[Lineage, RangeSet]:
        """Return every range committed of one edge node, in epochs that are above its floors."""
        ...

    def floors(self, node: NodeKey) -> Mapping[str, frozenset[int]]:
        """Return, by log id, the epochs at which floors of one edge node stand.

        There may be more than one for a log: a copied card goes on in a lineage with a floor of its own.
        """
        ...

    def voids(self, node: NodeKey, most: int) -> Sequence[Void]:
        """Return the ranges an edge node reported lost, newest first."""
        ...

    def quarantined(self, after: int, most: int, node: NodeKey | None = None) -> Sequence[Quarantined]:
        """Return what is in quarantine with an id above `after`, oldest first, of one edge node or of all."""
        ...

    def put_aside(self, node: NodeKey) -> Sequence[PutAside]:
        """Return what is in quarantine of one edge node, by reason, the newest reason first."""
        ...

    def last(self, group: str | None = None) -> Rows:
        """Return the last sample of every series by instant, of one group or of all, in no order."""
        ...

    def raw(self, key: DeviceKey, metric: str, start: int, end: int, most: int) -> Raw:
        """Return at most `most` samples with start <= at < end, the last committed of each instant.

        Instants of a series are distinct, so the next page starts at the last instant + 1.
        """
        ...

    def export(
        self, start: int, end: int, groups: Collection[str] | None = None, metrics: Collection[str] | None = None
    ) -> Iterator[Rows]:
        """Return every sample with start <= at < end, ordered by group, node, device, metric and instant.

        Pieces of bounded size, whatever the range. The store is held as it was when the first piece was asked for:
        close the iterator when it is not wanted any more.
        """
        ...

    def buckets(self, key: DeviceKey, metric: str, start: int, end: int, count: int, hold_ms: int) -> Buckets:
        """Return `count` spans of [start, end); a value counts as current for at most `hold_ms`.

        Over more than EXACT_EDGES_MS (hub/storage/buckets.py) edges are moved to whole hours or 5 minutes; `at` tells.
        """
        ...

    def availability(
        self, devices: Collection[DeviceKey], start: int, end: int
    ) -> Mapping[DeviceKey, Sequence[Interval]]:
        """Return for each device intervals that fill [start, end) without gap or overlap, neighbours differing.

        From the samples `Presence/<device>` of its edge node's stream: "online" is up, a cause is down; a null is
        unknown. What one says stands until the next, but only while the edge node's own stream (any metric) shows life:
        a silence of more than STREAM_GAP_MS is unknown from its first moment, and so is the time before the first
        sample and after the last one once that is STREAM_GAP_MS past.
        """
        ...

    def by_group(self, metric: str, start: int, end: int, count: int, hold_ms: int) -> Mapping[str, Buckets]:
        """Return, by group, the mean over its devices' buckets of one metric.

        `mean` is the mean of the devices' means, each device counting once wherever it measured; `minimum` and
        `maximum` are over all of them, `count` and `covered_seconds` sums; `first` and `last` are means. Edges of
        spans of 5 minutes and more are moved to whole hours or 5 minutes; `at` tells.
        """
        ...

    def events(self, after: int, metric: str, most: int) -> Sequence[EventRow]:
        """Return events of one metric with an id above `after`, oldest first."""
        ...

    def stats(self) -> Stats:
        """Return what the store holds."""
        ...

    def completeness(self, node: NodeKey, start: int, end: int) -> Completeness:
        """Return the counts of one edge node for [start, end)."""
        ...

    def newest_received(self) -> int:
        """Return when the newest commit was received (ms), 0 for an empty store."""
        ...

    def tend(self, now_ms: int) -> None:
        """Do the housekeeping that is due: sealing, merging, rollups, retention. Call it each minute, in a thread.

        Raises StoreUnavailable where it could not; nothing is lost, and the next call tries again.
        """
        ...
