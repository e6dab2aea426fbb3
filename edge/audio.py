"""Audio files into the samples a loudspeaker takes."""

from pathlib import Path

import av
import numpy as np
from av.audio.resampler import AudioResampler
from numpy.typing import NDArray

SLACK_MS = 500
"""What padding of an encoder may add to the ordered duration."""

FORMATS = "flac,wav,mp3,ogg,aac,mov,matroska"
"""Containers of sound. Not FFmpeg's playlists (concat, hls): those would play other files of this box."""


class AudioUnreadable(Exception):
    """A file that cannot be decoded, or is not what was ordered, although its digest is right."""


def decoded(path: Path, sample_rate: int, *, duration_ms: int) -> NDArray[np.int16]:
    """Return the file's sound as 16-bit mono at that rate; blocks; raises AudioUnreadable.

    A file that sounds longer than `duration_ms` is refused before it fills the memory: the limit that the order kept is
    worth nothing if the file does not.
    """
    resampler = AudioResampler(format="s16", layout="mono", rate=sample_rate)
    pieces: list[NDArray[np.int16]] = []
    most, length = (duration_ms + SLACK_MS) * sample_rate // 1000, 0
    try:
        with av.open(str(path), container_options={"format_whitelist": FORMATS}) as container:
            for frame in container.decode(audio=0):
                some = [one.to_ndarray()[0] for one in resampler.resample(frame)]
                length += sum(map(len, some))
                if length > most:
                    raise AudioUnreadable(f"{path.name} sounds longer than the {duration_ms / 1000:g} s ordered")
                pieces += some
            pieces += [one.to_ndarray()[0] for one in resampler.resample(None)]
    except (av.FFmpegError, IndexError, ValueError) as exc:
        raise AudioUnreadable(f"{path.name}: {exc}") from exc
    if not pieces:
        raise AudioUnreadable(f"{path.name} holds no sound")
    return np.concatenate(pieces).astype(np.int16, copy=False)
