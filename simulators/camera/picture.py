"""What cameras see: a road with traffic, encoded once per process and looped, so that a crowd costs little."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Any, Literal

import numpy as np
from av import CodecContext, Packet, VideoCodecContext, VideoFrame
from numpy.typing import NDArray

WIDTH, HEIGHT = 320, 180
FRAMES_A_SECOND = 5
LOOP_SECONDS = 31
"""A prime: who looks at regular intervals must not meet the same picture each time."""
KEY_EVERY = FRAMES_A_SECOND

Codec = Literal["H264", "MJPEG"]
Scene = Literal["road", "black"]
Picture = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One encoded frame: H.264 NAL units without start codes, or one JPEG."""

    units: tuple[bytes, ...]
    key: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """Frames that repeat; for H.264 the parameter sets besides."""

    codec: Codec
    frames: tuple[Frame, ...]
    parameter_sets: tuple[bytes, ...] = ()


def picture(scene: Scene, number: int) -> Picture:
    """Return a frame as RGB, shape (HEIGHT, WIDTH, 3): the scene never looks the same twice within a loop."""
    if scene == "black":
        return np.full((HEIGHT, WIDTH, 3), 4, dtype=np.uint8)
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    shade = np.where(rows < HEIGHT // 3, 200 - rows // 2, 90 + (columns * 7 + rows * 13) % 23)
    seen = np.repeat(shade[:, :, None], 3, axis=2).astype(np.int16)
    seen[:, :, 0] += 12
    for lane, (speed, size) in enumerate(((9, 26), (-6, 18), (4, 40))):
        left = (number * speed + 83 * lane) % (WIDTH + size) - size
        top = HEIGHT // 3 + 14 + 34 * lane
        seen[top : top + 20, max(0, left) : max(0, left + size)] = (220 - 60 * lane, 40 + 50 * lane, 60)
    grain = np.random.default_rng(number).integers(-5, 6, (HEIGHT, WIDTH, 1))
    shown: Picture = np.clip(seen + grain, 0, 255).astype(np.uint8)
    return shown


@cache
def loop(codec: Codec, scene: Scene) -> Loop:
    """Return the encoded loop of a scene; made once per process."""
    numbers = range(LOOP_SECONDS * FRAMES_A_SECOND)
    if codec == "MJPEG":
        return Loop(codec=codec, frames=tuple(Frame(units=(jpeg(scene, one),), key=True) for one in numbers))
    return _h264(scene, numbers)


@cache
def jpeg(scene: Scene, number: int) -> bytes:
    """Return a frame of a loop as a baseline JPEG with the standard Huffman tables and no restarts (RFC 2435)."""
    encoder = _encoder("mjpeg", "yuvj420p", {"huffman": "default"})
    encoder.qmin = encoder.qmax = 4
    return b"".join(bytes(packet) for packet in _packets(encoder, [picture(scene, number)]))


def _h264(scene: Scene, numbers: range) -> Loop:
    # Parameter sets in the description and before each key frame: who joins late needs them.
    told = f"repeat-headers=1:scenecut=0:keyint={KEY_EVERY}:min-keyint={KEY_EVERY}:slices=1:threads=1:sliced-threads=0"
    options = {"preset": "ultrafast", "tune": "zerolatency", "profile": "baseline", "x264-params": told}
    encoder = _encoder("libx264", "yuv420p", options)
    packets = _packets(encoder, [picture(scene, one) for one in numbers])
    frames = tuple(Frame(units=_units(bytes(packet)), key=packet.is_keyframe) for packet in packets)
    sets = tuple(unit for unit in frames[0].units if unit[0] & 31 in {7, 8})
    return Loop(codec="H264", frames=frames, parameter_sets=sets)


def _encoder(name: str, pix_fmt: str, options: dict[str, str]) -> VideoCodecContext:
    encoder = CodecContext.create(name, "w")
    assert isinstance(encoder, VideoCodecContext)  # noqa: S101  # both codecs are video
    encoder.width, encoder.height, encoder.pix_fmt = WIDTH, HEIGHT, pix_fmt
    encoder.time_base, encoder.framerate = Fraction(1, FRAMES_A_SECOND), Fraction(FRAMES_A_SECOND)
    encoder.thread_count = 1
    encoder.options = options
    return encoder


def _packets(encoder: VideoCodecContext, pictures: Sequence[Picture]) -> "list[Packet[Any]]":
    packets: list[Packet[Any]] = []
    for number, seen in enumerate(pictures):
        frame = VideoFrame.from_ndarray(seen, format="rgb24").reformat(format=encoder.pix_fmt)
        frame.pts = number
        packets += encoder.encode(frame)
    return [*packets, *encoder.encode(None)]


def _units(stream: bytes) -> tuple[bytes, ...]:
    return tuple(unit for unit in re.split(b"\x00\x00\x00\x01|\x00\x00\x01", stream) if unit)
