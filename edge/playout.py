"""Lets loudspeakers sound, all at once, each by itself: one that fails does not silence the others."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Protocol

from contract.commands import Stage
from edge.audio import READ_SECONDS, Form, Sound
from edge.poller import DeviceUnavailable

log = logging.getLogger(__name__)

FIRST_PIECE_SECONDS = 0.1
"""Played before `started` is said: then it is true."""

OPEN_AGAIN_AFTER = (1.0, 3.0)
"""Seconds before another attempt at a loudspeaker that could not be opened; nothing has sounded by then."""


class Sink(Protocol):
    """An open way to a horn; `first_at` is when its first packet left (ms)."""

    first_at: int | None

    async def write(self, sound: bytes) -> None:
        """Send sound in the loudspeaker's form at real-time pace; return when it is out."""
        ...


class Loudspeaker(Protocol):
    """A device that can be made to sound; volume 0-100; raises DeviceUnavailable where it did not sound after all."""

    @property
    def form(self) -> Form:
        """What its sound must look like."""
        ...

    def sounding(self, *, volume: int) -> AbstractAsyncContextManager[Sink]: ...


async def play(
    speakers: Mapping[str, Loudspeaker],
    sound: Mapping[Form, Sound],
    *,
    volume: int,
    repeats: int,
    turns: Mapping[str, asyncio.Lock],
    patience: float,
    started: Callable[[str, int], Awaitable[None]],
    ended: Callable[[str, Stage, str], Awaitable[None]],
) -> None:
    """Play on every speaker and tell of each: `started(speaker, at)`, then `ended(speaker, stage, reason)`.

    `sound` has the programme in each form. A speaker that is sounding plays the next announcement after this one,
    if its turn comes within `patience` seconds.
    """

    async def one(name: str, speaker: Loudspeaker) -> None:
        try:
            async with asyncio.timeout(patience):
                await turns[name].acquire()
        except TimeoutError:
            await ended(name, Stage.EXPIRED, "other announcements sounded until its time to start had passed")
            return
        try:
            stage, reason = await sounded(name, speaker)
        finally:
            turns[name].release()
        await ended(name, stage, reason)

    async def sounded(name: str, speaker: Loudspeaker) -> tuple[Stage, str]:
        try:
            async with AsyncExitStack() as stack:
                sink = await _opened(stack, speaker, volume)
                whole, first = sound[speaker.form], speaker.form.length(FIRST_PIECE_SECONDS)
                await sink.write(await whole.read(0, first))
                await started(name, sink.first_at or 0)
                await _rest_of(whole, first, sink)
                for _ in range(repeats - 1):
                    await _rest_of(whole, 0, sink)
        except DeviceUnavailable as exc:
            return Stage.FAILED, str(exc)
        except Exception:
            log.exception("playing on %s crashed", name)
            return Stage.FAILED, "this box could not play it; its log says why"
        return Stage.FINISHED, ""

    async with asyncio.TaskGroup() as tasks:
        for name, speaker in speakers.items():
            tasks.create_task(one(name, speaker), name=f"playout: {name}")


async def _rest_of(sound: Sound, offset: int, sink: Sink) -> None:
    size = sound.form.length(READ_SECONDS)
    for start in range(offset, sound.length, size):
        await sink.write(await sound.read(start, size))


async def _opened(stack: AsyncExitStack, speaker: Loudspeaker, volume: int) -> Sink:
    for wait in OPEN_AGAIN_AFTER:
        try:
            return await stack.enter_async_context(speaker.sounding(volume=volume))
        except DeviceUnavailable as exc:
            log.info("a loudspeaker could not be opened: %s; again in %g s", exc, wait)
        await asyncio.sleep(wait)
    return await stack.enter_async_context(speaker.sounding(volume=volume))
