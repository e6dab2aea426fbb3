"""Level of a tidal canal and rain over it, as pure functions of seed and time."""

import math
from dataclasses import dataclass
from functools import cache

from simulators.chance import DAY, TIDE, noise, wobble

HOUR = 3600
YEAR = 1_767_225_600
"""2026-01-01 UTC."""


@dataclass(frozen=True, slots=True)
class Hydro:
    """Level in m above the gauge's zero, rain since the year began in mm, battery in V."""

    level: float
    rain: float
    battery: float


def hydro(seed: int, place: str, at: float) -> Hydro:
    """Return the level and the rain at a place at an instant (seconds since 1970)."""
    phase = noise(seed, place, -1) * math.tau
    tide = math.sin(math.tau * at / TIDE + phase)
    # Spring and neap tides: half a lunar month.
    height = 0.9 + 0.25 * math.sin(math.tau * at / (14.77 * DAY))
    return Hydro(
        level=1.4 + height * tide + wobble(seed, place, at, 0.02, 0),
        rain=rain(seed, place, at),
        battery=12.6 + 0.5 * math.sin(math.tau * at / DAY) + wobble(seed, place, at, 0.04, 1),
    )


def rain(seed: int, place: str, at: float) -> float:
    """Return the counter of a tipping bucket (0.2 mm a tip) since the year began: it only ever grows."""
    since = max(0.0, at - YEAR)
    hours = int(since // HOUR)
    fallen = _before(seed, place, hours // 24) + sum(
        _shower(seed, place, hour) for hour in range(hours - hours % 24, hours)
    )
    return math.floor((fallen + since % HOUR / HOUR * _shower(seed, place, hours)) / 0.2) * 0.2


@cache
def _before(seed: int, place: str, day: int) -> float:
    return sum(_shower(seed, place, hour) for hour in range(day * 24))


def _shower(seed: int, place: str, hour: int) -> float:
    chance = noise(seed, f"{place}/rain", hour)
    return 30 * (chance - 0.9) if chance > 0.9 else 0.0
