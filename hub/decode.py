"""Sparkplug data into columns, by the alias tables of births; what is wrong for good goes to quarantine.

The one place where every sample passes: no object is made per sample, the message is walked once, and nothing of a
message stays in the batch if the message turns out to be unreadable.
"""

import math
from array import array
from collections.abc import Iterable, Sequence
from typing import Any

from contract import sparkplug_pb2
from contract.catalog import HELLO, PRESENCE
from contract.delivery import DEPTH_METRICS, EPOCH, FIRST, LAST, POSITION_METRICS
from contract.metrics import Value
from contract.payload import PayloadUnreadable, read_value
from contract.positions import EMPTY, Lineage, RangeSet
from hub.alias_tables import GOOD_MARK, NEWEST, OLDEST, TWO_63, Entry, Table, Taken, claim, depth_of, mark_of
from hub.devices import DeviceKey
from hub.live_state import LiveState
from hub.node_view import NodeView
from hub.storage.timeseries import HISTORICAL_BIT, TIME_BITS, Batch, Column, EventRow, Quarantined
from hub.templates import Alike, Template, learn

MOST_EPOCH = 1 << 63
_TWO_64 = 1 << 64


class DataUnreadable(Exception):
    """Data that no birth explains: not to be acknowledged, and a reason to ask for a rebirth."""


class DataUnlisted(DataUnreadable):
    """Data of an epoch that the birth in force did not name."""


class DataUndecided(Exception):
    """Data that cannot be judged while the hub's own clock is in doubt: not to be acknowledged, it will come again."""


def read_data(
    view: NodeView,
    device: str,
    message: sparkplug_pb2.Payload,
    raw: bytes,
    *,
    received_at: int,
    live: LiveState,
    batch: Batch,
    keep: bool = True,
    doubt: bool = False,
) -> Taken:
    """Put the samples of NDATA or DDATA into the batch and live state.

    Raises DataUnreadable, or DataUndecided where `doubt` says that our clock is no judge, with nothing taken. Without
    `keep` only live state is served: nothing is accounted, and the batch is to be thrown away.
    """
    table = view.tables.get(device)
    if table is None:
        raise DataUnreadable("unborn_device")
    key = DeviceKey(view.key.group, view.key.node, device)
    walk = _Walk(view=view, key=key, table=table, batch=batch, received_at=received_at, doubt=doubt)
    try:
        walk.through(message.metrics, message.timestamp or received_at)
    except BaseException:  # whatever it was, half a message must not stay in the batch
        walk.undo()
        raise
    taken = walk.taken
    if walk.positioned:
        taken.positioned = True
        fault = walk.position_fault()
        if fault is not None:
            walk.undo()
            if keep:
                walk.quarantine_whole(fault, message, raw)
            return taken
        if keep:
            walk.account()
            if walk.plain:
                learn(table, raw, walk.marks)
    state = live.state(key)
    state.last_seen = received_at
    table.newest = None
    for entry, at, value, mark in walk.fresh:
        slot = entry.slot
        if slot is not None and at >= slot.at:
            slot.at, slot.value, slot.mark = at, value, mark
            if not device and entry.name.startswith(PRESENCE):
                claim(live, view.key, entry.name, slot)
    return taken


def read_alike(
    view: NodeView, device: str, raw: bytes, *, received_at: int, batch: Batch
) -> tuple[Template, Alike] | None:
    """Put a message into batch and live state if it is like an earlier one, and only good; else return None."""
    table = view.tables.get(device)
    if table is None or view.epochs is None or table.state is None:
        return None
    for template in table.templates.get(len(raw), ()):
        found = template.read(raw)
        if found is not None:
            break
    else:
        return None
    at, _, _, epoch, offset, all_values = found
    if not received_at - OLDEST <= at <= received_at + NEWEST:
        return None
    lineage = table.lineage
    if lineage is None or lineage.epoch != epoch:
        if view.log is None or epoch not in view.epochs or epoch in view.under:
            return None
        lineage = table.lineage = Lineage(view.log, epoch, device)
    accepted = view.accepted.get(lineage, EMPTY)
    if accepted.highest >= offset or offset >= MOST_EPOCH or epoch in view.under:
        return None
    for side, values in zip(template.sides, all_values, strict=True):
        if not values:
            continue
        column: Column = getattr(batch, side.column)
        column.series.extend(side.series)
        column.at.extend(array("q", (at,)) * len(values))
        column.value.extend(values)
        column.marks.extend(side.marks)
    if template.live:
        _show(table, template, all_values, at)
    batch.committed.append((view.key, lineage, offset, offset))
    view.accepted[lineage] = accepted.add(offset, offset)
    table.state.last_seen = received_at
    return template, found


