"""Runs a program of ours with a wall clock that is off: `python -m tests.chaos.wrong_clock FILE MODULE ARGUMENT...`.

The file holds milliseconds, read at every look at the clock: whoever writes it moves the clock of a running program.
Only Python's `time.time` and `time.time_ns` are off, which is all that our programs ask; the monotonic clock goes on,
as it does where somebody sets the time. The programs know nothing of it: there is no switch in them to misuse.
"""

import runpy
import sys
import time
from collections.abc import Callable
from pathlib import Path


def shifted(told: Callable[[], int], file: Path) -> Callable[[], int]:
    """Return a clock in nanoseconds that is off by what the file says now; without the file it is right."""

    def now() -> int:
        try:
            return told() + int(file.read_text(encoding="ascii")) * 1_000_000
        except (FileNotFoundError, ValueError):
            return told()

    return now


def main() -> None:
    """Set the clock, then become the program."""
    now = shifted(time.time_ns, Path(sys.argv[1]))
    time.time_ns = now
    time.time = lambda: now() / 1e9
    module, sys.argv = sys.argv[2], sys.argv[2:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
