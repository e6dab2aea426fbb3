"""The account of an edge node's log: floors, void ranges, second boxes, wild clocks, strangers; through the intake."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from contract.delivery import BYTES, DEPTH, MOST_HELD, OLDEST, Held, Ledger
from contract.metrics import DataType
from contract.payload import Payload, encode
from contract.positions import Lineage, RangeSet
from contract.topics import MessageType
from hub import comings, log_account, strangers
from hub.devices import DeviceKey, NodeKey
from hub.node_delivery import AlarmKind
from hub.storage.timeseries import Batch, StoreUnavailable

NODE = NodeKey("g", "n-01")
PROBE = DeviceKey("g", "n-01", "probe")
PH = 20


def epoch(count: int, salt: int = 0) -> int:
    return count << 32 | salt


def lineage(count: int, salt: int = 0, stream: str = "probe") -> Lineage:
    return Lineage("log", epoch(count, salt), stream)


def held(running: int, *closed: int, log: str = "log", **more: Any) -> Held:
    positions = {Lineage(log, one, "probe"): RangeSet([(0, 0)]) for one in closed}
    return Held(log=log, epoch=running, positions=positions, **more)


def send(intake: Any, make: Any, one: int, *, offset: int = 0, ago: int = 0, historical: bool = False) -> None:
    now = intake.clock.now_ms()
    sample = make.by_alias(PH, DataType.DOUBLE, 7.0, now - ago, historical=historical)
    intake.give(MessageType.DDATA, make.data(sample, at=now, epoch=one, first=offset, last=offset), "probe")


def alarms(intake: Any, node: NodeKey = NODE) -> set[AlarmKind]:
    shown = intake.ingest.delivery(node)
    return {one.kind for one in shown.alarms}


async def test_the_floor_rises_with_what_is_committed_and_the_next_ledger_tells_it(intake: Any, make: Any) -> None:
    intake.births(held=held(epoch(3), epoch(1), epoch(2)))
    (ledger,) = intake.answer()
    assert (ledger.floors, ledger.positions) == (frozenset(), {})
    send(intake, make, epoch(1), ago=2000, historical=True)
    send(intake, make, epoch(2), ago=1000, historical=True)
    send(intake, make, epoch(3))
    await intake.commit()
    assert intake.store.floors(NODE) == {"log": {epoch(2)}}
    await intake.clock.advance(60)
    (ledger,) = intake.answer()
    assert ledger.floors == {epoch(2)}
    assert set(ledger.positions) == {lineage(2), lineage(3)}, "what is under the floor is forgotten"
    assert intake.ingest.delivery(NODE).floor == epoch(2)


async def test_what_comes_again_from_under_the_floor_makes_no_new_account(intake: Any, make: Any) -> None:
    intake.births(held=held(epoch(3), epoch(1), epoch(2)))
    for one in (1, 2):
        send(intake, make, epoch(one), ago=1000 * one)
    await intake.commit()
    stored = intake.store.stats().samples
    send(intake, make, epoch(1), ago=1000)
    await intake.commit()
    assert intake.store.stats().samples == stored
    assert set(intake.store.ledger(NODE)) == {lineage(2)}


async def test_a_hub_that_was_restored_tells_the_floor_it_has_and_raises_nothing_above_another(
    intake: Any, make: Any
) -> None:
    intake.store.commit(Batch(committed=[(NODE, lineage(8), 0, 0)]), 1)
    intake.births(held=held(epoch(9), epoch(8), floor=epoch(7)))
    await intake.commit()
    (ledger,) = intake.answer()
    assert ledger.floors == frozenset(), "told from none, it lists from the oldest it holds"
    assert intake.store.floors(NODE) == {}
    intake.births(held=held(epoch(9), epoch(6), epoch(7), epoch(8)))
    send(intake, make, epoch(6), ago=2000)
    send(intake, make, epoch(7), ago=1000)
    await intake.commit()
    assert intake.store.floors(NODE) == {"log": {epoch(8)}}


async def test_each_void_range_is_recorded_once_and_what_the_hub_has_beyond_stands(intake: Any, make: Any) -> None:
    intake.store.commit(Batch(committed=[(NODE, lineage(1), 4, 5), (NODE, lineage(2), 3, 3)]), 1)
    told = Held(log="log", epoch=epoch(2), positions={lineage(1): RangeSet([(1, 2)])})
    for _ in range(2):
        intake.births(held=told)
        await intake.commit()
    (first, second) = sorted(intake.store.voids(NODE, 10), key=lambda one: one.first)
    assert (first.lineage, first.first, first.last) == (lineage(1), 0, 0)
    assert (second.first, second.last) == (3, 3)
    assert first.at == intake.clock.now_ms()
    assert intake.store.ledger(NODE)[lineage(1)] == RangeSet([(4, 5)])
    again = log_account.opened(NODE, intake.store)
    assert again.void == {lineage(1): RangeSet([(0, 0), (3, 3)])}, "also not after a restart of the hub"


async def test_void_that_another_copy_of_the_card_still_has_is_taken_in(intake: Any, make: Any) -> None:
    intake.store.commit(Batch(committed=[(NODE, lineage(1), 1, 1)]), 1)
    intake.births(held=Held(log="log", epoch=epoch(2), positions={lineage(1): RangeSet([(1, 1)])}))
    await intake.commit()
    assert len(intake.store.voids(NODE, 10)) == 1
    intake.births(held=Held(log="log", epoch=epoch(2, 7), positions={lineage(1): RangeSet([(0, 1)])}))
    send(intake, make, epoch(1))
    await intake.commit()
    assert intake.store.stats().samples == 1


async def test_an_epoch_the_birth_did_not_list_is_not_taken_in(intake: Any, make: Any) -> None:
    intake.births(held=held(epoch(3), epoch(2)))
    send(intake, make, epoch(4))
    await intake.commit()
    assert intake.store.stats().samples == 0
    assert intake.store.ledger(NODE) == {}
    intake.ingest.answering.ask_for_births()
    assert [payload.metrics[0].name for _, payload in intake.line.sent] == ["Node Control/Rebirth"]


async def test_for_an_epoch_that_had_no_room_in_a_birth_no_birth_is_asked(intake: Any, make: Any) -> None:
    intake.births(held=held(epoch(99), *map(epoch, range(1, MOST_HELD + 1))))
    send(intake, make, epoch(MOST_HELD + 1), ago=1000, historical=True)
    await intake.commit()
    assert intake.store.stats().samples == 0
    assert not intake.ingest._nodes[NODE].session.wants_birth, "it would name the same again"


@pytest.mark.parametrize(
    ("second", "kind"),
    [
        (held(epoch(5), log="other"), AlarmKind.TWO_LOGS),
        (held(epoch(5, 9)), AlarmKind.TWO_EPOCHS),
        (held(epoch(4)), AlarmKind.EPOCH_BACK),
    ],
)
async def test_two_boxes_under_one_id_give_an_alarm_and_both_drain(
    intake: Any, make: Any, second: Held, kind: AlarmKind
) -> None:
    for offset in range(2):
        for told in (held(epoch(5)), second):
            intake.births(log=told.log, held=told)
            send(intake, make, told.epoch, offset=offset, ago=offset * 1000 + (told is second))
            await intake.clock.advance(20)
    await intake.commit()
    assert kind in alarms(intake)
    assert {one.epoch: ranges for one, ranges in intake.store.ledger(NODE).items() if one.log == second.log}[
        second.epoch
    ] == RangeSet([(0, 1)])
    assert intake.store.ledger(NODE)[lineage(5)] == RangeSet([(0, 1)])
    assert intake.store.stats().samples == 4
    await intake.clock.advance(601)
    assert kind not in alarms(intake), "ten minutes without the other end it"


async def test_a_restart_and_a_rebirth_give_no_alarm(intake: Any) -> None:
    for one in (5, 5, 6, 7, 7):
        intake.births(held=held(epoch(one)))
        await intake.clock.advance(10)
    assert alarms(intake) == set()


async def test_a_deleted_log_and_a_restored_card_are_said_long_after(intake: Any, make: Any) -> None:
    intake.births(held=held(epoch(5)))
    send(intake, make, epoch(5))
    await intake.commit()
    await intake.clock.advance(3600)
    intake.births(held=held(epoch(3, 1)))
    assert alarms(intake) == {AlarmKind.EPOCH_BACK}
    await intake.clock.advance(3600)
    intake.births(log="new", held=held(epoch(1), log="new"))
    assert alarms(intake) == {AlarmKind.NEW_LOG}


@pytest.mark.parametrize(
    "told",
    [
        Held(log="log", epoch=2**63, positions={}),
        Held(log="log", epoch=5, positions={Lineage("log", 2**63, "probe"): RangeSet([(0, 1)])}),
        Held(log="log", epoch=5, positions={Lineage("log", 4, "probe"): RangeSet([(0, 2**63)])}),
        Held(log="log", epoch=5, positions={Lineage("other", 4, "probe"): RangeSet([(0, 1)])}),
        Held(log="log", epoch=5, positions={}, lost={Lineage("log", 4, "a/b"): RangeSet([(0, 1)])}),
        Held(log="l" * 65, epoch=5, positions={}),
    ],
)
async def test_a_list_that_cannot_be_true_harms_nothing_stored_and_is_said(intake: Any, make: Any, told: Held) -> None:
    intake.births(log=told.log, held=told)
    send(intake, make, 5)
    await intake.commit()
    assert alarms(intake) == {AlarmKind.UNREADABLE_LOG}
    assert intake.store.stats().samples == 1, "what it measures is taken in all the same"
    assert intake.store.floors(NODE) == {}
    assert intake.store.voids(NODE, 9) == []
    intake.births(log="log", held=held(6))
    assert AlarmKind.UNREADABLE_LOG not in alarms(intake)


async def test_a_wild_clock_is_committed_and_not_acknowledged_and_nobody_else_is_held_up(
    intake: Any, make: Any
) -> None:
    other = NodeKey("g", "n-02")
    intake.births(held=held(epoch(1)))
    intake.births(held=held(epoch(1), log="log2"), log="log2", node="n-02")
    intake.answer()
    now = intake.clock.now_ms()
    far = make.by_alias(PH, DataType.DOUBLE, 7.0, now + 10**9)
    for node in ("n-01", "n-02"):
        sample = far if node == "n-01" else make.by_alias(PH, DataType.DOUBLE, 7.0, now)
        intake.give(MessageType.DDATA, make.data(sample, at=now, epoch=epoch(1)), "probe", node=node)
    await intake.commit()
    assert intake.store.stats().quarantined == 1
    assert intake.store.ledger(NODE) == {lineage(1): RangeSet([(0, 0)])}
    await intake.clock.advance(10)
    assert intake.answer() == []
    assert alarms(intake) == {AlarmKind.WILD_CLOCK}
    sent = len(intake.line.sent)
    intake.ingest.answering.answer(intake.ingest._nodes[other], intake.ingest.standing())
    assert len(intake.line.sent) == sent + 1
    for _ in range(3):  # what comes again says nothing new of its clock
        await intake.clock.advance(19)
        intake.give(MessageType.DDATA, make.data(far, at=now, epoch=epoch(1)), "probe")
    assert [type(one) for one in intake.answer()] == [Ledger]
    assert alarms(intake) == set()


async def test_the_values_of_births_say_nothing_against_a_clock(intake: Any, make: Any) -> None:
    intake.births(held=held(epoch(1)))
    now = intake.clock.now_ms()
    birth = make.device_birth("water_probe", now)
    wild = [replace(one, at=now + 10**9, value=1.0) if one.alias == PH else one for one in birth.metrics]
    intake.give(MessageType.DBIRTH, Payload(at=now, seq=1, metrics=tuple(wild)), "probe")
    assert [type(one) for one in intake.answer()] == [Ledger]


async def test_while_the_hubs_clock_is_in_doubt_impossible_times_are_neither_stored_nor_put_aside(
    intake: Any, make: Any
) -> None:
    intake.births(held=held(epoch(1)))
    send(intake, make, epoch(1))
    await intake.commit()
    intake.clock.wall -= 3_600_000
    intake.ingest.watch.look()
    assert "behind the newest reading" in intake.ingest.holding
    now = intake.clock.now_ms()
    ahead = make.by_alias(PH, DataType.DOUBLE, 7.0, now + 3_600_000)
    intake.give(MessageType.DDATA, make.data(ahead, at=now + 3_600_000, epoch=epoch(1), first=1, last=1), "probe")
    await intake.commit()
    assert intake.store.stats().quarantined == 0
    assert intake.store.ledger(NODE) == {lineage(1): RangeSet([(0, 0)])}
    assert intake.answer(doubt=intake.ingest.holding) == []
    intake.clock.wall += 3_600_000
    intake.ingest.watch.look()
    assert intake.ingest.holding == ""
    intake.give(MessageType.DDATA, make.data(ahead, at=now + 3_600_000, epoch=epoch(1), first=1, last=1), "probe")
    await intake.commit()
    assert intake.store.ledger(NODE) == {lineage(1): RangeSet([(0, 1)])}


async def test_a_hub_that_starts_with_its_clock_an_hour_back_takes_in_nothing_wrong_and_acknowledges_nothing(
    intake: Any, make: Any, another: Any
) -> None:
    intake.births(held=held(epoch(1)))
    send(intake, make, epoch(1))
    await intake.commit()
    truth = intake.clock.now_ms() + 1000
    intake.clock.wall -= 3_600_000
    hub = another()
    assert "60 min behind the newest reading" in hub.ingest.holding
    hub.births(held=held(epoch(1)))
    reading = make.data(make.by_alias(PH, DataType.DOUBLE, 7.0, truth), at=truth, epoch=epoch(1), first=1, last=1)
    hub.give(MessageType.DDATA, reading, "probe")
    await hub.commit()
    assert (hub.store.stats().samples, hub.store.stats().quarantined) == (1, 0)
    assert hub.answer(doubt=hub.ingest.holding) == []
    hub.clock.wall += 3_600_000
    hub.ingest.watch.look()
    assert hub.ingest.holding == ""
    hub.give(MessageType.DDATA, reading, "probe")
    await hub.commit()
    (ledger,) = hub.answer()
    assert ledger.positions == {lineage(1): RangeSet([(0, 1)])}


async def test_strangers_that_nobody_configured_are_bounded_and_the_longest_silent_goes(
    intake: Any, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strangers, "MOST", 3)
    intake.births()
    for number in range(5):
        intake.births(log=None, node=f"x-{number}")
    intake.births(log=None, node="x-2")
    intake.births(log=None, node="x-5")
    known = {key.node for key in intake.ingest._nodes}
    assert known == {"n-01", "x-4", "x-2", "x-5"}
    assert {one.key.node for one in intake.live.devices()} == known
    assert intake.ingest._counters.strangers_forgotten._value.get() == 3


async def test_metrics_invented_by_strangers_do_not_fill_the_store(
    intake: Any, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strangers, "MOST_NEW_METRICS", 50)
    for number in range(20):
        intake.births(log=None, node=f"x-{number}")
    assert intake.store.stats().series <= 50
    assert len(intake.ingest._nodes) <= 5
    intake.births()
    assert intake.ingest.born(NODE), "our own are served all the same"


async def test_a_retired_device_delivers_its_last_records_and_is_gone(intake: Any, make: Any) -> None:
    intake.births(held=held(epoch(2), epoch(1)))
    now = intake.clock.now_ms()
    retired = make.device_birth("water_probe", now)
    metrics = tuple(replace(one, value=None) if one.name == "Device/Kind" else one for one in retired.metrics)
    intake.give(MessageType.DBIRTH, Payload(at=now, seq=2, metrics=metrics), "old")
    sample = make.by_alias(PH, DataType.DOUBLE, 6.5, now - 5000, historical=True)
    intake.give(MessageType.DDATA, make.data(sample, at=now, epoch=epoch(1)), "old")
    await intake.commit()
    assert intake.store.raw(DeviceKey("g", "n-01", "old"), "Water/pH", 0, now, 9).value == [6.5]
    intake.give(MessageType.DDEATH, Payload(at=now, seq=4), "old")
    assert "old" not in {one.key.device for one in intake.live.devices()}
    intake.give(MessageType.DDEATH, Payload(at=now, seq=5), "probe")
    assert "probe" in {one.key.device for one in intake.live.devices()}, "one that is merely out stays"


async def test_a_device_that_is_not_born_with_its_node_any_more_is_gone(intake: Any) -> None:
    intake.births(device="old")
    intake.births(device="probe")
    await intake.clock.advance(comings.GONE_AFTER + 1)
    comings.let_go(intake.live, intake.ingest._nodes.values(), intake.clock.monotonic())
    assert {one.key.device for one in intake.live.devices()} == {"", "probe"}


async def test_how_deep_a_log_is_is_kept_for_people(intake: Any, make: Any) -> None:
    now = intake.clock.now_ms()
    birth = make.node_birth("log", now)
    depth = [
        make.wire(name, DataType.INT64, value, now, alias)
        for alias, name, value in ((31, DEPTH, 12), (32, OLDEST, None), (33, BYTES, 4096))
    ]
    intake.give(MessageType.NBIRTH, Payload(at=now, seq=0, metrics=(*birth.metrics, *depth)))
    told = intake.ingest.delivery(NODE).depth
    assert (told.records, told.oldest, told.bytes_on_disk) == (12, None, 4096)
    said = [make.by_alias(alias, DataType.INT64, value, now) for alias, value in ((31, 3), (32, now - 500), (33, 8192))]
    intake.give(MessageType.NDATA, Payload(at=now, seq=1, metrics=tuple(said)))
    told = intake.ingest.delivery(NODE).depth
    assert (told.records, told.oldest, told.bytes_on_disk, told.told_at) == (3, now - 500, 8192, now)


async def test_beyond_what_may_wait_undecided_live_state_goes_on_and_nothing_is_acknowledged(
    intake: Any, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    intake.births(held=held(epoch(1)))
    send(intake, make, epoch(1))
    monkeypatch.setattr("hub.committing.MOST_UNDECIDED", 10)
    assert intake.ingest.standing().closed
    now = intake.clock.now_ms()
    newer = make.by_alias(PH, DataType.DOUBLE, 8.5, now)
    intake.give(MessageType.DDATA, make.data(newer, at=now, epoch=epoch(1), first=1, last=1), "probe")
    probe = next(one for one in intake.live.devices() if one.key == PROBE)
    assert probe.values["Water/pH"].value == 8.5
    await intake.commit()
    assert intake.store.ledger(NODE) == {lineage(1): RangeSet([(0, 0)])}
    (ledger,) = intake.answer(closed=True)
    assert ledger.window == 0
    intake.give(MessageType.DDATA, make.data(newer, at=now, epoch=epoch(1), first=1, last=1), "probe")
    await intake.commit()
    assert intake.store.ledger(NODE) == {lineage(1): RangeSet([(0, 1)])}, "it came again"


async def test_a_batch_that_our_mistake_costs_is_taken_in_when_it_comes_again(
    intake: Any, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    intake.births(held=held(epoch(2), epoch(1)))
    await intake.commit()
    send(intake, make, epoch(1), ago=1000)
    with monkeypatch.context() as broken:
        broken.setattr(intake.store, "commit", lambda batch, at: batch.no_such_thing)
        await intake.commit()
    assert intake.store.ledger(NODE) == {}
    send(intake, make, epoch(1), ago=1000)
    await intake.commit()
    assert intake.store.stats().samples == 1
    assert intake.store.ledger(NODE) == {lineage(1): RangeSet([(0, 0)])}


async def test_a_hub_killed_between_commit_and_answer_acknowledges_after_its_start(
    intake: Any, make: Any, another: Any
) -> None:
    intake.births(held=held(epoch(1)))
    send(intake, make, epoch(1))
    await intake.commit()
    hub = another()  # the same store, nothing else: what was in memory is gone
    hub.births(held=held(epoch(1)))
    (ledger,) = hub.answer()
    assert ledger.positions == {lineage(1): RangeSet([(0, 0)])}
    send(hub, make, epoch(1))
    await hub.commit()
    assert hub.store.stats().samples == 1


async def test_while_the_store_is_down_the_window_is_shut_and_what_is_committed_is_still_told(
    intake: Any, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    intake.births(held=held(epoch(1)))
    send(intake, make, epoch(1))
    await intake.commit()
    intake.answer()
    send(intake, make, epoch(1), offset=1, ago=500)

    def refuse(batch: Batch, at: int) -> None:
        raise StoreUnavailable("no space")

    with monkeypatch.context() as full:
        full.setattr(intake.store, "commit", refuse)
        intake.ingest.committing.batch.wire_bytes += 1
        await intake.clock.advance(1)
        intake.ingest.committing.commit_if_due()
        while not intake.ingest.holding:
            await intake.clock.advance(0.01)
        assert intake.ingest.holding == "no space"
        intake.ingest.answering.look(intake.ingest.standing())
        await intake.clock.advance(5)
        (ledger,) = intake.answer(closed=intake.ingest.standing().closed)
        assert (ledger.window, ledger.positions) == (0, {lineage(1): RangeSet([(0, 0)])})
    trying = asyncio.create_task(intake.commit())
    while not trying.done():  # it tries again in its own time
        await intake.clock.advance(1)
    assert intake.ingest.holding == ""
    await intake.clock.advance(6)
    (told,) = intake.answer()
    assert 1 in told.positions[lineage(1)]


def test_what_is_kept_aside_can_be_read_without_a_birth(intake: Any, make: Any) -> None:
    now = intake.clock.now_ms()
    intake.births()
    sample = make.by_alias(PH, DataType.DOUBLE, 7.0, now)
    intake.give(MessageType.DDATA, encode(make.data(sample, at=now, last=5)), "probe")
    (whole,) = intake.ingest.committing.batch.quarantined
    from contract.payload import decode

    assert [one.name for one in decode(whole.payload).metrics][-1] == "Water/pH"
    assert {one.alias for one in decode(whole.payload).metrics} == {None}


async def test_five_synchronised_edge_nodes_that_agree_against_the_hub_hold_it(intake: Any, make: Any) -> None:
    nodes = [f"n-0{number}" for number in range(1, 7)]
    intake.ingest.watch._trusted = frozenset(NodeKey("g", node) for node in nodes)
    for node in nodes:
        intake.births(node=node, log=node, held=held(epoch(1), log=node))
    now = intake.clock.now_ms()

    def speak(count: int, *, ahead: int, **flags: Any) -> str:
        for node in nodes[:count]:
            sample = replace(make.by_alias(PH, DataType.DOUBLE, 7.0, now + ahead, historical=False), **flags)
            intake.give(MessageType.DDATA, make.data(sample, at=now + ahead, epoch=epoch(1)), "probe", node=node)
        intake.ingest.watch.look()
        return str(intake.ingest.holding)

    assert speak(5, ahead=400_000, historical=True) == "", "old news tells no time"
    assert speak(5, ahead=400_000, properties={"time": 1}) == "", "a clock that is unsure of itself is no witness"
    assert speak(4, ahead=400_000) == ""
    assert "behind 5 edge nodes" in speak(5, ahead=400_000)
    assert intake.answer(doubt=intake.ingest.holding) == []
    await intake.clock.advance(10)
    assert speak(6, ahead=0) == ""


async def test_who_filled_half_its_window_is_answered_with_the_commit(intake: Any, make: Any) -> None:
    intake.line.ready = True
    intake.births(held=held(epoch(1)))
    intake.answer()
    send(intake, make, epoch(1), ago=500)
    await intake.commit()
    assert len(intake.line.sent) == 1, "a little waits its five seconds"
    intake.ingest._nodes[NODE].answers.window = 100
    send(intake, make, epoch(1), offset=1)
    await intake.commit()
    assert len(intake.line.sent) == 2
