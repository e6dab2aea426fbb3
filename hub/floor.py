"""The floor of an edge node's log: up to it all is committed for good, and what is under it is forgotten. Pure.

A floor names an epoch whole. It belongs to the hub, is stored with the ledger and restored with it; the edge node is
told it in every ledger and lists, at birth, what it holds after it. It binds only a log that contains that very epoch:
a card restored from an image goes on, under the same log id, in a lineage of its own, and so with a floor of its own.
The ledger keeps the rows of the floor's epoch, only those under it go: a card copied while its agent ran has a twin
that wrote on in that epoch, and must not be told that all of it is committed.

The ledger tells all floors of a log but those that the birth gives the lie; the edge node obeys the latest that its
log contains. "Later" is the order of the edge node's list. Where an epoch is not listed, the count of agent starts in
its high half is a hint: one log never counts one start twice, so another epoch of the same count stands in another
lineage. A wrong guess costs sending again, never a record: only epochs that are listed and covered are passed.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from contract.delivery import MOST_HELD, Held
from contract.positions import EMPTY, Lineage, RangeSet

Ledger = Mapping[Lineage, RangeSet]
"""What the hub has committed of one edge node, of all its logs, above their floors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Raise:
    """The floor goes up to epoch `floor`; ledger rows and floors of the epochs `over`, all under it, are not needed."""

    floor: int
    over: tuple[int, ...]


def starts(epoch: int) -> int:
    """Return the how-manieth start of the agent an epoch is."""
    return epoch >> 32


def listed(held: Held) -> tuple[int, ...]:
    """Return the closed epochs that a birth lists, held or lost, in the order of the edge node's log."""
    epochs = list(dict.fromkeys(lineage.epoch for lineage in held.positions if lineage.epoch != held.epoch))
    for lost in sorted({lineage.epoch for lineage in held.lost} - {*epochs, held.epoch}):
        later = (place for place, epoch in enumerate(epochs) if starts(epoch) > starts(lost))
        epochs.insert(next(later, len(epochs)), lost)
    return tuple(epochs)


def bound(floors: Collection[int], held: Held, ledger: Ledger) -> int | None:
    """Return which of the floors kept for a log binds the one that a birth describes, None if none does.

    The latest that is listed with nothing uncovered, else the one it lists from, else the latest that could stand
    before or after its list.
    """
    epochs = listed(held)
    for epoch in reversed(epochs):
        if epoch in floors and _covered(epoch, held, ledger):
            return epoch
    if held.floor in floors:
        return held.floor
    taken = {starts(epoch) for epoch in (*epochs, held.epoch, held.floor) if epoch is not None}
    possible = [one for one in floors if starts(one) not in taken and starts(one) < starts(held.epoch)]
    return max(possible, default=None)


def told(floors: Collection[int], held: Held, ledger: Ledger) -> frozenset[int]:
    """Return the floors to tell a session, all but those whose epoch goes on here or holds more than is committed."""
    epochs = listed(held)
    return frozenset(one for one in floors if one != held.epoch and (one not in epochs or _covered(one, held, ledger)))


def above(floor: int | None, held: Held) -> tuple[int, ...]:
    """Return the listed epochs after a floor, the whole list where the floor is neither listed nor listed from."""
    epochs = listed(held)
    return epochs[epochs.index(floor) + 1 :] if floor in epochs else epochs


def raised(floor: int | None, held: Held, ledger: Ledger) -> Raise | None:
    """Return how far the floor goes up, None if it stays.

    From where it stands, over listed closed epochs whose held ranges the ledger covers, to the first that it does not;
    never from a list whose named floor we do not have.
    """
    if held.floor is not None and held.floor != floor and floor not in listed(held):
        return None
    top: int | None = None
    for epoch in above(floor, held):
        if not _covered(epoch, held, ledger):
            break
        top = epoch
    if top is None:
        return None
    epochs = listed(held)
    gone = {*epochs[: epochs.index(top)], *_unlisted(held, ledger, starts(top) - 1)}
    if floor is not None and (held.floor == floor or starts(floor) < starts(epochs[0])):
        gone.add(floor)
    return Raise(floor=top, over=tuple(sorted(gone)))


def voids(floor: int | None, floors: Collection[int], held: Held, ledger: Ledger) -> dict[Lineage, RangeSet]:
    """Return what of closed epochs above the floor is neither held nor committed: nobody can bring it any more.

    What a running epoch is missing may still come. An epoch without any ledger row that some floor of this log may have
    passed is left out: what was committed of it is forgotten, not lost.
    """
    mine = {lineage: ranges for lineage, ranges in ledger.items() if lineage.log == held.log}
    written = {lineage.epoch for lineage in mine}
    highest = max((starts(one) for one in floors), default=-1)
    judged = {epoch for epoch in above(floor, held) if epoch in written or starts(epoch) > highest}
    if held.floor is None or held.floor == floor:
        epochs = listed(held)
        last = epochs[-1] if len(epochs) >= MOST_HELD else held.epoch
        least = -1 if floor is None else starts(floor)
        judged |= {one for one in _unlisted(held, ledger, starts(last) - 1) if starts(one) > least}
    found: dict[Lineage, RangeSet] = {}
    for lineage in {*held.positions, *held.lost, *mine}:
        has, committed = held.positions.get(lineage, EMPTY), mine.get(lineage, EMPTY)
        most = max(has.highest, committed.highest, held.lost.get(lineage, EMPTY).highest)
        if lineage.epoch not in judged or most < 0:
            continue
        missing = RangeSet([(0, most)]) - has - committed
        if missing:
            found[lineage] = missing
    return found


def _covered(epoch: int, held: Held, ledger: Ledger) -> bool:
    ranges = ((lineage, one) for lineage, one in held.positions.items() if lineage.epoch == epoch)
    return all(ledger.get(lineage, EMPTY).covers(one) for lineage, one in ranges)


def _unlisted(held: Held, ledger: Ledger, most_starts: int) -> set[int]:
    """Return the epochs in the ledger of which the edge node holds nothing, up to so many starts of its agent.

    None where two epochs of the log have one count: which of them are of this lineage cannot be told.
    """
    epochs = {lineage.epoch for lineage in ledger if lineage.log == held.log} | {*listed(held), held.epoch}
    if len({starts(one) for one in epochs}) < len(epochs):
        return set()
    return {one for one in epochs - {*listed(held), held.epoch} if starts(one) <= most_starts}
