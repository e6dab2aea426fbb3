"""The processes of a run: started, killed as by a power cut, and started again where they ended by themselves."""

import asyncio
import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

AGAIN_AFTER = 1.0
"""Seconds after which what ended by itself is started again, as systemd does."""


class Process:
    """One program, its words in one file over all its lives. What nobody ended and ends all the same is counted."""

    def __init__(self, name: str, command: Sequence[str | Path], *, log: Path) -> None:
        self.name = name
        self.log = log
        self._command = command
        self._process: asyncio.subprocess.Process | None = None
        self._watching: asyncio.Task[None] | None = None
        self.ended_by_itself: list[int] = []

    @property
    def running(self) -> bool:
        """Whether it lives."""
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Start it in a group of its own, and see to it that it goes on."""
        await self._start()
        self._watching = asyncio.create_task(self._watch(), name=f"watch {self.name}")

    async def _start(self) -> None:
        with self.log.open("ab") as out:
            self._process = await asyncio.create_subprocess_exec(
                *self._command, stdin=asyncio.subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )

    async def _watch(self) -> None:
        while self._process is not None:
            self.ended_by_itself.append(await self._process.wait())
            await asyncio.sleep(AGAIN_AFTER)
            await self._start()

    async def kill(self) -> bool:
        """End it and all it started with SIGKILL; return whether it lived until then."""
        return await self._end(signal.SIGKILL, 10)

    async def stop(self, within: float) -> bool:
        """Ask it to end and wait so long; kill it then. Return whether it went by itself."""
        return await self._end(signal.SIGTERM, within)

    async def _end(self, how: signal.Signals, within: float) -> bool:
        if self._watching is not None:
            self._watching.cancel()
            with suppress(asyncio.CancelledError):
                await self._watching
        process, self._process, self._watching = self._process, None, None
        if process is None or process.returncode is not None:
            return False
        with suppress(ProcessLookupError):
            os.killpg(process.pid, how)
        try:
            async with asyncio.timeout(within):
                await process.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
            return False
        return True

    def said(self, since: int) -> str:
        """Return what it wrote since its file had so many bytes."""
        with self.log.open("rb") as file:
            file.seek(since)
            return file.read().decode(errors="replace")

    def written(self) -> int:
        """Return how many bytes its file has."""
        return self.log.stat().st_size if self.log.exists() else 0
