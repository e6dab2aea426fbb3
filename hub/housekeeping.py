"""Each minute, what the store has to do besides taking in: sealing, merging, rollups, letting go of what is old."""

import asyncio
import logging
from collections.abc import Callable

from contract.clock import Clock
from hub.storage.timeseries import StoreUnavailable, TimeSeries

log = logging.getLogger(__name__)

EVERY_SECONDS = 60.0


async def keep_house(store: TimeSeries, clock: Clock, held: Callable[[], str]) -> None:
    """Tend the store until cancelled, but not while acknowledgements are held: a wrong clock would empty it."""
    failing = ""
    while True:
        await clock.sleep(EVERY_SECONDS)
        if held():
            continue
        try:
            await asyncio.to_thread(store.tend, clock.now_ms())
        except StoreUnavailable as exc:
            if not failing:
                log.warning("the store's housekeeping waits: %s", exc)
            failing = str(exc)
        else:
            failing = ""
