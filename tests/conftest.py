"""What tests share: a clock they move, a real broker, a browser, and patience with a limit."""

import asyncio
import heapq
import itertools
import json
import logging
import os
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
import uuid
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


INFLUX_MISSING = (
    "no InfluxDB 2.x: install `influxd`, or name a server by HAMLET_TEST_INFLUX_URL, HAMLET_TEST_INFLUX_TOKEN and"
    " HAMLET_TEST_INFLUX_ORG"
)


class Influx:
    """A real InfluxDB 2.x: the one the environment names, or `influxd` on a free port with a folder of its own."""

    def __init__(self, folder: Path, *, ours: bool = False) -> None:
        told = {} if ours else os.environ
        self.url = told.get("HAMLET_TEST_INFLUX_URL", "")
        self.token = told.get("HAMLET_TEST_INFLUX_TOKEN", "token-of-a-test")
        self.org = told.get("HAMLET_TEST_INFLUX_ORG", "hamlet")
        self.ours = not self.url
        self._folder = folder
        self.process: subprocess.Popen[bytes] | None = None
        if self.ours:
            self._port = free_port()
            self.url = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start it, where it is ours, and wait until it answers; the first time it is set up."""
        if self.ours:
            program = shutil.which("influxd")
            assert program is not None
            paths = [f"--{name}-path={self._folder / name}" for name in ("bolt", "engine", "sqlite")]
            with (self._folder / "influxd.log").open("ab") as out:
                self.process = subprocess.Popen(
                    [program, f"--http-bind-address=127.0.0.1:{self._port}", "--reporting-disabled", *paths],
                    stdout=out,
                    stderr=out,
                    env={"PATH": os.environ["PATH"], "HOME": str(self._folder)},
                )
        self._wait()
        if self.ours and json.loads(self._asked("/api/v2/setup"))["allowed"]:
            told = {"username": "tester", "password": "of-a-test", "org": self.org, "bucket": "first"}
            self._asked("/api/v2/setup", {**told, "token": self.token})

    def kill(self) -> None:
        """End it as a power cut would."""
        assert self.process is not None, "only a server of ours is killed"
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> None:
        """End it, where it is ours."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(20)
            self.process = None

    def bucket(self) -> str:
        """Return a name that no bucket has yet."""
        return f"test-{uuid.uuid4().hex[:12]}"

    def clean(self) -> None:
        """Take the buckets of tests away from a server that is not ours."""
        told = json.loads(self._asked(f"/api/v2/buckets?org={self.org}&limit=100"))["buckets"]
        while ours := [one for one in told if re.fullmatch(r"[a-z]+-[0-9a-f]{12,16}", one["name"])]:
            for one in ours:
                self._asked(f"/api/v2/buckets/{one['id']}", method="DELETE")
            told = json.loads(self._asked(f"/api/v2/buckets?org={self.org}&limit=100"))["buckets"]

    def make_bucket(self, name: str) -> None:
        """Make a bucket that keeps for ever."""
        (org,) = json.loads(self._asked(f"/api/v2/orgs?org={self.org}"))["orgs"]
        self._asked("/api/v2/buckets", {"orgID": org["id"], "name": name, "retentionRules": []})

    def count(self, bucket: str) -> int:
        """Return how many values a bucket holds."""
        question = f'from(bucket: "{bucket}") |> range(start: 0) |> count() |> group() |> sum()'
        told = self._asked(f"/api/v2/query?org={self.org}", {"query": question}).decode().split("\r\n")
        return int(told[1].split(",")[-1]) if len(told) > 1 and told[1] else 0

    def _wait(self) -> None:
        deadline = time.monotonic() + 30
        while True:
            try:
                self._asked("/health")
            except OSError:
                log_file = self._folder / "influxd.log"
                told = log_file.read_text()[-2000:] if log_file.exists() else self.url
                assert time.monotonic() < deadline, told
                assert self.process is None or self.process.poll() is None, told
                time.sleep(0.05)
            else:
                return

    def _asked(self, path: str, body: object = None, method: str | None = None) -> bytes:
        told_body = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(self.url + path, told_body, method=method)
        request.add_header("Authorization", f"Token {self.token}")
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=5) as answer:
            told: bytes = answer.read()
            return told


@pytest.fixture(scope="session")
def influx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Influx]:
    """A server that all tests share; each makes buckets of its own. Nobody kills it."""
    if not os.environ.get("HAMLET_TEST_INFLUX_URL") and shutil.which("influxd") is None:
        pytest.skip(INFLUX_MISSING)
    server = Influx(tmp_path_factory.mktemp("influx"))
    server.start()
    yield server
    if not server.ours:
        server.clean()
    server.stop()


@pytest.fixture
def own_influx(tmp_path: Path) -> Iterator[Influx]:
    """A server that a test may kill."""
    if shutil.which("influxd") is None:
        pytest.skip(f"{INFLUX_MISSING} (this one needs influxd itself)")
    folder = tmp_path / "influx"
    folder.mkdir()
    server = Influx(folder, ours=True)
    server.start()
    yield server
    server.stop()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say by name what was not held against a real InfluxDB."""
    skipped = [one for one in terminalreporter.stats.get("skipped", []) if INFLUX_MISSING in str(one.longrepr)]
    if skipped:
        files = sorted({one.nodeid.partition("::")[0] for one in skipped})
        terminalreporter.section("NOT VERIFIED against a real InfluxDB")
        terminalreporter.line(f"{INFLUX_MISSING}. {len(skipped)} tests did not run, in: {', '.join(files)}")


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
