"""A session from its first birth to its end, as a host on the broker sees it; time and the line are the test's."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from contract.catalog import CATALOG, LOG_LOST, TIME, UPTIME, Kind
from contract.delivery import BYTES, DEPTH, FIRST, LAST, MOST_HELD, OLDEST, Committed, Ledger, answer, read_held
from contract.metrics import DataType, Quality, Sample, Timing
from contract.payload import Payload, WireMetric, decode, encode
from contract.positions import Lineage, RangeSet
from contract.topics import MessageType, Topic, parse
from edge.broker import BrokerLost, Message, Server
from edge.delivery_log import DeliveryLog
from edge.sender import DRIP_EVERY, NO_LEDGER_AFTER, DeviceBirth
from edge.uplink import EXPIRE_EVERY, Settings, Uplink

PROBE = DeviceBirth(kind=Kind.WATER_PROBE, metrics=CATALOG[Kind.WATER_PROBE].metrics)
HORN = DeviceBirth(kind=Kind.LOUDSPEAKER, metrics=CATALOG[Kind.LOUDSPEAKER].metrics)
LEDGER = b"ledger"
NCMD = str(Topic("g", MessageType.NCMD, "box"))


@dataclass(slots=True)
class Said:
    """One message of the box, names filled in from its births."""

    kind: MessageType
    device: str | None
    payload: Payload
    raw: bytes
    values: dict[str, object]
    historical: set[str]

    @property
    def positioned(self) -> bool:
        return FIRST in self.values and self.kind in {MessageType.NDATA, MessageType.DDATA}

    @property
    def range(self) -> tuple[object, object]:
        return self.values.get(FIRST), self.values.get(LAST)


@dataclass(slots=True)
class Line:
    """A broker that holds what the box publishes, and lets the test answer."""

    inbox: asyncio.Queue[Message | None] = field(default_factory=asyncio.Queue)
    said: list[Said] = field(default_factory=list)
    names: dict[int, str] = field(default_factory=dict)
    up: bool = True
    connections: int = 0
    identifiers: list[str] = field(default_factory=list)

    async def subscribe(self, filters: object) -> None: ...

    async def publish(self, topic: str, payload: bytes, *, qos: int = 0) -> None:
        if not self.up:
            raise BrokerLost("the line is cut")
        where, told = parse(topic), decode(payload)
        if where.kind is MessageType.NBIRTH:
            self.names.clear()
        if where.kind in {MessageType.NBIRTH, MessageType.DBIRTH}:
            self.names |= {one.alias: one.name or "" for one in told.metrics if one.alias is not None}
        raw = payload
        values: dict[str, object] = {}
        historical = set()
        for one in told.metrics:
            name = one.name or self.names[one.alias or 0]
            values[name] = one.value
            if one.historical:
                historical.add(name)
        self.said.append(Said(where.kind, where.device, told, raw, values, historical))

    async def messages(self) -> AsyncIterator[Message]:
        while (message := await self.inbox.get()) is not None:
            yield message
        raise BrokerLost("the line is cut")

    def cut(self) -> None:
        self.up = False
        self.inbox.put_nowait(None)

    def answer(self, what: Ledger | Committed) -> None:
        self.inbox.put_nowait(Message(NCMD, encode(answer(what, 1))))

    def ledger(self, positions: Mapping[Lineage, RangeSet] | None = None, *floors: int) -> None:
        self.answer(Ledger(positions=positions or {}, window=256 * 1024, floors=frozenset(floors)))

    def ask_for_birth(self) -> None:
        metric = WireMetric(name="Node Control/Rebirth", at=1, datatype=DataType.BOOLEAN, value=True)
        self.inbox.put_nowait(Message(NCMD, encode(Payload(at=1, metrics=(metric,)))))

    def of(self, kind: MessageType, device: str | None = None) -> list[Said]:
        return [one for one in self.said if one.kind is kind and one.device == device]

    def data(self, device: str | None = "probe") -> list[Said]:
        kind = MessageType.DDATA if device else MessageType.NDATA
        return [one for one in self.of(kind, device) if FIRST in one.values]


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> Line:
    one = Line()

    @asynccontextmanager
    async def connect(server: Server, *, client_id: str, will: Message, keep_alive: int) -> AsyncIterator[Line]:
        if not one.up:
            raise BrokerLost("nobody listens")
        one.connections += 1
        one.identifiers.append(client_id)
        one.inbox = asyncio.Queue()
        yield one

    async def at_once(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        return function(*arguments, **named)

    monkeypatch.setattr("edge.uplink.connect", connect)
    monkeypatch.setattr("edge.uplink.asyncio.to_thread", at_once)
    return one


@dataclass(slots=True)
class Box:
    """A running uplink over a real log."""

    uplink: Uplink
    log: DeliveryLog
    clock: Any
    timing: Timing = Timing.SYNCHRONISED

    async def read(self, value: float = 7.0, device: str = "probe", metric: str = "Water/pH") -> None:
        self.clock.wall += 1
        await self.uplink.record(device, [Sample(metric=metric, at=self.clock.now_ms(), value=value)])
        await self.clock.settle()

    async def present(self, device: str, presence: str) -> None:
        self.clock.wall += 1
        sample = Sample(metric=f"Presence/{device}", at=self.clock.now_ms(), value=presence)
        await self.uplink.record("", [sample])
        await self.clock.settle()

    def lineage(self, device: str = "probe", epoch: int | None = None) -> Lineage:
        return Lineage(self.log.log_id, self.log.epoch if epoch is None else epoch, device)


@asynccontextmanager
async def running(
    folder: Path, clock: Any, devices: Mapping[str, DeviceBirth] | None = None, budget: int = 10**12
) -> AsyncIterator[Box]:
    async def ignore(name: str, value: str) -> None: ...

    async def unasked(value: str) -> None: ...

    with DeliveryLog(folder, clock, budget=budget) as log:
        uplink = Uplink(
            Settings(group="g", node="box", brokers=[Server(host="somewhere")], birth_jitter=0),
            delivery_log=log,
            devices={"probe": PROBE, "horn": HORN} if devices is None else devices,
            clock=clock,
            hello=lambda: "",
            on_broadcast=ignore,
            on_command=unasked,
            chance=random.Random(1),
            timing=lambda: box.timing,
        )
        box = Box(uplink, log, clock)
        task = asyncio.create_task(uplink.run())
        try:
            yield box
        finally:
            await uplink.end(0)
            await clock.advance(2)
            await asyncio.wait_for(task, 5)


async def born(line: Line, clock: Any) -> None:
    await clock.advance(1.5)
    assert line.of(MessageType.NBIRTH)


async def test_the_client_is_called_as_the_node(line: Line, clock: Any, tmp_path: Path) -> None:
    async with running(tmp_path, clock):
        await born(line, clock)
        assert line.identifiers == ["box"]


async def test_signs_of_life_come_with_the_birth_and_every_thirty_seconds(
    line: Line, clock: Any, tmp_path: Path
) -> None:
    async with running(tmp_path, clock) as box:
        await born(line, clock)
        birth = line.of(MessageType.NBIRTH)[0]
        assert birth.values[DEPTH] == 0
        assert birth.values[OLDEST] is None
        await box.read()
        first = clock.now_ms()
        await clock.advance(61)
        signs = [one for one in line.of(MessageType.NDATA) if UPTIME in one.values]
        assert len(signs) == 2
        assert signs[1].values[DEPTH] == 1
        assert signs[1].values[OLDEST] == first
        assert isinstance(signs[1].values[BYTES], int)
        assert signs[1].values[BYTES] == box.log.size
        assert all(one.name is None for one in signs[0].payload.metrics)


async def test_nothing_is_sent_again_before_a_ledger_and_then_what_was_never_sent_goes_at_once(
    line: Line, clock: Any, tmp_path: Path
) -> None:
    line.up = False
    async with running(tmp_path, clock) as box:
        for _ in range(300):
            await box.read()
        await clock.advance(11)
        line.up = True
        await clock.advance(70)
        assert line.data() == []
        line.ledger()
        await clock.settle()
        assert [one.range for one in line.data()] == [(0, 299)]
        told = [one.historical for one in line.data()[0].payload.metrics[3:]]
        assert told == [True] * 299 + [False], "the last one is what the birth already said: no old news"


async def test_a_later_position_that_was_sent_makes_a_sample_historical_and_a_resent_newest_one_is_live(
    line: Line, clock: Any, tmp_path: Path
) -> None:
    async with running(tmp_path, clock) as box:
        await born(line, clock)
        line.ledger()
        await box.read(1.0)
        await box.read(2.0)
        assert [one.historical for one in line.data()] == [set(), set()]
        await clock.advance(45)  # both are given up for lost
        again = line.data()[-1]
        assert again.range == (0, 1)
        assert [one.historical for one in again.payload.metrics[3:]] == [True, False]


async def test_events_overtake_telemetry_and_live_data_overtakes_history(
    line: Line, clock: Any, tmp_path: Path
) -> None:
    line.up = False
    async with running(tmp_path, clock) as box:
        for _ in range(3):
            await box.read()
        await clock.advance(11)
        line.up = True
        await clock.advance(60)
        before = len(line.said)
        record = box.uplink.record
        await asyncio.gather(
            record("probe", [Sample(metric="Water/pH", at=clock.now_ms() + 5, value=1.0)]),
            record("horn", [Sample(metric="Amp/OK", at=clock.now_ms() + 6, value=False)]),
        )
        line.ledger()
        await clock.advance(1)
        order = [(one.device, one.range) for one in line.said[before:] if FIRST in one.values]
        assert order == [("horn", (0, 0)), ("probe", (3, 3)), ("probe", (0, 2))]


async def test_a_metric_that_no_birth_had_is_born_before_its_record_is_sent(
    line: Line, clock: Any, tmp_path: Path
) -> None:
    async with running(tmp_path, clock) as box:
        await box.read(5.0)
        await clock.advance(11)
        old = box.log.epoch
    line.said.clear()
    fewer = DeviceBirth(kind=Kind.WATER_PROBE, metrics=PROBE.metrics[2:])
    async with running(tmp_path, clock, {"probe": fewer}) as box:
        await born(line, clock)
        assert "Water/pH" in line.of(MessageType.DBIRTH, "probe")[0].values, "its record is not yet covered"
        line.ledger({box.lineage(epoch=old): RangeSet([(0, 0)])})
        line.ask_for_birth()
        await clock.advance(2)
        assert "Water/pH" not in line.of(MessageType.DBIRTH, "probe")[-1].values
        line.ledger()
        await clock.advance(1)
        last = line.said[-2:]
        assert [(one.kind, one.device) for one in last] == [
            (MessageType.DBIRTH, "probe"),
            (MessageType.DDATA, "probe"),
        ]
        assert last[1].values["Water/pH"] == 5.0


async def test_a_node_metric_that_no_birth_had_makes_the_whole_node_be_born_first(
    line: Line, clock: Any, tmp_path: Path
) -> None:
    async with running(tmp_path, clock) as box:
        await box.present("horn", "silent")
        old = box.log.epoch
    async with running(tmp_path, clock, {"probe": PROBE}) as box:
        await born(line, clock)
        line.ledger({box.lineage("", old): RangeSet([(0, 0)])})
        line.ask_for_birth()
        await clock.advance(2)
        assert "Presence/horn" not in line.of(MessageType.NBIRTH)[-1].values
        line.said.clear()
        line.ledger()
        await clock.advance(1)
        kinds = [
            (one.kind, one.device) for one in line.said if one.kind is not MessageType.NDATA or FIRST in one.values
        ]
        assert kinds == [
            (MessageType.NBIRTH, None),
            (MessageType.DBIRTH, "probe"),
            (MessageType.NDATA, None),
        ]
        assert line.said[-1].values["Presence/horn"] == "silent"


async def test_a_retired_device_is_born_for_its_records_and_dies_when_they_are_committed(
    line: Line, clock: Any, tmp_path: Path
) -> None:
    async with running(tmp_path, clock) as box:
        await box.read(device="horn", metric="Audio/Level", value=3.0)
        await clock.advance(11)
        old = box.log.epoch
    line.said.clear()
    async with running(tmp_path, clock, {"probe": PROBE}) as box:
        await born(line, clock)
        assert line.of(MessageType.DBIRTH, "horn")
        line.ledger()
        await clock.advance(2)
        assert line.data("horn")
        assert not line.of(MessageType.DDEATH, "horn")
        line.answer(Committed(positions={box.lineage("horn", old): RangeSet([(0, 0)])}))
        await clock.advance(2)
        assert len(line.of(MessageType.DDEATH, "horn")) == 1
        line.ledger()  # the hub came back from a backup
        await clock.advance(2)
        assert len(line.of(MessageType.DBIRTH, "horn")) == 2
        assert len(line.data("horn")) == 2


async def test_an_unreachable_device_is_born_null_and_stale_and_dies_at_once_where_no_ledger_is_to_be_had(
    line: Line, clock: Any, tmp_path: Path
) -> None:
    async with running(tmp_path, clock) as box:
        await box.present("horn", "silent")
        await born(line, clock)
        birth = line.of(MessageType.DBIRTH, "horn")[0]
        level = next(one for one in birth.payload.metrics if one.name == "Audio/Level")
        assert level.value is None
        assert level.properties["Quality"] == Quality.STALE
        await clock.advance(NO_LEDGER_AFTER - 5)
        assert not line.of(MessageType.DDEATH, "horn")
        await clock.advance(10)
        assert len(line.of(MessageType.DDEATH, "horn")) == 1
        assert not line.of(MessageType.DDEATH, "probe")
        await box.present("horn", "online")
        await clock.advance(2)
        assert len(line.of(MessageType.DBIRTH, "horn")) == 2


async def test_a_value_older_than_its_report_interval_is_born_stale(line: Line, clock: Any, tmp_path: Path) -> None:
    async with running(tmp_path, clock) as box:
        await box.read()
        await born(line, clock)
        fresh = next(one for one in line.of(MessageType.DBIRTH, "probe")[0].payload.metrics if one.name == "Water/pH")
        assert "Quality" not in fresh.properties
        await clock.advance(301)
        line.ask_for_birth()
        await clock.advance(2)
        old = next(one for one in line.of(MessageType.DBIRTH, "probe")[-1].payload.metrics if one.name == "Water/pH")
        assert (old.value, old.properties["Quality"]) == (7.0, Quality.STALE)


async def test_a_stranger_gets_once_and_slowly_what_it_missed_and_then_live_data_only(
    line: Line, clock: Any, tmp_path: Path
) -> None:
    line.up = False
    async with running(tmp_path, clock) as box:
        for number in range(3000):
            await box.read(number / 7)
        await clock.advance(11)
        line.up = True
        await clock.advance(65)
        await box.read(0.5)
        assert [one.range for one in line.data()] == [(3000, 3000)]
        await clock.advance(NO_LEDGER_AFTER)
        given = line.data()[1:]
        assert given
        assert len(given[0].raw) <= 64 * 1024
        assert all(one.historical for one in given[0].payload.metrics[3:])
        assert len(given) <= 1 + NO_LEDGER_AFTER // DRIP_EVERY
        await clock.advance(20 * DRIP_EVERY)
        ranges = [one.range for one in line.data()]
        offsets = [number for first, last in ranges for number in range(int(str(first)), int(str(last)) + 1)]
        assert sorted(offsets) == list(range(3001)), "each position once"
        count = len(line.data())
        await clock.advance(30 * DRIP_EVERY)
        assert len(line.data()) == count
        assert box.log.unhanded == {}


async def test_a_stranger_is_given_nothing_twice_after_the_agent_died(line: Line, clock: Any, tmp_path: Path) -> None:
    line.up = False
    async with running(tmp_path, clock) as box:
        for _ in range(3):
            await box.read()
        await clock.advance(11)
        line.up = True
        await clock.advance(65)
        await box.read()
        await clock.advance(NO_LEDGER_AFTER + 10)
        assert [one.range for one in line.data()] == [(3, 3), (0, 2)]
        copy = tmp_path.with_name("copy")
        copied(tmp_path, copy)
    line.said.clear()
    async with running(copy, clock) as box:
        await clock.advance(10 * NO_LEDGER_AFTER)
        assert line.data() == []


async def test_what_waited_to_be_sent_when_the_line_broke_is_given_to_a_stranger_later(
    line: Line, clock: Any, tmp_path: Path
) -> None:
    async with running(tmp_path, clock) as box:
        await born(line, clock)
        line.up = False
        await box.read()
        assert line.data() == []
        await clock.advance(11)
        line.up = True
        await clock.advance(30 + 2 * NO_LEDGER_AFTER)
        assert [one.range for one in line.data()] == [(0, 0)]


async def test_a_ledger_that_comes_late_returns_the_node_to_the_ledger(line: Line, clock: Any, tmp_path: Path) -> None:
    async with running(tmp_path, clock) as box:
        await born(line, clock)
        await box.read()
        await clock.advance(NO_LEDGER_AFTER + 60)
        assert len(line.data()) == 1
        line.ledger()
        await clock.advance(700)
        assert len(line.data()) >= 2, "what a stranger was given the hub has not"


async def test_a_floor_that_reached_the_last_life_named_makes_the_node_name_the_next(
    line: Line, clock: Any, tmp_path: Path
) -> None:
    epochs: list[int] = []
    for _ in range(MOST_HELD + 2):
        with DeliveryLog(tmp_path, clock) as log:
            at = clock.now_ms() + len(epochs)
            log.append(
                "probe", at, [Sample(metric="Water/pH", at=at, value=7.0)], {one.name: one for one in PROBE.metrics}
            )
            epochs.append(log.epoch)
    async with running(tmp_path, clock) as box:
        await born(line, clock)
        named = held_of(line.of(MessageType.NBIRTH)[0])
        assert named == (None, epochs[:MOST_HELD])
        line.ledger({}, epochs[3])
        await clock.advance(3)
        assert len(line.of(MessageType.NBIRTH)) == 1
        whole = {box.lineage(epoch=one): RangeSet([(0, 0)]) for one in epochs[:MOST_HELD]}
        line.ledger(whole, epochs[MOST_HELD - 1])
        await clock.advance(3)
        assert held_of(line.of(MessageType.NBIRTH)[-1]) == (epochs[MOST_HELD - 1], epochs[MOST_HELD:])
        births = len(line.of(MessageType.NBIRTH))
        for _ in range(10):
            line.ledger(whole, epochs[MOST_HELD - 1])
            await clock.advance(60)
        assert len(line.of(MessageType.NBIRTH)) == births


def held_of(birth: Said) -> tuple[int | None, list[int]]:
    held = read_held(birth.payload)
    assert held is not None
    return held.floor, list(dict.fromkeys(one.epoch for one in held.positions))


async def test_what_had_to_go_for_lack_of_room_is_an_event_and_named_at_the_next_birth(
    line: Line, clock: Any, tmp_path: Path
) -> None:
    async with running(tmp_path, clock) as box:
        for _ in range(5):
            await box.read()
        await clock.advance(11)
    clock.wall += 86_400_000
    async with running(tmp_path, clock, budget=1) as box:
        await born(line, clock)
        line.ledger()
        await clock.advance(1)
        line.said.clear()
        await clock.advance(EXPIRE_EVERY + 15)
        (event,) = [one for one in line.said if one.positioned and LOG_LOST in one.values]
        assert event.values[LOG_LOST] == 5
        line.ask_for_birth()
        await clock.advance(2)
        held = read_held(line.of(MessageType.NBIRTH)[-1].payload)
        assert held is not None
        assert list(held.lost.values()) == [RangeSet([(0, 4)])]
        await clock.advance(5 * EXPIRE_EVERY)
        assert (
            len({one.range for one in line.of(MessageType.NDATA) if LOG_LOST in one.values and FIRST in one.values})
            == 1
        )


async def test_how_good_the_clock_was_stands_beside_each_sample(line: Line, clock: Any, tmp_path: Path) -> None:
    async with running(tmp_path, clock) as box:
        await born(line, clock)
        for timing in Timing:
            box.timing = timing
            await box.read()
        told = [one.payload.metrics[-1].properties.get(TIME) for one in line.data()]
        assert told == [None, 1, 2]


async def test_a_hundred_answers_of_another_log_change_nothing(line: Line, clock: Any, tmp_path: Path) -> None:
    async with running(tmp_path, clock) as box:
        await born(line, clock)
        await box.read()
        for _ in range(100):
            line.ledger({Lineage("another", box.log.epoch, "probe"): RangeSet([(0, 9)])}, 17, box.log.epoch)
        await clock.advance(2)
        assert box.uplink.uncommitted() == 1
        assert box.uplink.counts.refusals == 100
        assert len(line.of(MessageType.NBIRTH)) == 1


def copied(source: Path, target: Path) -> None:
    """Copy what a kill leaves behind: the files as they are, with everything in them that was written."""
    target.mkdir()
    for file in source.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
