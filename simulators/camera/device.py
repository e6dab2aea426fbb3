"""What a camera is: who it is, how it fails, what time it believes it is."""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from simulators.camera.picture import Codec
from simulators.faults import Fault, Faults


@dataclass(slots=True, kw_only=True)
class Camera:
    """A camera; `onvif` False for one that has only a stream and a snapshot."""

    id: str
    user: str
    password: str
    faults: Faults
    codec: Codec = "H264"
    host: str = "127.0.0.1"
    onvif: bool = True
    serial: str = ""
    now: Callable[[], float] = time.time
    started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.serial = self.serial or hashlib.blake2b(self.id.encode(), digest_size=6).hexdigest().upper()

    def clock(self) -> float:
        """Return the camera's own idea of the time (seconds since 1970)."""
        return self.now() + (3600.0 if self.faults.now() is Fault.CLOCK_JUMP else 0.0)
