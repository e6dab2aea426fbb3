"""`hamlet-edge run|check|discover|sample-config`: the agent of one edge node, from one file."""

import argparse
import asyncio
import logging
import signal
import sqlite3
import sys
from contextlib import suppress
from pathlib import Path

from contract.broadcast import BroadcastRefused, pinned_root
from contract.clock import SystemClock
from edge.agent import Agent, identity
from edge.config import SAMPLE, Config, ConfigRefused, load, problems
from edge.drivers import Shared, driver_for
from edge.poller import DeviceMisconfigured


def main() -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="hamlet-edge", description="The agent of an edge node.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, words in (("run", "run until interrupted"), ("check", "say whether a file is good")):
        command = commands.add_parser(name, help=words)
        command.add_argument("file", type=Path)
    commands.add_parser("sample-config", help="print a file with every key explained")
    find = commands.add_parser("discover", help="look for devices; prints configuration to paste, adds nothing")
    find.add_argument("--seconds", type=float, default=4.0, help="how long to listen on the network (default 4)")
    find.add_argument("--interface", help="local address to look from")
    find.add_argument("--host", action="append", default=[], help="ask this host for ubus too; may be repeated")
    find.add_argument("--port", action="append", default=[], type=Path, help="scan this serial port instead of all")
    find.add_argument("--baud", type=int, default=9600, help="speed of the serial ports (default 9600)")
    find.add_argument("--slaves", type=int, default=16, help="highest Modbus slave to ask (default 16)")
    asked = parser.parse_args()
    if asked.command == "discover":
        return _discover(asked)
    if asked.command == "sample-config":
        print(SAMPLE, end="")
        return 0
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        config = load(asked.file)
    except ConfigRefused as exc:
        print(exc, file=sys.stderr)
        return 1
    wrong = [*problems(config), *_device_problems(config), *_trust_problems(config)]
    if wrong:
        print("\n".join(f"{asked.file}: {one}" for one in wrong), file=sys.stderr)
        return 1
    if asked.command == "check":
        print(f"{asked.file}: ok")
        return 0
    try:
        asyncio.run(_run(config))
    except ConfigRefused as exc:
        print(f"{asked.file}: {exc}", file=sys.stderr)
        return 1
    except sqlite3.OperationalError as exc:
        print(f"{asked.file}: node state_dir: {exc}; is the disk full, or another agent running here?", file=sys.stderr)
        return 1
    return 0


def _discover(asked: argparse.Namespace) -> int:
    # Only here: what looks for devices would cost every running agent megabytes.
    from edge.discovery.found import toml  # noqa: PLC0415
    from edge.discovery.search import Where, search  # noqa: PLC0415

    where = Where(
        seconds=asked.seconds,
        interface=asked.interface,
        hosts=asked.host,
        ports=asked.port,
        baud=asked.baud,
        slaves=asked.slaves,
    )
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    print(f"looking for {where.seconds:g} s, and at serial ports", file=sys.stderr)
    found = asyncio.run(search(where))
    print(toml(found), end="")
    print(f"{len(found)} found; paste what you want into the node's configuration", file=sys.stderr)
    return 0


def _device_problems(config: Config) -> list[str]:
    """Return what is wrong with the files that devices name, where they are there at all."""
    wrong = []
    shared = Shared(SystemClock())
    for device in config.devices:
        with suppress(OSError):  # a file that is missing was told already
            try:
                driver_for(device, shared, SystemClock())
            except DeviceMisconfigured as exc:
                name = f'devices "{device.id}"'
                wrong.append(f"{name} {str(exc).removeprefix(f'{name}: ')}")
    return wrong


def _trust_problems(config: Config) -> list[str]:
    told, wrong = config.broadcast, []
    if told is not None and told.root.is_file():
        try:
            pinned_root(told.root.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, BroadcastRefused) as exc:
            wrong.append(f"broadcast root {told.root}: {exc}; it must be the root that the province gave out")
    if told is not None and told.identity_key.is_file():
        try:
            identity(told)
        except ConfigRefused as exc:
            wrong.append(str(exc))
    return wrong


async def _run(config: Config) -> None:
    agent = Agent(config, SystemClock())
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, agent.stop)
    await agent.run()


if __name__ == "__main__":
    sys.exit(main())
