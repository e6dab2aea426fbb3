"""What is said of each device's presence: its own failure, or the failure of what it hangs on; once each. Pure.

A device whose switch, radio link or mains is out tells nothing by its silence: the cause is the highest thing that
failed. So a device's failure is held back until what it hangs on has been asked since, and is said only if that
answers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from contract.catalog import ONLINE, Cause
from edge.health import Health

BOOT_SECONDS = 180.0
"""So long after the mains came back a device may still be starting."""

INHIBITED = frozenset({Cause.UPSTREAM.value, Cause.MAINS.value})


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What a device hangs on: the device through which it is reached, and whether the box sees its mains."""

    behind: str | None = None
    mains: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Mains:
    """What the box sees of its mains; `present` is None where nothing is wired."""

    present: bool | None = None
    checked_at: float = float("-inf")
    since: float = float("-inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """All that is known on this box: how devices answer, the mains, what was said of whom, and when."""

    places: Mapping[str, Place]
    health: Mapping[str, Health] = field(default_factory=dict)
    mains: Mains = field(default_factory=Mains)
    said: Mapping[str, str] = field(default_factory=dict)
    said_at: Mapping[str, float] = field(default_factory=dict)


BOX = ""
"""In `Told.ask`: the box itself, for the sake of its mains."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What is new: presences to say, in the order of the file, and whom to ask at once instead of in their turn."""

    known: Known
    say: Mapping[str, str]
    ask: frozenset[str]


def heard(known: Known, device: str, health: Health, now: float) -> Told:
    """Return what to say after an attempt at a device."""
    return _settled(replace(known, health={**known.health, device: health}), now)


def mains(known: Known, present: bool, now: float) -> Told:
    """Return what to say after the box looked at its mains."""
    changed = present != known.mains.present
    since = now if changed else known.mains.since
    told = _settled(replace(known, mains=Mains(present=present, checked_at=now, since=since)), now)
    back = present and changed and known.mains.present is not None
    waiting = {name for name, cause in told.known.said.items() if cause == Cause.MAINS} if back else set()
    return replace(told, ask=told.ask | waiting)


def _settled(known: Known, now: float) -> Told:
    """Decide for all, those others hang on first, since one word may settle another."""
    said, said_at = dict(known.said), dict(known.said_at)
    say: dict[str, str] = {}
    ask: set[str] = set()
    for device in sorted(known.places, key=lambda one: _depth(known.places, one)):
        presence, wanted = _decided(replace(known, said=said, said_at=said_at), device)
        ask |= wanted
        if presence is None or presence == said.get(device):
            continue
        say[device] = presence
        said[device], said_at[device] = presence, now
        if presence == ONLINE:
            ask |= {one for one, place in known.places.items() if place.behind == device and said.get(one) in INHIBITED}
    return Told(known=replace(known, said=said, said_at=said_at), say=say, ask=frozenset(ask))


def _decided(known: Known, device: str) -> tuple[str | None, set[str]]:
    """Return the presence of a device, None while that must wait, and who should be asked at once."""
    own = known.health.get(device, Health())
    if own.told in {None, ONLINE} or own.told == Cause.MISCONFIGURED:
        return own.told, set()
    failing_since = own.failing_since if own.failing_since is not None else own.failed_at
    place = known.places[device]
    if place.mains and known.mains.present is not None:
        if not known.mains.present:
            return Cause.MAINS.value, set()
        if known.mains.checked_at < failing_since:
            return None, {BOX}
        if known.said.get(device) == Cause.MAINS and own.failed_at < known.mains.since + BOOT_SECONDS:
            return None, set()
    if place.behind is not None:
        parent, parent_said = known.health.get(place.behind, Health()), known.said.get(place.behind)
        if parent_said not in {None, ONLINE}:
            # A switch without mains leaves a camera that it feeds without mains too.
            return (Cause.MAINS if parent_said == Cause.MAINS else Cause.UPSTREAM).value, set()
        if parent.failing_since is not None:
            return None, set()
        if parent.answered_at < failing_since:
            return None, {place.behind}
        back = known.said_at.get(place.behind, float("-inf"))
        if known.said.get(device) in INHIBITED and own.failed_at <= back:
            return None, set()
    return own.told, set()


def _depth(places: Mapping[str, Place], device: str) -> int:
    depth, here = 0, places[device].behind
    while here is not None and here in places:
        depth, here = depth + 1, places[here].behind
    return depth
