"""What particulate sensors send by themselves on a UART: frames found in a stream of bytes, and what they say. Pure."""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Reading = Mapping[str, float]
"""Micrograms per cubic metre, by metric."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """How one model's frames look; `decoded` returns None for bytes that only look like the beginning of one."""

    header: bytes
    length: int
    baud: int
    most: float
    metrics: tuple[str, ...]
    decoded: Callable[[bytes], Reading | None]


def _pms5003(frame: bytes) -> Reading | None:
    *words, told = struct.unpack(">15H", frame[2:])
    if words[0] != len(frame) - 4 or told != sum(frame[:-2]):
        return None
    # Words 1 to 3 hold for the dust of the factory; 4 to 6 for the air outdoors.
    return {"Air/PM1": float(words[4]), "Air/PM2.5": float(words[5]), "Air/PM10": float(words[6])}


def _sds011(frame: bytes) -> Reading | None:
    if frame[9] != 0xAB or frame[8] != sum(frame[2:8]) & 0xFF:
        return None
    fine, coarse = struct.unpack("<HH", frame[2:6])
    return {"Air/PM2.5": fine / 10, "Air/PM10": coarse / 10}


MODELS: Mapping[str, Model] = {
    "pms5003": Model(
        header=b"\x42\x4d",
        length=32,
        baud=9600,
        most=1000.0,
        metrics=("Air/PM1", "Air/PM2.5", "Air/PM10"),
        decoded=_pms5003,
    ),
    "sds011": Model(
        header=b"\xaa\xc0", length=10, baud=9600, most=999.9, metrics=("Air/PM2.5", "Air/PM10"), decoded=_sds011
    ),
}


class Frames:
    """Finds good frames in whatever comes; keeps less than one frame of bytes between calls."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._kept = bytearray()

    def feed(self, received: bytes) -> list[Reading]:
        """Return what the frames say that are complete now, oldest first."""
        model, kept, found = self._model, self._kept, list[Reading]()
        kept += received
        while (start := kept.find(model.header)) >= 0:
            del kept[:start]
            if len(kept) < model.length:
                return found
            reading = model.decoded(bytes(kept[: model.length]))
            if reading is None:
                # A header by chance, or a frame with a byte lost: a true one may begin within it.
                del kept[:1]
            else:
                found.append(reading)
                del kept[: model.length]
        # The first byte of a header may be the last that came.
        del kept[: len(kept) - (kept[-1:] == model.header[:1])]
        return found
