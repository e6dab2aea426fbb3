"""What every clock promises, so that the one tests move is no easier than the machine's own."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from contract.clock import Clock, SystemClock


@pytest.fixture(params=["the machine's own", "moved by the test"])
async def ticking(request: pytest.FixtureRequest, clock: Any) -> AsyncIterator[Clock]:
    """Return a clock whose time passes."""
    if request.param == "the machine's own":
        yield SystemClock()
        return

    async def tick() -> None:
        while True:
            await clock.advance(0.01)

    ticks = asyncio.create_task(tick())
    yield clock
    ticks.cancel()
    await asyncio.gather(ticks, return_exceptions=True)


async def test_a_sleep_lasts_at_least_as_long_as_was_said(ticking: Clock) -> None:
    before = ticking.monotonic()
    await ticking.sleep(0.03)
    assert 0.03 <= ticking.monotonic() - before + 1e-9 < 10


async def test_who_sleeps_shorter_wakes_first(ticking: Clock) -> None:
    woken: list[float] = []

    async def sleeper(seconds: float) -> None:
        await ticking.sleep(seconds)
        woken.append(seconds)

    await asyncio.gather(sleeper(0.15), sleeper(0.05), sleeper(0.1))
    assert woken == [0.05, 0.1, 0.15]


@pytest.mark.parametrize("seconds", [0, -1])
async def test_a_sleep_of_nothing_lets_others_run_and_returns(ticking: Clock, seconds: float) -> None:
    ran: list[bool] = []
    asyncio.get_running_loop().call_soon(ran.append, True)
    await ticking.sleep(seconds)
    assert ran == [True]


async def test_a_cancelled_sleep_ends_at_once(ticking: Clock) -> None:
    sleeper = asyncio.create_task(ticking.sleep(3600))
    await asyncio.sleep(0)
    sleeper.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sleeper
    await ticking.sleep(0.02)  # and the clock goes on


async def test_wall_and_monotonic_time_pass_alike_in_whole_milliseconds(ticking: Clock) -> None:
    wall, monotonic = ticking.now_ms(), ticking.monotonic()
    await ticking.sleep(0.05)
    assert isinstance(wall, int)
    assert abs((ticking.now_ms() - wall) - (ticking.monotonic() - monotonic) * 1000) < 20


async def test_time_stands_until_the_test_moves_it_and_wakes_whoever_is_due(clock: Any) -> None:
    woken: list[float] = []

    async def every_ten() -> None:
        while True:
            await clock.sleep(10)
            woken.append(clock.monotonic())

    start = clock.monotonic()
    loop = asyncio.create_task(every_ten())
    await clock.settle()
    assert woken == []
    await clock.advance(35)
    assert woken == [start + 10, start + 20, start + 30]
    assert clock.monotonic() == start + 35
    loop.cancel()
    await asyncio.gather(loop, return_exceptions=True)
