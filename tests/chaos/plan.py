"""Which faults come when, to whom and for how long: all of it from a seed, before anything runs. Pure."""

import random
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

LINK_NARROW = ("link_128k_tbf", "link_128k_proxy")
"""A link at 128 kbit/s: by tc's tbf where this machine lets us, else by the proxy."""

WEIGHTS = {
    "edge_kill": 4,
    "hub_kill": 3,
    "broker_kill": 2,
    "broker_forgets": 2,
    "store_kill": 2,
    "store_kill_sealing": 1,
    "link_cut": 3,
    "link_delay": 2,
    "link_128k_tbf": 2,
    "link_128k_proxy": 2,
    "edge_disk_full": 2,
    "hub_disk_full": 2,
    "edge_clock_forward": 1,
    "edge_clock_back": 1,
    "hub_clock_back": 1,
    "edge_disk_image": 1,
    "edge_disk_clone": 1,
    "hub_restore": 1,
}
"""Every failpoint there is, and how often it comes against the others."""

LONG = frozenset({"edge_disk_image", "edge_disk_clone", "hub_restore", "hub_clock_back", "store_kill_sealing"})
"""These take a while; a cycle has at most one of them by chance."""

PARTS = {"edge_disk_image": (0.0, 0.5), "hub_restore": (0.5, 1.0), "edge_clock_forward": (0.0, 0.7)}
"""From which part of the run to which a kind may come; others at any time.

A disk restored from an image has forgotten what only the hub still knows; a hub restored from an older backup could get
that from nobody. So images come in the first half, a backup is taken, and restored hubs come in the second half. What
was measured while a clock ran ahead can be stored only once its time has come.
"""

MOST_BY_CHANCE = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One fault: to which edge node (where it is one's), so many seconds into the cycle, for so long."""

    kind: str
    node: str | None
    after: float
    lasts: float


Cycle = tuple[Step, ...]


def planned(seed: int, cycles: int, kinds: Collection[str], nodes: Sequence[str]) -> list[Cycle]:
    """Return the faults of each cycle; the same arguments, the same plan. Each kind comes at least once."""
    chance = random.Random(seed)
    names: list[list[str]] = [[] for _ in range(cycles)]
    for place, kind in enumerate(_shuffled(chance, kinds)):
        allowed = _cycles_for(kind, cycles)
        names[allowed[place % len(allowed)]].append(kind)
    for number, here in enumerate(names):
        most = chance.randint(1, MOST_BY_CHANCE)
        while len(here) < most:
            fitting = [kind for kind in sorted(kinds) if number in _cycles_for(kind, cycles)]
            if LONG & set(here):
                fitting = [kind for kind in fitting if kind not in LONG]
            if sum(one.count("edge_disk_clone") for one in names) == len(nodes):
                fitting = [kind for kind in fitting if kind != "edge_disk_clone"]  # each box has a double already
            if not fitting:
                break
            here.extend(chance.choices(fitting, [WEIGHTS[kind] for kind in fitting]))
    cloned: set[str] = set()
    return [tuple(_steps(chance, here, nodes, cloned)) for here in names]


def halfway(cycles: int) -> int:
    """Return before which cycle the backup is taken that hubs are restored from."""
    return _cycles_for("hub_restore", cycles)[0]


def _shuffled(chance: random.Random, kinds: Collection[str]) -> list[str]:
    names = sorted(kinds)
    chance.shuffle(names)
    return names


def _cycles_for(kind: str, cycles: int) -> range:
    begin, end = PARTS.get(kind, (0.0, 1.0))
    first = min(int(cycles * begin), cycles - 1)
    return range(first, max(int(cycles * end), first + 1))


def _steps(chance: random.Random, kinds: Sequence[str], nodes: Sequence[str], cloned: set[str]) -> Iterator[Step]:
    for kind in kinds:
        node = chance.choice(nodes) if kind.startswith(("edge_", "link_")) else None
        after, lasts = round(chance.uniform(0, 4), 1), round(chance.uniform(3, 8), 1)
        if kind == "edge_disk_clone":
            node = chance.choice([one for one in nodes if one not in cloned])
            cloned.add(node)
        yield Step(kind=kind, node=node, after=after, lasts=lasts)
