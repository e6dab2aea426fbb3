"""A process that turns whatever file it is given into a levelled announcement: `python -m hub.sound_worker`.

Hostile files are decoded here, with limits on time and memory and no way to any file or network; nothing but this
process can be hurt by them.
Standard input: the file. Standard output: a line of JSON, `duration_ms` or `error`, then the FLAC file.
"""

import importlib
import io
import json
import resource
import sys

import av
import numpy as np
from av.audio.resampler import AudioResampler

from hub.loudness import levelled
from hub.sound_format import demuxer

RATE = 16_000
CPU_SECONDS = 30
MEMORY_BYTES = 1024**3


def main() -> None:
    """Read, level, write."""
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    most_seconds = int(sys.argv[1])
    raw = sys.stdin.buffer.read()
    confine()
    try:
        sound = _decoded(raw, most_seconds)
        level = levelled(sound, RATE)
        if level is None:
            raise ValueError("silent")
        flac = _encoded(np.round(level * 32767).astype(np.int16))
    except (av.FFmpegError, ValueError, IndexError, MemoryError) as exc:
        word = str(exc) if isinstance(exc, ValueError) and str(exc) in {"silent", "too_long", "empty"} else "unreadable"
        sys.stdout.buffer.write(json.dumps({"error": word, "detail": str(exc)[:200]}).encode() + b"\n")
        return
    head = {"duration_ms": max(1, round(len(level) * 1000 / RATE))}
    sys.stdout.buffer.write(json.dumps(head).encode() + b"\n" + flac)


def confine() -> None:
    """Let this process open no file and no socket any more, whatever a decoder is talked into.

    A second of noise goes the whole way first: what libraries load when it is first needed could not be loaded later.
    """
    noise = np.random.default_rng(0).integers(-9000, 9000, RATE).astype(np.int16)
    level = levelled(_decoded(_encoded(noise), 2), RATE)
    assert level is not None  # noqa: S101  # noise is no silence
    for kind in ("subtitles", "video"):
        importlib.import_module(f"av.{kind}.stream")
        importlib.import_module(f"av.{kind}.codeccontext")
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))


def _decoded(raw: bytes, most_seconds: int) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    container_format = demuxer(raw)
    if container_format is None:
        raise ValueError("unreadable")
    resampler = AudioResampler(format="s16", layout="mono", rate=RATE)
    pieces, length = [], 0
    options = {"format_whitelist": container_format, "protocol_whitelist": "file,pipe"}
    with av.open(io.BytesIO(raw), "r", format=container_format, container_options=options) as container:
        for frame in container.decode(audio=0):
            for one in resampler.resample(frame):
                pieces.append(one.to_ndarray()[0])
                length += len(pieces[-1])
            if length > most_seconds * RATE:
                raise ValueError("too_long")
        pieces += [one.to_ndarray()[0] for one in resampler.resample(None)]
    if not pieces:
        raise ValueError("empty")
    return np.concatenate(pieces).astype(np.float64) / 32768


def _encoded(sound: "np.ndarray[tuple[int], np.dtype[np.int16]]") -> bytes:
    sink = io.BytesIO()
    with av.open(sink, "w", format="flac") as container:
        stream = container.add_stream("flac", rate=RATE, layout="mono")
        for start in range(0, len(sound), 4096):
            frame = av.AudioFrame.from_ndarray(sound[None, start : start + 4096], format="s16", layout="mono")
            frame.rate, frame.pts = RATE, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return sink.getvalue()


if __name__ == "__main__":
    main()
