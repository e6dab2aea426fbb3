"""What must hold at any time, and what must hold once faults have stopped; the model's judge.

It looks at the wire, at the hub's live state and at the shelf, and compares them with what was really read. It asks
none of the parts under test whether they did well, except what an edge node believes to be committed.
"""

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from contract import sparkplug_pb2
from contract.catalog import REBIRTH
from contract.delivery import COMMITTED, EPOCH, FIRST, LAST, LEDGER, LOG, POSITION_METRICS, read_held
from contract.metrics import DataType, Value
from contract.payload import decode
from contract.positions import EMPTY, Lineage, RangeSet, difference
from contract.topics import MessageType, parse
from hub.devices import DeviceKey, NodeKey
from hub.live_state import DeviceState
from hub.storage.timeseries import HISTORICAL_BIT
from tests.delivery_model.strangers import FOREIGN
from tests.delivery_model.truth import COUNTS, Reading
from tests.delivery_model.wire import Line

if TYPE_CHECKING:
    from tests.delivery_model.box import Box
    from tests.delivery_model.world import World

GROUP = "g"
START = 1_790_000_000
"""When a world begins, seconds since 1970 UTC: 13:33 of a day, so that some worlds see midnight."""
DAY = 86_400.0
LEDGER_INTERVAL = 60.0
MOST_MESSAGE = 64 * 1024
MOST_BIRTHS_A_MINUTE = 12
MOST_MESSAGES_A_MINUTE = 600
MOST_CALM_REBIRTHS = 2
"""That the hub asks of one node within ten minutes in which nothing happens to anybody."""

MOST_SENDS_IN_TEN_MINUTES = 8
"""Of one position by one box, whatever happens to the line."""


class PromiseBroken(AssertionError):
    """Something that must hold does not."""


@dataclass(slots=True)
class Session:
    """What one connection of a box has said so far."""

    log: str = ""
    names: dict[int, tuple[str, str, int]] = field(default_factory=dict)
    """Stream, metric and datatype by alias."""
    streams: set[str] = field(default_factory=set)
    owed: set[str] = field(default_factory=set)
    """Streams that had uncovered records when the node was born, until its first data."""
    newest: dict[tuple[str, str], int] = field(default_factory=dict)
    """The highest order of any reading of a metric that was sent."""


