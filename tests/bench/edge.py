"""What one agent costs a box: memory and processor of the real process, polling eight probes and eight loudspeakers.

The references are measured in the same run: a Python process that has only imported the same libraries, and the bare
client libraries asking the same devices equally often, without sessions, log, report or checks.
"""

import argparse
import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from pathlib import Path

import aiohttp
import psutil
from pymodbus.client import AsyncModbusSerialClient

PROBES_A_LINE = 4
LINES = 2
SPEAKERS = 8
POLL_SECONDS = 10
WARM_UP_SECONDS = 15
MEBIBYTE = 1024 * 1024

ROUNDS = 20
LIBRARIES = "aiohttp, aiomqtt, av, cryptography, numpy, psutil, pydantic, pymodbus.client, yaml"


def main() -> None:
    """Measure, and print each figure as a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to measure after the warm-up")
    seconds = parser.parse_args().seconds
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        port = _free_port()
        stack.enter_context(_broker(folder, port))
        urls = stack.enter_context(_simulators(folder))
        (folder / "speaker.password").write_text("geheim", encoding="utf-8")
        (folder / "edge.toml").write_text(_edge_toml(port, urls), encoding="utf-8")
        agent = stack.enter_context(_process([sys.executable, "-m", "edge", "run", str(folder / "edge.toml")], folder))
        status = folder / "status.json"
        _wait(lambda: _online(status) == PROBES_A_LINE * LINES + SPEAKERS, "all devices online")
        time.sleep(WARM_UP_SECONDS)
        process = psutil.Process(agent.pid)
        read, used, start = _told(status)["read"], process.cpu_times(), time.monotonic()
        peak = 0
        while (elapsed := time.monotonic() - start) < seconds:
            peak = max(peak, process.memory_info().rss)
            time.sleep(0.5)
        now = process.cpu_times()
        cpu = 100 * (now.user - used.user + now.system - used.system) / elapsed
        samples = (int(str(_told(status)["read"])) - int(str(read))) / elapsed
        agent.send_signal(signal.SIGTERM)
        agent.wait(15)
        bare = asyncio.run(_bare_polling(folder, urls)) / POLL_SECONDS * 100
    detail = f"{LINES} lines x {PROBES_A_LINE} probes, {SPEAKERS} loudspeakers, each {POLL_SECONDS} s, {elapsed:.0f} s"
    _say("edge/rss", peak / MEBIBYTE, "MiB", _bare_memory() / MEBIBYTE, f"{detail}; reference: the libraries alone")
    polling = f"{detail}, {samples:.1f} samples a second; reference: bare clients asking as often"
    _say("edge/cpu", cpu, "% of one core", bare, polling)


def _say(bench: str, figure: float, unit: str, reference: float, detail: str) -> None:
    told = {
        "bench": bench,
        "figure": round(figure, 3),
        "unit": unit,
        "reference": round(reference, 3),
        "ratio": round(figure / reference, 2),
        "detail": detail,
    }
    print(json.dumps(told), flush=True)


async def _bare_polling(folder: Path, urls: list[str]) -> float:
    """Return processor seconds that bare clients need to ask every device once."""
    lines = [AsyncModbusSerialClient(str(folder / f"line-{line}"), baudrate=9600) for line in range(LINES)]
    for line in lines:
        await line.connect()
    async with AsyncExitStack() as stack:
        sessions = [
            await stack.enter_async_context(
                aiohttp.ClientSession(url, middlewares=[aiohttp.DigestAuthMiddleware("box", "geheim")])
            )
            for url in urls
        ]
        before = time.process_time()
        for _ in range(ROUNDS):
            for line in lines:
                for slave in _slaves():
                    await line.read_holding_registers(0, count=11, device_id=slave)
            for session in sessions:
                async with session.get("/api/v1/status") as answer:
                    await answer.json()
        used = time.process_time() - before
    for line in lines:
        line.close()
    return used / ROUNDS


def _bare_memory() -> int:
    script = f"import {LIBRARIES}; print(psutil.Process().memory_info().rss)"
    return int(subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, timeout=60).stdout)


@contextmanager
def _broker(folder: Path, port: int) -> Iterator[None]:
    config = folder / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n", encoding="utf-8")
    mosquitto = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
    with _process([mosquitto, "-c", str(config)], folder):
        _wait(lambda: _listens(port), "the broker")
        yield


@contextmanager
def _simulators(folder: Path) -> Iterator[list[str]]:
    """Run simulated devices; yield the URLs of the loudspeakers."""
    lines = [
        {"link": f"line-{line}", "probes": [{"id": f"probe-{line}-{slave}", "slave": slave} for slave in _slaves()]}
        for line in range(LINES)
    ]
    speakers = [{"id": f"speaker-{number}", "password": "geheim"} for number in range(SPEAKERS)]
    hamlet = {"hamlets": [{"name": "bench", "buses": lines, "speakers": speakers}]}
    # JSON is YAML.
    (folder / "hamlet.yaml").write_text(json.dumps(hamlet), encoding="utf-8")
    status = folder / "simulators.json"
    command = [sys.executable, "-m", "simulators", "run", str(folder / "hamlet.yaml"), "--status", str(status)]
    with _process(command, folder):
        _wait(status.exists, "the simulators")
        yield [one["url"] for one in json.loads(status.read_text(encoding="utf-8"))["devices"].values() if "url" in one]


def _edge_toml(port: int, urls: list[str]) -> str:
    text = f"""
[node]
group = "bench"
id = "bench-01"
state_dir = "state"
status_file = "status.json"
clock = "trusted"
birth_jitter_seconds = 0
[[brokers]]
host = "127.0.0.1"
port = {port}
"""
    for line in range(LINES):
        for slave in _slaves():
            text += f"""
[[devices]]
id = "probe-{line}-{slave}"
kind = "water_probe"
driver = "modbus_sensor"
port = "line-{line}"
slave = {slave}
register_map = "generic-water-probe.yaml"
poll_seconds = {POLL_SECONDS}
"""
    for number, url in enumerate(urls):
        text += f"""
[[devices]]
id = "speaker-{number}"
kind = "loudspeaker"
driver = "ip_speaker"
url = "{url}"
username = "box"
password_file = "speaker.password"
poll_seconds = {POLL_SECONDS}
"""
    return text


def _slaves() -> range:
    return range(1, PROBES_A_LINE + 1)


@contextmanager
def _process(command: list[str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    log = folder / f"{Path(command[0]).name}-{command[-1].replace(os.sep, '_')}.log"
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out) as process:
        try:
            yield process
        except BaseException:
            sys.stderr.write(log.read_text(encoding="utf-8", errors="replace"))
            raise
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(15)


def _wait(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within 60 s")
        time.sleep(0.1)


def _told(status: Path) -> dict[str, object]:
    told: dict[str, object] = json.loads(status.read_text(encoding="utf-8")) if status.exists() else {}
    return told


def _online(status: Path) -> int:
    devices = _told(status).get("devices", {})
    return sum(one["online"] for one in devices.values()) if isinstance(devices, dict) else 0


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
