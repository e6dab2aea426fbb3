"""Chance that can be asked again: the same seed, place and instant always give the same."""

import hashlib

DAY = 86_400.0
TIDE = 44_714.0
"""Seconds of the principal lunar semidiurnal tide, 12.42 h."""

STEP_SECONDS = 2.0


def noise(seed: int, place: str, step: int) -> float:
    """Return a number in [0, 1)."""
    digest = hashlib.blake2b(f"{seed}/{place}/{step}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def wobble(seed: int, place: str, at: float, size: float, salt: int) -> float:
    """Return what makes consecutive readings differ as those of real instruments do: new every 2 s, within ±size/2."""
    return size * (noise(seed, place, int(at / STEP_SECONDS) * 8 + salt) - 0.5)
