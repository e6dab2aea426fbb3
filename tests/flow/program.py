"""A program of ours as its users start it, for as long as a test needs it."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


@asynccontextmanager
async def program(*command: str, ends_within: float) -> AsyncIterator[None]:
    """Run `python -m ...` and have it end in order, within so many seconds."""
    running = await asyncio.create_subprocess_exec(sys.executable, "-m", *command, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        if running.returncode is None:
            running.terminate()
        await asyncio.wait_for(running.wait(), ends_within)
