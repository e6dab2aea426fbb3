"""How good the box's clock is, what it may say after a boot, and whether readings wait for it. Pure.

A wrong instant cannot be mended later: it stands beside the reading for ever. So a box whose clock nothing keeps waits
a while for a source, and then says with every sample how good its clock was.
"""

from dataclasses import dataclass, replace

from contract.metrics import Timing

LONGEST_HOLD = 120.0
"""Seconds that readings wait, from the agent's start, for the clock to be synchronised."""

AFTER_LAST_LOGGED = 1000
"""Milliseconds after the last logged instant at which a box without a clock of its own begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timekeeping:
    """What is known of the clock. `began` is the agent's start, in seconds of the monotonic clock.

    `trusted`: another source keeps the clock, and nobody is asked. `at_least`: no instant before this one (ms) is told
    at `began`, since the box has no clock that runs without power; None where it has one. `synchronised` is what the
    kernel says, `was_synchronised` whether it ever said so in this boot.
    """

    began: float
    trusted: bool = False
    at_least: int | None = None
    synchronised: bool = False
    was_synchronised: bool = False


def begun(
    now: float, *, trusted: bool, has_clock: bool, last_logged: int | None, was_synchronised: bool
) -> Timekeeping:
    """Return what is known when the agent starts; `has_clock`: a real-time clock that runs without power."""
    kept_by_others = trusted or has_clock
    at_least = None if kept_by_others or last_logged is None else last_logged + AFTER_LAST_LOGGED
    return Timekeeping(began=now, trusted=trusted, at_least=at_least, was_synchronised=was_synchronised)


def asked(kept: Timekeeping, synchronised: bool) -> Timekeeping:
    """Return what is known after the kernel was asked whether its clock is synchronised."""
    return replace(kept, synchronised=synchronised, was_synchronised=kept.was_synchronised or synchronised)


def told(kept: Timekeeping, system: int, now: float) -> int:
    """Return the instant (ms) to tell where the system says `system`, `now` by the monotonic clock."""
    if kept.at_least is None or kept.synchronised:
        return system
    return max(system, kept.at_least + int((now - kept.began) * 1000))


def timing(kept: Timekeeping) -> Timing:
    """Return how good the clock is."""
    if kept.trusted or kept.synchronised:
        return Timing.SYNCHRONISED
    return Timing.HOLDOVER if kept.was_synchronised else Timing.UNKNOWN


def holds(kept: Timekeeping, now: float) -> bool:
    """Return whether readings wait for the clock."""
    return timing(kept) is Timing.UNKNOWN and now - kept.began < LONGEST_HOLD
