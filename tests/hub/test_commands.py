"""Commands at the hub: kept before they are sent, sent until heard or expired, settled by the box's own word."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from contract.actions import Action
from contract.catalog import COMMAND, COMMAND_OUTCOME, Kind
from contract.commands import Command, Outcome, Stage, read_command, written
from contract.payload import decode
from hub.audit import Person
from hub.backup import back_up
from hub.commands import EXPIRES_IN, NEVER_ANSWERED, NEVER_REACHED, NODE_GONE, CommandRefused, Commands
from hub.devices import DeviceKey
from hub.restore import restore
from hub.storage.audit import Audit, Search
from hub.storage.commands import CommandStore, Kept
from hub.storage.database import open_database
from hub.storage.embedded import EmbeddedStore
from hub.storage.timeseries import Batch, EventRow

PROBE = DeviceKey("g", "n-01", "probe-01")
LAN = Person(account="lan", name="Bà Lan")


@dataclass
class Desk:
    commands: Commands
    store: CommandStore
    audit: Audit
    readings: EmbeddedStore
    clock: Any
    sent: list[tuple[str, Command]]
    line: dict[str, bool]

    def ask(self, device: DeviceKey = PROBE) -> Kept:
        return self.commands.ask(device, Kind.WATER_PROBE, Action.ASK_NOW, LAN)

    def report(self, command: str, stage: Stage, reason: str = "", *, node: str = "n-01", raw: str = "") -> None:
        told = raw or written(Outcome(command=command, stage=stage, reason=reason, at=self.clock.now_ms()))
        key = DeviceKey("g", node, "")
        at = self.clock.now_ms()
        event = EventRow(key=key, metric=COMMAND_OUTCOME, at=at, received_at=at, value=told)
        self.readings.commit(Batch(events=[event]), at)
        self.commands.outcomes_came()

    def stage(self, command: str) -> Stage:
        kept = self.store.get(command)
        assert kept is not None
        return kept.stage


@asynccontextmanager
async def desk_at(folder: Path, clock: Any, *, online: bool = True) -> AsyncIterator[Desk]:
    sent: list[tuple[str, Command]] = []
    line = {"online": online}

    def publish(topic: str, payload: bytes) -> bool:
        (metric,) = decode(payload).metrics
        assert metric.name == COMMAND
        sent.append((topic, read_command(str(metric.value))))
        return True

    with closing(open_database(folder / "hub.db", "hub")) as database, EmbeddedStore(folder) as readings:
        audit = Audit(database)
        store = CommandStore(database, audit)
        commands = Commands(
            store=store, readings=readings, publish=publish, online=lambda node: line["online"], clock=clock
        )
        running = asyncio.create_task(commands.run())
        await clock.settle()
        try:
            yield Desk(commands, store, audit, readings, clock, sent, line)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


@pytest.fixture
async def desk(tmp_path: Path, clock: Any) -> AsyncIterator[Desk]:
    async with desk_at(tmp_path, clock) as one:
        yield one


async def test_what_is_asked_is_kept_with_its_act_and_sent_ever_more_slowly(desk: Desk, clock: Any) -> None:
    kept = desk.ask()
    (act,) = desk.audit.search(Search())
    assert (act.account, act.what) == ("lan", "command.ask_now")
    assert act.details["after"]["command"] == kept.id
    await clock.advance(60)
    assert {(topic, one.id, one.device) for topic, one in desk.sent} == {("spBv1.0/g/NCMD/n-01", kept.id, "probe-01")}
    assert 5 <= len(desk.sent) <= 8
    assert desk.store.get(kept.id).sendings == len(desk.sent)  # type: ignore[union-attr]
    assert desk.stage(kept.id) is Stage.SENT


async def test_the_boxs_word_ends_the_sending_and_settles(desk: Desk, clock: Any, eventually: Any) -> None:
    kept = desk.ask()
    await clock.advance(0.3)
    before = len(desk.sent)
    desk.report(kept.id, Stage.ACCEPTED)
    await eventually(lambda: desk.stage(kept.id) is Stage.ACCEPTED)
    await clock.advance(120)
    assert len(desk.sent) == before
    desk.report(kept.id, Stage.FAILED, "silent")
    await eventually(lambda: desk.stage(kept.id) is Stage.FAILED)
    desk.report(kept.id, Stage.DONE)
    desk.report("f" * 32, Stage.DONE)
    desk.report(kept.id, Stage.DONE, raw="{")
    await eventually(lambda: desk.store.cursor() == 5)
    assert desk.stage(kept.id) is Stage.FAILED
    assert desk.store.get(kept.id).reason == "silent"  # type: ignore[union-attr]


async def test_another_boxs_word_counts_nothing(desk: Desk, clock: Any, eventually: Any) -> None:
    kept = desk.ask()
    desk.report(kept.id, Stage.DONE, node="n-02")
    await eventually(lambda: desk.store.cursor() == 1)
    assert desk.stage(kept.id) in {Stage.PENDING, Stage.SENT}


@pytest.mark.parametrize(("online", "reason"), [(True, NEVER_ANSWERED), (False, NEVER_REACHED)])
async def test_what_nobody_takes_expires_and_says_why(desk: Desk, clock: Any, online: bool, reason: str) -> None:
    desk.line["online"] = online
    kept = desk.ask()
    assert kept.reason == ("" if online else NODE_GONE)
    await clock.advance(EXPIRES_IN + 30)
    found = desk.store.get(kept.id)
    assert found is not None
    assert (found.stage, found.reason) == (Stage.EXPIRED, reason)
    before = len(desk.sent)
    await clock.advance(120)
    assert len(desk.sent) == before
    assert all(one.expires_at == kept.expires_at for _, one in desk.sent)


async def test_a_second_press_is_refused_while_the_first_is_under_way(desk: Desk, clock: Any, eventually: Any) -> None:
    kept = desk.ask()
    with pytest.raises(CommandRefused) as refused:
        desk.ask()
    assert refused.value.code == "under_way"
    desk.ask(DeviceKey("g", "n-01", "probe-02"))
    desk.report(kept.id, Stage.DONE)
    await eventually(lambda: desk.stage(kept.id) is Stage.DONE)
    desk.ask()


async def test_a_hub_that_starts_anew_goes_on_with_what_has_no_answer_and_nothing_else(
    tmp_path: Path, clock: Any, eventually: Any
) -> None:
    async with desk_at(tmp_path, clock) as desk:
        heard, unheard = desk.ask(), desk.ask(DeviceKey("g", "n-01", "probe-02"))
        await clock.advance(0.3)
        desk.report(heard.id, Stage.ACCEPTED)
        await eventually(lambda: desk.stage(heard.id) is Stage.ACCEPTED)
    async with desk_at(tmp_path, clock) as desk:
        await clock.advance(30)
        assert {one.id for _, one in desk.sent} == {unheard.id}
        desk.report(heard.id, Stage.DONE)
        await eventually(lambda: desk.stage(heard.id) is Stage.DONE)


async def test_a_hub_restored_from_yesterday_sends_nothing_of_yesterday(tmp_path: Path, clock: Any) -> None:
    state, backup = tmp_path / "hub", tmp_path / "backup"
    async with desk_at(state, clock, online=False) as desk:
        kept = desk.ask()
        told = {"host_id": "hub", "store": "embedded"}
        await asyncio.to_thread(back_up, state, backup, made_at=clock.now_ms(), made_by="x", **told)  # type: ignore[arg-type]
    clock.wall += 86_400_000
    restore(state, backup, now=clock.now_ms(), who="x", **told)  # type: ignore[arg-type]
    async with desk_at(state, clock) as desk:
        await clock.advance(60)
        assert desk.sent == []
        assert desk.stage(kept.id) is Stage.EXPIRED
