"""What a crowd of simulated cameras costs the machine that plays them: CPU of their process, and its memory.

The reference is the same bytes a second sent by nobody: an idle simulator with as many cameras and no viewer.
"""

import argparse
import asyncio
import hashlib
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil


def main() -> None:
    """Measure, and print the figures as lines of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cameras", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=15.0)
    asked = parser.parse_args()
    asyncio.run(measure(asked.cameras, asked.seconds))


async def measure(cameras: int, seconds: float) -> None:
    """Start the simulator in a process of its own, then as many viewers that only receive."""
    with tempfile.TemporaryDirectory() as folder:
        file, status = Path(folder) / "hamlet.yaml", Path(folder) / "status.json"
        named = [{"id": f"cam-{number}", "user": "box", "password": "demo"} for number in range(cameras)]
        file.write_text(json.dumps({"hamlets": [{"name": "bench", "cameras": named}]}), encoding="utf-8")
        command = [sys.executable, "-m", "simulators", "run", str(file), "--status", str(status)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            while not status.exists():
                await asyncio.sleep(0.1)
            found = json.loads(status.read_text(encoding="utf-8"))["devices"]
            simulator = psutil.Process(process.pid)
            idle = await _busy(simulator, 5.0)
            stop = asyncio.Event()
            urls = [str(one["stream_url"]).replace("://", "://box:demo@") for one in found.values()]
            viewers = [asyncio.create_task(_view(url, stop)) for url in urls]
            await asyncio.sleep(10)
            watched = await _busy(simulator, seconds)
            memory = simulator.memory_info().rss / 2**20
            stop.set()
            bytes_seen = sum(await asyncio.gather(*viewers))
            detail = {"cameras": cameras, "seconds": seconds, "idle_percent": idle, "bytes_seen": bytes_seen}
            ratio = round(watched / max(idle, 0.1), 1)
            _say("cameras/cpu", watched, "% of a core", "idle simulator", ratio, detail)
            _say("cameras/rss", round(memory, 1), "MiB", "none", None, detail)
        finally:
            process.terminate()
            process.wait(20)


async def _busy(process: psutil.Process, seconds: float) -> float:
    before, begun = process.cpu_times(), time.monotonic()
    await asyncio.sleep(seconds)
    after = process.cpu_times()
    used = after.user + after.system - before.user - before.system
    return round(100 * used / (time.monotonic() - begun), 2)


async def _view(url: str, stop: asyncio.Event) -> int:
    """Set a stream up as any client does, receive it, and return how many bytes came."""
    host, port = url.rsplit("@", 1)[1].split("/", maxsplit=1)[0].split(":")
    challenge = await _asked(host, int(port), url, "")
    realm, nonce = (re.search(rf'{name}="([^"]+)"', challenge) for name in ("realm", "nonce"))
    assert realm is not None
    assert nonce is not None
    clean = url.replace("box:demo@", "")

    def login(method: str, uri: str) -> str:
        one = hashlib.md5(f"box:{realm[1]}:demo".encode(), usedforsecurity=False).hexdigest()
        two = hashlib.md5(f"{method}:{uri}".encode(), usedforsecurity=False).hexdigest()
        answer = hashlib.md5(f"{one}:{nonce[1]}:{two}".encode(), usedforsecurity=False).hexdigest()
        told = f'username="box", realm="{realm[1]}", nonce="{nonce[1]}", uri="{uri}", response="{answer}"'
        return f"Authorization: Digest {told}\r\n"

    reader, writer = await asyncio.open_connection(host, int(port))
    session = ""
    for number, (method, uri, more) in enumerate(
        (
            ("DESCRIBE", clean, ""),
            ("SETUP", f"{clean}/trackID=0", "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n"),
            ("PLAY", clean, ""),
        ),
        start=2,
    ):
        head = f"{method} {uri} RTSP/1.0\r\nCSeq: {number}\r\n{login(method, uri)}{more}{session}\r\n"
        writer.write(head.encode())
        answer = (await reader.readuntil(b"\r\n\r\n")).decode()
        assert "200 OK" in answer, answer
        length = re.search(r"Content-Length: (\d+)", answer)
        if length:
            await reader.readexactly(int(length[1]))
        told = re.search(r"Session: ([^;\r]+)", answer)
        session = f"Session: {told[1]}\r\n" if told else session
    seen = 0
    while not stop.is_set():
        seen += len(await reader.read(65_536))
    writer.close()
    return seen


async def _asked(host: str, port: int, url: str, more: str) -> str:
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(f"DESCRIBE {url.replace('box:demo@', '')} RTSP/1.0\r\nCSeq: 1\r\n{more}\r\n".encode())
    answer = (await reader.readuntil(b"\r\n\r\n")).decode()
    writer.close()
    return answer


def _say(bench: str, figure: float, unit: str, reference: str, ratio: float | None, detail: object) -> None:
    told = {"bench": bench, "figure": figure, "unit": unit, "reference": reference, "ratio": ratio, "detail": detail}
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
