"""Audio by digest: fetched once, believed only when digest and length are right, wherever it came from."""

import asyncio
import contextlib
import hashlib
import os
import secrets
from pathlib import Path

import aiohttp

from contract.broadcast import Step

MOST_BYTES = 256 * 1024 * 1024
"""On disk; the longest unused goes first."""

SILENT_SECONDS = 15.0
"""A slow line may take minutes for a long announcement; one that brings nothing for so long is tried anew."""

RETRY_SECONDS = 1.0
MOST_WRONG = 5
"""Answers that are not the audio, before it is believed that the hub does not have it."""

OK, PARTIAL = 200, 206


class AudioMissing(Exception):
    """Audio that could not be had in time, or was not what was ordered."""


class _Wrong(Exception):
    """An answer that is not the audio."""


class AudioCache:
    """A folder of audio files named by SHA-256, filled from the hub."""

    def __init__(self, folder: Path, url: str) -> None:
        self._folder = folder
        self._url = url

    async def get(self, step: Step, within: float) -> Path:
        """Return the file of a programme step; raise AudioMissing with the reason after `within` seconds."""
        path = self._folder / step.sha256
        if await asyncio.to_thread(_is_right, path, step):
            path.touch()
            return path
        reason, wrong, raw = "there was no time", 0, bytearray()
        try:
            async with asyncio.timeout(max(within, 0.0)):
                while True:
                    try:
                        await self._fetch(step, raw)
                        break
                    except _Wrong as exc:
                        reason, wrong, raw = str(exc), wrong + 1, bytearray()
                        if wrong == MOST_WRONG:
                            raise AudioMissing(f"audio {step.sha256[:16]}: {reason}") from exc
                    except (aiohttp.ClientError, TimeoutError) as exc:
                        reason = f"{self._url}: {exc or type(exc).__name__}"
                    await asyncio.sleep(RETRY_SECONDS)
        except TimeoutError as exc:
            raise AudioMissing(f"audio {step.sha256[:16]} could not be had: {reason}") from exc
        await asyncio.to_thread(self._keep, path, bytes(raw))
        return path

    async def _fetch(self, step: Step, raw: bytearray) -> None:
        """Fill `raw`, going on behind what an earlier try brought; raise _Wrong if it is not the audio in the end."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=SILENT_SECONDS, sock_read=SILENT_SECONDS)
        headers = {"Range": f"bytes={len(raw)}-"} if raw else {}
        async with aiohttp.ClientSession(timeout=timeout) as session:
            # The digest vouches for the audio; an expired certificate must not silence an announcement.
            async with session.get(f"{self._url}/audio/{step.sha256}", ssl=False, headers=headers) as response:
                if response.status >= 500:
                    response.raise_for_status()
                if response.status not in {OK, PARTIAL}:
                    raise _Wrong(f"the hub answers HTTP {response.status}")
                if response.status == OK:
                    raw.clear()
                async for piece in response.content.iter_chunked(65_536):
                    raw += piece
                    if len(raw) > step.bytes:
                        break
        if len(raw) != step.bytes:
            raise _Wrong(f"{len(raw)} bytes came, {step.bytes} were ordered")
        if hashlib.sha256(raw).hexdigest() != step.sha256:
            raise _Wrong("what came has another digest")

    def _keep(self, path: Path, raw: bytes) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(f".{secrets.token_hex(4)}")  # two orders may want one file at the same time
        with aside.open("wb") as out:
            out.write(raw)
            out.flush()
            os.fsync(out.fileno())
        aside.replace(path)
        files: list[tuple[float, int, Path]] = []
        for one in self._folder.iterdir():
            with contextlib.suppress(FileNotFoundError):  # another order's file, just renamed or removed
                found = one.stat()
                files.append((found.st_mtime, found.st_size, one))
        files.sort()
        size = sum(bytes_ for _, bytes_, _ in files)
        for _, bytes_, old in files[:-1]:
            if size <= MOST_BYTES:
                break
            size -= bytes_
            old.unlink(missing_ok=True)


def _is_right(path: Path, step: Step) -> bool:
    try:
        raw = path.read_bytes()
    except OSError:
        return False
    return len(raw) == step.bytes and hashlib.sha256(raw).hexdigest() == step.sha256
