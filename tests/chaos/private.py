"""A world of its own for a run: mounts, network and processes that vanish with it, however it ends."""

import asyncio
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

INSIDE = "HAMLET_CHAOS_INSIDE"
"""Set where the run is already in a world of its own."""

TOOLS = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def inside() -> bool:
    """Return whether this process is in a world of its own."""
    return INSIDE in os.environ


def entered(arguments: Sequence[str]) -> int | None:
    """Run this command again in a world of its own; return its status, None where that cannot be had or is had."""
    if inside() or not all(shutil.which(one, path=TOOLS) for one in ("unshare", "nsenter", "ip", "tc")):
        return None
    for rights in ([], ["--user", "--map-root-user"]):
        unshare = ["unshare", *rights, "--mount", "--pid", "--net", "--fork", "--mount-proc", "--kill-child"]
        if _works([*unshare, "sh", "-c", "mount -t tmpfs -o size=1m tmpfs /mnt"]):
            return _forwarding([*unshare, sys.executable, "-m", "tests.chaos", *arguments])
    return None


def _works(command: Sequence[str]) -> bool:
    return subprocess.run(command, capture_output=True, timeout=20, check=False).returncode == 0


def _forwarding(command: Sequence[str]) -> int:
    """Run a command in a process group of its own and hand on the signals that end it: unshare keeps them."""
    child = subprocess.Popen(command, env={**os.environ, INSIDE: "yes", "PATH": TOOLS}, process_group=0)
    names = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(name, lambda *_: os.killpg(child.pid, signal.SIGTERM)) for name in names]
    try:
        return child.wait()
    finally:
        for name, handler in zip(names, before, strict=True):
            signal.signal(name, handler)


async def prepare() -> None:
    """Bring up the loopback device of the new network, and make room for the names of others."""
    await _run("ip", "link", "set", "lo", "up")
    names = Path("/run/netns")
    names.mkdir(parents=True, exist_ok=True)
    await _run("mount", "-t", "tmpfs", "tmpfs", str(names))


async def mount_small(folder: Path, megabytes: int) -> None:
    """Put a file system of its own, in memory, on a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    await _run("mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder))


@dataclass(frozen=True, slots=True)
class Network:
    """The network of one hamlet, and the wire from there to here. Without a world of its own all share one network."""

    name: str = ""
    here: str = "127.0.0.1"
    """The address under which whoever is in the hamlet reaches us."""

    @property
    def within(self) -> tuple[str, ...]:
        """Return what stands before a command that is to run in the hamlet."""
        return ("nsenter", f"--net=/run/netns/{self.name}") if self.name else ()

    @property
    def _ends(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return ("dev", f"to-{self.name}"), ("dev", "uplink")

    def listening(self, port: int) -> socket.socket:
        """Return a socket that listens at 127.0.0.1 in the hamlet, whoever accepts on it."""
        if not self.name:
            return socket.create_server(("127.0.0.1", port))
        libc = ctypes.CDLL(None, use_errno=True)
        with Path("/proc/self/ns/net").open("rb") as ours, Path(f"/run/netns/{self.name}").open("rb") as theirs:
            if libc.setns(theirs.fileno(), 0):
                raise OSError(ctypes.get_errno(), f"cannot enter the network of {self.name}")
            try:
                return socket.create_server(("127.0.0.1", port))
            finally:
                libc.setns(ours.fileno(), 0)

    async def narrow(self, bits_a_second: int) -> None:
        """Let each direction of the wire take its time; tc's token bucket."""
        rate = ("root", "tbf", "rate", f"{bits_a_second}bit", "burst", "1600", "latency", "400ms")
        here, there = self._ends
        await _run("tc", "qdisc", "add", *here, *rate)
        await _run(*self.within, "tc", "qdisc", "add", *there, *rate)

    async def widen(self) -> int:
        """Let everything go as fast as it can again; return how often something had to wait meanwhile."""
        here, there = self._ends
        told = await _run("tc", "-s", "qdisc", "show", *here)
        told += await _run(*self.within, "tc", "-s", "qdisc", "show", *there)
        await _run("tc", "qdisc", "del", *here, "root")
        await _run(*self.within, "tc", "qdisc", "del", *there, "root")
        words = told.split()
        return sum(int(count) for name, count in pairwise(words) if name == "overlimits")


async def network(number: int) -> Network:
    """Return a new network of one hamlet with a wire to here; the shared one without a world of its own."""
    if not inside():
        return Network()
    name, here = f"hamlet-{number}", f"10.77.{number}.1"
    away = f"10.77.{number}.2"
    await _run("ip", "netns", "add", name)
    await _run("ip", "link", "add", f"to-{name}", "type", "veth", "peer", "name", "uplink", "netns", name)
    await _run("ip", "addr", "add", f"{here}/30", "dev", f"to-{name}")
    await _run("ip", "link", "set", f"to-{name}", "up")
    made = Network(name, here)
    await _run(*made.within, "ip", "addr", "add", f"{away}/30", "dev", "uplink")
    for device in ("uplink", "lo"):
        await _run(*made.within, "ip", "link", "set", device, "up")
    return made


async def _run(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    out, _ = await process.communicate()
    told = out.decode(errors="replace")
    if process.returncode:
        raise OSError(f"{' '.join(command)}: {told.strip()}")
    return told
