"""People on the free Wi-Fi: how many, as a pure function of seed and time; they come in the evening."""

import math

from simulators.chance import DAY, noise

STEP_SECONDS = 120.0


def guests(seed: int, place: str, at: float) -> int:
    """Return how many devices are connected at a place at an instant (seconds since 1970)."""
    hour = (at % DAY) / 3600 + 7  # Viet Nam's clock
    evening = math.exp(-(((hour % 24) - 19.5) ** 2) / 8)
    morning = 0.4 * math.exp(-(((hour % 24) - 8.0) ** 2) / 6)
    likely = 2 + 22 * (evening + morning) * (0.6 + 0.8 * noise(seed, place, -1))
    return max(0, round(likely + 6 * (noise(seed, f"{place}/guests", int(at / STEP_SECONDS)) - 0.5)))
