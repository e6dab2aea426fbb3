"""`hamlet-sim run|check|sample-config`: simulated hamlets from one file."""

import argparse
import asyncio
import logging
import signal
import sys
from pathlib import Path

from simulators.config import SAMPLE, Config, ConfigRefused, load
from simulators.hamlet import running, write_status


def main() -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="hamlet-sim", description="Simulated hamlets, speaking real protocols.")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run what a file describes until interrupted")
    run.add_argument("file", type=Path)
    run.add_argument("--status", type=Path, help="write ports and paths here once everything is up")
    check = commands.add_parser("check", help="say whether a file is good")
    check.add_argument("file", type=Path)
    commands.add_parser("sample-config", help="print a file that works, with every key explained")
    asked = parser.parse_args()
    if asked.command == "sample-config":
        print(SAMPLE, end="")
        return 0
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        config = load(asked.file)
    except ConfigRefused as exc:
        print(exc, file=sys.stderr)
        return 1
    if asked.command == "check":
        print(f"{asked.file}: good")
        return 0
    return asyncio.run(_run(config, asked.status))


async def _run(config: Config, status: Path | None) -> int:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, stopped.set)
    try:
        async with running(config) as found:
            if status is not None:
                write_status(status, found)
            print("ready", flush=True)
            await stopped.wait()
    except OSError as exc:
        print(f"cannot start: {exc}; is another simulator using the same port or link?", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
