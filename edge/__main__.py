"""`hamlet-edge run|check|sample-config`: the agent of one edge node, from one file."""

import argparse
import asyncio
import logging
import signal
import sqlite3
import sys
from pathlib import Path

from contract.broadcast import BroadcastRefused, pinned_root
from contract.clock import SystemClock
from edge.agent import Agent, identity
from edge.config import SAMPLE, Config, ConfigRefused, ModbusSensorConfig, load, problems
from edge.drivers.modbus_sensor import load_map
from edge.poller import DeviceMisconfigured


def main() -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="hamlet-edge", description="The agent of an edge node.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, words in (("run", "run until interrupted"), ("check", "say whether a file is good")):
        command = commands.add_parser(name, help=words)
        command.add_argument("file", type=Path)
    commands.add_parser("sample-config", help="print a file with every key explained")
    asked = parser.parse_args()
    if asked.command == "sample-config":
        print(SAMPLE, end="")
        return 0
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        config = load(asked.file)
    except ConfigRefused as exc:
        print(exc, file=sys.stderr)
        return 1
    wrong = [*problems(config), *_map_problems(config), *_trust_problems(config)]
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


def _map_problems(config: Config) -> list[str]:
    wrong = []
    for device in config.devices:
        if isinstance(device, ModbusSensorConfig) and device.register_map.is_file():
            try:
                load_map(device.register_map)
            except DeviceMisconfigured as exc:
                wrong.append(f'devices "{device.id}" {exc}')
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
