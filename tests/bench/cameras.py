"""What a crowd of simulated cameras costs the machine that plays them: CPU of their process, and its memory.

References: the same cameras with nobody watching, and the memory of the libraries alone.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import av
import psutil

MEBIBYTE = 2**20
IDLE_SECONDS = 5.0
LIBRARIES = "aiohttp, av, lxml.etree, numpy, psutil, pydantic"
OPTIONS = {"rtsp_transport": "tcp", "analyzeduration": "0", "fpsprobesize": "0"}


def main() -> None:
    """Measure, and print the figures as lines of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cameras", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=15.0)
    asked = parser.parse_args()
    measure(asked.cameras, asked.seconds)


def measure(cameras: int, seconds: float) -> None:
    """Run the cameras in a process of their own and watch each of them from this one with PyAV."""
    with tempfile.TemporaryDirectory() as folder:
        file, status = Path(folder) / "hamlet.yaml", Path(folder) / "status.json"
        named = [{"id": f"cam-{number}", "user": "box", "password": "demo"} for number in range(cameras)]
        # JSON is YAML.
        file.write_text(json.dumps({"hamlets": [{"name": "bench", "cameras": named}]}), encoding="utf-8")
        command = [sys.executable, "-m", "simulators", "run", str(file), "--status", str(status)]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            try:
                while not status.exists():
                    time.sleep(0.1)
                found = json.loads(status.read_text(encoding="utf-8"))["devices"].values()
                simulator = psutil.Process(process.pid)
                idle = _busy(simulator, IDLE_SECONDS)
                crowd = Crowd([str(one["stream_url"]).replace("://", "://box:demo@") for one in found])
                before = crowd.packets()
                busy = _busy(simulator, seconds)
                rate = (crowd.packets() - before) / seconds
                memory = simulator.memory_info().rss
                crowd.leave()
            finally:
                process.terminate()
                process.wait(20)
    detail = f"{cameras} cameras, each watched, {rate:.0f} frames a second, {seconds:.0f} s"
    _say("cameras/cpu", busy, "% of one core", idle, f"{detail}; reference: nobody watches")
    _say(
        "cameras/rss", memory / MEBIBYTE, "MiB", _bare_memory() / MEBIBYTE, f"{detail}; reference: the libraries alone"
    )


class Crowd:
    """As many viewers as addresses, each in a thread, receiving without decoding; made once all of them see."""

    def __init__(self, urls: list[str]) -> None:
        self._left = threading.Event()
        self._seen = dict.fromkeys(urls, 0)
        self._threads = [threading.Thread(target=self._watch, args=(url,), daemon=True) for url in urls]
        for thread in self._threads:
            thread.start()
        deadline = time.monotonic() + 60
        while not all(self._seen.values()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{sum(map(bool, self._seen.values()))} of {len(urls)} streams came within 60 s")
            time.sleep(0.1)

    def packets(self) -> int:
        """Return how many frames all of them have received."""
        return sum(self._seen.values())

    def leave(self) -> None:
        """Stop watching."""
        self._left.set()
        for thread in self._threads:
            thread.join(10)

    def _watch(self, url: str) -> None:
        with av.open(url, options=OPTIONS, timeout=(60, 10)) as stream:
            for packet in stream.demux(video=0):
                self._seen[url] += bool(packet.size)
                if self._left.is_set():
                    return


def _busy(process: psutil.Process, seconds: float) -> float:
    before, begun = process.cpu_times(), time.monotonic()
    time.sleep(seconds)
    after = process.cpu_times()
    return 100 * (after.user + after.system - before.user - before.system) / (time.monotonic() - begun)


def _bare_memory() -> int:
    script = f"import {LIBRARIES}; print(psutil.Process().memory_info().rss)"
    return int(subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, timeout=60).stdout)


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


if __name__ == "__main__":
    main()
