"""What was put aside, judged again by today's rules: what passes is stored and leaves quarantine in one transaction.

What is kept aside carries names and datatypes, so no birth is needed. The hub that runs does this itself, between its
own batches: a second process would write beside it.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from contract.catalog import Kind
from contract.clock import Clock
from contract.delivery import POSITION_METRICS
from contract.payload import PayloadUnreadable, parse
from hub.alias_tables import Table
from hub.births import entry_of
from hub.committing import Committing
from hub.decode import DataUnreadable, read_data
from hub.devices import NodeKey
from hub.live_state import DeviceState, LiveState
from hub.node_view import NodeView
from hub.storage.timeseries import Batch, EventRow, Quarantined, TimeSeries

WORDS: Mapping[str, str] = {
    "wrong_datatype": "the value is not of the datatype that the birth declared",
    "not_a_number": "the value is no number",
    "impossible_time": "the instant lies more than 400 days back or more than 5 minutes ahead",
    "record_count": "the message holds another number of records than its positions say",
    "position_incomplete": "the message has some of its three positions and lacks others",
    "position_too_large": "the positions are larger than any log can count",
    "unreadable": "what was kept cannot be read any more",
}
"""Why something was put aside, as a person says it."""

PAGE = 200
"""Rows judged between two looks at the store."""


@dataclass(slots=True)
class Retried:
    """What became of a second look: rows looked at, rows and samples now stored, and why the rest stays."""

    looked: int = 0
    released: int = 0
    samples: int = 0
    still: Counter[str] = field(default_factory=Counter)


class Quarantine:
    """The second look of a running hub."""

    def __init__(self, *, store: TimeSeries, live: LiveState, committing: Committing, clock: Clock) -> None:
        self._store = store
        self._live = live
        self._committing = committing
        self._clock = clock
        self._turn = asyncio.Lock()

    async def retry(self, node: NodeKey | None) -> Retried:
        """Judge again what is in quarantine, of one edge node or of all; return when what passed is stored.

        Raises StoreUnavailable where the store cannot be asked.
        """
        done, after = Retried(), 0
        async with self._turn:
            while page := await asyncio.to_thread(self._store.quarantined, after, PAGE, node):
                after = page[-1].id
                passed = [again for one in page if (again := self._judged(one, done)) is not None]
                if passed and await self._stored(passed):
                    done.released += len(passed)
                    done.samples += sum(one.samples for one in passed)
        return done

    def _judged(self, one: Quarantined, done: Retried) -> Batch | None:
        done.looked += 1
        again = judged(one, store=self._store, kind=self._live.kind(one.key), clock=self._clock)
        if isinstance(again, str):
            done.still[again] += 1
            return None
        return again

    async def _stored(self, passed: Sequence[Batch]) -> bool:
        batch = self._committing.filling()
        for one in passed:
            _add(batch, one)
        return await self._committing.through()


def judged(one: Quarantined, *, store: TimeSeries, kind: Kind | None, clock: Clock) -> Batch | str:
    """Return what was put aside as a batch that stores and releases it, or the reason why it must stay.

    It is history by now: no live state is touched, and its samples are marked so.
    """
    try:
        message = parse(one.payload)
    except PayloadUnreadable:
        return "unreadable"
    batch, state, table = Batch(released=[one.id]), DeviceState(one.key), Table()
    state.kind = kind
    for metric in message.metrics:
        metric.is_historical = True
        if not metric.name or metric.HasField("alias"):
            return one.reason
        table.by_name[metric.name] = entry_of(one.key, metric.name, metric.datatype, metric, state=state, store=store)
    positioned = one.lineage is not None or any(name in table.by_name for name in POSITION_METRICS)
    view = NodeView(key=one.key.of_node, log="any" if positioned else None, tables={one.key.device: table})
    try:
        read_data(
            view,
            one.key.device,
            message,
            one.payload,
            received_at=clock.now_ms(),
            live=LiveState(clock, []),
            batch=batch,
        )
    except DataUnreadable:
        return one.reason
    if batch.quarantined or not batch.samples:
        return batch.quarantined[0].reason if batch.quarantined else one.reason
    batch.committed.clear()  # it was accounted for when it was put aside
    batch.events[:] = [_placed(event, one) for event in batch.events]
    return batch


def _placed(event: EventRow, one: Quarantined) -> EventRow:
    """Return an event with the position it had; a message put aside whole has those of all its records."""
    offset = event.offset if event.offset is not None else one.first
    return replace(event, lineage=one.lineage, offset=offset if one.lineage is not None else None)


def _add(batch: Batch, more: Batch) -> None:
    for column, other in (
        (batch.numbers, more.numbers),
        (batch.integers, more.integers),
        (batch.texts, more.texts),
    ):
        column.series.extend(other.series)
        column.at.extend(other.at)
        column.value.extend(other.value)
        column.marks.extend(other.marks)
    batch.events += more.events
    batch.released += more.released
