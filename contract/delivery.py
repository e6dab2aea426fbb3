"""What edge node and hub say to each other about positions, as ordinary Sparkplug metrics.

In data, three metrics say which consecutive records of the stream follow: `Delivery/Epoch`, `/First`, `/Last`. At
birth the edge node names its log and lists the closed epochs it still holds. The hub answers by NCMD:
`Delivery/Committed` adds ranges to what the edge node knows as committed, `Delivery/Ledger` replaces it and carries
floors and window.

A *floor* is an epoch up to which, that one included and in the order of the edge node's own log, everything that was
held is committed: both sides forget those epochs. It belongs to the hub and binds only a log that contains that very
epoch. A copied card's lineage has a floor of its own, so a ledger carries all floors of the log; the edge node obeys
the latest one that its log contains.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from contract.metrics import DataType
from contract.payload import DataSet, Payload, PayloadUnreadable, WireMetric
from contract.positions import Lineage, Positions, RangeSet

LOG = "Delivery/Log"
EPOCH = "Delivery/Epoch"
FIRST = "Delivery/First"
LAST = "Delivery/Last"
HELD = "Delivery/Held"
LOST = "Delivery/Lost"
FLOOR = "Delivery/Floor"
FLOORS = "Delivery/Floors"
COMMITTED = "Delivery/Committed"
LEDGER = "Delivery/Ledger"
WINDOW = "Delivery/Window"
DEPTH = "Delivery/Depth"
OLDEST = "Delivery/Oldest"
BYTES = "Delivery/Bytes"

POSITION_METRICS = (EPOCH, FIRST, LAST)
"""These have an alias for the node and for each device, because every data message carries them."""

DEPTH_METRICS = (DEPTH, OLDEST, BYTES)
"""INT64, in NBIRTH and every 30 s, never logged: records not known to be committed; the instant (ms) of the oldest of
them, null if there is none; bytes of the log on disk."""

MOST_HELD = 40
"""An edge node lists at most so many closed epochs in one birth."""

FIRST_WINDOW_BYTES = 64 * 1024
"""What may be under way uncommitted, history and resends, before a session's first ledger."""

_COLUMNS = ("log", "epoch", "stream", "first", "last")
_TYPES = (DataType.STRING, DataType.UINT64, DataType.STRING, DataType.UINT64, DataType.UINT64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What an edge node says of its log at birth: closed epochs, oldest first, listed from the one after `floor` on.

    `floor` None means "from the oldest held". `positions` is what is held of them, `lost` what is not held any more: it
    had to go before the hub was known to have it, or went by age, in good faith. What is not held and not committed is
    void, up to the last position known of a lineage: nobody has it any more.
    """

    log: str
    epoch: int
    positions: Positions
    lost: Positions = field(default_factory=dict)
    floor: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """Everything the hub has committed of one log above its floors; `window` in bytes."""

    positions: Positions
    window: int
    floors: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """What the hub has committed since it last said so."""

    positions: Positions


def held_metrics(held: Held, at: int) -> tuple[WireMetric, ...]:
    """Return what an NBIRTH carries of the log, without alias."""
    floor = WireMetric(name=FLOOR, at=at, datatype=DataType.UINT64, value=held.floor)
    return (
        WireMetric(name=LOG, at=at, datatype=DataType.STRING, value=held.log),
        WireMetric(name=HELD, at=at, datatype=DataType.DATASET, value=_table(held.positions)),
        WireMetric(name=LOST, at=at, datatype=DataType.DATASET, value=_table(held.lost)),
        floor,
    )


def read_held(payload: Payload) -> Held | None:
    """Return what a birth says of its log, None for a foreign edge node; raise PayloadUnreadable on nonsense."""
    found = {one.name: one.value for one in payload.metrics}
    log, epoch = found.get(LOG), found.get(EPOCH)
    if not isinstance(log, str) or not isinstance(epoch, int):
        return None
    floor = found.get(FLOOR)
    if floor is not None and not isinstance(floor, int):
        raise PayloadUnreadable(f"{FLOOR} is {floor!r}, not an epoch")
    positions, lost = _positions(found.get(HELD), HELD), _positions(found.get(LOST), LOST)
    return Held(log=log, epoch=epoch, positions=positions, lost=lost, floor=floor)


def answer(message: Ledger | Committed, at: int) -> Payload:
    """Return the NCMD payload that carries a ledger or newly committed ranges; commands have no seq."""
    match message:
        case Committed():
            metrics: tuple[WireMetric, ...] = (
                WireMetric(name=COMMITTED, at=at, datatype=DataType.DATASET, value=_table(message.positions)),
            )
        case Ledger():
            metrics = (
                WireMetric(name=LEDGER, at=at, datatype=DataType.DATASET, value=_table(message.positions)),
                WireMetric(name=FLOORS, at=at, datatype=DataType.DATASET, value=_epochs(message.floors)),
                WireMetric(name=WINDOW, at=at, datatype=DataType.UINT64, value=message.window),
            )
    return Payload(at=at, metrics=metrics)


def read_answer(payload: Payload) -> Iterable[Ledger | Committed]:
    """Return the hub's answers in a command, in order; raise PayloadUnreadable on nonsense."""
    found = {one.name: one.value for one in payload.metrics}
    for one in payload.metrics:
        if one.name == COMMITTED:
            yield Committed(positions=_positions(one.value, COMMITTED))
        elif one.name == LEDGER:
            window = found.get(WINDOW)
            if not isinstance(window, int):
                raise PayloadUnreadable(f"{LEDGER} without {WINDOW}")
            yield Ledger(positions=_positions(one.value, LEDGER), window=window, floors=_read_epochs(found.get(FLOORS)))


def _table(positions: Positions) -> DataSet:
    rows = tuple(
        (lineage.log, lineage.epoch, lineage.stream, first, last)
        for lineage, ranges in positions.items()
        for first, last in ranges
    )
    return DataSet(columns=_COLUMNS, types=_TYPES, rows=rows)


def _epochs(epochs: Iterable[int]) -> DataSet:
    return DataSet(columns=("epoch",), types=(DataType.UINT64,), rows=tuple((one,) for one in sorted(epochs)))


def _read_epochs(value: object) -> frozenset[int]:
    if value is None:
        return frozenset()
    if not isinstance(value, DataSet) or value.columns != ("epoch",) or value.types != (DataType.UINT64,):
        raise PayloadUnreadable(f"{FLOORS} is not a table of epochs")
    found = [row[0] for row in value.rows]
    if not all(isinstance(one, int) for one in found):
        raise PayloadUnreadable(f"{FLOORS} has an empty cell")
    return frozenset(one for one in found if isinstance(one, int))


def _positions(value: object, name: str) -> dict[Lineage, RangeSet]:
    if value is None:
        return {}
    if not isinstance(value, DataSet) or value.columns != _COLUMNS or value.types != _TYPES:
        raise PayloadUnreadable(f"{name} is not a table of {', '.join(_COLUMNS)}")
    ranges: dict[Lineage, list[tuple[int, int]]] = {}
    for log, epoch, stream, first, last in value.rows:
        if not (isinstance(log, str) and isinstance(epoch, int) and isinstance(stream, str)):
            raise PayloadUnreadable(f"{name} has an empty cell")
        if not (isinstance(first, int) and isinstance(last, int) and first <= last):
            raise PayloadUnreadable(f"{name} has the range {first!r}-{last!r}")
        ranges.setdefault(Lineage(log, epoch, stream), []).append((first, last))
    return {lineage: RangeSet(found) for lineage, found in ranges.items()}
