"""The store's housekeeping: each minute, not while the clock may be wrong, and never the end of the hub."""

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import Any, cast

from hub.housekeeping import keep_house
from hub.storage.timeseries import StoreUnavailable, TimeSeries


@dataclass
class Store:
    """A store of which only the housekeeping is asked for."""

    tended: list[int] = field(default_factory=list)
    down: bool = False

    def tend(self, now_ms: int) -> None:
        self.tended.append(now_ms)
        if self.down:
            raise StoreUnavailable("not now")


async def test_a_store_is_tended_each_minute_whether_it_can_or_not_and_never_while_acknowledgements_are_held(
    clock: Any, eventually: Any
) -> None:
    store, held = Store(), ""
    task = asyncio.create_task(keep_house(cast("TimeSeries", store), clock, lambda: held))
    start = clock.now_ms()
    await clock.advance(60)
    await eventually(lambda: store.tended == [start + 60_000])
    store.down = True
    await clock.advance(60)
    await eventually(lambda: len(store.tended) == 2)
    held = "the clock is not synchronised"
    await clock.advance(180)
    assert len(store.tended) == 2
    held = ""
    await clock.advance(60)
    await eventually(lambda: len(store.tended) == 3)
    assert not task.done()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
