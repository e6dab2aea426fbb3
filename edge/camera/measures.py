"""Numbers that say how a picture is, without showing it. Pure."""

import hashlib
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

DARK_LUMA = 32
MEASURED_WIDTH = 640


@dataclass(frozen=True, slots=True, kw_only=True)
class Measures:
    """Brightness and share of dark pixels in %, sharpness (standard deviation of the Laplacian), and a digest.

    Two pictures with the same digest have the very same luma: no live sensor ever gives that twice.
    """

    brightness: float
    dark: float
    sharpness: float
    digest: str


def measures(luma: NDArray[np.uint8]) -> Measures:
    """Return the numbers of a picture's luma, shape (height, width), full range."""
    digest = hashlib.blake2b(np.ascontiguousarray(luma).tobytes(), digest_size=16).hexdigest()
    height, width = luma.shape
    if width > MEASURED_WIDTH:
        # Sharpness of one scene must not depend on which stream was looked at.
        size = (MEASURED_WIDTH, max(1, round(height * MEASURED_WIDTH / width)))
        luma = np.asarray(cv2.resize(luma, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    return Measures(
        brightness=round(float(luma.mean()) / 2.55, 1),
        dark=round(100 * float(np.mean(luma < DARK_LUMA)), 1),
        sharpness=round(float(cv2.Laplacian(luma, cv2.CV_64F).std()), 1),
        digest=digest,
    )
