"""What is kept of each stream of a loudspeaker: a recording at the horn, one in the room, and the facts."""

import contextlib
import json
import os
import wave
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from simulators.room import at_microphone

Sound = NDArray[np.int16]


@dataclass(slots=True, kw_only=True)
class HornRecordings:
    """Numbered files of one horn, `ID-1.wav` and `ID-1.json`.

    With `room_metres` there is `ID-1.room.wav` too, by a microphone that far from the horn; `seed` decides upon the
    echoes there.
    """

    folder: Path
    horn: str
    room_metres: float | None
    seed: int
    count: int = 0

    def keep(self, sound: Sound, rate: int, facts: Mapping[str, object]) -> None:
        """Write the next recording, in one piece each file."""
        self.count += 1
        name = f"{self.horn}-{self.count}"
        _write_sound(self.folder / f"{name}.wav", sound, rate)
        if self.room_metres is not None:
            there = at_microphone(sound, rate, metres=self.room_metres, seed=self.seed, place=self.horn)
            _write_sound(self.folder / f"{name}.room.wav", there, rate)
        # The facts come last: who sees them may rely on the recordings.
        with _durable(self.folder / f"{name}.json") as aside:
            aside.write_text(json.dumps({**facts, "room_metres": self.room_metres}), encoding="utf-8")


def _write_sound(path: Path, sound: Sound, rate: int) -> None:
    with _durable(path) as aside, wave.open(str(aside), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(sound.astype("<i2").tobytes())


@contextlib.contextmanager
def _durable(path: Path) -> Iterator[Path]:
    """Yield a file beside `path` to write to; it is fsynced and takes the name when complete."""
    aside = path.with_name(f".{path.name}")
    yield aside
    with aside.open("rb") as written:
        os.fsync(written.fileno())
    aside.replace(path)
