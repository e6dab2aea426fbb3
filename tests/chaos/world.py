"""What a run consists of: broker, hub, store, and in each hamlet a box with its devices, as real processes."""

import asyncio
import json
import shutil
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from tests.chaos import announcing, configs, private
from tests.chaos.link import Link
from tests.chaos.processes import Process
from tests.chaos.signed_in import SignedIn
from tests.chaos.stores import Store

MOSQUITTO = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
PYTHON = Path(sys.executable)
START_SECONDS = 60.0
BOX_MEGABYTES, HUB_MEGABYTES = 24, 192
BALLAST = "ballast"


class RunFailed(Exception):
    """What went wrong, for the person who started the run."""


def now_ms() -> int:
    """Return the true time."""
    return time.time_ns() // 1_000_000


@dataclass(slots=True)
class Box:
    """An edge node's agent, or a second one with a copy of its disk."""

    name: str
    node: str
    state: Path
    status_file: Path
    clock_file: Path
    process: Process

    def status(self) -> dict[str, Any]:
        """Return what it last said of itself, nothing if it never did."""
        with suppress(OSError, ValueError):
            found = json.loads(self.status_file.read_text(encoding="utf-8"))
            assert isinstance(found, dict)
            return found
        return {}

    async def until_born(self, within: float) -> bool:
        """Wait until the hub knows it; return whether that came in time."""
        return await reached(lambda: bool(self.status().get("born")) and now_ms() - self.status()["at"] < 5000, within)


@dataclass(slots=True)
class Hamlet:
    """The devices of one edge node, its box, and its link to the broker."""

    node: str
    network: private.Network
    link: Link
    simulator: Process
    box: Box
    quiet: Path
    devices: dict[str, Any] = field(default_factory=dict)
    image: Path | None = None
    """A copy of the box's disk."""
    double: Box | None = None
    """The second box with a copy of this one's disk."""
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    voice: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by whoever asks for an announcement here, or wants none."""
    orders: list[str] = field(default_factory=list)


@dataclass(slots=True)
class World:
    """Everything that runs, and what was done to it."""

    folder: Path
    mqtt_port: int
    hub_port: int
    http: aiohttp.ClientSession
    store: Store
    broker: Process
    hub: Process
    signer: Process
    hamlets: dict[str, Hamlet] = field(default_factory=dict)
    backup: Path | None = None
    backup_at: int = 0
    restored_at: int = 0
    ahead_until: int = 0
    """The newest instant that a clock that ran ahead can have given."""
    hub_turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    broker_turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    signed_in: SignedIn = field(init=False)

    def __post_init__(self) -> None:
        self.signed_in = SignedIn(f"http://127.0.0.1:{self.hub_port}", self.folder / "hub.toml", now_ms)

    @property
    def hub_state(self) -> Path:
        """Where the hub keeps what must survive."""
        return self.folder / "hub"

    def note(self, kind: str, node: str | None, begin: int, *, hit: bool, **facts: object) -> None:
        """Write down what was done to whom from then to now, and whether it could be seen to have an effect."""
        told = {"kind": kind, "node": node, "begin": begin, "end": now_ms(), "hit": hit, **facts}
        with (self.folder / "faults.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(told) + "\n")

    async def get(self, path: str) -> Any:
        """Return an answer of the hub's API, None while there is none, or none for us."""
        for _ in range(2):
            headers = self.signed_in.headers
            with suppress(aiohttp.ClientError, TimeoutError, ValueError):
                async with self.http.get(f"http://127.0.0.1:{self.hub_port}{path}", headers=headers) as response:
                    if response.status != 401:
                        return await response.json()
                await self.signed_in.renew(headers["Authorization"])
        return None

    async def hub_answers(self) -> bool:
        """Return whether the hub is there."""
        return await self.get("/healthz") is not None

    async def hub_command(self, *words: str | Path) -> str:
        """Run a command of the hub's on its configuration and return what it says; raise RunFailed if it fails."""
        command = (PYTHON, "-m", "hub", *words)
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        out, _ = await process.communicate()
        told = out.decode(errors="replace").strip()
        if process.returncode:
            raise RunFailed(f"{' '.join(map(str, words))} ended with status {process.returncode}: {told}")
        return told

    def boxes(self) -> list[Box]:
        """Return every box, doubles too."""
        found = [hamlet.box for hamlet in self.hamlets.values()]
        return found + [one.double for one in self.hamlets.values() if one.double is not None]

    def processes(self) -> list[Process]:
        """Return everything that runs."""
        simulators = [hamlet.simulator for hamlet in self.hamlets.values()]
        return [
            *(one.process for one in self.boxes()),
            self.hub,
            self.signer,
            *self.store.processes,
            self.broker,
            *simulators,
        ]


async def reached(condition: Any, within: float) -> bool:
    """Wait until something is so, asking ten times a second; return whether it was so in time."""
    until = time.monotonic() + within
    while True:
        found = condition()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return True
        if time.monotonic() > until:
            return False
        await asyncio.sleep(0.1)


