"""Each rule of delivery that a model once showed to be needed, and a way to turn it round in the real parts.

A rule is turned by its name: `with turned("window"): ...`. The parts then decide the other way, everything else of
them stands. That the model fails with each of them turned is what tests/delivery_model/test_rules.py shows.
"""

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import edge.day_file
import edge.delivery
import edge.listing
import edge.log_register
import edge.sender
import edge.session
import edge.uplink
import hub.answering
import hub.answers
import hub.floor
import hub.log_account
from contract.delivery import Committed, Held, Ledger
from contract.metrics import DataType
from edge.delivery import Delivery
from edge.listing import Listing
from edge.log_register import LogRegister
from edge.record_bytes import Record, unpacked
from edge.sender import Sender
from hub.answers import Answers, TimeFaults
from hub.floor import Raise
from hub.storage.books import Books
from tests.delivery_model import outside, wire

Turn = Callable[[], AbstractContextManager[object]]


@dataclass(frozen=True, slots=True)
class Rule:
    """What must hold, in words, and what makes it not hold."""

    text: str
    turn: Turn


RULES: dict[str, Rule] = {}


def _rule(text: str) -> Callable[[Turn], Turn]:
    def keep(turn: Turn) -> Turn:
        RULES[turn.__name__.removeprefix("_")] = Rule(text, turn)
        return turn

    return keep


def turned(name: str) -> AbstractContextManager[object]:
    """Return a context within which the parts break a rule."""
    return RULES[name].turn()


@_rule("An alias once given is never given to another metric by that log: numbers are kept with the log.")
def _aliases_kept() -> AbstractContextManager[object]:
    real = LogRegister._open

    def opened(self: LogRegister, path: Any) -> None:
        real(self, path)
        # At each start the numbers go to the log's metrics in another order.
        numbers, names = list(self._aliases.values()), list(self._aliases)
        for datatype in DataType:
            same = [one for one in names if one[2] is datatype]
            kept = [number for number, one in zip(numbers, names, strict=True) if one[2] is datatype]
            self._aliases.update(zip(same, [*kept[1:], *kept[:1]], strict=True))

    return patch.object(LogRegister, "_open", opened)


@_rule("Aliases start at a random 20-bit base: a hub that missed a birth would store under the wrong name.")
def _aliases_from_a_random_base() -> AbstractContextManager[object]:
    return patch.object(edge.log_register, "_random_base", lambda: 0)


@_rule("NBIRTH names at most 40 closed epochs.")
def _few_epochs_named() -> AbstractContextManager[object]:
    real = edge.listing.listing
    return patch.object(edge.listing, "listing", lambda named, *, most, **rest: real(named, most=10_000, **rest))


@_rule("NBIRTH names the oldest epochs first.")
def _oldest_named_first() -> AbstractContextManager[object]:
    def listing(named: Collection[Any], *, running: int, floor: int | None, most: int, place: Any) -> Listing:
        bottom = edge.listing.standing(floor, place)
        epochs = {one.epoch for positions in named for one in positions if one.epoch != running}
        above = sorted((one for one in epochs if (place(one) or 0) > bottom), key=lambda one: place(one) or 0)
        return Listing(floor=floor, epochs=tuple(above[-most:]), cut=len(above) > most)

    return patch.object(edge.listing, "listing", listing)


@_rule("NBIRTH names the floor its list starts after, or says that it starts with the oldest held.")
def _floor_named() -> AbstractContextManager[object]:
    real = Delivery.list_held
    return patch.object(Delivery, "list_held", lambda self: replace(real(self), floor=None))


@_rule("A birth also carries every metric of records not yet covered.")
def _births_carry_uncovered() -> AbstractContextManager[object]:
    real = Sender._bear

    async def bear(self: Sender, also: frozenset[str]) -> None:
        with patch.object(Delivery, "uncovered", frozenset()):
            await real(self, also)

    return patch.object(Sender, "_bear", bear)


@_rule("When a ledger uncovers a record whose device or metric is not born, the node births it first.")
def _uncovered_born_first() -> AbstractContextManager[object]:
    async def ensure(self: Sender, records: Sequence[Record]) -> None:
        return

    return patch.object(Sender, "_ensure_born", ensure)


@_rule("Every ledger carries the window: a lost window of 0 must not last.")
def _window_in_every_ledger() -> AbstractContextManager[object]:
    real = Delivery.answered

    def answered(self: Delivery, what: Ledger | Committed) -> list[str]:
        if isinstance(what, Ledger) and self.hub_known:
            what = replace(what, window=self._window)
        return real(self, what)

    return patch.object(Delivery, "answered", answered)


