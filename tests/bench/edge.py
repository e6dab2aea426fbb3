"""What one agent costs a box that has the reference commune on it: 16 cameras, 12 loudspeakers, 8 hotspots, 10 sensors.

Memory and processor of the real process, without and with the processes that look at cameras, and how soon after its
start the first reading leaves. The references are measured in the same run: a Python process that has only imported the
same libraries, the bare client libraries asking probes and loudspeakers equally often, and a bare interpreter's start.
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
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager, suppress
from pathlib import Path

import aiohttp
import paho.mqtt.client as mqtt
import psutil
from paho.mqtt.enums import CallbackAPIVersion
from pymodbus.client import AsyncModbusSerialClient

PROBES_A_LINE = 4
LINES = 2
UARTS = 2
SPEAKERS = 12
CAMERAS = 16
HOTSPOTS = 8
DEVICES = PROBES_A_LINE * LINES + UARTS + SPEAKERS + CAMERAS + HOTSPOTS
POLL_SECONDS = 10
CAMERA_SECONDS = 60
WARM_UP_SECONDS = 30
MEBIBYTE = 1024 * 1024

ROUNDS = 20
LIBRARIES = (
    "aiohttp, aiomqtt, cryptography.hazmat.primitives.asymmetric.ed25519, google.protobuf, gufo.snmp.aio, icmplib,"
    " psutil, pydantic, pydantic.main, pymodbus.client, serial, sqlite3, yaml"
)


def main() -> None:
    """Measure, and print each figure as a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0, help="how long to measure after the warm-up")
    seconds = parser.parse_args().seconds
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        port = _free_port()
        stack.enter_context(_broker(folder, port))
        found = stack.enter_context(_simulators(folder))
        (folder / "device.password").write_text("geheim-geheim", encoding="utf-8")
        (folder / "edge.toml").write_text(_edge_toml(port, found), encoding="utf-8")
        first = _FirstReading(port)
        started = time.monotonic()
        agent = stack.enter_context(_process([sys.executable, "-m", "edge", "run", str(folder / "edge.toml")], folder))
        cold = first.wait() - started
        status = folder / "status.json"
        _wait(lambda: _online(status) == DEVICES, "all devices online")
        time.sleep(WARM_UP_SECONDS)
        family = _Family(psutil.Process(agent.pid))
        read, start = _told(status)["read"], time.monotonic()
        while (elapsed := time.monotonic() - start) < seconds:
            family.look()
            time.sleep(0.5)
        samples = (int(str(_told(status)["read"])) - int(str(read))) / elapsed
        agent.send_signal(signal.SIGTERM)
        agent.wait(20)
        urls = [str(one["url"]) for name, one in found.items() if name.startswith("speaker")]
        bare = asyncio.run(_bare_polling(folder, urls)) / POLL_SECONDS * 100
    detail = (
        f"{CAMERAS} cameras each {CAMERA_SECONDS} s; {SPEAKERS} loudspeakers, {HOTSPOTS} hotspots,"
        f" {PROBES_A_LINE * LINES + UARTS} sensors each {POLL_SECONDS} s; {elapsed:.0f} s"
    )
    libraries = _bare_memory() / MEBIBYTE
    _say("edge/rss", family.own / MEBIBYTE, "MiB", libraries, f"{detail}; the agent; reference: the libraries alone")
    _say("edge/rss-with-camera-workers", family.all / MEBIBYTE, "MiB", libraries, f"{detail}; with its processes")
    polling = f"{detail}, {samples:.1f} samples a second; reference: bare clients asking probes and loudspeakers"
    _say("edge/cpu", family.busy_own(elapsed), "% of one core", bare, polling)
    _say("edge/cpu-with-camera-workers", family.busy_all(elapsed), "% of one core", bare, polling)
    _say(
        "edge/cold-start", cold, "s", _bare_start(), "process start to first reading on the broker; reference: imports"
    )


class _FirstReading:
    """Hears the first message with readings."""

    def __init__(self, port: int) -> None:
        self._heard = threading.Event()
        self._at = 0.0
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2)
        self._client.on_message = self._on_message
        self._client.connect("127.0.0.1", port)
        self._client.subscribe("spBv1.0/bench/DDATA/#")
        self._client.loop_start()

    def _on_message(self, *_: object) -> None:
        if not self._heard.is_set():
            self._at = time.monotonic()
            self._heard.set()

    def wait(self) -> float:
        """Return when it came."""
        if not self._heard.wait(60):
            raise TimeoutError("no reading within 60 s")
        self._client.loop_stop()
        return self._at


