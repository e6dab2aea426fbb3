"""What was really read, and what of it was once safe on a card: the side of the model that trusts nobody.

Every value is a serial number that is never used twice, so a value names the reading it came from.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from contract import sparkplug_pb2
from contract.catalog import LOG_LOST
from contract.metrics import Sample, Value
from contract.positions import EMPTY, Lineage, RangeSet, difference, union
from edge.delivery_log import DeliveryLog
from edge.record_bytes import Record
from tests.delivery_model.disk import Card

Key = tuple[str, str, str, int]
"""Node, device, metric, instant."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One record as it was made; `order` counts all records of the world."""

    order: int
    box: str
    node: str
    record: Record
    values: Mapping[str, Value]
    """By metric name."""
    aliases: Mapping[int, str]


@dataclass(slots=True)
class Truth:
    """All readings ever made, by position and by key."""

    readings: dict[tuple[Lineage, int], Reading] = field(default_factory=dict)
    by_key: dict[Key, list[Reading]] = field(default_factory=dict)
    by_value: dict[Value, tuple[Reading, str]] = field(default_factory=dict)
    serial: int = 1_000_000

    def next_serial(self) -> int:
        self.serial += 1
        return self.serial

    def read(self, box: str, node: str, record: Record, samples: Sequence[Sample]) -> None:
        wire = sparkplug_pb2.Payload.FromString(record.metrics).metrics
        reading = Reading(
            order=len(self.readings),
            box=box,
            node=node,
            record=record,
            values={one.metric: one.value for one in samples},
            aliases={metric.alias: one.metric for metric, one in zip(wire, samples, strict=True)},
        )
        self.readings[record.lineage, record.offset] = reading
        for one in samples:
            self.by_key.setdefault((node, record.lineage.stream, one.metric, record.at), []).append(reading)
            if one.metric not in COUNTS:
                self.by_value[one.value] = (reading, one.metric)


COUNTS = frozenset({LOG_LOST})
"""What the agent itself records: numbers, but no serial ones."""


class WatchedLog(DeliveryLog):
    """The log itself; beside it is written down what it was given, and what it made safe."""

    box: str
    node: str
    truth: Truth
    card: Card

    def append(self, stream: str, at: int, samples: Sequence[Sample], *arguments: Any, **options: Any) -> Record:
        record = super().append(stream, at, samples, *arguments, **options)
        self.truth.read(self.box, self.node, record, samples)
        return record

    def commit(self) -> None:
        """Commit, and note what is safe from now on."""
        try:
            super().commit()
        finally:
            fresh = difference(self.held, self.card.durable)
            if fresh:
                self.card.durable = union(self.card.durable, fresh)


def sizes(positions: Mapping[Lineage, RangeSet]) -> int:
    return sum(len(ranges) for ranges in positions.values())


def within(positions: Mapping[Lineage, RangeSet], lineage: Lineage, offset: int) -> bool:
    return offset in positions.get(lineage, EMPTY)
