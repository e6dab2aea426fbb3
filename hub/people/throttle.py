"""How often signing in may be tried: token buckets, by address and by account. Pure.

A stranger's attempts empty the strangers' bucket of an account, never that of a browser in which its owner signed in
before, and never passkeys: nobody can be locked out by who knows only their name. Unknown names have buckets as known
ones have.
"""

from collections import OrderedDict
from dataclasses import dataclass

MOST_BUCKETS = 50_000
"""Beyond it the longest untouched are forgotten: a flood of made-up names must not fill the memory."""


@dataclass(frozen=True, slots=True)
class Pace:
    """So many at once, then one in so many seconds."""

    burst: int
    seconds_each: float


ADDRESS = Pace(burst=20, seconds_each=6)
ACCOUNT = Pace(burst=5, seconds_each=30)


@dataclass(frozen=True, slots=True)
class Bucket:
    """What was left at an instant (seconds of a monotonic clock)."""

    left: float
    at: float


def refilled(bucket: Bucket | None, pace: Pace, now: float) -> Bucket:
    """Return a bucket as it stands now; one nobody touched is full."""
    if bucket is None:
        return Bucket(pace.burst, now)
    gained = max(0.0, now - bucket.at) / pace.seconds_each
    return Bucket(min(float(pace.burst), bucket.left + gained), max(now, bucket.at))


def wait(bucket: Bucket, pace: Pace) -> float:
    """Return the seconds until an attempt is free, 0 if one is."""
    return 0.0 if bucket.left >= 1 else (1 - bucket.left) * pace.seconds_each


@dataclass(frozen=True, slots=True)
class Lane:
    """A bucket by its key: an address, or an account as tried from somewhere."""

    key: str
    pace: Pace


def lanes(*, address: str, name: str | None, familiar: str | None) -> list[Lane]:
    """Return what an attempt takes from: its address, and, with a password, the account.

    `familiar` tells a browser in which that account was signed in before, None for a stranger's.
    """
    found = [Lane(f"address {address}", ADDRESS)]
    if name is not None:
        found.append(Lane(f"account {name} {familiar or 'strangers'}", ACCOUNT))
    return found


class Throttle:
    """The buckets of everybody who tried lately."""

    def __init__(self) -> None:
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def take(self, wanted: list[Lane], now: float) -> float:
        """Take one attempt from each lane and return 0; or take none and return the seconds to wait."""
        found = [refilled(self._buckets.get(lane.key), lane.pace, now) for lane in wanted]
        longest = max((wait(bucket, lane.pace) for bucket, lane in zip(found, wanted, strict=True)), default=0.0)
        if longest:
            return longest
        for bucket, lane in zip(found, wanted, strict=True):
            self._keep(lane.key, Bucket(bucket.left - 1, bucket.at))
        return 0.0

    def give_back(self, wanted: list[Lane], now: float) -> None:
        """Undo an attempt that succeeded."""
        for lane in wanted:
            bucket = refilled(self._buckets.get(lane.key), lane.pace, now)
            self._keep(lane.key, Bucket(min(float(lane.pace.burst), bucket.left + 1), bucket.at))

    def _keep(self, key: str, bucket: Bucket) -> None:
        self._buckets[key] = bucket
        self._buckets.move_to_end(key)
        if len(self._buckets) > MOST_BUCKETS:
            self._buckets.popitem(last=False)
