"""How a thing is doing, in one word for people: problem, warning, ok or unknown, and why. Pure."""

from dataclasses import dataclass
from enum import StrEnum

from contract.catalog import Kind
from contract.metrics import Quality
from hub.live_state import LiveDevice
from hub.presence import State


class Health(StrEnum):
    """States of a thing, worst first; shapes and colours in static/app.css."""

    PROBLEM = "problem"
    WARNING = "warning"
    UNKNOWN = "unknown"
    MAINTENANCE = "maintenance"
    OK = "ok"


@dataclass(frozen=True, slots=True)
class Judged:
    """A state, the word for its cause (a key of the catalogue, "" if none), and since when (ms)."""

    health: Health
    cause: str = ""
    since: int | None = None


def judged(device: LiveDevice, now: int) -> Judged:
    """Return how a device is doing, from its presence and what it says of itself."""
    presence = device.presence
    match presence.state:
        case State.OFFLINE:
            return Judged(Health.PROBLEM, presence.cause, presence.since)
        case State.STALE:
            return Judged(Health.UNKNOWN, presence.cause, presence.since)
        case State.UNKNOWN:
            return Judged(Health.UNKNOWN, "never_seen", presence.since)
        case State.ONLINE:
            fault = _fault(device, now)
            return Judged(Health.OK, "", presence.since) if fault is None else fault


def _fault(device: LiveDevice, now: int) -> Judged | None:
    values = device.values
    if device.kind is Kind.LOUDSPEAKER:
        for metric, bad, cause in (
            ("Amp/OK", False, "amplifier_failed"),
            ("Line/OK", False, "line_open"),
            ("Audio/Muted", True, "muted"),
        ):
            known = values.get(metric)
            if known is not None and known.value is bad:
                return Judged(Health.PROBLEM, cause, known.at)
        # A loudspeaker that nothing supervises may be silent without a word: that is not "ok".
        if any(values.get(metric) is None or values[metric].value is None for metric in ("Amp/OK", "Line/OK")):
            return Judged(Health.UNKNOWN, "unsupervised", device.presence.since)
    worst = [one for one in values.values() if one.quality == Quality.BAD and not one.event]
    if worst:
        return Judged(Health.WARNING, "bad_values", min(one.at for one in worst))
    if any(one.instrument == 2 for one in values.values()):
        return Judged(Health.PROBLEM, "instrument_fault", device.presence.since)
    if any(one.instrument == 1 for one in values.values()):
        return Judged(Health.MAINTENANCE, "calibrating", device.presence.since)
    old = [one for one in values.values() if now > one.fresh_until and not one.event]
    if old:
        return Judged(Health.WARNING, "old_values", min(one.fresh_until for one in old))
    return None
