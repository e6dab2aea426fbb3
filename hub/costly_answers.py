"""Answers that cost much: worked out one at a time, and shown again for a while in proportion to what they cost."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from contract.clock import Clock

MUCH = 1.0
"""Seconds from which on an answer is kept at all."""

KEPT_TIMES = 20
"""An answer is kept for so many times as long as it took: whoever asks again and again takes a twentieth of a core."""

MOST = 16

Answer = TypeVar("Answer")


class CostlyAnswers(Generic[Answer]):
    """The last answers by their question, the oldest forgotten first."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = asyncio.Lock()
        self._kept: dict[str, tuple[float, Answer]] = {}

    async def get(self, question: str, work: Callable[[], Awaitable[Answer]]) -> Answer:
        """Return the answer to a question, a kept one while it counts; raise what the work raises."""
        async with self._lock:
            until, answer = self._kept.get(question, (float("-inf"), None))
            if answer is not None and self._clock.monotonic() < until:
                return answer
            began = self._clock.monotonic()
            answer = await work()
            took = self._clock.monotonic() - began
            self._kept.pop(question, None)
            if took >= MUCH:
                self._kept[question] = (began + took * (1 + KEPT_TIMES), answer)
                while len(self._kept) > MOST:
                    del self._kept[next(iter(self._kept))]
            return answer
