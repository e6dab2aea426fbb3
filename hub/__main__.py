"""`hamlet-hub serve|check|sample-config|signer|trust`: the hub, its signer, and the making of keys."""

import argparse
import asyncio
import json
import logging
import socket
import sqlite3
import sys
from pathlib import Path

import uvicorn

from contract.broadcast import BroadcastRefused
from contract.clock import SystemClock
from hub.app import create, trust_of
from hub.config import SAMPLE, Config, ConfigRefused, load, problems
from hub.signer import ceremony, process
from hub.signer import config as signer_config

STOP_SECONDS = 2


def main() -> int:
    """Run the command line; return the exit status."""
    asked = _parser().parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        match asked.command:
            case "sample-config":
                print(signer_config.SAMPLE if asked.signer else SAMPLE, end="")
            case "trust":
                kept = ceremony.demo(
                    asked.dir,
                    deployment=asked.deployment,
                    group=asked.group,
                    nodes=asked.node,
                    clock=SystemClock(),
                )
                print(json.dumps({"root": str(kept.root), "bundle": str(kept.bundle), "identities": kept.identities}))
            case "signer":
                asyncio.run(process.serve(signer_config.load(asked.file)))
            case "check":
                _checked(asked.file)
                print(f"{asked.file}: good")
            case _:
                _serve(_checked(asked.file))
    except (ConfigRefused, signer_config.SignerConfigRefused) as exc:
        print(exc, file=sys.stderr)
        return 1
    except sqlite3.DatabaseError as exc:
        print(f"{asked.file}: hub state_dir: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="hamlet-hub", description="The hub of smart hamlets.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, words in (
        ("serve", "run until interrupted"),
        ("check", "say whether a file is good"),
        ("signer", "run the signer, which alone holds the key"),
    ):
        command = commands.add_parser(name, help=words)
        command.add_argument("file", type=Path)
    sample = commands.add_parser("sample-config", help="print a file with every key explained")
    sample.add_argument("--signer", action="store_true", help="that of the signer")
    trust = commands.add_parser("trust", help="make keys for a demonstration, believed by boxes set to demo only")
    trust.add_argument("--dir", type=Path, required=True)
    trust.add_argument("--deployment", required=True)
    trust.add_argument("--group", required=True)
    trust.add_argument("--node", action="append", required=True, help="an edge node's id; may be given again")
    return parser


def _checked(file: Path) -> Config:
    config = load(file)
    wrong = problems(config)
    if wrong:
        raise ConfigRefused("\n".join(f"{file}: {one}" for one in wrong))
    if config.broadcast is not None:
        try:
            trust_of(config.broadcast, config.edge_nodes)
        except BroadcastRefused as exc:
            raise ConfigRefused(f"{file}: broadcast: {exc}") from exc
    return config


def _serve(config: Config) -> None:
    hub = config.hub
    listener = socket.socket(socket.AF_INET6 if ":" in hub.listen else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((hub.listen, hub.port))
    except OSError as exc:
        raise ConfigRefused(
            f"hub port: {hub.listen}:{hub.port} cannot be used ({exc.strerror}); choose another"
        ) from exc
    url = f"http://{hub.listen}:{listener.getsockname()[1]}"
    server = uvicorn.Server(
        uvicorn.Config(
            create(config, SystemClock()),
            log_level="warning",
            timeout_graceful_shutdown=STOP_SECONDS,
            server_header=False,
        )
    )
    if hub.status_file is not None:
        aside = hub.status_file.with_name(f".{hub.status_file.name}")
        aside.write_text(json.dumps({"url": url}), encoding="utf-8")
        aside.replace(hub.status_file)
    print(f"hub: {url}", file=sys.stderr, flush=True)
    server.run(sockets=[listener])


if __name__ == "__main__":
    sys.exit(main())
