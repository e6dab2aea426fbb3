"""What the embedded store goes through while it is killed: commits, seals, a merge, retention, a backup, restarts.

Run as a program it does all of it in a folder and says, a line each, what it begins and what is done; `judge` looks at
what such a run left behind. Batches are functions of their number, so the judge needs nothing but those lines.
"""

import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from contract.metrics import DataType
from contract.positions import Lineage
from hub import backup
from hub.devices import DeviceKey, NodeKey
from hub.storage.embedded import EmbeddedStore
from hub.storage.timeseries import Batch

HOUR, DAY = 3_600_000, 86_400_000
OLD = 20_000 * DAY
"""A day that retention takes away in the end."""
NEW = OLD + 2 * DAY

NODE = NodeKey("g", "n")
LINEAGE = Lineage("log", 1, "probe")
SERIES = (("x", DataType.DOUBLE), ("flag", DataType.BOOLEAN), ("word", DataType.STRING))
ROWS = 40

Row = tuple[str, int, object]

STEPS: tuple[tuple[str, int], ...] = (
    ("commit", 0),
    ("commit", 1),
    ("tend", NEW + 2 * HOUR),
    ("commit", 2),
    ("commit", 3),
    ("tend", NEW + 3 * HOUR),
    ("commit", 4),
    ("restart", 0),
    ("commit", 5),
    ("tend", NEW + 4 * HOUR),
    ("commit", 6),
    ("backup", 0),
    ("tend", NEW + DAY + HOUR),
    ("commit", 7),
    ("tend", NEW + DAY + 2 * HOUR),
    ("commit", 8),
)
"""The tend after the backup merges the day NEW and lets go of the day OLD."""

RETENTION_DAYS = 2
EXPIRES = STEPS.index(("tend", NEW + DAY + HOUR))


def rows_of(number: int) -> list[Row]:
    """Return a batch: new samples, some of the batch before again, some of those with another value, late ones."""
    first = number * ROWS
    rows: list[Row] = []
    for place in range(first, first + ROWS):
        metric, kind = SERIES[place % 3]
        at = (OLD if place % 13 == 0 else NEW) + place * 60_000
        value: object = place / 4 if kind is DataType.DOUBLE else place % 2 if kind is DataType.BOOLEAN else f"w{place}"
        rows.append((metric, at, value))
    if number:
        again = rows_of(number - 1)[:9]
        rows += again[:6]
        rows += [(metric, at, value + 0.5 if isinstance(value, float) else value) for metric, at, value in again[6:]]
    return rows


def batch_of(store: EmbeddedStore, number: int) -> Batch:
    """Return a batch for the store."""
    batch = Batch()
    for metric, at, value in rows_of(number):
        kind = dict(SERIES)[metric]
        series = store.series(DeviceKey("g", "n", "probe"), metric, kind)
        column = {DataType.DOUBLE: batch.numbers, DataType.BOOLEAN: batch.integers, DataType.STRING: batch.texts}[kind]
        column.put(series, at, value, 192 << 8)  # type: ignore[arg-type]
    batch.committed.append((NODE, LINEAGE, number * ROWS, number * ROWS + ROWS - 1))
    return batch


def opened(folder: Path) -> EmbeddedStore:
    """Return the store of a folder, to be used with `with`."""
    return EmbeddedStore(folder, retention_days=RETENTION_DAYS)


def run(folder: Path, copies: Path | None) -> None:
    """Go through all steps, saying what begins and what is done."""
    store = opened(folder).__enter__()
    for number, (what, told) in enumerate(STEPS):
        print("begin", number, flush=True)
        if what == "commit":
            store.commit(batch_of(store, told), OLD + told * HOUR + 2 * DAY)
        elif what == "tend":
            store.tend(told)
        elif what == "restart":
            store.__exit__(None, None, None)
            store = opened(folder).__enter__()
        elif copies is not None:
            backup.back_up(folder, copies, host_id="h", store="embedded", made_at=0, made_by="test")
        print("done", number, flush=True)
    store.__exit__(None, None, None)


def judge(folder: Path, told: Sequence[str], *, recovered: bool = False) -> str:
    """Return what is wrong with the store in a folder, "" if nothing is, given the lines of the run that left it.

    `recovered`: `recover` ran on it since, or began to.
    """
    lines = [one.split() for one in told if one.count(" ") == 1]
    done = [int(number) for word, number in lines if word == "done"]
    begun = [int(number) for word, number in lines if word == "begin"]
    sure = {STEPS[one][1] for one in done if STEPS[one][0] == "commit"}
    maybe = {STEPS[one][1] for one in begun if STEPS[one][0] == "commit"} - sure
    with opened(folder) as store:
        ledger = store.ledger(NODE).get(LINEAGE)
        there = {number for number in sure | maybe if ledger is not None and number * ROWS in ledger}
        if not sure <= there:
            return f"acknowledged, and not in the ledger: batches {sorted(sure - there)}"
        wrong = _differs(store, there, old_may_go=recovered or EXPIRES in begun)
        if wrong:
            return f"{wrong} (batches {sorted(there)})"
        # It goes on from there as if nothing had been.
        store.commit(batch_of(store, 9), NEW + DAY)
        store.tend(NEW + DAY + 3 * HOUR)
        store.tend(NEW + 2 * DAY)
    with opened(folder) as store:
        return _differs(store, there | {9}, old_may_go=True)


def _differs(store: EmbeddedStore, batches: set[int], *, old_may_go: bool) -> str:
    wanted: dict[tuple[str, int], list[object]] = {}
    for number in sorted(batches):
        for metric, at, value in rows_of(number):
            wanted.setdefault((metric, at), []).append(value)
    found = [
        ((row["metric"], row["at"]), next(row[name] for name in ("number", "integer", "text") if row[name] is not None))
        for rows in store.export(OLD, NEW + 9 * DAY)
        for row in rows.to_pylist()
    ]
    keys = [key for key, _ in found]
    if len(set(keys)) != len(keys):
        return f"{len(keys) - len(set(keys))} samples are there twice"
    altered = [key for key, value in found if wanted.get(key, [None])[-1] != value]
    if altered:
        return f"{len(altered)} samples are not what was committed, the first is {altered[0]}"
    lost = {one for one in set(wanted) - set(keys) if one[1] >= NEW or not old_may_go}
    if lost:
        return f"{len(lost)} samples are lost, the first is {min(lost)}"
    stats = store.stats()
    conflicts = sum(len(set(wanted[key])) > 1 for key in keys)
    if (stats.samples, stats.conflicts) != (len(keys), conflicts):
        return f"stats tell {stats.samples} samples, {stats.conflicts} conflicts, not {len(keys)} and {conflicts}"
    return ""


def recover(folder: Path) -> None:
    """Open what a crash left, and do what is due."""
    with opened(folder) as store:
        store.tend(NEW + DAY + HOUR)


if __name__ == "__main__":
    with suppress(BrokenPipeError):
        if sys.argv[1] == "recover":
            recover(Path(sys.argv[2]))
        else:
            run(Path(sys.argv[2]), Path(sys.argv[3]) if len(sys.argv) > 3 else None)
