"""Schedules: one is run to its verdict, and one that fails is made as short as it still fails."""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.delivery_model.moves import generate, perform
from tests.delivery_model.promises import PromiseBroken
from tests.delivery_model.world import Move, World

Outcome = str
"""What broke, in a sentence; "" where nothing did."""


@dataclass(slots=True)
class Tally:
    """What many schedules came to."""

    schedules: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    readings: int = 0
    failures: dict[int, Outcome] = field(default_factory=dict)
    """By seed."""

    def add(self, other: "Tally") -> None:
        """Count in what another tally counted."""
        self.schedules += other.schedules
        self.faults.update(other.faults)
        self.readings += other.readings
        self.failures.update(other.failures)


def run(moves: Sequence[Move], seed: int, tally: Tally | None = None) -> Outcome:
    """Live through a schedule and what comes after it; return what broke."""
    try:
        with World(seed) as world:
            try:
                for move in moves:
                    perform(world, move)
                world.settle()
                world.watch.verdict()
            finally:
                if tally is not None:
                    tally.schedules += 1
                    tally.faults.update(world.faults)
                    tally.readings += len(world.truth.readings)
    except PromiseBroken as exc:
        return str(exc)
    except Exception as exc:  # noqa: BLE001  # a part that breaks breaks a promise
        return f"{type(exc).__name__}: {exc}"
    return ""


def shorter(moves: Sequence[Move], seed: int, fails: Callable[[Sequence[Move], int], Outcome] = run) -> list[Move]:
    """Return a schedule that still fails and from which no single move can be left out."""
    left = list(moves)
    size = max(len(left) // 2, 1)
    while True:
        start, progressed = 0, False
        while start < len(left):
            fewer = left[:start] + left[start + size :]
            if fails(fewer, seed):
                left, progressed = fewer, True
            else:
                start += size
        if size == 1 and not progressed:
            return left
        size = max(size // 2, 1)


def run_seed(seed: int, tally: Tally) -> None:
    """Run the schedule that a seed stands for."""
    outcome = run(generate(seed), seed, tally)
    if outcome:
        tally.failures[seed] = outcome


@contextmanager
def quiet() -> Iterator[None]:
    """Within it nobody complains: thousands of worlds have much to complain about."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def run_part(seeds: tuple[int, int]) -> Tally:
    """Run the schedules of all seeds from the first up to the second; for a process of its own."""
    tally = Tally()
    with quiet():
        for seed in range(*seeds):
            run_seed(seed, tally)
    return tally
