"""What a world puts in place of the machine: chance, files on a card, the line to a broker, and small bounds.

A bound that a box meets after weeks is met within minutes: the rules are the same, their numbers are smaller.
"""

import random
import secrets
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any
from unittest.mock import patch

import edge.delivery
import edge.delivery_log
import edge.lanes
import edge.uplink
import hub.answers
import hub.floor
import hub.log_account
from contract.delivery import MOST_HELD
from tests.delivery_model import disk, wire

CONNECT: Callable[..., Any] = wire.connect
"""How a box connects."""

FEW_HELD = 5


def is_small(seed: int) -> bool:
    """Return whether the world of a seed has small bounds."""
    return bool(seed % 3)


def most_held(seed: int) -> int:
    """Return how many closed epochs a birth may name in the world of a seed."""
    return FEW_HELD if is_small(seed) else MOST_HELD


SMALL: Sequence[tuple[ModuleType, str, int]] = (
    (edge.delivery, "MOST_HELD", FEW_HELD),
    (hub.log_account, "MOST_HELD", FEW_HELD),
    (hub.floor, "MOST_HELD", FEW_HELD),
    (edge.delivery, "FIRST_WINDOW_BYTES", 3000),
    (hub.answers, "WINDOW", 6000),
    (edge.lanes, "MESSAGE_BYTES", 2500),
    (edge.delivery_log, "MOST_PENDING", 40),
    (edge.delivery_log, "FOLD_AFTER", 6),
)


@contextmanager
def simulated(seed: int) -> Iterator[None]:
    """Within it, a process has a card and a line of the world, and what it draws follows from the seed."""
    chance = random.Random(seed)
    with ExitStack() as stack:
        stack.enter_context(patch.object(secrets, "randbits", chance.getrandbits))
        stack.enter_context(
            patch.object(secrets, "token_hex", lambda size: f"{chance.getrandbits(size * 8):0{size * 2}x}")
        )
        stack.enter_context(patch.object(sqlite3, "connect", disk.connect))
        stack.enter_context(patch.object(edge.uplink, "connect", CONNECT))
        for module, name, number in SMALL if is_small(seed) else ():
            stack.enter_context(patch.object(module, name, number))
        yield
