"""A store behind the hub's port: the real books, samples in memory, both or neither, and backups of any age."""

import math
import shutil
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from contract.metrics import DataType, Value
from contract.positions import Lineage, RangeSet
from hub.devices import DeviceKey, NodeKey
from hub.storage.books import Books
from hub.storage.timeseries import Batch, Column, Quarantined, StoreUnavailable, Void


@dataclass(frozen=True, slots=True)
class Row:
    """One stored sample."""

    value: Value
    mark: int
    received_at: int


@dataclass(slots=True)
class Samples:
    """What is beside the books."""

    rows: dict[int, dict[int, Row]] = field(default_factory=dict)
    """By series and instant."""
    values: set[Value] = field(default_factory=set)
    """Every value that ever was in a row, also where another came to its key later."""
    aside: dict[tuple[Lineage, int], Quarantined] = field(default_factory=dict)
    received: int = 0
    conflicts: int = 0

    def copy(self) -> "Samples":
        return Samples(
            rows={series: dict(rows) for series, rows in self.rows.items()},
            values=set(self.values),
            aside=dict(self.aside),
            received=self.received,
            conflicts=self.conflicts,
        )


@dataclass(frozen=True, slots=True)
class Backup:
    """A copy of a shelf, with the books in a folder."""

    folder: Path
    samples: Samples


class Shelf:
    """A TimeSeries, as far as taking in needs one. It stays when the hub dies; `open` is for each of its lives."""

    name = "shelf"

    def __init__(self, folder: Path, backup: Backup | None = None) -> None:
        self._folder = folder
        if backup is not None:
            shutil.copytree(backup.folder, folder)
        self.samples = backup.samples.copy() if backup is not None else Samples()
        self._books: Books | None = None
        self.down = False
        self.now: Callable[[], float] = lambda: 0.0
        self._times: deque[tuple[float, str, int, int]] = deque(maxlen=200)

    def open(self) -> None:
        self.close()
        self._times.clear()  # what a hub noted of clocks goes with its process
        self._books = Books(self._folder / "store.db").__enter__()

    def close(self) -> None:
        if self._books is not None:
            self._books.__exit__(None, None, None)
            self._books = None

    @property
    def books(self) -> Books:
        assert self._books is not None
        return self._books

    def backup(self, folder: Path) -> Backup:
        """Return a copy, made between two commits."""
        shutil.copytree(self._folder, folder, ignore=shutil.ignore_patterns("*-shm"))
        return Backup(folder, self.samples.copy())

    def series(self, key: DeviceKey, metric: str, datatype: DataType) -> int:
        return self.books.series(key, metric, datatype)

    def commit(self, batch: Batch, received_at: int) -> None:
        if self.down:
            raise StoreUnavailable("the shelf is locked")
        self.books.commit(batch, lambda _: None)
        samples = self.samples
        for column in (batch.numbers, batch.integers, batch.texts):
            self._put(column, received_at)
        for one in batch.quarantined:
            if one.lineage is not None and one.first is not None and one.last is not None:
                for offset in range(one.first, one.last + 1):
                    samples.aside[one.lineage, offset] = one
        for node, count in Counter(node.node for node, *_ in batch.committed).items():
            wrong = sum(
                one.key.node == node and one.reason == "impossible_time" and received_at - one.received_at < 30_000
                for one in batch.quarantined
            )
            self._times.append((self.now(), node, count, wrong))
        samples.received = max(samples.received, received_at)

    def ledger(self, node: NodeKey) -> Mapping[Lineage, RangeSet]:
        return self.books.ledger(node)

    def floors(self, node: NodeKey) -> Mapping[str, frozenset[int]]:
        return self.books.floors(node)

    def voids(self, node: NodeKey, most: int) -> Sequence[Void]:
        return self.books.voids(node, most)

    def newest_received(self) -> int:
        return self.samples.received

    def wild(self, node: str, since: float, until: float) -> bool:
        """Return whether most records that came of a node in that time had impossible instants."""
        found = [(count, wrong) for at, whose, count, wrong in self._times if whose == node and since <= at < until]
        return sum(wrong for _, wrong in found) > sum(count for count, _ in found) / 2

    def has(self, position: tuple[Lineage, int], value: Value) -> bool:
        """Return whether a value is or was stored, or its record put aside for its impossible instant."""
        if value in self.samples.values:
            return True
        aside = self.samples.aside.get(position)
        return aside is not None and aside.reason == "impossible_time" and _impossible(aside)

    def _put(self, column: Column, received_at: int) -> None:
        samples = self.samples
        for series, at, value, mark in zip(column.series, column.at, column.value, column.marks, strict=True):
            rows = samples.rows.setdefault(series, {})
            stored = None if isinstance(value, float) and math.isnan(value) else value  # a null among doubles
            if at in rows and rows[at].value != stored:
                samples.conflicts += 1
            rows[at] = Row(stored, mark, received_at)
            samples.values.add(stored)


def _impossible(one: Quarantined) -> bool:
    return one.at is None or not one.received_at - 400 * 86_400_000 <= one.at <= one.received_at + 300_000
