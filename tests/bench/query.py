"""What questions cost with a month in the store: 100 million samples of 30,000 series, sealed and merged by the store.

Asked warm, the median of five. The reference answers the like with DuckDB alone over one sorted Parquet file of the
same samples. `--samples 5000000` makes a smaller month.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from contract.catalog import ONLINE, PRESENCE
from contract.metrics import DataType
from hub.devices import DeviceKey
from hub.storage.embedded import EmbeddedStore
from hub.storage.timeseries import Batch, Column

DAY = 86_400_000
BEGIN, DAYS = 20_000 * DAY, 30
END = BEGIN + DAYS * DAY
NODES, HOTSPOTS_A_NODE, NUMBERS = 80, 8, 29_280
SERIES = NODES * (1 + HOTSPOTS_A_NODE) + NUMBERS
SPEAK_MS = 300_000


def hotspots() -> list[DeviceKey]:
    """Return the hotspots whose availability is asked for."""
    return [DeviceKey(f"g{n % 20}", f"n{n}", f"h{one}") for n in range(NODES) for one in range(HOTSPOTS_A_NODE)]


def fill(store: EmbeddedStore, samples: int) -> int:
    """Fill a month day by day, each sealed when the next begins, and merge; return how many samples that is.

    Edge nodes speak of themselves and of their hotspots each 5 minutes; all other series share the rest.
    """
    chance = np.random.default_rng(7)
    presence = [
        store.series(DeviceKey(one.group, one.node, ""), PRESENCE + one.device, DataType.STRING) for one in hotspots()
    ]
    load = [store.series(DeviceKey(f"g{n % 20}", f"n{n}", ""), "load", DataType.DOUBLE) for n in range(NODES)]
    numbers = np.array(
        [
            store.series(DeviceKey(f"g{n // 8 % 20}", f"n{n // 8 % NODES}", f"d{n // 8}"), f"m{n % 8}", DataType.DOUBLE)
            for n in range(NUMBERS)
        ],
        dtype=np.int32,
    )
    spoken = (len(presence) + len(load)) * DAYS * DAY // SPEAK_MS
    a_day = max((samples - spoken) // NUMBERS // DAYS, 1)
    walk, down = chance.normal(25, 5, NUMBERS), np.zeros(len(presence), dtype=bool)
    for day in range(BEGIN, END, DAY):
        for at in range(day, day + DAY, SPEAK_MS):
            down ^= chance.random(len(down)) < np.where(down, 0.2, 0.001)
            if at % (12 * SPEAK_MS) == 0:
                batch = Batch()
            put(batch.texts, presence, at, ["unreachable" if one else ONLINE for one in down.tolist()])
            put(batch.numbers, load, at, chance.random(len(load)).tolist())
            if (at + SPEAK_MS) % (12 * SPEAK_MS) == 0:
                store.commit(batch, at)
        for nth in range(a_day):
            at = day + nth * DAY // a_day
            walk += chance.normal(0, 0.05, NUMBERS)
            batch = Batch()
            jitter = np.repeat(chance.integers(0, 40, NUMBERS // 8), 8)
            put(batch.numbers, numbers, at + jitter, np.round(walk, 2))
            store.commit(batch, at)
        store.tend(day + DAY)
    store.tend(END + DAY)
    return spoken + a_day * DAYS * NUMBERS


def put(column: Column, series: Any, at: Any, values: Any) -> None:
    """Put one sample of each series at the end of a column."""
    column.series.frombytes(np.asarray(series, dtype=np.int32).tobytes())
    column.at.frombytes(np.broadcast_to(np.asarray(at, dtype=np.int64), len(series)).tobytes())
    column.marks.frombytes(np.full(len(series), 192 << 8, dtype=np.int32).tobytes())
    column.value.extend(values if isinstance(values, list) else values.tolist())


def median_ms(ask: Callable[[], object]) -> float:
    """Return the median wall time of five, after one that warms up."""
    times = []
    for _ in range(6):
        started = time.perf_counter()
        ask()
        times.append((time.perf_counter() - started) * 1000)
    return statistics.median(times[1:])


def main() -> None:
    """Fill, ask, and print a figure for each question."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--samples", type=int, default=100_000_000)
    arguments = asked.parse_args()
    with tempfile.TemporaryDirectory() as name, EmbeddedStore(Path(name) / "state") as store:
        started = time.monotonic()
        count = fill(store, arguments.samples)
        filled = time.monotonic() - started
        plain = duckdb.connect(
            ":memory:", config={"memory_limit": "2GB", "threads": 2, "temp_directory": f"{name}/tmp"}
        )
        files = [str(store._segments.folder / one.file) for one in store._segments.listed if one.kind == "samples"]
        one_file = f"{name}/all.parquet"
        plain.execute(
            f'COPY (SELECT series, "at", number, text FROM read_parquet({files}) ORDER BY series, "at")'
            f" TO '{one_file}' (FORMAT parquet, COMPRESSION zstd)"
        )
        table = f"read_parquet('{one_file}')"
        device = DeviceKey("g1", "n1", "d1")
        number = store._books.numbers(device, "m1")[0]
        talkers = [
            store._books.numbers(DeviceKey(one.group, one.node, ""), PRESENCE + one.device)[0] for one in hotspots()
        ]
        questions = {
            "last": (
                store.last,
                f'SELECT series, arg_max(coalesce(text, number::VARCHAR), "at") FROM {table} GROUP BY series',
            ),
            "buckets": (
                lambda: store.buckets(device, "m1", BEGIN, END, 300, 300_000),
                f'SELECT ("at" - {BEGIN}) // {DAYS * DAY // 300} AS bucket, avg(number), min(number), max(number)'
                f" FROM {table} WHERE series = {number} GROUP BY bucket ORDER BY bucket",
            ),
            "availability": (
                lambda: store.availability(hotspots(), BEGIN, END),
                f'SELECT series, text, sum(until - "at") FROM (SELECT series, "at", text, lead("at", 1, {END}) OVER'
                f' (PARTITION BY series ORDER BY "at") AS until FROM {table}'
                f" WHERE series BETWEEN {min(talkers)} AND {max(talkers)} AND text IS NOT NULL) GROUP BY series, text",
            ),
            "by_group": (
                lambda: store.by_group("m1", BEGIN, END, 300, 300_000),
                f'SELECT series % 20, ("at" - {BEGIN}) // {DAYS * DAY // 300} AS bucket, avg(number) FROM {table}'
                f" WHERE series IN (SELECT unnest({[n for n in range(1, SERIES) if n % 8 == 1]})) GROUP BY ALL",
            ),
        }
        detail = {"samples": count, "series": SERIES, "days": DAYS, "filled_in_seconds": round(filled)}
        for question, (ours, sql) in questions.items():
            figure, reference = median_ms(ours), median_ms(lambda sql=sql: plain.execute(sql).fetchall())  # type: ignore[misc]
            told = {"bench": f"query/{question}", "figure": round(figure, 1), "unit": "ms"}
            told |= {"reference": round(reference, 1), "ratio": round(figure / reference, 2)}
            print(json.dumps({**told, "detail": detail}), flush=True)


if __name__ == "__main__":
    main()
