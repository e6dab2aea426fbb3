"""What a microphone at some distance from a horn hears: weaker, later, with echoes and noise. Pure numpy."""

import hashlib

import numpy as np
from numpy.typing import NDArray

SOUND_METRES_PER_SECOND = 343.0
ECHOES = 4
DETOURS = (3.0, 40.0)
"""Metres that an echo goes further than the sound itself: from the nearest wall to the far side of a square."""

REFLECTED = (0.05, 0.25)
"""Share of the amplitude that walls, trees and the ground give back."""

NOISE = 6.0
"""Root mean square of wind, insects and motorcycles, where 32768 is full scale."""


def at_microphone(sound: NDArray[np.int16], rate: int, *, metres: float, seed: int, place: str) -> NDArray[np.int16]:
    """Return what is heard that far from a horn; the same seed and place always give the same.

    The level is the horn's own at one metre, and sinks with the distance. The recording begins when the horn begins.
    """
    digest = hashlib.blake2b(f"{seed}/{place}".encode(), digest_size=8).digest()
    random = np.random.default_rng(int.from_bytes(digest, "big"))
    detours = random.uniform(*DETOURS, ECHOES)
    shares = random.uniform(*REFLECTED, ECHOES) * random.choice((-1.0, 1.0), ECHOES)
    paths = [(metres, 1.0), *((metres + detour, share) for detour, share in zip(detours, shares, strict=True))]
    delays = [round(path / SOUND_METRES_PER_SECOND * rate) for path, _ in paths]
    heard = random.normal(0.0, NOISE, len(sound) + max(delays))
    for (path, share), delay in zip(paths, delays, strict=True):
        heard[delay : delay + len(sound)] += sound * (share / max(path, 1.0))
    loudest = np.clip(np.round(heard), -32768, 32767)
    return np.asarray(loudest, dtype=np.int16)
