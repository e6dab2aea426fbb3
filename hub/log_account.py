"""The account of an edge node's log at the hub: opened at its first word, gone over at each birth.

What is decided here goes into the batch, and so into the store, together with the positions it rests on or after them.
"""

from contract.delivery import MOST_HELD, Held, read_held
from contract.payload import PayloadUnreadable, decode
from contract.positions import EMPTY, Lineage, RangeSet
from contract.topics import valid_id
from hub import floor, lives
from hub.devices import NodeKey
from hub.node_delivery import Alarm, AlarmKind, NodeDelivery
from hub.node_view import NodeView
from hub.storage.timeseries import Batch, FloorRaised, TimeSeries, Void

MOST_NUMBER = 1 << 63
"""Epochs and offsets end here: no honest count comes near, and stores count in signed integers."""

MOST_VOIDS = 1000
"""Void ranges recorded at one birth; the next birth brings the rest."""

MOST_ID = 64


def opened(key: NodeKey, store: TimeSeries) -> NodeView:
    """Return the view of an edge node that was not heard since the hub started, with what the store has of it."""
    void: dict[Lineage, list[tuple[int, int]]] = {}
    for one in store.voids(key, 10 * MOST_VOIDS):
        void.setdefault(one.lineage, []).append((one.first, one.last))
    return NodeView(
        key=key,
        accepted=dict(store.ledger(key)),
        floors=dict(store.floors(key)),
        void={lineage: RangeSet(ranges) for lineage, ranges in void.items()},
    )


def told_log(raw: bytes) -> Held:
    """Return what the birth of one of our edge nodes says of its log; raise PayloadUnreadable with the reason."""
    held = read_held(decode(raw))
    if held is None:
        raise PayloadUnreadable("a log without an epoch")
    lineages = {*held.positions, *held.lost}
    strange = [one for one in lineages if one.log != held.log or not (valid_id(one.stream) or not one.stream)]
    if strange or not 0 < len(held.log) <= MOST_ID:
        raise PayloadUnreadable(f"log {held.log[:MOST_ID]!r} lists ranges of {strange[:1]!r:.200}")
    ranges = [*held.positions.values(), *held.lost.values()]
    numbers = [held.epoch, held.floor or 0, *(one.epoch for one in lineages), *(one.highest for one in ranges)]
    if max(numbers) >= MOST_NUMBER:
        raise PayloadUnreadable(f"a number of {max(numbers)} in what log {held.log!r} lists")
    return held


def begin(view: NodeView, held: Held | None, *, now: float, now_ms: int, batch: Batch) -> list[AlarmKind]:
    """Go over the account at a birth: which floor binds, what is void, how far the floor goes up.

    Returns the alarms this birth gives. `held` is None where it could not be read, or for a stranger.
    """
    noted = _odd(view, held, now)
    for kind in noted:
        since = view.odd[kind][1] if kind in active(view, now) else now_ms
        view.odd[kind] = (now, since)
    view.held, view.born_at, view.settled = held, now, False
    view.born_devices.clear()
    view.floor, view.under, view.epochs = None, frozenset(), None
    if held is None:
        return noted
    kept = view.floors.get(held.log, frozenset())
    view.floor = floor.bound(kept, held, view.accepted)
    listed = floor.listed(held)
    view.epochs = frozenset((held.epoch, *listed))
    if view.floor in listed:
        view.under = frozenset(listed[: listed.index(view.floor)])
    _record_voids(view, held, kept, now_ms, batch)
    raise_floor(view, batch)
    return noted


def raise_floor(view: NodeView, batch: Batch) -> bool:
    """Raise the floor as far as what was accepted allows; return whether it went up."""
    held = view.held
    up = None if held is None else floor.raised(view.floor, held, view.accepted)
    if held is None or up is None:
        return False
    batch.floors.append(FloorRaised(node=view.key, log=held.log, floor=up.floor, over=up.over))
    view.floors[held.log] = (view.floors.get(held.log, frozenset()) - set(up.over)) | {up.floor}
    listed = floor.listed(held)
    view.floor, view.under = up.floor, frozenset(listed[: listed.index(up.floor)])
    for kept in (view.accepted, view.void):
        for lineage in [one for one in kept if one.log == held.log and one.epoch in up.over]:
            del kept[lineage]
    return True


def full(view: NodeView) -> bool:
    """Return whether the birth in force named as many epochs as a birth may: the edge node may have more."""
    return view.held is not None and len(floor.listed(view.held)) >= MOST_HELD


def spent(view: NodeView) -> bool:
    """Return whether the floor reached the end of a full list: the edge node has more, and can list it now."""
    return view.held is not None and full(view) and view.floor == floor.listed(view.held)[-1]


def active(view: NodeView, now: float) -> dict[AlarmKind, int]:
    """Return the alarms that stand, with the instant (ms) of each one's beginning."""
    found = {kind: since for kind, (at, since) in view.odd.items() if now - at < lives.WITHIN}
    wild = view.answers.times.wild_since(now)
    return found if wild is None else found | {AlarmKind.WILD_CLOCK: wild}


def shown(view: NodeView, now: float) -> NodeDelivery:
    """Return the account for people."""
    held = view.held
    return NodeDelivery(
        foreign=view.log is None,
        log=view.log,
        epoch=None if held is None else held.epoch,
        floor=view.floor,
        closed=0 if held is None else len(floor.listed(held)),
        depth=view.depth,
        acknowledged_at=view.acknowledged_at,
        alarms=tuple(Alarm(kind=kind, since=since) for kind, since in sorted(active(view, now).items())),
    )


def _odd(view: NodeView, held: Held | None, now: float) -> list[AlarmKind]:
    if held is None:
        return [] if view.log is None else [AlarmKind.UNREADABLE_LOG]
    view.odd.pop(AlarmKind.UNREADABLE_LOG, None)
    *before, last = view.lives or (None,)
    if last is not None:
        before.append(lives.Life(last.log, last.epoch, max(last.heard, view.heard)))
    view.lives = lives.born([one for one in before if one is not None], lives.Life(held.log, held.epoch, now))
    accounts = {(one.log, one.epoch) for one in view.accepted}
    accounts |= {(log, epoch) for log, epochs in view.floors.items() for epoch in epochs}
    found = (lives.doubt(view.lives), lives.surprise(held.log, held.epoch, accounts))
    return [kind for kind in dict.fromkeys(found) if kind is not None]


def _record_voids(view: NodeView, held: Held, kept: frozenset[int], now_ms: int, batch: Batch) -> None:
    room = MOST_VOIDS
    for lineage, missing in floor.voids(view.floor, kept, held, view.accepted).items():
        known = view.void.get(lineage, EMPTY)
        fresh = list(missing - known)[:room]
        batch.voids += [
            Void(node=view.key, lineage=lineage, first=first, last=last, at=now_ms) for first, last in fresh
        ]
        if fresh:
            view.void[lineage] = known | RangeSet(fresh)
        room -= len(fresh)
