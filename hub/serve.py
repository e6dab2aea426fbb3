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
from hub.people import shell
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
    name = hub.names[0] if hub.names else f"[{hub.listen}]" if ":" in hub.listen else hub.listen
    url = f"{'https' if hub.tls_certificate else 'http'}://{name}:{listener.getsockname()[1]}"
    server = uvicorn.Server(
        uvicorn.Config(
            create(config, SystemClock()),
            log_level="warning",
            timeout_graceful_shutdown=STOP_SECONDS,
            server_header=False,
            # What a proxy says counts only where it is named: anybody can write such a header.
            proxy_headers=bool(hub.trusted_proxies),
            forwarded_allow_ips=hub.trusted_proxies,
            ssl_certfile=hub.tls_certificate,
            ssl_keyfile=hub.tls_key,
        )
    )
    if hub.status_file is not None:
        aside = hub.status_file.with_name(f".{hub.status_file.name}")
        aside.write_text(json.dumps({"url": url}), encoding="utf-8")
        aside.replace(hub.status_file)
    print(f"hub: {url}", file=sys.stderr, flush=True)  # noqa: T201  # the address, for whoever started it
    _welcome(config)
    server.run(sockets=[listener])


def _welcome(config: Config) -> None:
    """Tell the person at the terminal how the first administrator is made; a log is told that there is none only."""
    if not sys.stderr.isatty():
        if not shell.administered(config, SystemClock()):
            print("hub: nobody can sign in yet; `hamlet-hub first-start` gives a link", file=sys.stderr)  # noqa: T201
        return
    secret = shell.first_link(config, SystemClock())
    if secret is not None:
        link = shell.address(config, secret)
        told = f"hub: make the first account within 15 minutes, in a browser on this machine:\n\n  {link}\n"
        print(told, file=sys.stderr, flush=True)  # noqa: T201  # to the terminal, never to a log
