"""Kills the embedded store at its every n-th fsync, fdatasync, rename and unlink, and looks at what is left.

The kernel kills it, at the call's entry, on strace's word: that reaches the calls inside SQLite, Arrow and DuckDB. Each
time the store is opened again, compared with what it had acknowledged, used on, and compared again; with `--twice` its
recovery is killed as well. Prints one line of JSON; exits with 1 if anything was lost, doubled or altered.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from hub import backup
from tests.chaos import store_workload

CALLS = ("fsync", "fdatasync", "rename", "unlink", "unlinkat")
PROGRAM = [sys.executable, "-m", "tests.chaos.store_workload"]
SECONDS = 60


def main() -> int:
    """Run as many crash points as asked for; return the exit code."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--every", type=int, default=1, help="of all crash points, each so-manieth")
    asked.add_argument("--twice", type=int, default=2, help="kill the recovery too at each so-manieth; 0: never")
    arguments = asked.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        points = [(call, nth) for call, count in counted(folder).items() for nth in range(1, count + 1)]
        wrong, recoveries, tried = [], 0, points[:: arguments.every]
        for number, (call, nth) in enumerate(tried):
            twice = arguments.twice and number % arguments.twice == 0
            recoveries += bool(twice)
            fault = crash(folder / "one", call, nth, again=number // arguments.twice % 4 + 1 if twice else 0)
            if fault:
                wrong.append(f"{call} {nth}{', then its recovery' if twice else ''}: {fault}")
    print(json.dumps({"points": len(points), "tried": len(tried), "recoveries": recoveries, "wrong": wrong}))
    return 1 if wrong or not points else 0


def counted(folder: Path) -> Counter[str]:
    """Return how often an undisturbed run makes each call."""
    log = folder / "log"
    command: list[str | Path] = [
        "strace",
        "-f",
        "-qq",
        "-o",
        log,
        "-e",
        f"trace={','.join(CALLS)}",
        "-e",
        "signal=none",
    ]
    place = folder / "whole"
    done = subprocess.run(
        [*command, *PROGRAM, "run", place / "state", place / "copy"], check=True, capture_output=True, timeout=SECONDS
    )
    fault = store_workload.judge(place / "state", done.stdout.decode().splitlines())
    if fault:
        raise SystemExit(f"even undisturbed: {fault}")
    lines = [line.split(None, 1)[1] for line in log.read_text().splitlines()]
    return Counter(line.partition("(")[0] for line in lines if "(" in line and not line.startswith("<"))


def crash(place: Path, call: str, nth: int, *, again: int) -> str:
    """Return what is wrong after a kill at the n-th such call, and at one of the recovery's calls if `again`."""
    shutil.rmtree(place, ignore_errors=True)
    state, copy = place / "state", place / "copy"
    told = killed(["run", state, copy], call, nth)
    if again:
        killed(["recover", state], ",".join(CALLS), again)
    fault = store_workload.judge(state, told.splitlines(), recovered=again > 0)
    if fault or not (copy / backup.MANIFEST).exists():
        return fault
    backup.read_manifest(copy)
    at_backup = [line for line in told.splitlines() if int(line.split()[1]) < store_workload.STEPS.index(("backup", 0))]
    fault = store_workload.judge(copy, at_backup)
    return f"in the backup: {fault}" if fault else ""


def killed(arguments: list[object], calls: str, nth: int) -> str:
    """Run the workload until it is killed at a call, and return what it said."""
    inject = f"inject={calls}:signal=KILL:when={nth}"
    command = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={calls}", "-e", inject]
    return subprocess.run(
        [*command, *PROGRAM, *map(str, arguments)], check=False, capture_output=True, text=True, timeout=SECONDS
    ).stdout


if __name__ == "__main__":
    sys.exit(main())