def _show(table: Table, template: Template, all_values: Sequence[Sequence[Any]], at: int) -> None:
    """Bring live values into their slots, as far as they are the newest."""
    if table.newest is None:
        table.newest = max(entry.slot.at for entry in table.by_name.values() if entry.slot is not None)
    later, mark = at >= table.newest, template.mark
    table.newest = max(at, table.newest)
    for side, values in zip(template.sides, all_values, strict=True):
        shown = [one == 1 for one in values] if side.truths else values
        if later and mark is not None:  # as nearly always
            for slot, value in zip(side.slots, shown, strict=True):
                slot.at, slot.value, slot.mark = at, value, mark
            continue
        for slot, value, own_mark in zip(side.slots, shown, side.marks, strict=True):
            if at >= slot.at:
                slot.at, slot.value, slot.mark = at, value, own_mark


def speaks_now(view: NodeView, device: str, message: sparkplug_pb2.Payload) -> bool:
    """Return whether the message tells the time of an edge node of ours that calls its clock synchronised.

    It does where its newest sample is live: sent when it was measured, and not marked as of unsure time.
    """
    table = view.tables.get(device)
    if view.log is None or table is None or len(message.metrics) <= len(POSITION_METRICS):
        return False
    first, last = table.by_alias.get(message.metrics[0].alias), message.metrics[-1]
    positioned = first is not None and first.name in POSITION_METRICS
    return positioned and not last.is_historical and not mark_of(last) & TIME_BITS


