"""Births: the alias table of each, its values into live state, and those of strangers into the store."""

import math
from collections.abc import Iterable
from typing import Any

from contract import sparkplug_pb2
from contract.catalog import HELLO, KIND, NEVER_LOGGED, NEVER_LOGGED_PREFIXES, PRESENCE, UNIT, Kind
from contract.delivery import DEPTH_METRICS
from contract.metrics import FLOATS, INTEGERS, TEXTS, DataType
from contract.payload import PayloadUnreadable, read_properties, read_value
from hub.alias_tables import GOOD_MARK, NEWEST, OLDEST, TWO_63, Entry, Table, Taken, claim, depth_of, mark_of
from hub.devices import DeviceKey
from hub.live_state import DeviceState, LiveState
from hub.node_view import NodeView
from hub.storage.timeseries import Batch, TimeSeries

_SCALARS = frozenset({*FLOATS, *INTEGERS, *TEXTS, DataType.BOOLEAN})


def read_birth(
    view: NodeView,
    device: str,
    message: sparkplug_pb2.Payload,
    *,
    received_at: int,
    store: TimeSeries,
    live: LiveState,
    batch: Batch,
) -> Taken:
    """Make the alias table of a birth and put its values into live state; a stranger's values are also stored.

    Our own edge nodes' births say what was logged before, so they are not stored again.
    """
    key = DeviceKey(view.key.group, view.key.node, device)
    state = live.state(key)
    state.last_seen, state.foreign = received_at, view.log is None
    state.kind = _kind(message.metrics) or (state.kind if view.log is not None else None)
    retired = any(one.name == KIND and not one.string_value for one in message.metrics)
    table, taken, twice = Table(state=state, retired=retired), Taken(), set()
    for metric in message.metrics:
        name, datatype = metric.name, metric.datatype
        if not name:
            taken.faults.append("birth_without_name")
            continue
        if name == HELLO:
            taken.hello = metric.string_value or None
        elif name in DEPTH_METRICS:
            taken.depth[name] = depth_of(metric)
        entry = entry_of(key, name, datatype, metric, state=state, store=store)
        table.by_name[name] = entry
        if metric.HasField("alias"):
            if metric.alias in table.by_alias:
                twice.add(metric.alias)
            table.by_alias[metric.alias] = entry
        if entry.slot is None:
            continue
        _take_birth_value(view, key, metric, entry, received_at=received_at, batch=batch, taken=taken, state=state)
        if name.startswith(PRESENCE) and not device:
            claim(live, view.key, name, entry.slot)
    for alias in twice:
        # Ambiguous: data by it must not be stored under either name.
        del table.by_alias[alias]
        taken.faults.append("alias_twice")
    view.tables[device] = table
    return taken


def entry_of(key: DeviceKey, name: str, datatype: int, metric: Any, *, state: DeviceState, store: TimeSeries) -> Entry:
    """Return what data by a name or alias is to be read by, as a birth's metric declares it."""
    silent = name in NEVER_LOGGED or name.startswith(NEVER_LOGGED_PREFIXES) or datatype not in _SCALARS
    if silent:
        return Entry(name=name, datatype=datatype, series=0, column="", slot=None, event=False)
    kind = DataType(datatype)
    unit = ""
    if metric.HasField("properties"):
        told = read_properties(metric).get(UNIT)
        unit = told[:40] if isinstance(told, str) else ""
    slot = state.slot(name, kind, unit)
    column = "numbers" if kind in FLOATS else "texts" if kind in TEXTS else "integers"
    event = slot.event = slot.event or (name.startswith(PRESENCE) and not key.device)
    series = store.series(key, name, kind)
    return Entry(name=name, datatype=datatype, series=series, column=column, slot=slot, event=event)


def _take_birth_value(
    view: NodeView,
    key: DeviceKey,
    metric: Any,
    entry: Entry,
    *,
    received_at: int,
    batch: Batch,
    taken: Taken,
    state: DeviceState,
) -> None:
    at = metric.timestamp if metric.HasField("timestamp") else received_at
    try:
        value = None if metric.is_null else read_value(metric, entry.datatype)
    except PayloadUnreadable:
        taken.faults.append("wrong_datatype")
        return
    if isinstance(value, float) and not math.isfinite(value):
        taken.faults.append("not_a_number")
        return
    if not received_at - OLDEST <= at <= received_at + NEWEST:
        taken.faults.append("impossible_time")
        return
    slot = state.slots[entry.name]
    mark = mark_of(metric) if metric.HasField("properties") else GOOD_MARK
    if value is not None and at >= slot.at:
        slot.at, slot.value, slot.mark = at, value, mark
    if view.log is None and value is not None:
        column = {"numbers": batch.numbers, "integers": batch.integers, "texts": batch.texts}[entry.column]
        if isinstance(value, int) and value >= TWO_63:
            column, value = batch.texts, str(value)
        column.put(
            entry.series, at, int(value) if entry.column == "integers" and column is not batch.texts else value, mark
        )
        taken.samples += 1


def _kind(metrics: Iterable[Any]) -> Kind | None:
    for metric in metrics:
        if metric.name == KIND:
            return Kind(metric.string_value) if metric.string_value in set(Kind) else None
    return None