class Watch:
    """Looks on while a world lives."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._truth = world.truth
        self._sessions: dict[str, tuple[object, Session]] = {}
        self._births: dict[str, deque[float]] = {}
        self._messages: dict[str, deque[float]] = {}
        self._sends: dict[tuple[str, Lineage, int], deque[float]] = {}
        self._asked: dict[str, deque[float]] = {}
        self._asked_calmly: dict[str, deque[float]] = {}
        self._live: dict[tuple[DeviceKey, str, str], int] = {}
        self._states: dict[DeviceKey, DeviceState] = {}
        self._verified: dict[Lineage, RangeSet] = {}
        self._missing_since: dict[str, float] = {}
        self.flags: dict[Value, set[bool]] = {}
        """Whether each value was ever sent as historical, as not historical."""
        self.strange: Counter[tuple[str, Lineage, int]] = Counter()
        """How often each position was sent while a foreign host listened, by card."""
        self.largest_birth = 0
        world.broker.watch.append(self._said)

    def hub_restored(self) -> None:
        """Forget what was seen in a store that is no more."""
        self._verified.clear()

    # At any time.

    def _said(self, line: Line, topic_text: str, raw: bytes) -> None:
        topic = parse(topic_text)
        if len(raw) > MOST_MESSAGE:
            raise PromiseBroken(f"{line.name}: a message of {len(raw)} bytes")
        now = self._world.now
        _bounded(
            self._messages.setdefault(line.name, deque()), now, 60.0, MOST_MESSAGES_A_MINUTE, f"{line.name}: messages"
        )
        known = self._sessions.get(line.name)
        if known is None or known[0] is not line.port:
            known = self._sessions[line.name] = (line.port, Session())
        session = known[1]
        message = sparkplug_pb2.Payload.FromString(raw)
        stream = topic.device or ""
        match topic.kind:
            case MessageType.NBIRTH:
                _bounded(
                    self._births.setdefault(line.name, deque()), now, 60.0, MOST_BIRTHS_A_MINUTE, f"{line.name}: births"
                )
                self.largest_birth = max(self.largest_birth, len(raw))
                session.names.clear()
                session.newest.clear()
                session.log = next(one.string_value for one in message.metrics if one.name == LOG)
                session.streams.clear()
                session.owed = {one.record.lineage.stream for one in self._owed_by(line)}
                self._listed_few(line, raw)
                self._born(session, topic.node, stream, message)
                self._born_whole(line, session, stream)
            case MessageType.DBIRTH:
                self._born(session, topic.node, stream, message)
                self._born_whole(line, session, stream)
            case MessageType.NDATA | MessageType.DDATA:
                self._all_born(line, session)
                self._data(line, session, stream, message)
            case _:
                pass

    def _born(self, session: Session, node: str, stream: str, message: sparkplug_pb2.Payload) -> None:
        for metric in message.metrics:
            if metric.HasField("alias"):
                session.names[metric.alias] = (stream, metric.name, metric.datatype)
            if metric.name in COUNTS:
                here = (node, stream, metric.name, metric.timestamp)
                session.newest[stream, metric.name] = max(
                    (one.order for one in self._truth.by_key.get(here, ())), default=-1
                )
                continue
            found = self._truth.by_value.get(_value(metric, metric.datatype))
            if found is not None and found[1] == metric.name:
                session.newest[stream, metric.name] = found[0].order

    def _listed_few(self, line: Line, raw: bytes) -> None:
        held = read_held(decode(raw))
        epochs = {one.epoch for one in (*held.positions, *held.lost)} if held is not None else set()
        if len(epochs) > self._world.most_held:
            raise PromiseBroken(f"{line.name}: a birth lists {len(epochs)} epochs")

    def _born_whole(self, line: Line, session: Session, stream: str) -> None:
        session.streams.add(stream)
        told = {name for whose, name, _ in session.names.values() if whose == stream}
        for reading in self._owed_by(line):
            lineage = reading.record.lineage
            if lineage.stream == stream and not reading.values.keys() <= told:
                raise PromiseBroken(f"{line.name}: the birth of {stream!r} leaves out what its uncovered records have")

    def _all_born(self, line: Line, session: Session) -> None:
        unborn = session.owed - session.streams
        session.owed = set()
        if unborn:
            raise PromiseBroken(f"{line.name}: {sorted(unborn)} have uncovered records and were not born")

    def _owed_by(self, line: Line) -> Iterable[Reading]:
        """Yield what is on a box's card and not known to it as committed, when it was last born."""
        box = self._box_of(line)
        if box.log is None or box.uplink is None:
            return
        missing = box.uplink._delivery.missing
        for lineage, ranges in box.log.held.items():
            for first, last in missing(lineage, ranges):
                for offset in range(first, last + 1):
                    yield self._truth.readings[lineage, offset]

    def _box_of(self, line: Line) -> "Box":
        return next(one for one in self._world.boxes if one.line is line)

    def _data(self, line: Line, session: Session, stream: str, message: sparkplug_pb2.Payload) -> None:
        numbers: dict[str, int] = {}
        instants: list[int] = []
        samples: list[tuple[int, Any, str, int]] = []
        for metric in message.metrics:
            known = session.names.get(metric.alias)
            if known is None or known[0] != stream:
                raise PromiseBroken(f"{line.name}: data of {stream!r} with an alias that no birth of it told")
            _, name, datatype = known
            if name in POSITION_METRICS:
                numbers[name] = metric.long_value
            elif len(numbers) == len(POSITION_METRICS):
                if not instants or instants[-1] != metric.timestamp:
                    instants.append(metric.timestamp)
                samples.append((len(instants) - 1, metric, name, datatype))
        if not numbers:
            return
        first, last = numbers[FIRST], numbers[LAST]
        if last - first + 1 != len(instants):
            raise PromiseBroken(f"{line.name}: {stream!r} {first}-{last} comes with {len(instants)} instants")
        lineage = Lineage(session.log, numbers[EPOCH], stream)
        for offset in range(first, last + 1):
            self._sent_once(line, lineage, offset)
        for number, metric, name, datatype in samples:
            self._sample(line, session, lineage, first + number, metric, name, datatype)

    def _sent_once(self, line: Line, lineage: Lineage, offset: int) -> None:
        sends = self._sends.setdefault((line.name, lineage, offset), deque())
        what = f"{line.name}: {lineage.stream!r} {offset} of epoch {lineage.epoch:x}"
        _bounded(sends, self._world.now, 600.0, MOST_SENDS_IN_TEN_MINUTES, what)
        if self._world.stranger.port is not None and not line.silent:
            self.strange[line.name, lineage, offset] += 1

    def _sample(
        self, line: Line, session: Session, lineage: Lineage, offset: int, metric: Any, name: str, datatype: int
    ) -> None:
        reading = self._truth.readings.get((lineage, offset))
        value = _value(metric, datatype)
        if reading is None or reading.values.get(name) != value or reading.record.at != metric.timestamp:
            raise PromiseBroken(f"{line.name}: {lineage} {offset} {name} = {value!r} was never read")
        key = (lineage.stream, name)
        newest = session.newest.get(key, -1)
        # Who was told no ledger gets as historical what it missed, the newest of it included.
        given_late = metric.is_historical and self._no_ledger_yet(line)
        if metric.is_historical != (newest > reading.order) and not given_late:
            was = "historical" if metric.is_historical else "live"
            raise PromiseBroken(f"{line.name}: {lineage.stream!r} {offset} {name} was sent as {was}")
        session.newest[key] = max(newest, reading.order)
        self.flags.setdefault(value, set()).add(metric.is_historical)

    def _no_ledger_yet(self, line: Line) -> bool:
        box = self._box_of(line)
        return box.uplink is not None and box.uplink._session.first_ledger is None

    def beat(self) -> None:
        """Look at everything that must hold at any time."""
        centre = self._world.centre
        if centre.on:
            self._live_goes_on()
            self._few_answers()
            self._what_is_believed()

    def _live_goes_on(self) -> None:
        centre = self._world.centre
        for key, state in centre.live._devices.items():
            if key.node == FOREIGN:
                continue
            if self._states.get(key) is not state:  # a device that was retired is forgotten, and begins anew
                self._states[key] = state
                for seen in [one for one in self._live if one[0] == key]:
                    del self._live[seen]
            for name, slot in state.slots.items():
                found = self._truth.by_value.get(slot.value)
                if found is None:
                    if slot.value is not None and name not in COUNTS:
                        raise PromiseBroken(f"live state shows {key} {name} = {slot.value!r}, which was never read")
                    continue
                reading, metric = found
                if metric != name or reading.node != key.node or reading.record.lineage.stream != key.device:
                    raise PromiseBroken(f"live state shows {key} {name} = {slot.value!r}, read as {metric} elsewhere")
                seen = (key, name, reading.box)
                before = self._live.get(seen, -1)
                if reading.order < before:
                    raise PromiseBroken(f"live state of {key} {name} went back to {slot.value!r}")
                self._live[seen] = reading.order

    def _few_answers(self) -> None:
        world = self._world
        sent = world.centre.line.sent
        while sent:
            at, topic, raw = sent.popleft()
            names = {one.name for one in sparkplug_pb2.Payload.FromString(raw).metrics}
            if REBIRTH in names:
                asked = self._asked.setdefault(f"{world.centre.lives}{topic}", deque())
                _bounded(asked, at, 59.0, 1, f"{topic}: rebirths asked for")
                calm = self._asked_calmly.setdefault(topic, deque())
                if at - world.disturbed_at > 30.0:
                    _bounded(calm, at, 600.0, MOST_CALM_REBIRTHS, f"{topic}: rebirths asked for in calm times")
            elif names & {COMMITTED, LEDGER} and world.centre.shelf.wild(parse(topic).node, at - 15.0, at):
                raise PromiseBroken(f"{topic}: acknowledged though most of its instants are impossible")

    def _what_is_believed(self) -> None:
        world = self._world
        for box in world.boxes:
            if not box.on or box.uplink is None:
                continue
            lost = self._unstored(difference(_believed(box), self._verified))
            may_speak = box.uplink.born and not world.centre.ingest.holding
            if not lost or not may_speak or world.now < world.stale_until:
                self._missing_since.pop(box.name, None)
                continue
            since = max(self._missing_since.setdefault(box.name, world.now), world.disturbed_at)
            if world.now - since > LEDGER_INTERVAL + 40.0:
                raise PromiseBroken(
                    f"{box.name} believes committed for {world.now - since:.0f} s what is not: {lost[:3]}"
                )

    def _unstored(self, positions: Mapping[Lineage, RangeSet]) -> list[tuple[Lineage, int]]:
        lost = []
        for lineage, ranges in positions.items():
            for first, last in ranges:
                for offset in range(first, last + 1):
                    reading = self._truth.readings.get((lineage, offset))
                    if reading is None or self._kept(reading):
                        self._verified[lineage] = self._verified.get(lineage, EMPTY).add(offset, offset)
                    else:
                        lost.append((lineage, offset))
        return lost

    def _kept(self, reading: Reading) -> bool:
        shelf = self._world.centre.shelf
        position = (reading.record.lineage, reading.record.offset)
        told = [value for name, value in reading.values.items() if name not in COUNTS]
        return all(shelf.has(position, value) for value in told)

    # Once faults have stopped.

    def verdict(self) -> None:
        """Raise PromiseBroken for anything that is not as it must be in the end."""
        self._everything_safe_is_there()
        self._everything_missing_is_told()
        self._nothing_else_is_there()
        self._strangers_hear_once()

    def _everything_safe_is_there(self) -> None:
        world = self._world
        for box in world.boxes:
            assert box.log is not None
            void = self._void(box.node)
            for lineage, offset in self._unstored(difference(box.card.durable, self._verified)):
                what = f"{box.name}: {lineage.stream!r} {offset} of epoch {lineage.epoch:x}, once safe on its card,"
                # An eviction can be right, or have been right before the hub was restored; then it is told.
                may_go = box.card in world.small_cards or (world.hub_restores and world.now - START > 59 * DAY)
                if offset in box.log.held.get(lineage, EMPTY) or not may_go:
                    raise PromiseBroken(f"{what} is not in the store")
                if offset not in void.get(lineage, EMPTY):
                    raise PromiseBroken(f"{what} went and is not reported as void")

    def _everything_missing_is_told(self) -> None:
        for box in self._world.boxes:
            log = box.log
            assert log is not None
            void, offsets = self._void(box.node), dict[Lineage, dict[int, Reading]]()
            for (lineage, offset), reading in self._truth.readings.items():
                if lineage.log == log.log_id and lineage.epoch != log.epoch and log.place(lineage.epoch) is not None:
                    offsets.setdefault(lineage, {})[offset] = reading
            for lineage, readings in offsets.items():
                durable = box.card.durable.get(lineage, EMPTY)
                kept = {offset for offset, reading in readings.items() if self._kept(reading)}
                known = max([durable.highest, *kept])
                told = void.get(lineage, EMPTY)
                silent = [one for one in range(known + 1) if one not in kept and one not in told]
                if silent and lineage.epoch not in self._world.shared_epochs:
                    raise PromiseBroken(f"{box.name}: {lineage} {silent[:5]} are missing and nobody was told")
                wrong = [one for one in kept if one in told]
                if wrong and box.node not in self._world.copied:
                    raise PromiseBroken(f"{box.name}: {lineage} {wrong[:5]} are told to be void, but are stored")

    def _void(self, node: str) -> dict[Lineage, RangeSet]:
        found: dict[Lineage, list[tuple[int, int]]] = {}
        for one in self._world.centre.shelf.voids(NodeKey(GROUP, node), 100_000):
            found.setdefault(one.lineage, []).append((one.first, one.last))
        return {lineage: RangeSet(ranges) for lineage, ranges in found.items()}

    def _nothing_else_is_there(self) -> None:
        shelf = self._world.centre.shelf
        seen: dict[Value, tuple[DeviceKey, str, int]] = {}
        for number, rows in shelf.samples.rows.items():
            series = shelf.books.named(number)
            key, name = series.key, series.metric
            if key.node == FOREIGN:
                self._foreign(name, rows)
                continue
            for at, row in rows.items():
                here = (key.node, key.device, name, at)
                readings = self._truth.by_key.get(here, [])
                if row.value not in [one.values[name] for one in readings]:
                    raise PromiseBroken(f"the store has {here} = {row.value!r}, which was never read")
                if name in COUNTS:
                    continue
                if row.value in seen:
                    raise PromiseBroken(f"{row.value!r} is stored twice: {seen[row.value]} and {here}")
                seen[row.value] = (key, name, at)
                if bool(row.mark & HISTORICAL_BIT) not in self.flags.get(row.value, set()):
                    raise PromiseBroken(f"the store's historical flag of {here} was never sent so")

    def _foreign(self, name: str, rows: Mapping[int, Any]) -> None:
        said = self._world.foreigner.said
        wrong = [at for at, row in rows.items() if name == "Level" and said.get(at) != row.value]
        if wrong:
            raise PromiseBroken(f"a foreign edge node's {name} is stored altered at {wrong[:3]}")

    def _strangers_hear_once(self) -> None:
        twice = [position for position, count in self.strange.items() if count > 1]
        if twice:
            raise PromiseBroken(f"a foreign host was sent {len(twice)} positions more than once: {twice[:3]}")


def _believed(box: "Box") -> dict[Lineage, RangeSet]:
    """Return what an edge node holds and thinks the hub has."""
    assert box.log is not None
    assert box.uplink is not None
    missing = box.uplink._delivery.missing
    return {lineage: ranges - missing(lineage, ranges) for lineage, ranges in box.log.held.items()}


def _bounded(times: deque[float], now: float, span: float, most: int, what: str) -> None:
    times.append(now)
    while now - times[0] > span:
        times.popleft()
    if len(times) > most:
        raise PromiseBroken(f"{what}: {len(times)} within {span:.0f} s")


def _value(metric: Any, datatype: int) -> Value:
    if metric.is_null:
        return None
    if datatype == DataType.DOUBLE:
        return float(metric.double_value)
    if datatype == DataType.INT64:
        return int(metric.long_value)
    return str(metric.string_value) if datatype == DataType.STRING else None
