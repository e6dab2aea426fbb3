"""How a device has been answering: when its failure is news, and how long to wait before asking again. Pure."""

from dataclasses import dataclass, replace

from contract.catalog import ONLINE, Cause

MOST_BACKOFF = 60.0
"""Seconds between two attempts at a device that has been failing for long: so late may a repair be noticed."""

MISCONFIGURED_RETRY = 300.0
"""Seconds between two attempts where only somebody's hand helps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rhythm:
    """How often to ask, how long to wait for an answer, how much silence is nobody's news; all in seconds."""

    poll: float
    deadline: float
    grace: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What is known of a device's answering.

    `told` is the presence last said, None before the first word; `retries` counts vain attempts since then; instants
    are on the monotonic clock.
    """

    told: str | None = None
    failing_since: float | None = None
    retries: int = 0
    answered_at: float = float("-inf")
    failed_at: float = float("-inf")


def succeeded(health: Health, now: float) -> tuple[Health, str | None]:
    """Return the health after an answer, and the presence to say now, None if nothing is new."""
    after = Health(told=ONLINE, answered_at=now, failed_at=health.failed_at)
    return after, None if health.told == ONLINE else ONLINE


def failed(health: Health, cause: Cause, now: float, grace: float) -> tuple[Health, str | None]:
    """Return the health after a failure, and the cause to say now: once the grace period is over, or at a change.

    A misconfiguration needs no grace: it does not pass by itself.
    """
    since = now if health.failing_since is None else health.failing_since
    said = health.told not in {None, ONLINE}
    after = replace(health, failing_since=since, retries=health.retries + said, failed_at=now)
    over = said or now - since >= grace or cause is Cause.MISCONFIGURED
    if not over or health.told == cause:
        return after, None
    return replace(after, told=cause.value), cause.value


def pause(health: Health, rhythm: Rhythm, chance: float) -> float:
    """Return seconds until the next attempt: the poll interval, doubling with each vain one once the failure was said.

    `chance` in [0, 1) spreads the attempts.
    """
    if health.told in {None, ONLINE}:
        return rhythm.poll
    spread = 0.75 + chance / 4
    # Devices lock out who keeps trying a wrong password.
    if health.told in {Cause.MISCONFIGURED, Cause.UNAUTHORISED}:
        return MISCONFIGURED_RETRY * spread
    backoff = min(MOST_BACKOFF, rhythm.poll * 2.0 ** min(health.retries, 16))
    return max(rhythm.poll, backoff * spread)
