"""Reads what edge nodes say became of what they were told: events of one metric, in order, behind a durable cursor."""

import asyncio
import logging
from collections.abc import Callable

from contract.clock import Clock
from hub.storage.timeseries import EventRow, TimeSeries

log = logging.getLogger(__name__)

MOST_AT_ONCE = 200
AGAIN_SECONDS = 5.0


class Outcomes:
    """The outcomes in the store. `run` it once; `take` acts on one and keeps its id as the cursor, both or neither."""

    def __init__(
        self,
        metric: str,
        *,
        readings: TimeSeries,
        cursor: Callable[[], int],
        take: Callable[[EventRow], None],
        clock: Clock,
    ) -> None:
        self._metric = metric
        self._readings = readings
        self._cursor = cursor
        self._take = take
        self._clock = clock
        self._news = asyncio.Event()

    def came(self) -> None:
        """Say that events were committed, among them perhaps outcomes."""
        self._news.set()

    async def run(self) -> None:
        """Take in what comes until cancelled; what fails is tried again."""
        cursor = await self._from_here()
        while True:
            try:
                while True:
                    rows = await asyncio.to_thread(self._readings.events, cursor, self._metric, MOST_AT_ONCE)
                    for row in rows:
                        self._take(row)
                        cursor = row.id
                    if len(rows) < MOST_AT_ONCE:
                        break
                await self._news.wait()
                self._news.clear()
            except Exception:
                log.exception("outcomes could not be read or kept (%s); again in %.0f s", self._metric, AGAIN_SECONDS)
                await self._clock.sleep(AGAIN_SECONDS)

    async def _from_here(self) -> int:
        """Return the event to go on behind; the first, where the one read last is not in the store any more.

        A store restored from a backup numbers anew what comes in again. Outcomes read twice change nothing.
        """
        cursor = self._cursor()
        rows = await asyncio.to_thread(self._readings.events, cursor - 1, self._metric, 1)
        return cursor if rows and rows[0].id == cursor else 0
