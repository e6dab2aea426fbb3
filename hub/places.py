"""Where each edge node stands: commune and hamlet, from the configuration until there is a registry."""

from collections.abc import Sequence
from dataclasses import dataclass

from hub.config import EdgeNodeConfig
from hub.devices import NodeKey


@dataclass(frozen=True, slots=True)
class Place:
    """A hamlet in its commune, as people call them."""

    commune: str
    hamlet: str


class Places:
    """The places of configured edge nodes; strangers have none."""

    def __init__(self, nodes: Sequence[EdgeNodeConfig]) -> None:
        self._places = {NodeKey(one.group, one.id): Place(one.commune, one.hamlet) for one in nodes}

    def of(self, node: NodeKey) -> Place | None:
        """Return the place of an edge node, None for a stranger."""
        return self._places.get(node)

    @property
    def nodes(self) -> Sequence[NodeKey]:
        """Return the configured edge nodes."""
        return list(self._places)
