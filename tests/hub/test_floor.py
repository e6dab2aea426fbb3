"""The floor: never above what is not stored, never of another lineage, and high enough that nothing grows."""

import random
from copy import deepcopy
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.delivery import Held
from contract.positions import EMPTY, Lineage, RangeSet
from hub import floor as floors
from hub.floor import Raise, bound, raised, voids

LOG = "log"


def epoch(count: int, salt: int = 0) -> int:
    return count << 32 | salt


def lineage(count: int, salt: int = 0, stream: str = "probe") -> Lineage:
    return Lineage(LOG, epoch(count, salt), stream)


def held(*closed: int, running: int, floor: int | None = None, last: int = 9) -> Held:
    positions = {Lineage(LOG, one, "probe"): RangeSet([(0, last)]) for one in closed}
    return Held(log=LOG, epoch=running, positions=positions, floor=floor)


def full(*closed: int, last: int = 9) -> dict[Lineage, RangeSet]:
    return {Lineage(LOG, one, "probe"): RangeSet([(0, last)]) for one in closed}


def test_it_goes_up_over_covered_epochs_to_the_first_that_is_not() -> None:
    ledger = {**full(epoch(1), epoch(2)), lineage(3): RangeSet([(0, 8)]), **full(epoch(4))}
    told = held(epoch(1), epoch(2), epoch(3), epoch(4), running=epoch(5))
    assert raised(None, told, ledger) == Raise(floor=epoch(2), over=(epoch(1),))
    assert raised(epoch(2), told, ledger) is None
    assert raised(epoch(2), told, {**ledger, **full(epoch(3))}) == Raise(
        floor=epoch(4), over=(epoch(1), epoch(2), epoch(3))
    )


def test_the_old_floor_goes_when_the_list_starts_from_it() -> None:
    told = held(epoch(8), running=epoch(9), floor=epoch(7))
    assert raised(epoch(7), told, full(epoch(8))) == Raise(floor=epoch(8), over=(epoch(7),))


def test_a_list_from_a_floor_we_do_not_have_raises_nothing() -> None:
    told = held(epoch(8), running=epoch(9), floor=epoch(7))
    assert bound({epoch(3)}, told, {}) == epoch(3), "what we have is told, so that it lists from there"
    assert raised(epoch(3), told, full(epoch(8))) is None


def test_a_copied_cards_lineage_is_not_bound_by_the_floor_of_its_twin() -> None:
    copy = held(epoch(4), epoch(5), epoch(6, 1), running=epoch(7, 1))
    assert bound({epoch(6)}, copy, {}) is None
    assert bound({epoch(7)}, copy, {}) is None
    assert bound({epoch(4), epoch(6)}, copy, full(epoch(4))) == epoch(4)
    above = raised(None, copy, {**full(epoch(4), epoch(5), epoch(6, 1), epoch(6)), **full(epoch(3))})
    assert above is not None
    assert above.floor == epoch(6, 1)
    assert epoch(6) not in above.over, "the twin's epoch of that count stays"
    assert epoch(3) not in above.over, "with two lineages, what is not listed may be the other's"


def test_who_wrote_on_in_the_floors_epoch_after_its_card_was_copied_is_not_bound_by_it() -> None:
    told = held(epoch(2), epoch(3), running=epoch(4), last=20)
    assert bound({epoch(3)}, told, full(epoch(3), last=9)) is None
    assert bound({epoch(3)}, told, full(epoch(3), last=20)) == epoch(3)


def test_a_floor_is_not_told_to_who_gives_it_the_lie() -> None:
    box = held(epoch(2), epoch(3), running=epoch(7))
    known = {epoch(2), epoch(3), epoch(5), epoch(7)}
    assert floors.told(known, box, full(epoch(2))) == {epoch(2), epoch(5)}


def test_what_was_given_up_is_void_and_does_not_keep_the_floor_down() -> None:
    lost = {lineage(1): RangeSet([(0, 4)]), lineage(3): RangeSet([(2, 6)])}
    box = Held(log=LOG, epoch=epoch(4), positions={lineage(2): RangeSet([(0, 9)])}, lost=lost)
    ledger = {lineage(1): RangeSet([(0, 2)]), **full(epoch(2))}
    assert voids(None, set(), box, ledger) == {lineage(1): RangeSet([(3, 4)]), lineage(3): RangeSet([(0, 6)])}
    assert raised(None, box, ledger) == Raise(floor=epoch(3), over=(epoch(1), epoch(2)))


