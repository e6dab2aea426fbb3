"""`hamlet-hub serve|check|backup|restore|quarantine|add-accounts|verify-audit|...`: the hub, its copies and keys."""

import argparse
import asyncio
import getpass
import json
import logging
import os
import sqlite3
import sys
from pathlib import Path
from types import ModuleType
from urllib.parse import urlencode

from contract.clock import SystemClock
from hub import audit_check
from hub.config import SAMPLE, ConfigRefused, load
from hub.signer import ceremony, process
from hub.signer import config as signer_config


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
            case "backup" | "restore":
                _copy(asked.command, asked.file, asked.folder)
            case "quarantine":
                _quarantine(asked.what, asked.file, asked.node)
            case "first-start" | "add-accounts" | "recover-account":
                print(_account(asked))
            case "verify-audit":
                return audit_check.main(asked.file, heads=asked.heads, export=asked.export, key=asked.key)
            case "check":
                _server().checked(asked.file)
                print(f"{asked.file}: good")
            case _:
                server = _server()
                server.serve(server.checked(asked.file))
    except (ConfigRefused, signer_config.SignerConfigRefused) as exc:
        print(exc, file=sys.stderr)
        return 1
    except sqlite3.DatabaseError as exc:
        print(f"{asked.file}: hub state_dir: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _copy(command: str, file: Path, folder: Path) -> None:
    # Not loaded where the signer runs, as below.
    from hub import backup, restore, state_folder  # noqa: PLC0415  # said above

    config = load(file)
    state, host_id, store = config.hub.state_dir, config.hub.host_id, config.store.kind
    now, who = SystemClock().now_ms(), _who()
    try:
        if command == "backup":
            made = backup.back_up(state, folder, host_id=host_id, store=store, made_at=now, made_by=who)
            print(f"{folder}: {len(made.files)} files, {made.bytes} bytes{_ELSEWHERE[store]}")
        else:
            done = restore.restore(state, folder, host_id=host_id, store=store, now=now, who=who)
            kept = f"what was there is in {done.aside}" if done.aside else "nothing was there"
            print(f"{state}: as it was backed up; {kept}{_ELSEWHERE[store]}")
    except (backup.BackupRefused, state_folder.FolderInUse) as exc:
        raise ConfigRefused(str(exc)) from exc
    except (OSError, sqlite3.Error) as exc:
        undone = "no backup was made" if command == "backup" else "nothing was restored, the state is as it was"
        raise ConfigRefused(f"{undone}: {exc}") from exc


_ELSEWHERE = {"embedded": "", "influxdb": "; readings and ledger are in InfluxDB: use `influx backup` for both buckets"}


def _quarantine(what: str, file: Path, node: str | None) -> None:
    # Not loaded where the signer runs, as below.
    from hub.running import HubSilent, RunningHub  # noqa: PLC0415  # said above

    group, _, name = (node or "").partition("/")
    if node is not None and not (group and name):
        raise ConfigRefused(f"--node {node}: say GROUP/NODE, as in c7k2m/c7k2m-01")
    whose = {"group": group, "node": name} if node is not None else {}
    try:
        hub = RunningHub(load(file), SystemClock(), who=_who())
        if what == "retry":
            done = hub.post("/api/quarantine/retry", whose)
            print(f"looked at {done['looked']}, stored {done['released']} ({done['samples']} samples)")
            for reason, count in sorted(done["still"].items()):
                print(f"{count} stay: {reason}")
            return
        after: int | None = 0
        while after is not None:
            page = hub.get(f"/api/quarantine?{urlencode({'after': after, 'most': 1000, **whose})}")
            for one in page["rows"]:
                at = "" if one["at"] is None else f" at {one['at']}"
                what_of = one["metric"] or f"{one['samples']} records whole"
                place = "" if one["log"] is None else f"; log {one['log']} epoch {one['epoch']} offset {one['first']}"
                print(f"{one['id']}: {one['group']}/{one['node']}/{one['device']} {what_of}{at}: {one['words']}{place}")
            after = page["next"]
    except HubSilent as exc:
        raise ConfigRefused(str(exc)) from exc


def _account(asked: argparse.Namespace) -> str:
    # Not loaded where the signer runs, as below.
    from hub.people import shell  # noqa: PLC0415  # said above

    config, clock = load(asked.file), SystemClock()
    try:
        match asked.command:
            case "first-start":
                found = shell.first_link(config, clock)
                if found is None:
                    raise ConfigRefused("somebody administers the province already; they add further people")
                return shell.address(config, found)
            case "add-accounts":
                people = shell.wanted(asked.list.read_text(encoding="utf-8-sig").splitlines())
                links = shell.add(config, clock, people, who=_who())
                return "\n".join(f"{name},{shell.address(config, secret)}" for name, secret in links.items())
            case _:
                return shell.address(config, shell.recover(config, clock, who=_who(), name=asked.name))
    except (shell.ShellRefused, OSError, UnicodeDecodeError) as exc:
        raise ConfigRefused(f"{getattr(asked, 'list', asked.file)}: {exc}") from exc


def _who() -> str:
    """Return the operating system's word for whoever runs this."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = f"uid {os.getuid()}"
    behind = os.environ.get("SUDO_USER")
    return f"{behind} (as {name})" if behind else name


def _server() -> ModuleType:
    # Not loaded where the signer runs: beside its key there shall be as little code as possible.
    from hub import serve  # noqa: PLC0415  # said above

    return serve


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
    for name, words in (
        ("backup", "copy what the hub remembers into an empty folder, while it runs or not"),
        ("restore", "put a backup in the place of what is there, which is kept aside; the hub must not run"),
    ):
        command = commands.add_parser(name, help=words)
        command.add_argument("file", type=Path)
        command.add_argument("folder", type=Path)
    aside = commands.add_parser("quarantine", help="what was put aside: `list` it, or `retry` it by today's rules")
    aside.add_argument("what", choices=["list", "retry"])
    aside.add_argument("file", type=Path)
    aside.add_argument("--node", help="of one edge node, as GROUP/NODE")
    verify = commands.add_parser("verify-audit", help="say whether the record of acts is as it was written")
    verify.add_argument("file", type=Path, help="the hub's configuration")
    verify.add_argument("--heads", type=Path, help="heads that another machine kept; else those of the configuration")
    verify.add_argument("--export", type=Path, help="check this export instead of the hub's own record")
    verify.add_argument("--key", help="whose export it must be: the public audit key, base64; else this hub's own")
    first = commands.add_parser("first-start", help="print a link that makes the first administrator, for 15 minutes")
    first.add_argument("file", type=Path)
    people = commands.add_parser("add-accounts", help="add people from a list; print a one-time link for each")
    people.add_argument("file", type=Path)
    people.add_argument("list", type=Path, help="CSV: name,full_name,role,scope (empty, GROUP or GROUP/NODE)")
    lost = commands.add_parser("recover-account", help="print a link with which somebody sets up sign-in afresh")
    lost.add_argument("file", type=Path)
    lost.add_argument("--name", required=True)
    sample = commands.add_parser("sample-config", help="print a file with every key explained")
    sample.add_argument("--signer", action="store_true", help="that of the signer")
    trust = commands.add_parser("trust", help="make keys for a demonstration, believed by boxes set to demo only")
    trust.add_argument("--dir", type=Path, required=True)
    trust.add_argument("--deployment", required=True)
    trust.add_argument("--group", required=True)
    trust.add_argument("--node", action="append", required=True, help="an edge node's id; may be given again")
    return parser


if __name__ == "__main__":
    sys.exit(main())
