"""Audio files into the samples a loudspeaker takes."""

from pathlib import Path

import av
import numpy as np
from av.audio.resampler import AudioResampler
from numpy.typing import NDArray


class AudioUnreadable(Exception):
    """A file that cannot be decoded, although its digest is right."""


def decoded(path: Path, sample_rate: int) -> NDArray[np.int16]:
    """Return the file's sound as 16-bit mono at that rate; blocks; raises AudioUnreadable."""
    resampler = AudioResampler(format="s16", layout="mono", rate=sample_rate)
    pieces: list[NDArray[np.int16]] = []
    try:
        with av.open(str(path)) as container:
            for frame in container.decode(audio=0):
                pieces += [one.to_ndarray()[0] for one in resampler.resample(frame)]
            pieces += [one.to_ndarray()[0] for one in resampler.resample(None)]
    except (av.FFmpegError, IndexError, ValueError) as exc:
        raise AudioUnreadable(f"{path.name}: {exc}") from exc
    if not pieces:
        raise AudioUnreadable(f"{path.name} holds no sound")
    return np.concatenate(pieces).astype(np.int16)
