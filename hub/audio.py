"""Announcement audio: from text or a file to one levelled FLAC file, kept by its digest."""

import asyncio
import hashlib
import json
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from contract.broadcast import Step
from hub.speech_worker import MISSING

MOST_UPLOAD = 32 * 1024 * 1024
MOST_SECONDS = 600
MOST_TEXT = 3000
WORKER_DEADLINE = 45.0
MOST_WORKERS = 2
"""At the same time; one takes up to 400 MB for ten minutes of sound."""

VOICE = "vi"

_DIGEST = re.compile(r"^[0-9a-f]{64}$")


class AudioRefused(Exception):
    """Sound that cannot be announced; `code` is a word for the pages' catalogue, the text is for programs."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class Programme:
    """Audio that is ready to air."""

    sha256: str
    bytes: int
    duration_ms: int

    def step(self) -> Step:
        """Return it as the one step of an order's programme."""
        return Step(
            step="speech",
            sha256=self.sha256,
            bytes=self.bytes,
            media_type="audio/flac",
            duration_ms=self.duration_ms,
        )


class AudioStore:
    """A folder of FLAC files named by SHA-256."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._workers = asyncio.Semaphore(MOST_WORKERS)

    def path(self, sha256: str) -> Path | None:
        """Return the file with that digest, None if there is none."""
        path = self._folder / f"{sha256}.flac"
        return path if _DIGEST.match(sha256) and path.is_file() else None

    async def from_text(self, text: str) -> Programme:
        """Return text as Vietnamese speech; raise AudioRefused."""
        text = " ".join(text.split())
        if not text:
            raise AudioRefused("text_empty", "the text is empty")
        if len(text) > MOST_TEXT:
            raise AudioRefused("text_too_long", f"the text has {len(text)} characters, more than {MOST_TEXT}")
        async with self._workers:
            status, spoken = await _worker(["-m", "hub.speech_worker", VOICE], text.encode())
        if status == MISSING:
            raise AudioRefused("no_voice", "the voice is not installed: pip install 'smart-hamlet[speech]'")
        if status != 0:
            raise AudioRefused("unspeakable", f"the voice failed with status {status}")
        return await self.from_file(spoken)

    async def from_file(self, raw: bytes) -> Programme:
        """Return an audio file levelled and kept; raise AudioRefused."""
        if len(raw) > MOST_UPLOAD:
            raise AudioRefused("file_too_large", f"the file has {len(raw)} bytes, more than {MOST_UPLOAD}")
        async with self._workers:
            status, answer = await _worker(["-m", "hub.sound_worker", str(MOST_SECONDS)], raw)
        head, _, flac = answer.partition(b"\n")
        try:
            told = json.loads(head)
        except ValueError as exc:
            raise AudioRefused("unreadable", f"the file could not be decoded (status {status})") from exc
        if "error" in told:
            raise AudioRefused(told["error"], f"the file cannot be announced: {told['error']} {told['detail']}")
        digest = hashlib.sha256(flac).hexdigest()
        await asyncio.to_thread(self._keep, digest, flac)
        return Programme(sha256=digest, bytes=len(flac), duration_ms=told["duration_ms"])

    def _keep(self, digest: str, flac: bytes) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{digest}.flac"
        if path.exists():
            return
        aside = path.with_suffix(".new")
        with aside.open("wb") as out:
            out.write(flac)
            out.flush()
            os.fsync(out.fileno())
        aside.replace(path)


async def _worker(command: list[str], given: bytes) -> tuple[int, bytes]:
    """Return exit status and output of a worker process, killed at its deadline."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(WORKER_DEADLINE):
            out, _ = await process.communicate(given)
    except TimeoutError as exc:
        raise AudioRefused("too_slow", f"decoding took more than {WORKER_DEADLINE:g} s") from exc
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0, out
