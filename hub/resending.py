"""Sends what is owed again and again, ever more slowly, until it is answered or expired. Each in its own time."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from contract.clock import Clock

log = logging.getLogger(__name__)

TICK_SECONDS = 0.25


@dataclass(slots=True, kw_only=True)
class Owed:
    """Something on its way: worth sending until `expires_at` (ms), due on the monotonic clock, sent `tries` times."""

    expires_at: int
    due: float = 0.0
    tries: int = 0


Kind = TypeVar("Kind", bound=Owed)


class Resending(Generic[Kind]):
    """What is under way, by key. `run` it once.

    `send` counts what it sent in `tries`; `expired` is told once of each whose time is over. `after` are the seconds
    between sendings, the last one repeats.
    """

    def __init__(
        self,
        *,
        send: Callable[[Kind], Awaitable[None]],
        expired: Callable[[Kind], None],
        after: Sequence[float],
        clock: Clock,
    ) -> None:
        self._send = send
        self._expired = expired
        self._after = after
        self._clock = clock
        self._owed: dict[Hashable, Kind] = {}
        self._wake = asyncio.Event()

    def begin(self, key: Hashable, one: Kind) -> None:
        """Begin to send, at once."""
        one.due = self._clock.monotonic()
        self._owed[key] = one
        self._wake.set()

    def end(self, key: Hashable) -> None:
        """Send it no more."""
        self._owed.pop(key, None)

    def hurry(self, wanted: Callable[[Kind], bool]) -> None:
        """Make what is wanted due at once."""
        for one in self._owed.values():
            if wanted(one):
                one.due = self._clock.monotonic()
        self._wake.set()

    def under_way(self, key: Hashable, one: Kind) -> bool:
        """Return whether this very thing is still to be sent."""
        return self._owed.get(key) is one

    async def run(self) -> None:
        """Send and expire until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._tick(), name="resending: tick")
            while True:
                await self._wake.wait()
                self._wake.clear()
                for key, one in list(self._owed.items()):
                    await self._attend(key, one)

    async def _tick(self) -> None:
        while True:
            await self._clock.sleep(TICK_SECONDS)
            self._wake.set()

    async def _attend(self, key: Hashable, one: Kind) -> None:
        now = self._clock.monotonic()
        if one.due > now or not self.under_way(key, one):
            return
        one.due = now + self._after[min(one.tries, len(self._after) - 1)]
        try:
            if self._clock.now_ms() > one.expires_at:
                self._expired(one)
                self.end(key)
            else:
                await self._send(one)
        except Exception:
            # One's trouble, a full disk for one, must not keep the next from its box.
            log.exception("%s could not be brought on its way", one)
