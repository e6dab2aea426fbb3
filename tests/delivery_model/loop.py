"""An event loop that a world turns by hand: its time stands until it is told, threads are done at once, kill is kill.

Everything the agent and the hub do with asyncio works on it (tasks, events, locks, timeouts, `to_thread`), and nothing
happens between two calls of `turn`. One loop is one process: dropping it with `kill` ends the process where it stands.
"""

import asyncio
import heapq
import itertools
from asyncio import events
from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import Any, cast

MOST_TURNS = 20_000
"""Callbacks one turn may run: more is a loop that never sleeps."""


MOST_GOODBYES = 10


class _Call:
    __slots__ = ("arguments", "callback", "context", "gone", "when")

    def __init__(self, callback: Callable[..., object], arguments: tuple[Any, ...], context: Context | None) -> None:
        self.callback = callback
        self.arguments = arguments
        self.context = context
        self.gone = False
        self.when = 0.0

    def cancel(self) -> None:
        self.gone = True

    def cancelled(self) -> bool:
        return self.gone


class ProcessLoop:
    """The loop of one simulated process; `now` is its monotonic clock in seconds."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now
        self.off: Callable[[], bool] = lambda: False
        """Whether the power failed, looked at after each step."""
        self.broken: list[BaseException] = []
        """What no task caught, in the order it happened."""
        self._ready: deque[_Call] = deque()
        self._timers: list[tuple[float, int, _Call]] = []
        self._order = itertools.count()
        self._tasks: list[asyncio.Task[Any]] = []

    def turn(self, now: float) -> bool:
        """Run everything that can run at `now`, timers that are due first; return whether anything ran."""
        self.now = now
        while self._timers and self._timers[0][0] <= now:
            self._ready.append(heapq.heappop(self._timers)[2])
        if not self._ready:
            return False
        before = events._get_running_loop()
        events._set_running_loop(cast("Any", self))
        try:
            for _ in range(MOST_TURNS):
                if not self._ready or self.off():
                    return True
                call = self._ready.popleft()
                if call.gone:
                    continue
                if call.context is None:
                    call.callback(*call.arguments)
                else:
                    call.context.run(call.callback, *call.arguments)
        finally:
            events._set_running_loop(before)
        raise AssertionError(f"a process never sleeps: {MOST_TURNS} steps without time passing")

    def run(self, coroutine: Any) -> Any:
        """Run one coroutine to its end without time passing; return what it returns."""
        task = self.create_task(coroutine)
        self.turn(self.now)
        if not task.done():
            task.cancel()
            self.turn(self.now)
            raise AssertionError("a coroutine waits for something that only time brings")
        return task.result()

    def ended(self) -> list[BaseException]:
        """Return what ended tasks since last asked."""
        done = [one for one in self._tasks if one.done()]
        self._tasks = [one for one in self._tasks if not one.done()]
        return [error for error in (one.exception() for one in done if not one.cancelled()) if error is not None]

    def kill(self) -> None:
        """End every task where it stands; what it does on its way out can reach nothing any more."""
        self.off = lambda: False
        for _ in range(MOST_GOODBYES):
            left = [one for one in self._tasks if not one.done()]
            for task in left:
                task.cancel()
            if not left:
                break
            self.turn(self.now)
        for task in self._tasks:
            if not task.cancelled():
                task.exception()  # asked for, so that nobody reports it
        self._tasks.clear()
        self._timers.clear()
        self._ready.clear()

    # What asyncio asks of a loop.

    def time(self) -> float:
        return self.now

    def call_soon(self, callback: Any, *args: Any, context: Context | None = None) -> Any:
        call = _Call(callback, args, context)
        self._ready.append(call)
        return call

    call_soon_threadsafe = call_soon

    def call_later(self, delay: float, callback: Any, *args: Any, context: Context | None = None) -> Any:
        return self.call_at(self.now + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Any, *args: Any, context: Context | None = None) -> Any:
        call = _Call(callback, args, context)
        call.when = when
        heapq.heappush(self._timers, (when, next(self._order), call))
        return call

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=cast("Any", self))

    def create_task(self, coro: Any, *, name: str | None = None, context: Context | None = None) -> Any:
        task = asyncio.Task(coro, loop=cast("Any", self), name=name, context=context)
        self._tasks.append(task)
        return task

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as exc:  # noqa: BLE001  # as an executor does
            future.set_exception(exc)
        return future

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, BaseException):
            self.broken.append(error)


class ProcessClock:
    """What a process knows of time: the loop's seconds, and a wall clock that is `wrong_ms` off the world's."""

    def __init__(self, loop: ProcessLoop, world_ms: Callable[[], int]) -> None:
        self._loop = loop
        self._world_ms = world_ms
        self.wrong_ms = 0

    def now_ms(self) -> int:
        return self._world_ms() + self.wrong_ms

    def monotonic(self) -> float:
        return self._loop.now

    async def sleep(self, seconds: float) -> None:
        future = self._loop.create_future()
        self._loop.call_later(max(seconds, 0.0), _wake, future)
        await future


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
