"""Audio by digest: fetched once, believed only when digest and length are right, wherever it came from."""

import asyncio
import hashlib
import os
from pathlib import Path

import aiohttp

from contract.broadcast import Step

MOST_BYTES = 256 * 1024 * 1024
"""On disk; the longest unused goes first."""

FETCH_DEADLINE = 30.0
RETRY_SECONDS = 1.0


class AudioMissing(Exception):
    """Audio that could not be had in time, or was not what was ordered."""


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
        reason = "there was no time"
        try:
            async with asyncio.timeout(max(within, 0.0)):
                while True:
                    try:
                        raw = await self._fetch(step)
                        break
                    except aiohttp.ClientError as exc:
                        reason = f"{self._url}: {exc or type(exc).__name__}"
                    await asyncio.sleep(RETRY_SECONDS)
        except TimeoutError as exc:
            raise AudioMissing(f"audio {step.sha256[:16]} could not be had: {reason}") from exc
        await asyncio.to_thread(self._keep, path, raw)
        return path

    async def _fetch(self, step: Step) -> bytes:
        timeout = aiohttp.ClientTimeout(total=FETCH_DEADLINE)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            # The digest vouches for the audio; an expired certificate must not silence an announcement.
            async with session.get(f"{self._url}/audio/{step.sha256}", ssl=False) as response:
                if response.status != 200:
                    raise AudioMissing(f"audio {step.sha256[:16]}: the hub answers HTTP {response.status}")
                raw = bytearray()
                async for piece in response.content.iter_chunked(65_536):
                    raw += piece
                    if len(raw) > step.bytes:
                        break
        if len(raw) != step.bytes:
            raise AudioMissing(f"audio {step.sha256[:16]}: {len(raw)} bytes came, {step.bytes} were ordered")
        if hashlib.sha256(raw).hexdigest() != step.sha256:
            raise AudioMissing(f"audio {step.sha256[:16]}: what came has another digest")
        return bytes(raw)

    def _keep(self, path: Path, raw: bytes) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(".new")
        with aside.open("wb") as out:
            out.write(raw)
            out.flush()
            os.fsync(out.fileno())
        aside.replace(path)
        files = sorted(self._folder.iterdir(), key=lambda one: one.stat().st_mtime)
        size = sum(one.stat().st_size for one in files)
        for old in files[:-1]:
            if size <= MOST_BYTES:
                break
            size -= old.stat().st_size
            old.unlink()


def _is_right(path: Path, step: Step) -> bool:
    try:
        raw = path.read_bytes()
    except OSError:
        return False
    return len(raw) == step.bytes and hashlib.sha256(raw).hexdigest() == step.sha256
