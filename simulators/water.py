"""Water of a tidal canal as a pure function of seed and time: the same question has the same answer."""

import hashlib
import math
from dataclasses import astuple, dataclass

DAY = 86_400.0
TIDE = 44_714.0
"""Seconds of the principal lunar semidiurnal tide, 12.42 h."""


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
    phase = _noise(seed, place, -1) * math.tau
    day = math.sin(math.tau * at / DAY + phase)
    tide = math.sin(math.tau * at / TIDE + phase)

    def wobble(size: float, salt: int) -> float:
        # A new small step every 2 s, so that consecutive readings differ as those of a real probe do.
        return size * (_noise(seed, place, int(at / 2) * 8 + salt) - 0.5)

    return Water(
        ph=7.2 + 0.25 * day + wobble(0.08, 0),
        temperature=28.5 + 1.8 * day + wobble(0.3, 1),
        conductivity=1400.0 + 900.0 * tide + wobble(40.0, 2),
        oxygen=5.8 + 1.1 * day + wobble(0.2, 3),
        turbidity=22.0 + 9.0 * abs(tide) + wobble(3.0, 4),
    )


def _noise(seed: int, place: str, step: int) -> float:
    digest = hashlib.blake2b(f"{seed}/{place}/{step}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
