"""Where something is and how far a right reaches: the province, a commune in it, a hamlet in that. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class Level(StrEnum):
    """How wide a scope is."""

    PROVINCE = "province"
    COMMUNE = "commune"
    HAMLET = "hamlet"


class OnNode(Protocol):
    """Whatever belongs to an edge node."""

    @property
    def group(self) -> str: ...
    @property
    def node(self) -> str: ...


@dataclass(frozen=True, slots=True, order=True)
class Scope:
    """A place: the province (both empty), a commune by its group key, or a hamlet by its edge node."""

    group: str = ""
    node: str = ""

    def __post_init__(self) -> None:
        if self.node and not self.group:
            raise ValueError(f"a hamlet (edge node {self.node!r}) lies in a commune; its group is missing")

    @property
    def level(self) -> Level:
        """Return how wide it is."""
        return Level.HAMLET if self.node else Level.COMMUNE if self.group else Level.PROVINCE

    def covers(self, other: "Scope") -> bool:
        """Return whether the other place lies in this one, or is it."""
        return (not self.group or self.group == other.group) and (not self.node or self.node == other.node)


PROVINCE = Scope()


def of_node(one: OnNode) -> Scope:
    """Return the hamlet to which an edge node, or a device on it, belongs."""
    return Scope(one.group, one.node)


@dataclass(frozen=True, slots=True)
class Reach:
    """The places over which somebody has one right; nowhere if empty. Equal reaches see the same."""

    scopes: frozenset[Scope] = frozenset()

    @classmethod
    def over(cls, scopes: Iterable[Scope]) -> "Reach":
        """Return the reach of scopes, without those that lie in another of them."""
        given = frozenset(scopes)
        return cls(frozenset(one for one in given if not any(two != one and two.covers(one) for two in given)))

    def covers(self, place: Scope) -> bool:
        """Return whether the right holds at a place."""
        return any(one.covers(place) for one in self.scopes)

    def sees(self, one: OnNode) -> bool:
        """Return whether the right holds for something of an edge node."""
        return self.covers(of_node(one))

    def __bool__(self) -> bool:
        return bool(self.scopes)
