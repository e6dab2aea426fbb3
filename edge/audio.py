"""Announcement audio as loudspeakers take it: decoded by a process of its own into a file that has no name."""

import asyncio
import os
import sys
import tempfile
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

DECODE_SECONDS = 60.0
"""Ten minutes of MP3 take a few seconds on the slowest box; what takes longer is hostile or broken."""

MOST_DECODERS = 2
"""At the same time; each takes about 50 MB."""

READ_SECONDS = 1.0
"""What is held in memory of a programme that sounds, for each loudspeaker."""

WORKER = (sys.executable, "-m", "edge.audio_worker")


class AudioUnreadable(Exception):
    """A file that cannot be decoded, or is not what was ordered, although its digest is right."""


class Encoding(StrEnum):
    """How samples are laid out; each but PCMU takes two bytes for one."""

    L16 = "L16"
    """16-bit, network order (RFC 3551, 4.5.11)."""
    PCMU = "PCMU"
    """G.711 µ-law (RFC 3551, 4.5.14)."""
    S16LE = "S16LE"
    """16-bit, little-endian: what sound cards take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """What mono sound must look like for a loudspeaker; `rate` in Hz."""

    encoding: Encoding
    rate: int

    @property
    def sample_bytes(self) -> int:
        """Return how many bytes one sample takes."""
        return 1 if self.encoding is Encoding.PCMU else 2

    @property
    def silence(self) -> bytes:
        """Return one sample of silence."""
        return b"\xff" if self.encoding is Encoding.PCMU else b"\x00\x00"

    def length(self, seconds: float) -> int:
        """Return how many bytes so much sound takes, in whole samples."""
        return int(self.rate * seconds) * self.sample_bytes


class Sound:
    """Mono sound in one form, on disk; any number of loudspeakers may read it at once, each at its own place."""

    def __init__(self, form: Form, file: BinaryIO) -> None:
        self.form = form
        self._file = file
        self.length = os.fstat(file.fileno()).st_size

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    async def read(self, offset: int, size: int) -> bytes:
        """Return at most so many bytes from there on."""
        # A card that is busy with something else may make this wait; nothing else should.
        return await asyncio.to_thread(os.pread, self._file.fileno(), size, offset)


class Decoder:
    """Decodes in processes: no file, however hostile, can take the agent's memory, its time or its life."""

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(MOST_DECODERS)

    async def decoded(self, parts: Sequence[tuple[Path, int]], form: Form) -> Sound:
        """Return the files, one after the other, in that form; raises AudioUnreadable.

        Each comes with how long it may sound (ms): one that sounds longer is refused, for the limit that an order kept
        is worth nothing if the file does not. The sound takes room on the first file's disk until it is closed.
        """
        asked = [word for path, most_ms in parts for word in (str(most_ms), str(path))]
        try:
            file = tempfile.TemporaryFile(dir=parts[0][0].parent)  # noqa: SIM115  # the sound closes it
        except OSError as exc:
            raise AudioUnreadable(f"there is no room to decode it: {exc.strerror}") from exc
        try:
            async with self._turns:
                await _run([*WORKER, "decode", form.encoding.value, str(form.rate), *asked], file)
        except BaseException:
            file.close()
            raise
        return Sound(form, file)


async def _run(command: Sequence[str], out: BinaryIO) -> None:
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=out, stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None  # noqa: S101  # it was asked for
    try:
        async with asyncio.timeout(DECODE_SECONDS):
            words = await last_words(process.stderr)
            status = await process.wait()
    except TimeoutError as exc:
        raise AudioUnreadable(f"the decoder did not finish within {DECODE_SECONDS:g} s") from exc
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if status < 0:
        raise AudioUnreadable(f"the decoder was ended by signal {-status}")
    if status != 0:
        raise AudioUnreadable(words or f"the decoder failed with status {status}")


async def last_words(stream: asyncio.StreamReader) -> str:
    """Return the last line of what a process says, at most 300 characters, however much it says."""
    kept: deque[bytes] = deque(maxlen=2)
    while piece := await stream.read(4096):
        kept.append(piece)
    lines = b"".join(kept).decode(errors="replace").strip().splitlines()
    return "".join(one if one.isprintable() else "?" for one in lines[-1][:300]) if lines else ""