def test_an_epoch_of_which_nothing_is_held_any_more_goes_with_its_neighbours() -> None:
    told = held(epoch(4), running=epoch(5))
    ledger = full(epoch(2), epoch(3), epoch(4), epoch(5))
    assert raised(None, told, ledger) == Raise(floor=epoch(4), over=(epoch(2), epoch(3)))


def test_an_uncertain_floor_lets_nothing_uncovered_be_passed() -> None:
    told = held(epoch(2), epoch(9), running=epoch(10))
    assert bound({epoch(5)}, told, {}) == epoch(5)
    assert raised(epoch(5), told, full(epoch(9))) is None, "epoch 2 may be owed: 5 may be another lineage's"


def test_void_is_what_is_neither_held_nor_committed_of_closed_epochs() -> None:
    told = Held(
        log=LOG,
        epoch=epoch(3),
        positions={lineage(1): RangeSet([(0, 3), (6, 9)]), lineage(2): RangeSet([(5, 9)])},
    )
    ledger = {
        lineage(1): RangeSet([(4, 4), (12, 12)]),
        lineage(1, stream="horn"): RangeSet([(2, 3)]),
        lineage(3): RangeSet([(7, 7)]),
        Lineage("other", epoch(1), "probe"): RangeSet([(5, 5)]),
    }
    assert voids(None, set(), told, ledger) == {
        lineage(1): RangeSet([(5, 5), (10, 11)]),
        lineage(1, stream="horn"): RangeSet([(0, 1)]),
        lineage(2): RangeSet([(0, 4)]),
    }


def test_what_was_forgotten_under_a_floor_is_not_called_void() -> None:
    told = Held(log=LOG, epoch=epoch(9), positions={lineage(2): RangeSet([(5, 9)]), lineage(8): RangeSet([(2, 3)])})
    assert voids(epoch(2), {epoch(2)}, told, {}) == {lineage(8): RangeSet([(0, 1)])}
    assert voids(None, {epoch(6)}, told, {}) == {lineage(8): RangeSet([(0, 1)])}


def test_an_epoch_whose_records_are_all_gone_at_the_box_still_shows_its_holes() -> None:
    told = held(epoch(3), running=epoch(4))
    ledger = {**full(epoch(3)), lineage(2): RangeSet([(0, 3), (7, 9)]), lineage(4): RangeSet([(5, 5)])}
    assert voids(None, set(), told, ledger) == {lineage(2): RangeSet([(4, 6)])}


