"""One edge node as the hub takes it in: session, alias tables, what was accepted, and the account of its log."""

from dataclasses import dataclass, field

from contract.delivery import Held
from contract.positions import Lineage, RangeSet
from hub.alias_tables import Table
from hub.answers import Answers
from hub.devices import NodeKey
from hub.lives import Life
from hub.node_delivery import AlarmKind, Depth
from hub.session import NodeSession


@dataclass(slots=True)
class NodeView:
    """What is kept of an edge node while the hub runs; `log` is None for a stranger, who has no positions."""

    key: NodeKey
    session: NodeSession = field(default_factory=NodeSession)
    log: str | None = None
    tables: dict[str, Table] = field(default_factory=dict)
    """By device; "" for the edge node itself. Made anew by each birth."""
    accepted: dict[Lineage, RangeSet] = field(default_factory=dict)
    """Positions committed or in a batch that will be."""
    floors: dict[str, frozenset[int]] = field(default_factory=dict)
    """By log id, as they are or will be stored."""
    void: dict[Lineage, RangeSet] = field(default_factory=dict)
    """What was recorded as void, or will be."""
    held: Held | None = None
    """What the birth in force said of the log; None where it could not be read."""
    epochs: frozenset[int] | None = None
    """Where data of this session may come from: the epoch it runs in and those it listed; None if not known."""
    floor: int | None = None
    """The one that binds the log of the birth in force."""
    under: frozenset[int] = frozenset()
    """Listed epochs under that floor: what comes of them came before."""
    lives: tuple[Life, ...] = ()
    odd: dict[AlarmKind, tuple[float, int]] = field(default_factory=dict)
    """What a birth gave the alarm for: when, by the monotonic clock and in ms."""
    depth: Depth = field(default_factory=Depth)
    heard: float = 0.0
    """When it last spoke, and was last born: seconds of the monotonic clock."""
    born_at: float = 0.0
    shown_at: float = float("-inf")
    """When pages were last told that it was heard."""
    born_devices: set[str] = field(default_factory=set)
    """Devices that had a birth since their edge node's, alive or dead by now."""
    settled: bool = False
    """Whether devices that had none were let go."""
    witnessed: float = float("-inf")
    answers: Answers = field(default_factory=Answers)
    acknowledged_at: int | None = None
