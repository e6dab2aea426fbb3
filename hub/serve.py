"""Runs the hub's server, after a look at what its file names."""

import json
import socket
import sys
from pathlib import Path

import uvicorn

from contract.broadcast import BroadcastRefused
from contract.clock import SystemClock
from hub import restore
from hub.app import create, trust_of
from hub.config import Config, ConfigRefused, load, problems
from hub.state_folder import FolderInUse, hub_alone

STOP_SECONDS = 2


def checked(file: Path) -> Config:
    """Return a configuration that a hub can start with; raise ConfigRefused with a line for each fault."""
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


def serve(config: Config) -> None:
    """Serve pages and API until interrupted; raise ConfigRefused where the port or the state cannot be had."""
    try:
        with hub_alone(config.hub.state_dir):
            restore.finish(config.hub.state_dir)
            _serve(config)
    except FolderInUse as exc:
        raise ConfigRefused(f"hub state_dir: {exc}") from exc


def _serve(config: Config) -> None:
    hub = config.hub
    listener = socket.socket(socket.AF_INET6 if ":" in hub.listen else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((hub.listen, hub.port))
        listener.listen()  # from here on nobody who was told the address is turned away
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
    print(f"hub: {url}", file=sys.stderr, flush=True)  # noqa: T201  # the address, for whoever started it
    server.run(sockets=[listener])
