"""The store of a run: the hub's own, or an InfluxDB server that is started for it."""

import asyncio
import json
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path

import aiohttp

from tests.chaos.processes import Process

START_SECONDS = 60.0
ORG, TOKEN = "hamlet", "token-of-a-run"


class Store:
    """The embedded one: nothing to start, no process of its own."""

    name = "embedded"
    processes: Sequence[Process] = ()

    async def start(self, folder: Path) -> str:
        """Return what the hub's file must say of it once it is there; raise OSError if it does not come."""
        return ""


class InfluxStore(Store):
    """An InfluxDB of its own, in the folder of the run."""

    def __init__(self) -> None:
        self.name = "influxdb"

    async def start(self, folder: Path) -> str:
        program = shutil.which("influxd")
        if program is None:
            raise FileNotFoundError("influxd is not installed: put InfluxDB 2.x's server on the path")
        own = folder / "hub" / "influx"  # on the disk that fills up
        own.mkdir()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        paths = [f"--{name}-path={own / name}" for name in ("bolt", "engine", "sqlite")]
        command = (program, f"--http-bind-address=127.0.0.1:{port}", "--reporting-disabled", *paths)
        self.processes = (Process("influxd", command, log=folder / "influxd.log"),)
        await self.processes[0].start()
        url = f"http://127.0.0.1:{port}"
        async with aiohttp.ClientSession() as http:
            self.name = f"influxdb {await _version(http, url)}"
            told = {"username": "chaos", "password": "of-a-run", "org": ORG, "bucket": "first", "token": TOKEN}
            async with http.post(f"{url}/api/v2/setup", json=told) as answer:
                if answer.status != 201:
                    raise OSError(f"influxd cannot be set up: {await answer.text()}")
        (folder / "influx.token").write_text(TOKEN, encoding="utf-8")
        where = f'url = "{url}"\norg = "{ORG}"\ntoken_file = "influx.token"\n'
        return f'[store]\nkind = "influxdb"\n[store.influx]\n{where}'


async def _version(http: aiohttp.ClientSession, url: str) -> str:
    """Return the version of a server once it answers."""
    async with asyncio.timeout(START_SECONDS):
        while True:
            try:
                async with http.get(f"{url}/health") as answer:
                    told = json.loads(await answer.text())
                    return str(told["version"]).removeprefix("v")
            except (aiohttp.ClientError, ValueError):
                await asyncio.sleep(0.1)
