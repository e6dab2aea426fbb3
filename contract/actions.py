"""What can be asked of which kind of device at once: one table, read by hub, edge nodes and pages. Pure.

Nothing here makes a loudspeaker sound or changes how loud it is: only what is signed does. Nothing here changes a
setting, so that a command from whoever has rights on the broker harms nobody.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from contract.catalog import Kind


class Action(StrEnum):
    """Something that can be asked for."""

    ASK_NOW = "ask_now"
    """Read the device now, instead of in its turn: after its password or its cable was changed, for one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A row of the table: what it is called, and for which kinds of device it exists."""

    label_vi: str
    label_en: str
    kinds: frozenset[Kind]


ACTIONS: Mapping[Action, Offer] = {
    Action.ASK_NOW: Offer(label_vi="Hỏi ngay", label_en="Ask now", kinds=frozenset(Kind)),
}


def offered(kind: Kind | None) -> list[Action]:
    """Return what can be asked of a kind of device; nothing of equipment whose kind is not known."""
    return [action for action, offer in ACTIONS.items() if kind in offer.kinds]
