"""Air of a roadside hamlet as a pure function of seed and time: two rush hours, rice-straw smoke in the evening."""

import math
from dataclasses import astuple, dataclass

from simulators.chance import DAY, noise, wobble


@dataclass(frozen=True, slots=True)
class Air:
    """Readings in µg/m³ (three), °C, % and hPa."""

    pm1: float
    pm25: float
    pm10: float
    temperature: float
    humidity: float
    pressure: float

    def as_tuple(self) -> tuple[float, ...]:
        """Return the readings in register order."""
        return astuple(self)


def air(seed: int, place: str, at: float) -> Air:
    """Return the air at a place at an instant (seconds since 1970)."""
    hour = (at % DAY) / 3600 + 7  # Viet Nam's clock
    rush = _bump(hour, 7, 1.5) + 1.4 * _bump(hour, 18, 2.0)
    day = math.sin(math.tau * (hour - 9) / 24)
    dust = 14 + 6 * noise(seed, place, -1) + 22 * rush + wobble(seed, place, at, 4.0, 0)
    return Air(
        pm1=0.62 * dust + wobble(seed, place, at, 1.0, 1),
        pm25=dust,
        pm10=1.7 * dust + wobble(seed, place, at, 3.0, 2),
        temperature=28.0 + 4.0 * day + wobble(seed, place, at, 0.2, 3),
        humidity=min(99.0, 78.0 - 14.0 * day + wobble(seed, place, at, 1.5, 4)),
        pressure=1009.0 + 1.6 * math.sin(math.tau * at / (DAY / 2)) + wobble(seed, place, at, 0.2, 5),
    )


def _bump(hour: float, centre: float, width: float) -> float:
    away = min(abs(hour % 24 - centre), 24 - abs(hour % 24 - centre))
    return math.exp(-((away / width) ** 2))
