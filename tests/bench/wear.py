"""What the delivery log writes to a card in a day: the reference commune, bytes at the block device, journal included.

A whole day of group commits (46 devices, 8 metrics, every reading worth a record, each 30 s) by the real log onto an
ext4 file system with its defaults on a loop device; what the kernel counts as written to that device is the figure.
Time is compressed, so what a real day's timers would do is done by hand: after every group commit the file system's
transaction is committed (its timer runs every 5 s, a group commit every 10 s), and every 30 s of the day all that is
dirty is written in place. The reference is the same day with one row and one fsync for each reading.

Needs root and a loop device; where they are not to be had it says so and measures nothing.
"""

import argparse
import ctypes
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from contract.catalog import CATALOG, Kind
from contract.metrics import Metric, Sample
from edge.delivery_log import DeliveryLog

DEVICES, METRICS, POLL_SECONDS, COMMIT_SECONDS = 46, 8, 30, 10
DAY_SECONDS = 86_400
WRITE_BACK_SECONDS = 30
IMAGE_BYTES = 1024 * 1024 * 1024
TARGET = 300e6
SECTOR = 512
NAMES = [one for one in CATALOG[Kind.WATER_PROBE].metrics if not one.event][:METRICS]


class Day:
    """A clock that the bench moves."""

    def __init__(self) -> None:
        self.now = 1_790_035_200_000  # a midnight

    def now_ms(self) -> int:
        return self.now

    def monotonic(self) -> float:
        return self.now / 1000

    async def sleep(self, seconds: float) -> None:
        raise NotImplementedError("nothing here waits")


def main() -> None:
    """Measure, and print each figure as a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--fraction", type=float, default=1.0, help="part of a day to run; the figure is scaled to a day"
    )
    fraction = parser.parse_args().fraction
    if os.geteuid() != 0 or shutil.which("losetup", path=_path()) is None or not Path("/dev/loop-control").exists():
        print("wear: needs root and loop devices, which are not to be had here; nothing was measured", file=sys.stderr)
        return
    try:
        reference = _written(_one_row_each, fraction=min(fraction, 0.02))
        written = _written(_group_commits, fraction=fraction)
    except subprocess.CalledProcessError as exc:
        print(f"wear: {exc.cmd[0]} failed ({exc.stderr!r}); nothing was measured", file=sys.stderr)
        return
    told = {
        "bench": "wear",
        "figure": round(written / 1e6, 1),
        "unit": "MB a day",
        "reference": round(reference / 1e6, 1),
        "ratio": round(written / reference, 3),
        "detail": f"{DEVICES} devices, {METRICS} metrics, {POLL_SECONDS} s, all changing; {fraction:g} of a day; bytes"
        f" at the block device with ext4's journal; target {TARGET / 1e6:.0f}; reference: a row and fsync each reading",
    }
    print(json.dumps(told), flush=True)


def _written(run: Callable[[Path, float], None], *, fraction: float) -> float:
    """Return the bytes that reach the device in a day."""
    with _card() as (folder, device):
        before = _sectors(device)
        run(folder, fraction)
        _sync_all(folder)
        return (_sectors(device) - before) * SECTOR / fraction


def _group_commits(folder: Path, fraction: float) -> None:
    clock, chance = Day(), random.Random(7)
    known: dict[str, Metric] = {one.name: one for one in NAMES}
    with DeliveryLog(folder / "log", clock) as log:
        log.introduce({f"device-{device:02}": known for device in range(DEVICES)})
        for second in range(0, int(DAY_SECONDS * fraction), COMMIT_SECONDS):
            for device in range(DEVICES):
                if second % POLL_SECONDS == device * COMMIT_SECONDS % POLL_SECONDS:
                    at = clock.now + chance.randrange(COMMIT_SECONDS * 1000)
                    log.append(f"device-{device:02}", at, _samples(at, chance), known)
            clock.now += COMMIT_SECONDS * 1000
            log.commit()
            _as_the_timers_would(folder, second)


def _one_row_each(folder: Path, fraction: float) -> None:
    chance = random.Random(7)
    connection = sqlite3.connect(folder / "naive.db")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE readings (at INTEGER, device TEXT, metric TEXT, value REAL)")
    for second in range(0, int(DAY_SECONDS * fraction), COMMIT_SECONDS):
        for device in range(DEVICES):
            if second % POLL_SECONDS == device * COMMIT_SECONDS % POLL_SECONDS:
                with connection:
                    connection.executemany(
                        "INSERT INTO readings VALUES (?, ?, ?, ?)",
                        [(one.at, f"device-{device:02}", one.metric, one.value) for one in _samples(second, chance)],
                    )
        _as_the_timers_would(folder, second)
    connection.close()


def _samples(at: int, chance: random.Random) -> list[Sample]:
    return [Sample(metric=one.name, at=at, value=round(chance.gauss(20, 5), 2)) for one in NAMES]


def _as_the_timers_would(folder: Path, second: int) -> None:
    if second % WRITE_BACK_SECONDS == 0:
        _sync_all(folder)
        return
    # Whoever fsyncs one file commits the transaction of the whole file system, times of other files included.
    newest = max(folder.rglob("*.db-wal"), key=lambda file: file.stat().st_mtime_ns)
    file = os.open(newest, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _sync_all(folder: Path) -> None:
    """Write everything dirty of this file system, and of no other."""
    file = os.open(folder, os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(file):
            raise OSError(ctypes.get_errno(), "syncfs failed")
    finally:
        os.close(file)


@contextmanager
def _card() -> Iterator[tuple[Path, str]]:
    """Yield an ext4 file system on a loop device of its own, and that device's name."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        image, mounted = folder / "card.img", folder / "card"
        mounted.mkdir()
        with image.open("wb") as file:
            file.truncate(IMAGE_BYTES)
        device = _run("losetup", "--find", "--show", str(image)).strip()
        stack.callback(_run, "losetup", "--detach", device)
        _run("mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", device)
        _run("mount", "-t", "ext4", device, str(mounted))
        stack.callback(_run, "umount", str(mounted))
        _sync_all(mounted)
        yield mounted, Path(device).name


def _sectors(device: str) -> int:
    return int(Path(f"/sys/block/{device}/stat").read_text(encoding="ascii").split()[6])


def _run(*command: str) -> str:
    return subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=120, env={**os.environ, "PATH": _path()}
    ).stdout


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


if __name__ == "__main__":
    main()
