"""How a thing is doing, in one word for people: problem, warning, ok or unknown, and why. Pure."""

from dataclasses import dataclass
from enum import StrEnum

from contract.catalog import MAINS, STATE, Condition, Kind
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


_CONDITIONS = {
    Condition.NO_STREAM: Health.PROBLEM,
    Condition.NO_PICTURE: Health.PROBLEM,
    Condition.FROZEN: Health.PROBLEM,
    Condition.BLACK: Health.PROBLEM,
    Condition.WRONG_DEVICE: Health.PROBLEM,
    Condition.CLOCK_OFF: Health.WARNING,
    Condition.REBOOTED: Health.WARNING,
    Condition.STUCK: Health.PROBLEM,
    Condition.OUT_OF_RANGE: Health.WARNING,
    Condition.CALIBRATING: Health.MAINTENANCE,
    Condition.INSTRUMENT_FAULT: Health.PROBLEM,
    Condition.AMPLIFIER_FAILED: Health.PROBLEM,
    Condition.LINE_FAILED: Health.PROBLEM,
    Condition.MUTED: Health.PROBLEM,
    Condition.HOT: Health.WARNING,
    Condition.NO_RADIO: Health.PROBLEM,
    Condition.NO_UPLINK: Health.PROBLEM,
}
"""What each condition means for whoever relies on the device; `ok` means nothing by itself."""


def _fault(device: LiveDevice, now: int) -> Judged | None:
    values = device.values
    told = values.get(STATE)
    if told is not None and told.value in _CONDITIONS:
        condition = Condition(str(told.value))
        return Judged(_CONDITIONS[condition], condition.value, told.at)
    mains = values.get(MAINS)
    if mains is not None and mains.value is False:
        # It runs on its battery: what hangs on the same mains without one is out, and this will be.
        return Judged(Health.WARNING, "mains", mains.at)
    # A loudspeaker that nothing supervises may be silent without a word: that is not "ok".
    unsupervised = (values.get(metric) is None or values[metric].value is None for metric in ("Amp/OK", "Line/OK"))
    if device.kind is Kind.LOUDSPEAKER and any(unsupervised):
        return Judged(Health.UNKNOWN, "unsupervised", device.presence.since)
    worst = [one for one in values.values() if one.quality == Quality.BAD and not one.event]
    if worst:
        return Judged(Health.WARNING, "bad_values", min(one.at for one in worst))
    old = [one for one in values.values() if now > one.fresh_until and not one.event]
    if old:
        return Judged(Health.WARNING, "old_values", min(one.fresh_until for one in old))
    return None
