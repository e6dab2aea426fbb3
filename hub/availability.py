"""How long a device was up, down or unknown, and why: sums and shares in which unknown counts as neither. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from hub.storage.timeseries import Interval, Reach


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """Times in ms. `up_share` is up / (up + down), None where neither is known; `known_share` is of the whole span."""

    up: int
    down: int
    unknown: int
    down_by_cause: dict[str, int]
    up_share: float | None
    known_share: float


def sums(intervals: Sequence[Interval]) -> Sums:
    """Return the sums of intervals that fill a span of time."""
    times = dict.fromkeys(Reach, 0)
    causes: dict[str, int] = {}
    for one in intervals:
        length = one.end - one.start
        times[one.state] += length
        if one.state is Reach.DOWN:
            causes[one.cause] = causes.get(one.cause, 0) + length
    up, down, unknown = times[Reach.UP], times[Reach.DOWN], times[Reach.UNKNOWN]
    known = up + down
    return Sums(
        up=up,
        down=down,
        unknown=unknown,
        down_by_cause=dict(sorted(causes.items(), key=lambda one: -one[1])),
        up_share=up / known if known else None,
        known_share=known / (known + unknown) if known + unknown else 0.0,
    )
