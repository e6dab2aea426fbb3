"""Edge nodes and devices that come and go, as live state shows it."""

import logging
from collections.abc import Iterable
from dataclasses import replace

from contract.metrics import Quality
from hub.devices import DeviceKey, NodeKey
from hub.live_state import LiveState, Slot
from hub.node_view import NodeView
from hub.presence import DeviceFacts, NodeFacts

log = logging.getLogger(__name__)

GONE_AFTER = 60.0
"""Seconds after an NBIRTH in which every configured device is born; who is not by then is no device any more."""

HEARD_WITHIN = 1.0
"""Seconds: how exactly it is kept when an edge node was heard."""


def node_born(live: LiveState, node: NodeKey, at: int) -> None:
    """Note an NBIRTH; its devices are to be born again."""
    live.set_node(node, NodeFacts(born=True, since=at, heard=at))
    for device in live.of_node(node):
        device.facts = replace(device.facts, born=False)


def node_heard(live: LiveState, view: NodeView, at: int, now: float) -> None:
    """Note a sign of life of a born edge node."""
    view.heard = now
    if now - view.shown_at >= HEARD_WITHIN:
        view.shown_at = now
        live.set_node(view.key, replace(live.node(view.key), heard=at))


def node_died(live: LiveState, node: NodeKey, at: int) -> None:
    """Note an NDEATH: all that was known of its devices is old."""
    live.set_node(node, NodeFacts(born=False, since=at, heard=live.node(node).heard))
    for device in live.of_node(node):
        device.facts = replace(device.facts, born=False, since=at)
        _grow_stale(device.slots.values())
    _grow_stale(live.state(DeviceKey(node.group, node.node, "")).slots.values())
    live.touch()


def device_born(live: LiveState, view: NodeView, key: DeviceKey, at: int) -> None:
    """Note a DBIRTH."""
    view.born_devices.add(key.device)
    state = live.state(key)
    state.facts = DeviceFacts(born=True, since=at, claim=state.facts.claim, claimed=state.facts.claimed)


def device_died(live: LiveState, view: NodeView, key: DeviceKey, at: int) -> None:
    """Note a DDEATH; a device that its edge node only delivered the last records of is gone for good."""
    table = view.tables.pop(key.device, None)
    if view.log is not None and table is not None and table.retired:
        live.forget(key)
        return
    state = live.state(key)
    state.facts = replace(state.facts, born=False, since=at)
    _grow_stale(state.slots.values())
    live.touch()


def let_go(live: LiveState, views: Iterable[NodeView], now: float) -> None:
    """Let devices go that their edge node does not know any more: every configured one is born with its node."""
    for view in views:
        if view.settled or view.log is None or not view.session.born or now - view.born_at < GONE_AFTER:
            continue
        view.settled = True
        for state in live.of_node(view.key):
            if state.key.device not in view.born_devices:
                log.info("%s/%s is no device of its edge node any more", state.key.node, state.key.device)
                live.forget(state.key)


def _grow_stale(slots: Iterable[Slot]) -> None:
    for slot in slots:
        slot.mark = int(Quality.STALE) << 8 | slot.mark & 0xFF
