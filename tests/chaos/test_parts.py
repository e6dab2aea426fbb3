"""The parts of a run do what they say: the link, the clock that is off, processes that end."""

import asyncio
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.chaos.link import Link
from tests.chaos.processes import Process
from tests.chaos.wrong_clock import shifted


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(1000):
        writer.write(piece)
    writer.close()


async def asked(link: Link, what: bytes, within: float = 5.0) -> bytes:
    reader, writer = await asyncio.open_connection(link.host, link.port)
    try:
        async with asyncio.timeout(within):
            writer.write(what)
            return await reader.readexactly(len(what))
    finally:
        writer.transport.abort()


async def test_a_link_passes_what_is_sent_until_it_is_cut_and_again_when_mended() -> None:
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with Link(*server.sockets[0].getsockname()[:2]).running() as link:
        assert await asked(link, b"one") == b"one"
        assert link.passed == 6
        reader, writer = await asyncio.open_connection(link.host, link.port)
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        link.cut()
        writer.write(b"lost")
        while not link.swallowed:
            await asyncio.sleep(0)
        new, unused = await asyncio.open_connection(link.host, link.port)
        assert await closed(new)
        assert link.refused == 1
        link.mend()
        assert await closed(reader)  # what stood is gone
        for one in (writer, unused):
            one.close()
        assert await asked(link, b"two") == b"two"
    server.close()


async def closed(reader: asyncio.StreamReader) -> bool:
    try:
        async with asyncio.timeout(5):
            return await reader.read() == b""
    except ConnectionResetError:
        return True


async def test_a_link_delays_each_direction_and_takes_its_time() -> None:
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with Link(*server.sockets[0].getsockname()[:2]).running() as link:
        link.delay = 0.1
        begin = time.monotonic()
        assert await asked(link, b"late") == b"late"
        assert time.monotonic() - begin >= 0.2
        link.delay, link.bits_a_second = 0.0, 80_000
        begin = time.monotonic()
        assert await asked(link, bytes(1000)) == bytes(1000)
        assert time.monotonic() - begin >= 0.2
    server.close()


def test_a_clock_is_off_by_what_the_file_says_at_that_moment(tmp_path: Path) -> None:
    file = tmp_path / "off"
    now = shifted(lambda: 5_000_000_000, file)
    assert now() == 5_000_000_000
    file.write_text("-3000")
    assert now() == 2_000_000_000
    file.unlink()
    assert now() == 5_000_000_000


def test_a_program_of_ours_sees_the_wrong_clock_and_the_right_monotonic_one(tmp_path: Path) -> None:
    (tmp_path / "off").write_text("-3600000")
    (tmp_path / "told.py").write_text(
        "import sys, time\nfrom contract.clock import SystemClock\n"
        "print(SystemClock().now_ms(), time.monotonic(), *sys.argv[1:])\n"
    )
    command = [sys.executable, "-m", "tests.chaos.wrong_clock", str(tmp_path / "off"), "told", "word"]
    root = Path(__file__).parents[2]
    done = subprocess.run(
        command, env={"PYTHONPATH": f"{root}:{tmp_path}"}, capture_output=True, text=True, timeout=30, check=True
    )
    wall, monotonic, word = done.stdout.split()
    assert abs(int(wall) - (time.time() - 3600) * 1000) < 30_000
    assert abs(float(monotonic) - time.monotonic()) < 30
    assert word == "word"


async def test_what_ends_by_itself_is_counted_and_started_again_and_what_is_killed_is_not(
    tmp_path: Path, eventually: Any
) -> None:
    process = Process("brief", ("sh", "-c", "echo here; exit 3"), log=tmp_path / "log")
    await process.start()
    await eventually(lambda: process.said(0).count("here") == 2)
    await process.kill()
    assert set(process.ended_by_itself) == {3}
    lasting = Process("lasting", ("sleep", "60"), log=tmp_path / "log")
    await lasting.start()
    assert await lasting.kill()
    assert lasting.ended_by_itself == []
    assert not await lasting.kill()
