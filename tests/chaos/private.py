"""A world of its own for a run: mounts, network and processes that vanish with it, however it ends."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

INSIDE = "HAMLET_CHAOS_INSIDE"
"""Set where the run is already in a world of its own: to what that world has."""

TOOLS = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
MTU = 1500
"""Of the loopback device, so that a bucket of a few kilobytes can hold its packets."""


@dataclass(frozen=True, slots=True)
class World:
    """What this run may do to its machine."""

    mounts: bool
    network: bool
    why_not: str = ""


def world() -> World:
    """Return the world this process is in."""
    told = os.environ.get(INSIDE, "")
    if not told:
        return World(mounts=False, network=False, why_not="this user may have no namespaces of their own")
    why_not = "" if "network" in told else "the store is reached by the machine's own network"
    return World(mounts=True, network="network" in told, why_not=why_not)


def entered(arguments: Sequence[str], *, own_network: bool) -> int | None:
    """Run this command again in a world of its own; return its status, None where that cannot be had or is had."""
    if os.environ.get(INSIDE):
        return None
    network = ["--net"] if own_network else []
    for rights in ([], ["--user", "--map-root-user"]):
        unshare = ["unshare", *rights, "--mount", "--pid", *network, "--fork", "--mount-proc", "--kill-child"]
        if shutil.which("unshare") and _works([*unshare, "true"]):
            return _forwarding([*unshare, sys.executable, "-m", "tests.chaos", *arguments], own_network=own_network)
    return None


def _works(command: Sequence[str]) -> bool:
    return subprocess.run(command, capture_output=True, timeout=20, check=False).returncode == 0


def _forwarding(command: Sequence[str], *, own_network: bool) -> int:
    """Run a command in a process group of its own and hand on the signals that end it: unshare keeps them."""
    inside = {INSIDE: "mounts network" if own_network else "mounts", "PATH": TOOLS}
    child = subprocess.Popen(command, env={**os.environ, **inside}, process_group=0)
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: os.killpg(child.pid, signal.SIGTERM))
    return child.wait()


async def prepare() -> None:
    """Bring up the loopback device of a new network."""
    if world().network:
        await _run("ip", "link", "set", "lo", "mtu", str(MTU), "up")


async def mount_small(folder: Path, megabytes: int) -> None:
    """Put a file system of its own, in memory, on a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    await _run("mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder))


async def shape(port: int, bits_a_second: int) -> None:
    """Let what goes to and comes from a port of this network take its time, each direction by itself; tc's HTB."""
    await _run("tc", "qdisc", "add", "dev", "lo", "root", "handle", "1:", "htb", "default", "1")
    await _run("tc", "class", "add", "dev", "lo", "parent", "1:", "classid", "1:1", "htb", "rate", "10gbit")
    for number, side in enumerate(("dport", "sport"), start=2):
        here = f"1:{number}"
        rate = ["rate", f"{bits_a_second}bit", "ceil", f"{bits_a_second}bit", "burst", "4k"]
        await _run("tc", "class", "add", "dev", "lo", "parent", "1:", "classid", here, "htb", *rate)
        match = ["u32", "match", "ip", side, str(port), "0xffff", "flowid", here]
        await _run("tc", "filter", "add", "dev", "lo", "parent", "1:", "protocol", "ip", *match)


async def unshape() -> None:
    """Let everything go as fast as it can again."""
    await _run("tc", "qdisc", "del", "dev", "lo", "root")


async def _run(*command: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    told, _ = await process.communicate()
    if process.returncode:
        raise OSError(f"{' '.join(command)}: {told.decode(errors='replace').strip()}")
