"""Frames of a page: what changed arrives, a quiet hub is no lost link, and who leaves leaves nothing behind."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import httpx
import pytest

from hub.live_state import LiveState
from hub.web import frames
from hub.web.frames import REFRESH_SECONDS, Frames


@pytest.fixture
def live(clock: Any) -> LiveState:
    return LiveState(clock, [])


@pytest.fixture
def source(live: LiveState, clock: Any) -> Frames:
    return Frames(live=live, commands=Quiet(), announcements=None, closing=asyncio.Event(), clock=clock)  # type: ignore[arg-type]  # only these two are asked


class Quiet:
    """Commands of which there is never news."""

    version = 0

    async def changed(self, seen: int) -> int:
        await asyncio.Event().wait()
        return seen


async def coming(watch: AsyncIterator[str]) -> "asyncio.Task[str]":
    async def one() -> str:
        return await anext(watch)

    task = asyncio.create_task(one())
    await asyncio.sleep(0)
    return task


async def test_a_change_is_shown_and_a_quiet_world_gives_a_sign_of_life(
    source: Frames, live: LiveState, clock: Any
) -> None:
    world = ["calm"]
    async with aclosing(source.watch("overview", lambda: world[0])) as watch:
        assert await anext(watch) == "calm"
        for _ in range(3):
            quiet = await coming(watch)
            await clock.advance(REFRESH_SECONDS + 1)
            assert quiet.done(), "a page that hears nothing for so long believes its link lost"
            assert quiet.result() in {"calm", ""}
        changed = await coming(watch)
        world[0] = "flood"
        live.touch()
        await clock.advance(1)
        assert changed.done()
        assert changed.result() == "flood"


async def test_a_sign_of_life_never_takes_the_place_of_a_change(source: Frames, live: LiveState, clock: Any) -> None:
    world = ["calm"]
    async with aclosing(source.watch("overview", lambda: world[0])) as watch:
        await anext(watch)
        await clock.advance(REFRESH_SECONDS + 1)
        await anext(watch)
        world[0] = "flood"
        live.touch()
        await clock.advance(4 * REFRESH_SECONDS)  # nobody takes anything meanwhile
        assert await anext(watch) == "flood"


async def test_who_leaves_leaves_nothing_running(source: Frames, clock: Any) -> None:
    before = asyncio.all_tasks()

    async def watcher() -> None:
        async with aclosing(source.watch("overview", lambda: "calm")) as watch:
            async for _ in watch:
                pass

    leaving = asyncio.create_task(watcher())
    await clock.advance(2)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    await clock.settle()
    assert asyncio.all_tasks() == before


async def test_a_sign_of_life_is_an_event_the_browser_is_told_of(
    hub: Any, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frames, "FRAME_SECONDS", 0.01)
    monkeypatch.setattr(frames, "REFRESH_SECONDS", 0.01)
    asyncio.get_running_loop().call_later(0.5, hub.state.hub.closing.set)
    stream = (await client.get("/frames/announce")).text
    first, *rest = stream.removesuffix("\n\n").split("\n\n")
    assert 'id="' in first
    # An event without a data line is not handed to the page (HTML standard, 9.2.6).
    assert {one for one in rest if one != first} == {"data:"}
