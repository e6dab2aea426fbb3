"""The audio cache: many orders want files at the same time, and the folder is not only theirs."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from contract.broadcast import Step
from edge import audio_cache
from edge.audio_cache import AudioCache


def step(raw: bytes) -> Step:
    digest = hashlib.sha256(raw).hexdigest()
    return Step(step="speech", sha256=digest, bytes=len(raw), media_type="audio/wav", duration_ms=500)


SOUNDS = {step(raw).sha256: raw for raw in (bytes([number]) * 1000 for number in range(40))}


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=SOUNDS[request.match_info["digest"]])

    application = web.Application()
    application.router.add_get("/audio/{digest}", answer)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def test_orders_that_fetch_at_the_same_time_all_get_their_audio(tmp_path: Path, url: str) -> None:
    cache = AudioCache(tmp_path / "audio", url)
    wanted = [raw for raw in SOUNDS.values() for _ in range(3)]
    paths = await asyncio.gather(*(cache.get(step(raw), 30) for raw in wanted))
    assert [path.read_bytes() for path in paths] == wanted
    assert {one.name for one in (tmp_path / "audio").iterdir()} == set(SOUNDS)


async def test_a_file_that_is_gone_when_room_is_counted_costs_no_announcement(tmp_path: Path, url: str) -> None:
    folder = tmp_path / "audio"
    folder.mkdir()
    (folder / "gone").symlink_to(tmp_path / "nowhere")  # listed, and not there to be measured
    raw = SOUNDS[min(SOUNDS)]
    path = await AudioCache(folder, url).get(step(raw), 10)
    assert path.read_bytes() == raw


async def test_the_longest_unused_goes_first_when_room_is_short(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audio_cache, "MOST_BYTES", 2500)
    cache = AudioCache(tmp_path / "audio", url)
    first, second, third = list(SOUNDS.values())[:3]
    old = await cache.get(step(first), 10)
    kept = await cache.get(step(second), 10)
    for path, seconds in ((old, 1_000), (kept, 2_000)):
        os.utime(path, (seconds, seconds))
    await cache.get(step(first), 10)  # used again: now the younger of the two
    newest = await cache.get(step(third), 10)
    assert {one.name for one in (tmp_path / "audio").iterdir()} == {old.name, newest.name}
