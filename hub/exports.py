"""Exports under way: a few at a time, in threads of their own, each ended by whoever asked for it going away."""

import asyncio
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

MOST_AT_A_TIME = 4
THREADS = 2


class TooManyExports(Exception):
    """As many as are allowed are under way; trying again later works."""


class Export:
    """One export; `read` it to the end or not, then `end` it. Each holds the store as it was when it began."""

    def __init__(self, owner: "Exports", pieces: Generator[bytes, None, None]) -> None:
        self._owner = owner
        self._pieces = pieces
        self._step: Future[bytes] | None = None

    async def read(self) -> bytes:
        """Return the next piece, b"" at the end; raise what the store raises. Nothing is worked out ahead of it."""
        self._step = self._owner.threads.submit(next, self._pieces, b"")
        return await asyncio.wrap_future(self._step)

    def end(self) -> None:
        """Let go of the store; the piece that is being worked out is still finished."""
        if self in self._owner.under_way:
            self._owner.under_way.remove(self)
            self._owner.threads.submit(self._close)

    def _close(self) -> None:
        # The pool may have taken the last step up, so wait for it: an iterator at work cannot be closed.
        if self._step is not None and not self._step.cancelled():
            self._step.exception()
        self._pieces.close()


class Exports:
    """What is being exported. Open it with `with`; calls belong on the event loop."""

    def __init__(self) -> None:
        self.threads = ThreadPoolExecutor(THREADS, thread_name_prefix="export")
        self.under_way: set[Export] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for one in list(self.under_way):
            one.end()
        self.threads.shutdown()

    def begin(self, pieces: Generator[bytes, None, None]) -> Export:
        """Return a new export; raise TooManyExports."""
        if len(self.under_way) >= MOST_AT_A_TIME:
            raise TooManyExports(f"{MOST_AT_A_TIME} exports are under way; try again when one has ended")
        export = Export(self, pieces)
        self.under_way.add(export)
        return export