def new_box(world: World, hamlet_node: str, name: str, network: private.Network) -> Box:
    """Return a box with an empty disk; its configuration is `<name>.toml`."""
    folder = world.folder
    clock = folder / f"{name}.clock"
    command: tuple[str | Path, ...] = (
        *network.within,
        PYTHON,
        "-m",
        "tests.chaos.wrong_clock",
        clock,
        "edge",
        "run",
        folder / f"{name}.toml",
    )
    return Box(
        name=name,
        node=hamlet_node,
        state=folder / "disks" / name,
        status_file=folder / f"{name}.json",
        clock_file=clock,
        process=Process(name, command, log=folder / f"{name}.log"),
    )


def configure_box(world: World, hamlet: Hamlet, box: Box) -> None:
    """Write a box's configuration."""
    text = configs.edge_toml(
        hamlet.node,
        state=f"disks/{box.name}/state",
        status=box.status_file.name,
        broker=(hamlet.network.here, hamlet.link.port),
        hub_port=world.hub_port,
        devices=hamlet.devices,
    )
    (world.folder / f"{box.name}.toml").write_text(text, encoding="utf-8")


async def small_disk(folder: Path, megabytes: int) -> None:
    """Give a folder a small disk of its own, where that is possible."""
    folder.mkdir(parents=True, exist_ok=True)
    if private.inside():
        await private.mount_small(folder, megabytes)


@asynccontextmanager
async def running(folder: Path, *, seed: int, store: Store) -> AsyncIterator[World]:
    """Start a commune and yield it; afterwards nothing of it runs."""
    if private.inside():
        await private.prepare()
    for name in ("answers", "disks", "images", "broker"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for name in ("faults.jsonl", "orders.jsonl"):
        (folder / name).touch()
    mqtt_port, hub_port = free_port(), free_port()
    hub_command = (PYTHON, "-m", "tests.chaos.wrong_clock", folder / "hub.clock", "hub", "serve", folder / "hub.toml")
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)))
        world = World(
            folder=folder,
            mqtt_port=mqtt_port,
            hub_port=hub_port,
            http=http,
            store=store,
            broker=Process("broker", (MOSQUITTO, "-c", folder / "broker.conf"), log=folder / "broker.log"),
            hub=Process("hub", hub_command, log=folder / "hub.log"),
            signer=announcing.signer(folder),
        )
        stack.push_async_callback(_end, world)
        await small_disk(world.hub_state, HUB_MEGABYTES)
        (folder / "counting-probe.yaml").write_text(configs.REGISTER_MAP, encoding="utf-8")
        (folder / "broker.conf").write_text(configs.broker_conf(mqtt_port, str(folder / "broker")), encoding="utf-8")
        (folder / "speaker.password").write_text(configs.PASSWORD, encoding="utf-8")
        identities = await announcing.make_keys(folder)
        settings = await store.start(folder)
        text = configs.hub_toml(hub_port, mqtt_port, "hub/state", settings, identities)
        (folder / "hub.toml").write_text(text, encoding="utf-8")
        for process in (world.broker, world.signer, world.hub):
            await process.start()
        numbered = enumerate(configs.NODES, start=1)
        await asyncio.gather(*(_start_hamlet(world, node, number, seed, stack) for number, node in numbered))
        if not await reached(world.hub_answers, START_SECONDS):
            raise RunFailed(f"the hub did not start within {START_SECONDS:.0f} s; see {world.hub.log}")
        for hamlet in world.hamlets.values():
            if not await hamlet.box.until_born(START_SECONDS):
                raise RunFailed(
                    f"{hamlet.node} was not born within {START_SECONDS:.0f} s; see {hamlet.box.process.log}"
                )
        yield world


async def _start_hamlet(world: World, node: str, number: int, seed: int, stack: AsyncExitStack) -> None:
    folder, network = world.folder, await private.network(number)
    link = await stack.enter_async_context(
        Link("127.0.0.1", world.mqtt_port).running(socket.create_server((network.here, 0)))
    )
    if private.inside():  # audio comes from the hub, which answers to this machine's own address only
        audio = Link("127.0.0.1", world.hub_port)
        await stack.enter_async_context(audio.running(network.listening(world.hub_port)))
    config, status = folder / f"{node}.yaml", folder / f"{node}-devices.json"
    config.write_text(configs.hamlet_yaml(node, seed), encoding="utf-8")
    command: tuple[str | Path, ...] = (*network.within, PYTHON, "-m", "simulators", "run", config, "--status", status)
    simulator = Process(f"{node}-devices", command, log=folder / f"{node}-devices.log")
    box = new_box(world, node, node, network)
    hamlet = Hamlet(node=node, network=network, link=link, simulator=simulator, box=box, quiet=folder / f"quiet-{node}")
    world.hamlets[node] = hamlet
    await simulator.start()
    if not await reached(status.exists, START_SECONDS):
        raise RunFailed(f"the devices of {node} did not start within {START_SECONDS:.0f} s; see {simulator.log}")
    hamlet.devices = json.loads(status.read_text(encoding="utf-8"))["devices"]
    await small_disk(box.state, BOX_MEGABYTES)
    configure_box(world, hamlet, box)
    await box.process.start()


async def _end(world: World) -> None:
    for process in world.processes():
        await process.kill()


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
