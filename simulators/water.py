"""Water of a tidal canal as a pure function of seed and time: the same question has the same answer."""

import math
from dataclasses import astuple, dataclass

from simulators.chance import DAY, TIDE, noise, wobble


@dataclass(frozen=True, slots=True)
class Water:
    """Readings in pH units, °C, µS/cm, mg/L and NTU."""

    ph: float
    temperature: float
    conductivity: float
    oxygen: float
    turbidity: float

    def as_tuple(self) -> tuple[float, ...]:
        """Return the readings in register order."""
        return astuple(self)


def water(seed: int, place: str, at: float) -> Water:
    """Return the water at a place at an instant (seconds since 1970)."""
    phase = noise(seed, place, -1) * math.tau
    day = math.sin(math.tau * at / DAY + phase)
    tide = math.sin(math.tau * at / TIDE + phase)
    return Water(
        ph=7.2 + 0.25 * day + wobble(seed, place, at, 0.08, 0),
        temperature=28.5 + 1.8 * day + wobble(seed, place, at, 0.3, 1),
        conductivity=1400.0 + 900.0 * tide + wobble(seed, place, at, 40.0, 2),
        oxygen=5.8 + 1.1 * day + wobble(seed, place, at, 0.2, 3),
        turbidity=22.0 + 9.0 * abs(tide) + wobble(seed, place, at, 3.0, 4),
    )
