"""`python -m tests.chaos`: faults on purpose, and whether anything was lost, stored twice or altered by them."""

import argparse
import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.chaos import private
from tests.chaos.failpoints import impossible
from tests.chaos.plan import LINK_NARROW, WEIGHTS
from tests.chaos.run import run, say
from tests.chaos.stores import InfluxStore, Store
from tests.chaos.world import MOSQUITTO, RunFailed

PARTS = {
    "model": "10,000 schedules of the delivery rules over the real parts, without processes",
    "store": "the embedded store killed at its every sync, rename and unlink, and cut from power at each moment",
    "world": "real processes, killed, cut off, filled up and put back; the verdict comes from this part",
}
SCHEDULES = 10_000


def main() -> int:
    """Run the command line; return 0 only if nothing was lost, stored twice or altered."""
    asked = _parser().parse_args()
    if asked.list:
        print("\n".join(WEIGHTS))
        return 0
    try:
        if private.inside():
            return _world(asked)
        _refuse_nonsense(asked)
        match asked.only:
            case "model":
                return 0 if _model(asked.seed) else 1
            case "store":
                return 0 if _store() else 1
            case "world":
                return _entered_or_here(asked)
            case _:
                return _all(asked)
    except (RunFailed, OSError) as exc:
        say(str(exc))
        return 1


def _entered_or_here(asked: argparse.Namespace) -> int:
    status = private.entered(sys.argv[1:])
    return _world(asked) if status is None else status


def _all(asked: argparse.Namespace) -> int:
    """Run the world, and the other parts beside it with what time it leaves; they end with a world that fails."""
    beside = [
        subprocess.Popen(
            ["nice", "-n", "19", sys.executable, "-m", "tests.chaos", "--only", part, "--seed", str(asked.seed)],
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        for part in PARTS
        if part != "world"
    ]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that nothing is left behind
    try:
        status = _entered_or_here(asked)
        if status == 0:
            say("waiting for the other parts")
            status = max(part.wait() for part in beside)
        return status
    except KeyboardInterrupt:
        return 1
    finally:
        for part in beside:
            if part.poll() is None:
                os.killpg(part.pid, signal.SIGTERM)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="make chaos",
        description="Faults on purpose, and whether anything was lost, stored twice or altered by them.",
        epilog="Parts: " + "; ".join(f"{name}: {words}" for name, words in PARTS.items()) + ".",
    )
    add = parser.add_argument
    add("--cycles", type=int, default=50, help="rounds of faults (default 50: about 20 minutes)")
    add("--seed", type=int, default=7, help="the same seed, the same faults in the same order (default 7)")
    add("--store", choices=["embedded", "influxdb"], default="embedded", help="influxdb: needs influxd on the path")
    add("--kinds", help="only these faults, with commas between; --list shows all")
    add("--list", action="store_true", help="print the names of all faults and end")
    add("--backup-age", type=float, default=0, metavar="SECONDS", help="let the backup grow so old before it is used")
    add("--only", choices=list(PARTS), help="only this part; otherwise all of them")
    add("--keep", type=Path, help="leave everything in this new folder; otherwise it is left only after a failure")
    add("--json", action="store_true", help="print the verdict as one JSON line on standard output")
    return parser


def _refuse_nonsense(asked: argparse.Namespace) -> None:
    unknown = sorted(set(_kinds(asked)) - set(WEIGHTS))
    if unknown:
        raise RunFailed(f"--kinds: there is no fault {unknown[0]!r}; --list shows all")
    if asked.cycles < 1:
        raise RunFailed(f"--cycles: {asked.cycles} is too few; 1 or more")
    if asked.keep is not None and asked.keep.exists():
        raise RunFailed(f"--keep: {asked.keep} exists already; name a new folder")
    if not Path(MOSQUITTO).is_file():
        raise RunFailed("Mosquitto is not installed. Type: sudo apt-get install mosquitto")


def _model(seed: int) -> bool:
    say(f"{SCHEDULES} schedules of the model, seed {seed}")
    command = (sys.executable, "-m", "tests.delivery_model", "--schedules", str(SCHEDULES), "--seed", str(seed))
    done = subprocess.run([*command, "--json"], stdout=subprocess.PIPE, text=True, check=False)
    say(f"model: {done.stdout.strip()}")
    return done.returncode == 0


def _store() -> bool:
    whole = True
    for name in ("crash_points", "power_loss"):
        done = subprocess.run(
            (sys.executable, "-m", f"tests.chaos.{name}"), stdout=subprocess.PIPE, text=True, check=False
        )
        say(f"{name}: {done.stdout.strip()}")
        whole = whole and done.returncode == 0
    return whole


def _world(asked: argparse.Namespace) -> int:
    store = InfluxStore() if asked.store == "influxdb" else Store()
    kinds, missing = _kinds(asked), impossible(store)
    for kind in kinds:
        if kind in missing:
            raise RunFailed(f"{kind} {missing[kind]}; name the others with --kinds")
    folder = asked.keep or Path(tempfile.mkdtemp(prefix="hamlet-chaos-"))
    status, line = asyncio.run(_interruptible(folder.absolute(), asked, kinds, store))
    if asked.json:
        print(line, flush=True)
    else:
        say(line)
    if asked.keep is None and status == 0:
        shutil.rmtree(folder, ignore_errors=True)
    elif status:
        say(f"everything is kept in {folder}")
    return status


def _kinds(asked: argparse.Namespace) -> list[str]:
    if asked.kinds:
        return sorted(set(asked.kinds.split(",")))
    other = LINK_NARROW[1] if private.inside() else LINK_NARROW[0]
    sealing = {"store_kill_sealing"} if asked.store == "influxdb" else set()
    return [kind for kind in WEIGHTS if kind != other and kind not in sealing]


async def _interruptible(folder: Path, asked: argparse.Namespace, kinds: list[str], store: Store) -> tuple[int, str]:
    task = asyncio.ensure_future(
        run(
            folder,
            cycles=asked.cycles,
            seed=asked.seed,
            kinds=kinds,
            store=store,
            backup_age=asked.backup_age,
        )
    )
    for name in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(name, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        raise RunFailed("interrupted") from None


if __name__ == "__main__":
    sys.exit(main())
