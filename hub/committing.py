"""The batch that fills, the one that is being committed, and what becomes of them when the store does not.

Whatever the store refuses is tried again for as long as it takes. Meanwhile at most 64 MiB are taken in undecided.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable

from contract.clock import Clock
from hub.counters import Counters
from hub.storage.timeseries import Batch, StoreUnavailable, TimeSeries

log = logging.getLogger(__name__)

MOST_SAMPLES = 20_000
MOST_WAIT = 0.25
"""A batch is committed when it has so many samples, or when its first message waited so many seconds."""

MOST_UNDECIDED = 64 * 1024 * 1024
MOST_BACKOFF = 30.0
LAST_WORDS = 5.0
"""Seconds for what was taken in to be committed when the hub is told to end."""


class Committing:
    """Commits batches one at a time; `committed` is called after each, `lost` with one that our mistake cost."""

    def __init__(
        self,
        *,
        store: TimeSeries,
        clock: Clock,
        counters: Counters,
        received_at: Callable[[], int],
        committed: Callable[[Batch], None],
        lost: Callable[[Batch], None],
    ) -> None:
        self._store = store
        self._clock = clock
        self._counters = counters
        self._received_at = received_at
        self._committed = committed
        self._lost = lost
        self._since: float | None = None
        self._task: asyncio.Task[None] | None = None
        self._under_way = 0
        self._waiting: list[asyncio.Future[bool]] = []
        self._decided: list[asyncio.Future[bool]] = []
        self.batch = Batch()
        """What is being filled."""
        self.down = ""
        """Why the store does not commit, "" while it does."""

    @property
    def undecided(self) -> int:
        """Return how many bytes were taken in and are not committed."""
        return self.batch.wire_bytes + self._under_way

    @property
    def full(self) -> bool:
        """Return whether no more may be taken in before something is committed."""
        return self.undecided > MOST_UNDECIDED

    def filling(self) -> Batch:
        """Return the batch to put something into, its time counted from its first message."""
        if self._since is None:
            self._since = self._clock.monotonic()
        return self.batch

    def commit_if_due(self) -> None:
        """Begin to commit the batch if it is due and no other is under way."""
        if self._since is None or not self.batch or (self._task is not None and not self._task.done()):
            return
        waited = self._clock.monotonic() - self._since
        if waited < MOST_WAIT and self.batch.samples < MOST_SAMPLES and not self.batch.events:
            return
        self._task = asyncio.create_task(self._commit(self._next()), name="ingest: commit")

    async def through(self) -> bool:
        """Return once what was taken in by now is decided: True if it is committed, False if it had to be given up."""
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        return await future

    async def flush(self) -> None:
        """Commit what was taken in by now, trying for as long as it takes."""
        if self._task is not None:
            await self._task
        while self.batch:
            await self._commit(self._next())

    async def end(self) -> None:
        """Commit what was taken in by now, if the store does so soon; what it does not take is not acknowledged."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS):
                await self.flush()

    def _next(self) -> Batch:
        batch, self.batch, self._since = self.batch, Batch(), None
        self._under_way = batch.wire_bytes
        self._decided, self._waiting = self._waiting, []
        return batch

    def _decide(self, *, committed: bool) -> None:
        self._under_way = 0
        for one in self._decided:
            if not one.done():
                one.set_result(committed)

    async def _commit(self, batch: Batch) -> None:
        backoff = 0.5
        while True:
            started = self._clock.monotonic()
            try:
                await asyncio.to_thread(self._store.commit, batch, self._received_at())
                break
            except StoreUnavailable as exc:
                self._counters.commit_failures.inc()
                if not self.down:
                    log.error("the store does not commit, acknowledgements are held: %s", exc)
                self.down = str(exc)
                await self._clock.sleep(backoff)
                backoff = min(backoff * 2, MOST_BACKOFF)
            except Exception:
                # Not acknowledged, so it comes again; a hub that stands still would cost every edge node its readings.
                self._counters.dropped.labels("our_mistake").inc()
                log.exception("a batch of %d samples could not be committed; it is not acknowledged", batch.samples)
                self._decide(committed=False)
                self._lost(batch)
                return
        if self.down:
            log.warning("the store commits again")
            self.down = ""
        self._counters.commits.inc()
        self._counters.commit_seconds.observe(self._clock.monotonic() - started)
        self._decide(committed=True)
        self._committed(batch)