@_rule("The floor is stored with the ledger and restored with it.")
def _floor_restored_with_ledger() -> AbstractContextManager[object]:
    kept: dict[tuple[Any, str], frozenset[int]] = {}

    def floors(self: Books, node: Any) -> Mapping[str, frozenset[int]]:
        for log, found in self._floors.get(node, {}).items():
            kept[node, log] = kept.get((node, log), frozenset()) | found
        return {log: found for (whose, log), found in kept.items() if whose == node}

    return patch.object(Books, "floors", floors)


@_rule("The floor is carried in every ledger.")
def _floor_in_every_ledger() -> AbstractContextManager[object]:
    real = Answers.ledger
    return patch.object(
        Answers,
        "ledger",
        lambda self, ledger, log, *, floors, closed: real(self, ledger, log, floors=frozenset(), closed=closed),
    )


@_rule("The floor binds only a log that contains that very epoch.")
def _floor_binds_by_name() -> AbstractContextManager[object]:
    def binding(floors: Collection[int], place: Any) -> int | None:
        return max(floors, default=None)

    def standing(floor: int | None, place: Any) -> int:
        if floor is None:
            return edge.listing.BOTTOM
        here = place(floor)
        if here is not None:
            return int(here)
        return floor >> 32  # by the number alone: the how-manieth start it was

    stack = ExitStack()
    stack.enter_context(patch.object(edge.listing, "binding", binding))
    stack.enter_context(patch.object(edge.listing, "standing", standing))
    return stack


@_rule("A copied card's lineage has its own floor.")
def _floor_of_each_lineage() -> AbstractContextManager[object]:
    real = Books.commit

    def commit(self: Books, batch: Any, also: Any) -> None:
        batch.floors = [
            replace(
                one, over=tuple({*one.over, *self._floors.get(one.node, {}).get(one.log, frozenset())} - {one.floor})
            )
            for one in batch.floors
        ]
        real(self, batch, also)

    return patch.object(Books, "commit", commit)


@_rule("The hub raises the floor only over listed epochs whose held ranges its ledger covers.")
def _floor_over_covered_only() -> AbstractContextManager[object]:
    stack = ExitStack()
    stack.enter_context(patch.object(hub.floor, "_covered", lambda epoch, held, ledger: True))
    # The edge node would not believe it either.
    stack.enter_context(patch.object(edge.listing, "whole", lambda floors, held, committed: frozenset(floors)))
    return stack


@_rule("The hub never raises the floor from a list whose named floor it does not have.")
def _floor_from_where_it_stands() -> AbstractContextManager[object]:
    real = hub.floor.raised
    return patch.object(hub.floor, "raised", lambda floor, held, ledger: real(floor, replace(held, floor=None), ledger))


@_rule("Only epochs under the floor are forgotten at the hub.")
def _only_under_forgotten() -> AbstractContextManager[object]:
    real = hub.floor.raised

    def raised(floor: int | None, held: Held, ledger: Any) -> Raise | None:
        up = real(floor, held, ledger)
        if up is None:
            return None
        return Raise(floor=up.floor, over=tuple({*up.over, *hub.floor.listed(held), up.floor}))

    return patch.object(hub.floor, "raised", raised)


@_rule("A node with too many impossible times is not acknowledged while that lasts.")
def _wild_not_acknowledged() -> AbstractContextManager[object]:
    return patch.object(TimeFaults, "wild", lambda self, now: False)


@_rule("Back-off doubles to 60 s and resets only 10 min after a session's first ledger.")
def _backoff_resets_late() -> AbstractContextManager[object]:
    return patch.object(edge.session, "CALM_AFTER", 0.0)


@_rule("The MQTT client id is the node id, enforced by the broker.")
def _client_id_is_node_id() -> AbstractContextManager[object]:
    numbers = itertools.count()

    def connect(server: Any, *, client_id: str, **options: Any) -> Any:
        return wire.connect(server, client_id=f"{client_id}-{next(numbers)}", **options)

    return patch.object(outside, "CONNECT", connect)


@_rule("How far a session has handed over is stored with each group commit.")
def _handed_over_stored() -> AbstractContextManager[object]:
    return patch.object(
        edge.day_file, "unpacked", lambda raw, log: [replace(one, handed=False) for one in unpacked(raw, log)]
    )
