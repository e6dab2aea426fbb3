"""Questions to the store, a few at a time and in threads of their own: whoever asks much waits, commits do not."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import ParamSpec, Self, TypeVar

AT_A_TIME = 4

Answer = TypeVar("Answer")
Given = ParamSpec("Given")


class Asking:
    """Open it with `with`; `await ask(store.raw, ...)` on the event loop."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(AT_A_TIME, thread_name_prefix="ask")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._threads.shutdown(cancel_futures=True)

    async def __call__(self, question: Callable[Given, Answer], *args: Given.args, **named: Given.kwargs) -> Answer:
        """Return what a blocking question answers, raise what it raises; questions are taken in their order."""
        return await asyncio.wrap_future(self._threads.submit(question, *args, **named))
