"""Run many schedules and say as one line of JSON what came of them: `python -m tests.delivery_model --help`."""

import argparse
import json
import multiprocessing
import sys
import time
from collections.abc import Iterator, Sequence

from tests.delivery_model.moves import generate
from tests.delivery_model.schedules import Tally, quiet, run_part, shorter


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--schedules", type=int, default=300, help="how many schedules")
    parser.add_argument("--seed", type=int, default=7, help="of the first schedule; the others follow from it")
    parser.add_argument("--processes", type=int, default=multiprocessing.cpu_count(), help="how many run at once")
    parser.add_argument("--shorten", action="store_true", help="make the first failing schedule as short as it fails")
    parser.add_argument("--json", action="store_true", help="print one line of JSON alone")
    told = parser.parse_args(arguments)
    started = time.monotonic()
    tally = Tally()
    for part in _parts(told.seed, told.schedules, max(told.processes, 1)):
        tally.add(part)
        for seed, outcome in part.failures.items():
            print(f"schedule {seed}: {outcome}", file=sys.stderr)
        if not told.json:
            print(f"{tally.schedules} schedules, {len(tally.failures)} failed", file=sys.stderr)
    seeds = sorted(tally.failures)
    if told.shorten and seeds:
        with quiet():
            print(f"shortened: {shorter(generate(seeds[0]), seeds[0])}", file=sys.stderr)
    line = {
        "schedules": tally.schedules,
        "faults": dict(sorted(tally.faults.items())),
        "readings": tally.readings,
        "failures": len(seeds),
        "failed": seeds[:20],
        "seconds": round(time.monotonic() - started, 1),
    }
    print(json.dumps(line))
    return 1 if seeds or tally.schedules < told.schedules else 0


def _parts(seed: int, count: int, processes: int) -> Iterator[Tally]:
    first = seed * 1_000_000
    ranges = [(start, min(start + 25, first + count)) for start in range(first, first + count, 25)]
    if processes == 1:
        yield from map(run_part, ranges)
        return
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        yield from pool.imap_unordered(run_part, ranges)


if __name__ == "__main__":
    raise SystemExit(main())
