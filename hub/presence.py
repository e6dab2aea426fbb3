"""Whether a device is there, decided from what its edge node says and from silence. Pure.

A broker that never notices a dead connection is no excuse: an edge node that said nothing for SILENCE is offline.
"""

from dataclasses import dataclass
from enum import StrEnum

from contract.catalog import ONLINE, Cause

SILENCE = 90_000
"""Milliseconds: an edge node says its uptime every 30 s, and three in a row are not lost by chance."""


class State(StrEnum):
    """What can be said of a device."""

    ONLINE = "online"
    STALE = "stale"
    OFFLINE = "offline"
    UNKNOWN = "unknown"


NODE_GONE = "node_gone"
"""Cause: the edge node went, so nobody can say more of its devices."""
NODE_SILENT = "node_silent"
INHIBITED = frozenset({Cause.UPSTREAM.value, Cause.MAINS.value})
"""Causes that lie above the device: of itself nothing is known, and what lies above is said once, by itself."""
DEAD = "dead"
"""Cause: a death certificate without a reason."""


@dataclass(frozen=True, slots=True)
class Presence:
    """A state, why, and since when (ms); cause "" while online or unknown."""

    state: State
    cause: str = ""
    since: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """What is known of an edge node: whether its birth is in force, since when, and when it was last heard (ms)."""

    born: bool = False
    since: int | None = None
    heard: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFacts:
    """What is known of a device: its birth, and what `Presence/<device>` says (`claim`), with their instants (ms)."""

    born: bool = False
    since: int | None = None
    claim: str | None = None
    claimed: int | None = None


def of_node(facts: NodeFacts, now: int) -> Presence:
    """Return the presence of an edge node."""
    if facts.heard is None:
        return Presence(State.UNKNOWN)
    if not facts.born:
        return Presence(State.OFFLINE, DEAD, facts.since)
    if now - facts.heard >= SILENCE:
        return Presence(State.OFFLINE, NODE_SILENT, facts.heard)
    return Presence(State.ONLINE, "", facts.since)


def of_device(node: Presence, facts: DeviceFacts) -> Presence:
    """Return the presence of a device: its node's word while the node is there, unknown beneath a node that is not."""
    if node.state is State.UNKNOWN:
        return Presence(State.UNKNOWN)
    if node.state is State.OFFLINE:
        return Presence(State.STALE, NODE_GONE, node.since)
    if facts.claim in INHIBITED:
        return Presence(State.STALE, str(facts.claim), facts.claimed)
    if facts.claim is not None and facts.claim != ONLINE:
        return Presence(State.OFFLINE, facts.claim, facts.claimed)
    if not facts.born:
        return Presence(State.OFFLINE, DEAD, facts.since) if facts.since is not None else Presence(State.UNKNOWN)
    if facts.claim is None:
        return Presence(State.ONLINE, "", facts.since)
    return Presence(State.ONLINE, "", facts.claimed)
