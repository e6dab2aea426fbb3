"""Lets loudspeakers sound, all at once, each by itself: one that fails does not silence the others."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edge.poller import DeviceUnavailable

FIRST_PIECE_SECONDS = 0.1
"""Played before `started` is said: then it is true."""

Sound = NDArray[np.int16]


class Sink(Protocol):
    """An open way to a horn; `first_at` is when its first packet left (ms)."""

    first_at: int | None

    async def write(self, sound: Sound) -> None:
        """Send mono samples at real-time pace; return when they are out."""
        ...


class Loudspeaker(Protocol):
    """A device that can be made to sound; volume 0-100; raises DeviceUnavailable where it did not sound after all."""

    @property
    def sample_rate(self) -> int:
        """What its samples must have, in Hz."""
        ...

    def sounding(self, *, volume: int) -> AbstractAsyncContextManager[Sink]: ...


async def play(
    speakers: Mapping[str, Loudspeaker],
    sound_at: Callable[[int], Awaitable[Sound]],
    *,
    volume: int,
    repeats: int,
    started: Callable[[str, int], Awaitable[None]],
    ended: Callable[[str, str], Awaitable[None]],
) -> None:
    """Play on every speaker and tell of each: `started(speaker, at)`, then `ended(speaker, reason)`, "" if well."""

    async def one(name: str, speaker: Loudspeaker) -> None:
        try:
            async with speaker.sounding(volume=volume) as sink:
                sound = await sound_at(speaker.sample_rate)
                first = int(speaker.sample_rate * FIRST_PIECE_SECONDS)
                await sink.write(sound[:first])
                await started(name, sink.first_at or 0)
                await sink.write(sound[first:])
                for _ in range(repeats - 1):
                    await sink.write(sound)
        except DeviceUnavailable as exc:
            await ended(name, str(exc))
        else:
            await ended(name, "")

    async with asyncio.TaskGroup() as tasks:
        for name, speaker in speakers.items():
            tasks.create_task(one(name, speaker), name=f"playout: {name}")