class _Walk:
    """One pass over the metrics of a data message."""

    def __init__(
        self, *, view: NodeView, key: DeviceKey, table: Table, batch: Batch, received_at: int, doubt: bool
    ) -> None:
        self.view = view
        self.key = key
        self.table = table
        self.batch = batch
        self.received_at = received_at
        self.doubt = doubt
        self.told_at = received_at
        self.taken = Taken()
        self.fresh: list[tuple[Entry, int, Value, int]] = []
        self.numbers: dict[str, int] = {}
        self.marks: list[int] = []
        self.records = 0
        self.lengths = (
            len(batch.numbers),
            len(batch.integers),
            len(batch.texts),
            len(batch.events),
            len(batch.quarantined),
        )

    @property
    def plain(self) -> bool:
        """Whether this was one record of good samples and nothing else."""
        taken = self.taken
        nothing_else = not taken.faults and not taken.again and taken.hello is None and not taken.depth
        return nothing_else and self.records == 1 and len(self.batch.events) == self.lengths[3]

    @property
    def positioned(self) -> bool:
        return self.view.log is not None and len(self.numbers) > 0

    def through(self, metrics: Iterable[Any], told_at: int) -> None:
        """Take every metric; `told_at` stands in where a stranger's metric has no instant of its own."""
        self.told_at = told_at
        batch, by_alias, by_name = self.batch, self.table.by_alias, self.table.by_name
        columns = {
            name: (one.series.append, one.at.append, one.value.append, one.marks.append)
            for name, one in (("numbers", batch.numbers), ("integers", batch.integers), ("texts", batch.texts))
        }
        fresh, seen_marks = self.fresh.append, self.marks.append
        oldest, newest = self.received_at - OLDEST, self.received_at + NEWEST
        instant, skip, seen, taken = -1, False, EMPTY, 0
        for metric in metrics:
            alias = metric.alias
            entry = by_alias.get(alias)
            if entry is None or (not alias and not metric.HasField("alias")):
                entry = None if metric.HasField("alias") else by_name.get(metric.name)
                if entry is None:
                    raise DataUnreadable("unknown_alias")
            if entry.slot is None:
                if entry.name in POSITION_METRICS:
                    self.numbers[entry.name] = metric.long_value
                    if len(self.numbers) == len(POSITION_METRICS):
                        seen = self._seen()
                elif entry.name == HELLO:
                    self.taken.hello = metric.string_value or None
                elif entry.name in DEPTH_METRICS:
                    self.taken.depth[entry.name] = depth_of(metric)
                continue
            at = metric.timestamp or (told_at if self.view.log is None else 0)
            if at != instant:
                instant = at
                self.records += 1
                skip = bool(seen) and self.numbers[FIRST] + self.records - 1 in seen
                if skip:
                    self.taken.again += 1
            if skip:
                continue
            mark = GOOD_MARK if not metric.HasField("properties") else mark_of(metric)
            if metric.is_historical:
                mark |= HISTORICAL_BIT
            value: Any = entry.get(metric) if entry.field else None
            # A field that holds nothing reads as zero: only then must be asked whether it is set at all.
            if not value and not (entry.field and metric.HasField(entry.field)):
                try:
                    value = None if metric.is_null else read_value(metric, entry.datatype)
                except PayloadUnreadable:
                    self._put_aside(metric, entry, "wrong_datatype")
                    continue
            elif entry.signed and value >= TWO_63:
                value -= _TWO_64
            if not oldest <= at <= newest:
                if self.doubt:
                    raise DataUndecided("clock_in_doubt")
                self._put_aside(metric, entry, "impossible_time")
                continue
            if value.__class__ is float and not math.isfinite(value):
                self._put_aside(metric, entry, "not_a_number")
                continue
            column = entry.column
            stored = value
            if column == "integers" and value is not None:
                if value >= TWO_63:
                    column, stored = "texts", str(value)
                else:
                    stored = int(value)
            elif value is None and column == "numbers":
                stored = math.nan
            series, ats, values, marks = columns[column]
            series(entry.series)
            ats(at)
            values(stored)
            marks(mark)
            seen_marks(mark)
            taken += 1
            if not mark & HISTORICAL_BIT:
                fresh((entry, at, value, mark))
            if entry.event:
                batch.events.append(self._event(entry, at, value))
        self.taken.samples = taken

    def _seen(self) -> RangeSet:
        """Return which of the announced offsets came before; they are neither stored nor acted on again.

        An epoch that the birth in force did not list is none of this session: two boxes under one id, or a birth that
        we missed. By its alias table it would be stored under wrong names.
        """
        epoch, first, last = self.numbers[EPOCH], self.numbers[FIRST], self.numbers[LAST]
        if self.view.epochs is not None and epoch not in self.view.epochs:
            raise DataUnlisted("unknown_epoch")
        if last < first:
            return EMPTY
        if epoch in self.view.under:
            return RangeSet([(first, last)])
        accepted = self.view.accepted.get(self._lineage(), EMPTY)
        if accepted.highest < first:
            return EMPTY
        return accepted & RangeSet([(first, last)])

    def _lineage(self) -> Lineage:
        return Lineage(self.view.log or "", self.numbers[EPOCH], self.key.device)

    def _event(self, entry: Entry, at: int, value: Value) -> EventRow:
        complete = self.view.log is not None and len(self.numbers) == len(POSITION_METRICS)
        return EventRow(
            key=self.key,
            metric=entry.name,
            at=at,
            received_at=self.received_at,
            value=value,
            lineage=self._lineage() if complete else None,
            offset=self.numbers[FIRST] + self.records - 1 if complete else None,
        )

    def position_fault(self) -> str | None:
        """Return what is wrong with the announced positions, None if they fit the records that followed."""
        if len(self.numbers) != len(POSITION_METRICS):
            return "position_incomplete"
        first, last = self.numbers[FIRST], self.numbers[LAST]
        if self.numbers[EPOCH] >= MOST_EPOCH or last >= MOST_EPOCH:
            return "position_too_large"
        return None if last - first + 1 == self.records else "record_count"

    def account(self) -> None:
        lineage, first, last = self._lineage(), self.numbers[FIRST], self.numbers[LAST]
        if lineage.epoch in self.view.under:
            return  # forgotten since all of it is committed; a new row would never go
        self.batch.committed.append((self.view.key, lineage, first, last))
        self.view.accepted[lineage] = self.view.accepted.get(lineage, EMPTY).add(first, last)

    def undo(self) -> None:
        batch, (numbers, integers, texts, events, quarantined) = self.batch, self.lengths
        batch.numbers.cut(numbers)
        batch.integers.cut(integers)
        batch.texts.cut(texts)
        del batch.events[events:], batch.quarantined[quarantined:]
        self.taken.samples = 0

    def quarantine_whole(self, reason: str, message: sparkplug_pb2.Payload, raw: bytes) -> None:
        """Keep the whole message and acknowledge its positions, where they are possible: it never gets better."""
        first, last = self.numbers.get(FIRST, 0), self.numbers.get(LAST, -1)
        known = len(self.numbers) == len(POSITION_METRICS) and reason != "position_too_large" and first <= last
        # No honest message of 1 MiB has more records than bytes; a wild range must not swallow offsets never sent.
        believable = known and last - first < len(raw)
        lineage = self._lineage() if believable else None
        self.taken.faults.append(reason)
        self.batch.quarantined.append(
            Quarantined(
                key=self.key,
                reason=reason,
                payload=self._described(message.metrics),
                received_at=self.received_at,
                samples=max(self.records, 1),
                lineage=lineage,
                first=first if believable else None,
                last=last if believable else None,
            )
        )
        if believable:
            self.account()

    def _put_aside(self, metric: Any, entry: Entry, reason: str) -> None:
        complete = self.view.log is not None and len(self.numbers) == len(POSITION_METRICS)
        sane = complete and self.numbers[EPOCH] < MOST_EPOCH and self.numbers[FIRST] < MOST_EPOCH
        offset = self.numbers[FIRST] + self.records - 1 if sane else None
        self.taken.faults.append(reason)
        self.batch.quarantined.append(
            Quarantined(
                key=self.key,
                reason=reason,
                payload=self._described([metric]),
                received_at=self.received_at,
                samples=1,
                metric=entry.name,
                at=metric.timestamp if metric.timestamp < TWO_63 else None,
                lineage=self._lineage() if sane else None,
                first=offset,
                last=offset,
            )
        )

    def _described(self, metrics: Iterable[Any]) -> bytes:
        """Return metrics as a message that needs no birth to be read: each with its name and datatype."""
        message = sparkplug_pb2.Payload(timestamp=self.told_at)
        for metric in metrics:
            entry = self.table.by_alias.get(metric.alias) if metric.HasField("alias") else None
            entry = entry or self.table.by_name.get(metric.name)
            copy = message.metrics.add()
            copy.CopyFrom(metric)
            if entry is not None:
                copy.name, copy.datatype = entry.name, entry.datatype
                copy.ClearField("alias")
        return message.SerializeToString()
