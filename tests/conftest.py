"""What tests share: a clock they move, a real broker, a browser, and patience with a limit."""

import asyncio
import heapq
import itertools
import logging
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

MOSQUITTO = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
CHROMIUM = "/usr/bin/chromium"


class FakeClock:
    """A clock that stands until a test moves it."""

    def __init__(self, now_ms: int = 1_790_000_000_000) -> None:
        self.wall = float(now_ms)
        self._monotonic = 1000.0
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def now_ms(self) -> int:
        return int(self.wall)

    def monotonic(self) -> float:
        return self._monotonic

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._monotonic + seconds, next(self._order), future))
        await future

    async def advance(self, seconds: float) -> None:
        """Move time, waking sleepers in order and letting the loop settle after each."""
        await self.settle()
        end = self._monotonic + seconds
        while self._sleepers and self._sleepers[0][0] <= end:
            due, _, future = heapq.heappop(self._sleepers)
            self._move(max(due, self._monotonic))
            if not future.done():
                future.set_result(None)
            await self.settle()
        self._move(end)
        await self.settle()

    async def settle(self) -> None:
        """Let everything that can run now run."""
        for _ in range(20):
            await asyncio.sleep(0)

    def _move(self, to: float) -> None:
        self.wall += (to - self._monotonic) * 1000
        self._monotonic = to


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


Eventually = Callable[..., Awaitable[None]]


@pytest.fixture
def eventually() -> Eventually:
    """Return a waiter for a state, with a limit."""

    async def wait(condition: Callable[[], object], within: float = 10.0, what: str = "") -> None:
        deadline = time.monotonic() + within
        while not condition():
            assert time.monotonic() < deadline, f"not within {within} s: {what or condition}"
            await asyncio.sleep(0.01)

    return wait


@pytest.fixture(autouse=True)
def log_calls_are_well_formed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail a test whose log call does not fit its arguments, instead of printing to nowhere."""

    def fail(_handler: logging.Handler, record: logging.LogRecord) -> None:
        raise AssertionError(f"log call does not format: {record.msg!r} % {record.args!r}")

    monkeypatch.setattr(logging.Handler, "handleError", fail)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Mosquitto:
    """A real broker on a free port of 127.0.0.1."""

    def __init__(self, folder: Path) -> None:
        self.host = "127.0.0.1"
        self.port = free_port()
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        config = self._folder / "mosquitto.conf"
        config.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\npersistence false\n"
            "max_queued_messages 0\nmax_inflight_messages 0\nmax_queued_bytes 67108864\n",
            encoding="utf-8",
        )
        with (self._folder / "mosquitto.log").open("ab") as out:
            self._process = subprocess.Popen([MOSQUITTO, "-c", config], stdout=out, stderr=out)
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection((self.host, self.port), timeout=1).close()
            except OSError:
                assert time.monotonic() < deadline, (self._folder / "mosquitto.log").read_text()
                assert self._process.poll() is None, (self._folder / "mosquitto.log").read_text()
                time.sleep(0.02)
            else:
                return

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    if not Path(MOSQUITTO).exists():
        pytest.skip("Mosquitto is not installed (apt-get install mosquitto)")
    folder = tmp_path / "mosquitto"
    folder.mkdir()
    broker = Mosquitto(folder)
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture
async def browser() -> AsyncIterator[object]:
    if not Path(CHROMIUM).exists():
        pytest.skip("chromium is not installed (apt-get install chromium)")
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
            ],
        )
        yield chromium
        await chromium.close()