@dataclass
class Box:
    """A delivery log as far as floors are concerned: epochs in its own order, what is on disk, what it believes."""

    epochs: list[int] = field(default_factory=list)
    disk: dict[int, RangeSet] = field(default_factory=dict)
    made: int = 0
    floor: int | None = None
    believed: dict[int, RangeSet] = field(default_factory=dict)
    told: tuple[int, ...] = ()

    @property
    def running(self) -> int:
        return self.epochs[-1]

    def start(self, chance: random.Random) -> None:
        self.epochs.append(epoch(self.running // 2**32 + 1 if self.epochs else 1, chance.getrandbits(32)))
        self.made, self.floor, self.believed = 0, None, {}

    def obey(self, told: frozenset[int], rows: dict[Lineage, RangeSet]) -> None:
        """Take the latest floor that this log contains, all of whose epoch the ledger covers."""
        self.believed = {one.epoch: ranges for one, ranges in rows.items()}
        covered = [one for one in told if not self.disk.get(one, EMPTY) - self.believed.get(one, EMPTY)]
        self.floor = next((one for one in reversed(self.epochs[:-1]) if one in covered), None)

    def list(self, most: int) -> Held:
        after = self.epochs.index(self.floor) + 1 if self.floor is not None else 0
        chosen = [one for one in self.epochs[after:-1] if self.disk.get(one)][:most]
        self.told = tuple(chosen)
        positions = {Lineage(LOG, one, "probe"): self.disk[one] for one in chosen}
        return Held(log=LOG, epoch=self.running, positions=positions, floor=self.floor)


@dataclass
class Books:
    """The hub's side: ledger rows, floors, and which positions are in its store."""

    rows: dict[Lineage, RangeSet] = field(default_factory=dict)
    kept: set[int] = field(default_factory=set)
    stored: dict[int, RangeSet] = field(default_factory=dict)

    def commit(self, one: int, ranges: RangeSet) -> None:
        where = Lineage(LOG, one, "probe")
        self.rows[where] = self.rows.get(where, EMPTY) | ranges
        self.stored[one] = self.stored.get(one, EMPTY) | ranges

    def take(self, up: Raise) -> None:
        self.rows = {where: ranges for where, ranges in self.rows.items() if where.epoch not in up.over}
        self.kept = (self.kept - set(up.over)) | {up.floor}


def meet(box: Box, hub: Books, most: int) -> None:
    """A birth, void, as many raises as are due, and the ledger that tells of it."""
    told = box.list(most)
    at = bound(hub.kept, told, hub.rows)
    for where, missing in voids(at, hub.kept, told, hub.rows).items():
        assert not missing & box.disk.get(where.epoch, EMPTY)
        assert not missing & hub.rows.get(where, EMPTY)
    up = raised(at, told, hub.rows)
    if up is not None:
        hub.take(up)
    box.obey(floors.told(hub.kept, told, hub.rows), hub.rows)
    if box.floor is not None:
        for one in box.epochs[: box.epochs.index(box.floor) + 1]:
            lost = box.disk.get(one, EMPTY) - hub.stored.get(one, EMPTY)
            assert not lost, f"the floor {box.floor >> 32} is above {lost} of epoch {one >> 32}, which is in no store"


def send(box: Box, hub: Books, one: int) -> None:
    under = box.epochs[: box.epochs.index(box.floor)] if box.floor is not None else []
    if one in {*box.told, box.running} - {*under} and box.disk.get(one):
        hub.commit(one, box.disk[one])


@pytest.mark.parametrize("fault", ["clone", "restore"])
@settings(deadline=None, max_examples=300)
@given(seed=st.integers(0, 2**32), steps=st.integers(1, 120))
def test_whatever_happens_nothing_that_is_not_stored_is_under_a_floor(fault: str, seed: int, steps: int) -> None:
    chance = random.Random(seed)
    boxes, hub, backup = [Box()], Books(), Books()
    boxes[0].start(chance)
    for _ in range(steps):
        box = chance.choice(boxes)
        match chance.choice(["write", "write", "lose", "start", "meet", "meet", "send", "unlink", fault]):
            case "write" | "lose" as what:
                first, box.made = box.made, box.made + chance.randint(1, 5)
                if what == "write":
                    box.disk[box.running] = box.disk.get(box.running, EMPTY).add(first, box.made - 1)
            case "start":
                box.start(chance)
            case "meet":
                meet(box, hub, chance.choice([1, 2, 40]))
            case "send":
                send(box, hub, chance.choice(box.epochs))
            case "unlink":
                one = chance.choice(box.epochs)
                box.disk[one] = box.disk.get(one, EMPTY) - box.believed.get(one, EMPTY)
            case "clone":
                copy = deepcopy(box)
                copy.start(chance)
                boxes.append(copy)
            case "restore":
                if chance.random() < 0.5:
                    backup = deepcopy(hub)
                else:
                    hub = deepcopy(backup)
    for box in boxes:
        for _ in range(3 * len(box.epochs) + 3):
            meet(box, hub, 2)
            for one in box.epochs:
                send(box, hub, one)
    for box in boxes:
        meet(box, hub, 2)
        for one in box.epochs[:-1]:
            lost = box.disk.get(one, EMPTY) - hub.stored.get(one, EMPTY)
            assert not lost, "in the end everything is stored"
        assert not box.told, "in the end no closed epoch is listed any more"
    if fault == "restore":
        assert {one.epoch for one in hub.rows} <= {*hub.kept, boxes[0].running, *_after(boxes[0])}
        assert len(hub.kept) <= 2


def _after(box: Box) -> list[int]:
    """Return the epochs after the newest that holds anything: nothing is listed that could pass them."""
    holds = [place for place, one in enumerate(box.epochs[:-1]) if box.disk.get(one)]
    return box.epochs[holds[-1] + 1 :] if holds else box.epochs


def test_four_hundred_starts_leave_a_short_list_and_a_short_ledger() -> None:
    chance, box, hub = random.Random(5), Box(), Books()
    for _ in range(400):
        box.start(chance)
        box.disk[box.running] = RangeSet([(0, 9)])
        meet(box, hub, 40)
        for one in (*box.told, box.running):
            send(box, hub, one)
        meet(box, hub, 40)
        assert len(box.list(40).positions) <= 1
        assert len(hub.rows) <= 3
        assert len(hub.kept) <= 1
    assert floors.starts(box.running) == 400