class _Family:
    """The agent and its children: peaks of memory (proportional, so that shared pages count once), processor time."""

    def __init__(self, agent: psutil.Process) -> None:
        self._agent = agent
        self._first: dict[int, float] = {one.pid: _used(one) for one in self._members()}
        self._last = dict(self._first)
        self.own = self.all = 0

    def look(self) -> None:
        """Measure once."""
        self.own = max(self.own, self._agent.memory_info().rss)
        total = 0
        for one in self._members():
            with suppress(psutil.NoSuchProcess):
                total += one.memory_full_info().pss
                self._last[one.pid] = _used(one)
        self.all = max(self.all, total)

    def busy_own(self, seconds: float) -> float:
        """Return % of a core."""
        return 100 * (self._last[self._agent.pid] - self._first[self._agent.pid]) / seconds

    def busy_all(self, seconds: float) -> float:
        """Return % of a core, children included."""
        return 100 * sum(used - self._first.get(pid, 0.0) for pid, used in self._last.items()) / seconds

    def _members(self) -> list[psutil.Process]:
        return [self._agent, *self._agent.children(recursive=True)]


def _used(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _bare_start() -> float:
    begun = time.monotonic()
    subprocess.run([sys.executable, "-c", f"import {LIBRARIES}"], check=True, timeout=60)
    return time.monotonic() - begun


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
                aiohttp.ClientSession(url, middlewares=[aiohttp.DigestAuthMiddleware("box", "geheim-geheim")])
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
def _simulators(folder: Path) -> Iterator[dict[str, dict[str, object]]]:
    """Run simulated devices; yield where each is."""
    login = {"user": "box", "password": "geheim-geheim"}
    snmp = {"community": "c", "auth_password": "geheim-geheim", "privacy_password": "geheim-geheim"}
    lines = [
        {"link": f"line-{line}", "probes": [{"id": f"probe-{line}-{slave}", "slave": slave} for slave in _slaves()]}
        for line in range(LINES)
    ]
    hamlet = {
        "name": "bench",
        "buses": lines,
        "uarts": [{"id": f"dust-{one}", "model": "pms5003", "link": f"dust-{one}"} for one in range(UARTS)],
        "speakers": [{"id": f"speaker-{one}", **login} for one in range(SPEAKERS)],
        "cameras": [{"id": f"cam-{one}", **login} for one in range(CAMERAS)],
        "routers": [{"id": f"wifi-{one}", **login} for one in range(HOTSPOTS // 2)],
        "snmp_hotspots": [{"id": f"spot-{one}", **snmp} for one in range(HOTSPOTS // 2)],
    }
    # JSON is YAML.
    (folder / "hamlet.yaml").write_text(json.dumps({"hamlets": [hamlet]}), encoding="utf-8")
    status = folder / "simulators.json"
    command = [sys.executable, "-m", "simulators", "run", str(folder / "hamlet.yaml"), "--status", str(status)]
    with _process(command, folder):
        _wait(status.exists, "the simulators")
        yield json.loads(status.read_text(encoding="utf-8"))["devices"]


def _edge_toml(port: int, found: dict[str, dict[str, object]]) -> str:
    node = {"group": "bench", "id": "bench-01", "state_dir": "state", "status_file": "status.json"}
    text = _table("[node]", **node, clock="trusted", birth_jitter_seconds=0)
    text += _table("[[brokers]]", host="127.0.0.1", port=port)
    login = {"username": "box", "password_file": "device.password"}
    passwords = {"auth_password_file": "device.password", "privacy_password_file": "device.password"}
    for name, at in found.items():
        told: dict[str, object] = {"id": name, "poll_seconds": POLL_SECONDS}
        match name.split("-")[0]:
            case "probe":
                told |= {"kind": "water_probe", "driver": "modbus_sensor", "port": at["port"], "slave": at["slave"]}
                told |= {"register_map": "generic-water-probe.yaml"}
            case "dust":
                told |= {"kind": "air_station", "driver": "uart_sensor", "model": "pms5003", "port": at["port"]}
            case "speaker":
                told |= {"kind": "loudspeaker", "driver": "ip_speaker", "url": at["url"], **login}
            case "cam":
                told |= {"kind": "camera", "driver": "onvif_camera", "url": at["url"], **login}
                told |= {"poll_seconds": CAMERA_SECONDS}
            case "wifi":
                told |= {"kind": "hotspot", "driver": "openwrt_hotspot", "url": at["url"], **login}
            case "spot":
                told |= {"kind": "hotspot", "driver": "snmp_hotspot", "host": at["host"], "port": at["port"]}
                told |= {"username": "box", **passwords, "profile": "simulated.yaml", "uplink_interface": "eth0"}
            case _:
                continue
        text += _table("[[devices]]", **told)
    return text


def _table(head: str, **keys: object) -> str:
    # JSON's strings, numbers and booleans are TOML's.
    return f"{head}\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())


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
