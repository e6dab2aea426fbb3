"""What keeping costs: commits, sealing and merging, in CPU-seconds per million samples, and bytes per sample sealed.

An hour of a province: 3,680 devices of 8 metrics every 30 seconds, their 8 samples at one instant, with jitter;
random walks, counters, flags that seldom change. The reference for sealing and size is DuckDB alone, writing the same
rows once sorted, as zstd Parquet.
"""

import json
import resource
import tempfile
import time
from array import array
from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from contract.metrics import DataType
from hub.devices import DeviceKey
from hub.storage.embedded import EmbeddedStore
from hub.storage.timeseries import Batch

DEVICES, METRICS, EVERY_MS, TICKS = 3_680, 8, 30_000, 120
BEGIN = 20_000 * 86_400_000
HOUR = 3_600_000
KINDS = [DataType.DOUBLE] * 5 + [DataType.INT64] * 2 + [DataType.BOOLEAN]
THROUGH_MS = 1_000
"""A tick's devices report spread over its interval."""


def cpu() -> float:
    """Return the CPU-seconds of this process, all threads."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def say(name: str, figure: float, unit: str, reference: float | None = None, **detail: object) -> None:
    """Print one figure."""
    told: dict[str, object] = {"bench": name, "figure": round(figure, 3), "unit": unit}
    if reference is not None:
        told |= {"reference": round(reference, 3), "ratio": round(figure / reference, 2)}
    print(json.dumps({**told, "detail": detail}), flush=True)


def ticks(store: EmbeddedStore) -> Iterator[tuple[Batch, int]]:
    """Return batches of one tick each: every metric of every device once."""
    chance = np.random.default_rng(7)
    series = np.array(
        [
            [
                store.series(DeviceKey("g", f"n{one // 46}", f"d{one}"), f"m{metric}", KINDS[metric])
                for metric in range(8)
            ]
            for one in range(DEVICES)
        ],
        dtype=np.int32,
    )
    numbers = chance.normal(25, 5, (DEVICES, 5))
    integers = np.zeros((DEVICES, 3), dtype=np.int64)
    for tick in range(TICKS):
        numbers += chance.normal(0, 0.05, numbers.shape)
        integers[:, :2] += chance.integers(0, 50, (DEVICES, 2))
        integers[:, 2] ^= chance.random(DEVICES) < 0.001
        at = BEGIN + tick * EVERY_MS + np.arange(DEVICES) % THROUGH_MS + chance.integers(-20, 21, DEVICES) + 20
        batch = Batch()
        for column, block, values in (
            (batch.numbers, series[:, :5], np.round(numbers, 2)),
            (batch.integers, series[:, 5:], integers),
        ):
            column.series.frombytes(block.tobytes())
            column.at.frombytes(np.repeat(at, block.shape[1]).tobytes())
            column.marks.frombytes(np.full(block.size, 192 << 8, dtype=np.int32).tobytes())
            if column is batch.numbers:
                column.value.frombytes(values.astype(np.float64).tobytes())  # type: ignore[attr-defined]
            else:
                column.value.extend(values.ravel().tolist())
        yield batch, int(at.max())


def cut(batch: Batch, rows: int) -> Iterator[Batch]:
    """Return a batch in smaller ones."""
    for name in ("numbers", "integers"):
        whole = getattr(batch, name)
        for first in range(0, len(whole), rows):
            part = Batch()
            column, until = getattr(part, name), first + rows
            column.series.extend(whole.series[first:until])
            column.at.extend(whole.at[first:until])
            column.value.extend(whole.value[first:until])
            column.marks.extend(whole.marks[first:until])
            yield part


def commits(rows: int, most_ticks: int) -> None:
    """Measure commits of so many rows."""
    with tempfile.TemporaryDirectory() as folder, EmbeddedStore(Path(folder)) as store:
        batches = [(part, at) for batch, at in _first(ticks(store), most_ticks) for part in cut(batch, rows)]
        count = sum(part.samples for part, _ in batches)
        before = cpu()
        for part, at in batches:
            store.commit(part, at)
        say(
            f"commit/{rows}",
            (cpu() - before) * 1e6 / count,
            "CPU-s per million samples",
            samples=count,
            tail="included",
        )


def _first(batches: Iterator[tuple[Batch, int]], most: int) -> Iterator[tuple[Batch, int]]:
    for _ in range(most):
        yield next(batches)


def resident() -> int:
    """Return the MiB this process has in memory now."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize() >> 20


def peak_since_reset() -> int:
    """Return the greatest MiB since the mark was reset."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(next(one for one in status.splitlines() if one.startswith("VmHWM")).split()[1]) >> 10


def reset_peak() -> None:
    """Forget the greatest resident size so far."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def plainly(table: pa.Table, path: Path) -> tuple[float, int]:
    """Return CPU-seconds and bytes of DuckDB alone writing the rows sorted."""
    database = duckdb.connect(":memory:", config={"memory_limit": "1GB", "threads": 2})
    database.register("tail", table)
    before = cpu()
    database.execute(
        'COPY (SELECT series, "at", number, "integer", text, quality, flags FROM tail ORDER BY series, "at")'
        f" TO '{path}' (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 3, ROW_GROUP_SIZE 122880)"
    )
    database.close()
    return cpu() - before, path.stat().st_size


def merging(store: EmbeddedStore, sealed: int, reference: float) -> None:
    """Measure the night's merge of what is sealed with a quarter more that came late."""
    late = 0
    for batch, _ in _first(ticks(store), TICKS // 4):
        for column in (batch.numbers, batch.integers):
            column.at = array("q", [at + EVERY_MS // 2 for at in column.at])
        late += batch.samples
        store.commit(batch, BEGIN + HOUR)
    store.tend(BEGIN + 2 * HOUR)
    reset_peak()
    resting, before = resident(), cpu()
    store.tend(BEGIN + 24 * HOUR)
    spent, peak, count = cpu() - before, peak_since_reset(), sealed + late
    say("merge", spent * 1e6 / count, "CPU-s per million samples", reference, samples=count, mib_more=peak - resting)


def main() -> None:
    """Measure everything."""
    commits(1_000, 10)
    commits(20_000, 40)
    with tempfile.TemporaryDirectory() as folder, EmbeddedStore(Path(folder) / "state") as store:
        for batch, at in ticks(store):
            store.commit(batch, at)
        rows = DEVICES * METRICS * TICKS
        plain_cpu, plain_bytes = plainly(pa.concat_tables(store._tail), Path(folder) / "plain.parquet")
        reset_peak()
        resting, before, started = resident(), cpu(), time.monotonic()
        store.tend(BEGIN + HOUR + 60_000)
        spent, wall, peak = cpu() - before, time.monotonic() - started, peak_since_reset()
        reference = plain_cpu * 1e6 / rows
        detail = {"samples": rows, "series": DEVICES * METRICS, "seconds": round(wall, 1), "mib_more": peak - resting}
        say("seal", spent * 1e6 / rows, "CPU-s per million samples, rollups included", reference, **detail)
        sizes = dict.fromkeys(("samples", "minutes", "hours"), 0)
        for one in store._segments.listed:
            sizes[one.kind] += one.bytes
        rollups = {f"{kind}_a_sample": round(sizes[kind] / rows, 2) for kind in ("minutes", "hours")}
        say("bytes", sizes["samples"] / rows, "bytes per sample sealed", plain_bytes / rows, **rollups)
        merging(store, rows, reference)


if __name__ == "__main__":
    main()
