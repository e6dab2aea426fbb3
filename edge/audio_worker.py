"""A process that decodes announcements, or is the way to the sound card: `python -m edge.audio_worker`.

`decode ENCODING RATE (MOST_MS FILE)...` writes the files' sound to standard output, one after the other. The last line
on standard error says what was wrong.

`play DEVICE RATE GAIN_PERCENT` sends 16-bit little-endian samples from standard input to an ALSA device, until they
end. It says on standard output, a line each: `ready`, `playing` when the first of them are with the device, and
`not_found`, `busy` or `failed` with words.
"""

import os
import resource
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import av.logging
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.filter import Graph

CPU_SECONDS = 60
MEMORY_BYTES = 1024**3
"""Of addresses; what is really taken is about 50 MB."""

MOST_OUTPUT = 256 * 1024 * 1024

SLACK_MS = 500
"""What padding of an encoder may add to the ordered duration."""

FORMATS = "flac,wav,mp3,ogg,aac,mov,matroska"
"""Containers of sound. Not FFmpeg's playlists (concat, hls): those would play other files of this box."""

CODECS = {"L16": "pcm_s16be", "PCMU": "pcm_mulaw", "S16LE": "pcm_s16le"}
ALSA_FOLDER = "/usr/share/alsa"
"""Where the system keeps ALSA's configuration; the ALSA inside PyAV looks elsewhere."""

READ_BYTES = 4096


class Refused(Exception):
    """What this process was given cannot be done; the text says why."""


def main() -> int:
    """Do what the arguments say; return the exit status."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    task, *asked = sys.argv[1:]
    if task == "play":
        device, rate, gain = asked
        return play(device, int(rate), int(gain))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_FSIZE, (MOST_OUTPUT, MOST_OUTPUT))
    encoding, rate, *rest = asked
    try:
        for most_ms, path in zip(rest[::2], rest[1::2], strict=True):
            for piece in decoded(Path(path), encoding, int(rate), int(most_ms)):
                sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
    except (Refused, MemoryError, OSError) as exc:
        print(str(exc) or type(exc).__name__, file=sys.stderr)  # noqa: T201  # the answer of this process
        return 1
    return 0


def decoded(path: Path, encoding: str, rate: int, most_ms: int) -> Iterator[bytes]:
    """Yield a file's sound as mono, encoded; raise Refused as soon as it cannot be read or sounds longer."""
    resampler = AudioResampler(format="s16", layout="mono", rate=rate)
    encoder = av.CodecContext.create(CODECS[encoding], "w")
    assert isinstance(encoder, av.AudioCodecContext)  # noqa: S101  # each of them is one
    encoder.sample_rate, encoder.layout, encoder.format = rate, "mono", "s16"
    most, length = (most_ms + SLACK_MS) * rate // 1000, 0
    try:
        with av.open(str(path), container_options={"format_whitelist": FORMATS}) as container:
            for frame in _resampled(container, resampler):
                length += frame.samples
                if length > most:
                    raise Refused(f"{path.name} sounds longer than the {most_ms / 1000:g} s ordered")
                for packet in encoder.encode(frame):
                    yield bytes(packet)
    except (av.FFmpegError, IndexError, ValueError) as exc:
        raise Refused(f"{path.name}: {exc}") from exc
    if not length:
        raise Refused(f"{path.name} holds no sound")


def _resampled(container: av.container.InputContainer, resampler: AudioResampler) -> Iterator[AudioFrame]:
    for frame in container.decode(audio=0):
        yield from resampler.resample(frame)
    yield from resampler.resample(None)


def play(device: str, rate: int, gain: int) -> int:
    """Send standard input to the device; return the exit status."""
    os.environ.setdefault("ALSA_CONFIG_PATH", f"{ALSA_FOLDER}/alsa.conf")
    os.environ.setdefault("ALSA_CONFIG_DIR", ALSA_FOLDER)
    # The reason, for FFmpeg gives the same number for all of them, is in the words of its log alone.
    av.logging.set_level(av.logging.ERROR)
    try:
        with av.open(device, "w", format="alsa") as container:
            stream = container.add_stream("pcm_s16le", rate=rate)
            stream.layout = "mono"
            container.start_encoding()
            _say("ready")
            louder, told = _volume(rate, gain), False
            for frame in _heard(rate):
                for packet in stream.encode(louder(frame)):
                    container.mux(packet)
                if not told:
                    told = True
                    _say("playing")
            for packet in stream.encode(None):
                container.mux(packet)
    except av.FFmpegError as exc:
        _say(f"{reason(str(exc))} {exc}"[:300])
        return 1
    return 0


def reason(words: str) -> str:
    """Return the word for what ALSA said of a device that could not be opened."""
    if "No such file or directory" in words or "No such device" in words:
        return "not_found"
    return "busy" if "Device or resource busy" in words else "failed"


def _say(words: str) -> None:
    print(words, flush=True)  # noqa: T201  # the answer of this process


def _heard(rate: int) -> Iterator[AudioFrame]:
    """Yield standard input as frames: whatever is there, at once."""
    rest, at = b"", 0
    while piece := os.read(sys.stdin.fileno(), READ_BYTES):
        rest += piece
        samples = len(rest) // 2
        if samples:
            yield _frame(rest[: samples * 2], rate, at)
            rest, at = rest[samples * 2 :], at + samples


def _frame(raw: bytes, rate: int, at: int) -> AudioFrame:
    frame = AudioFrame(format="s16", layout="mono", samples=len(raw) // 2)
    frame.sample_rate, frame.pts, frame.time_base = rate, at, Fraction(1, rate)
    plane = frame.planes[0]
    plane.update(raw + bytes(plane.buffer_size - len(raw)))
    return frame


def _volume(rate: int, gain: int) -> Callable[[AudioFrame], AudioFrame]:
    """Return what makes a frame as loud as `gain` percent say."""
    graph = Graph()
    source = graph.add_abuffer(sample_rate=rate, format="s16", layout="mono", time_base=Fraction(1, rate))
    volume, sink = graph.add("volume", f"volume={gain / 100:g}:precision=fixed"), graph.add("abuffersink")
    source.link_to(volume)
    volume.link_to(sink)
    graph.configure()

    def louder(frame: AudioFrame) -> AudioFrame:
        graph.push(frame)
        pulled = graph.pull()
        assert isinstance(pulled, AudioFrame)  # noqa: S101  # one in, one out
        return pulled

    return louder


if __name__ == "__main__":
    sys.exit(main())
