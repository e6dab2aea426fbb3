"""Which earlier lives of the log a birth names, which of them the hub has done with, and when to name others. Pure.

The floor belongs to the hub. It names an epoch, and everything up to that epoch, in the order of this very log, is
committed: it is neither named nor sent again. A birth names at most so many of the epochs after the floor, oldest
first; history of those not yet named waits until the floor has reached the last one named.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from contract.positions import EMPTY, Positions

Place = Callable[[int], int | None]
"""From an epoch to where it stands in the log's own order; None if the log does not contain it."""

BOTTOM = -1
"""Where the floor stands while the hub has none that binds: under everything."""

MOST_RANGES = 4000
"""Ranges named in one birth: a log full of holes must not make a birth that nobody takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What the last birth named: epochs in order, listed from the one after `floor` on; `cut` if some had to wait."""

    floor: int | None = None
    epochs: tuple[int, ...] = ()
    cut: bool = False


def binding(floors: Iterable[int], place: Place) -> int | None:
    """Return the latest of the hub's floors that this log contains, None if there is none."""
    ours = [(where, floor) for floor in floors if (where := place(floor)) is not None]
    return max(ours)[1] if ours else None


def whole(floors: Collection[int], held: Positions, committed: Positions) -> frozenset[int]:
    """Return the floors whose epoch holds nothing here that the hub has not.

    A card copied while its agent ran has a twin that went on writing in that epoch: the floor is the copy's, not its.
    """
    more = {
        lineage.epoch
        for lineage, ranges in held.items()
        if lineage.epoch in floors and ranges - committed.get(lineage, EMPTY)
    }
    return frozenset(floors) - more


def standing(floor: int | None, place: Place) -> int:
    """Return the place of a floor; BOTTOM for none."""
    where = None if floor is None else place(floor)
    return BOTTOM if where is None else where


def listing(named: Iterable[Positions], *, running: int, floor: int | None, most: int, place: Place) -> Listing:
    """Return which closed epochs a birth names, of those with anything in the sets `named`."""
    bottom = standing(floor, place)
    ranges: dict[int, int] = {}
    for positions in named:
        for lineage, found in positions.items():
            if lineage.epoch != running and (place(lineage.epoch) or 0) > bottom:
                ranges[lineage.epoch] = ranges.get(lineage.epoch, 0) + sum(1 for _ in found)
    chosen: list[int] = []
    total = 0
    for epoch in sorted(ranges, key=lambda one: place(one) or 0):
        total += ranges[epoch]
        if len(chosen) == most or (chosen and total > MOST_RANGES):
            return Listing(floor=floor, epochs=tuple(chosen), cut=True)
        chosen.append(epoch)
    return Listing(floor=floor, epochs=tuple(chosen))


def part(positions: Positions, epochs: Sequence[int]) -> Positions:
    """Return what a set has of some epochs, in their order."""
    order = {epoch: number for number, epoch in enumerate(epochs)}
    chosen = [lineage for lineage in positions if lineage.epoch in order]
    chosen.sort(key=lambda lineage: (order[lineage.epoch], lineage.stream))
    return {lineage: positions[lineage] for lineage in chosen}


def list_again(told: Listing, floor: int | None, place: Place) -> bool:
    """Return whether the node must be born again to name other epochs, now that the hub's floor is `floor`.

    So it is when the floor has reached the last one named and others wait, and when it stands lower than the one that
    the list started after: a hub restored from a backup knows less than it did, and must be told from there on.
    """
    now = standing(floor, place)
    reached = told.cut and now >= (place(told.epochs[-1]) or 0)
    return reached or now < standing(told.floor, place)
