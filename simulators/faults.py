"""When a simulated device misbehaves, and how: a timetable from a file, or a word from a test."""

from collections.abc import Callable, Sequence
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field


class Fault(StrEnum):
    """The ways to fail; which of them a device knows is said in README.md."""

    SILENT = "silent"
    SLOW = "slow"
    REFUSE = "refuse"
    UNAUTHORISED = "unauthorised"
    NONSENSE = "nonsense"
    CORRUPT = "corrupt"
    TRUNCATED = "truncated"
    NOISE = "noise"
    ILLEGAL_ADDRESS = "illegal_address"
    STUCK = "stuck"
    NOT_A_NUMBER = "not_a_number"
    DEAF = "deaf"
    AMPLIFIER_FAILED = "amplifier_failed"
    LINE_OPEN = "line_open"
    MUTED = "muted"
    FROZEN = "frozen"
    BLACK = "black"
    NO_STREAM = "no_stream"
    NO_KEY_FRAMES = "no_key_frames"
    REBOOT = "reboot"
    CLOCK_JUMP = "clock_jump"
    NO_UPLINK = "no_uplink"
    RADIO_OFF = "radio_off"
    MAINS_LOST = "mains_lost"


class FaultEntry(BaseModel):
    """One line of a timetable; `lasts_seconds` absent means for ever."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Fault
    after_seconds: float = Field(default=0, ge=0)
    lasts_seconds: float | None = Field(default=None, gt=0)


class Faults:
    """What is wrong with a device now."""

    def __init__(
        self,
        timetable: Sequence[FaultEntry],
        monotonic: Callable[[], float],
        *,
        quiet: Callable[[], bool] = lambda: False,
    ) -> None:
        self._timetable = timetable
        self._monotonic = monotonic
        self._quiet = quiet
        self._start = monotonic()
        self.forced: Fault | None = None

    def now(self) -> Fault | None:
        """Return the fault in force; a forced one goes before the timetable, the first entry before later ones.

        While `quiet` says so the device is silent, whatever else was to be wrong with it.
        """
        if self.forced is not None:
            return self.forced
        if self._quiet():
            return Fault.SILENT
        age = self._monotonic() - self._start
        for entry in self._timetable:
            until = float("inf") if entry.lasts_seconds is None else entry.after_seconds + entry.lasts_seconds
            if entry.after_seconds <= age < until:
                return entry.kind
        return None
