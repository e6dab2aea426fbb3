"""Commands on the box: each at most once, late ones not at all, few in a minute, and what became of each is told."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.actions import ACTIONS, Action
from contract.catalog import CATALOG, COMMAND_OUTCOME, ONLINE, Kind
from contract.commands import LONGEST, Command, Outcome, Stage, read_outcome, written
from contract.metrics import Sample
from edge.command_journal import CommandJournal
from edge.command_rules import PER_DEVICE, PER_NODE, Again, Obey, Settle, Situation, Wait, examine
from edge.commands import NOT_ASKED, POWER_CUT, Commands
from edge.health import Health

NOW = 1_790_000_000_000
KINDS = {"": Kind.EDGE_NODE, "probe": Kind.WATER_PROBE, "horn": Kind.LOUDSPEAKER}


def command(number: int = 1, **change: Any) -> Command:
    told = {"action": "ask_now", "device": "probe", "issued_at": NOW, "expires_at": NOW + 60_000, "issuer": "lan"}
    return Command(id=f"{number:032x}", **{**told, **change})


def situation(**change: Any) -> Situation:
    return Situation(**{"kinds": KINDS, "wall": NOW, "known": False, "recent": {}, **change})


class TestTheVerdict:
    """Pure."""

    @pytest.mark.parametrize(
        ("asked", "here", "verdict"),
        [
            (command(), situation(), Obey(Action.ASK_NOW)),
            (command(device=""), situation(), Obey(Action.ASK_NOW)),
            (command(), situation(wall=NOW + 60_000), Obey(Action.ASK_NOW)),
            (command(), situation(wall=NOW + 60_001), Settle(Stage.EXPIRED, "late")),
            (command(), situation(wall=0), Obey(Action.ASK_NOW)),
            (command(), situation(known=True, wall=NOW + 10**9), Again()),
            (command(), situation(recent={"probe": PER_DEVICE}), Wait()),
            (command(), situation(recent={"horn": PER_DEVICE}), Obey(Action.ASK_NOW)),
            (command(), situation(recent={None: PER_NODE}), Wait()),
        ],
    )
    def test_is_as_the_rules_say(self, asked: Command, here: Situation, verdict: object) -> None:
        assert examine(asked, here) == verdict

    @pytest.mark.parametrize(
        ("change", "named"),
        [
            ({"action": "play"}, "'play'"),
            ({"action": "set_volume"}, "'set_volume'"),
            ({"action": "ASK_NOW"}, "'ASK_NOW'"),
            ({"device": "nobody"}, "'nobody'"),
            ({"arguments": {"volume": "100"}}, "arguments"),
            ({"expires_at": NOW + LONGEST + 1}, "15 minutes"),
        ],
    )
    def test_a_refusal_names_what_is_wrong(self, change: dict[str, Any], named: str) -> None:
        verdict = examine(command(**change), situation())
        assert isinstance(verdict, Settle)
        assert verdict.stage is Stage.REFUSED
        assert named in verdict.reason

    @given(
        st.text(min_size=1, max_size=40),
        st.sampled_from(["", "probe", "horn", "nobody"]),
        st.integers(0, 2**52),
        st.integers(0, 2**52),
        st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=2),
    )
    def test_only_what_stands_in_the_table_and_is_in_time_is_ever_obeyed(
        self, action: str, device: str, wall: int, expires_at: int, arguments: dict[str, str]
    ) -> None:
        asked = command(action=action, device=device, expires_at=expires_at, arguments=arguments)
        verdict = examine(asked, situation(wall=wall))
        if isinstance(verdict, Obey):
            assert KINDS[device] in ACTIONS[Action(action)].kinds
            assert wall <= expires_at
            assert not arguments


class Box:
    """Commands over a journal on disk; devices answer when the test says so."""

    def __init__(self, commands: Commands) -> None:
        self.commands = commands
        self.told: list[Outcome] = []
        self.instants: list[int] = []
        self.asked: list[str] = []
        self.health = Health(told=ONLINE)
        self.answers = asyncio.Event()

    async def record(self, stream: str, samples: Sequence[Sample]) -> None:
        for sample in samples:
            assert (stream, sample.metric) == ("", COMMAND_OUTCOME)
            self.told.append(read_outcome(str(sample.value)))
            self.instants.append(sample.at)

    def asking(self, device: str) -> Callable[[], Any]:
        async def ask() -> Health:
            self.asked.append(device)
            await self.answers.wait()
            return self.health

        return ask

    def stages(self) -> list[Stage]:
        return [one.stage for one in self.told]


@asynccontextmanager
async def box_at(folder: Path, clock: Any) -> AsyncIterator[Box]:
    with CommandJournal(folder / "journal.db") as journal:
        box: Box

        async def record(stream: str, samples: Sequence[Sample]) -> None:
            await box.record(stream, samples)

        commands = Commands(journal=journal, kinds=KINDS, record=record, clock=clock)
        box = Box(commands)
        commands.ask = {device: box.asking(device) for device in KINDS}
        running = asyncio.create_task(commands.run())
        await clock.settle()
        try:
            yield box
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


@pytest.fixture
async def box(tmp_path: Path, clock: Any) -> AsyncIterator[Box]:
    async with box_at(tmp_path, clock) as one:
        yield one


async def test_a_device_is_asked_once_and_both_words_are_told(box: Box, clock: Any) -> None:
    await box.commands.take(written(command()))
    assert box.stages() == [Stage.ACCEPTED]
    for _ in range(3):
        await box.commands.take(written(command()))
    box.answers.set()
    await clock.settle()
    assert box.asked == ["probe"]
    assert box.stages()[0] is Stage.ACCEPTED
    assert box.stages()[-1] is Stage.DONE
    assert len(set(box.instants)) == len(box.instants), "one instant holds one value"


async def test_a_device_that_does_not_answer_is_said_to_with_its_cause(box: Box, clock: Any) -> None:
    box.health = Health(told="unauthorised", failing_since=1.0)
    box.answers.set()
    await box.commands.take(written(command()))
    await clock.settle()
    assert (box.told[-1].stage, box.told[-1].reason) == (Stage.FAILED, "unauthorised")


async def test_a_device_whose_turn_never_comes_is_said_to(box: Box, clock: Any) -> None:
    real = asyncio.wait_for

    async def at_once(what: Any, within: float) -> Any:
        return await real(what, 0.01)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edge.commands.asyncio.wait_for", at_once)
        await box.commands.take(written(command()))
        await real(_until(lambda: Stage.FAILED in box.stages()), 5)
    assert box.told[-1].reason == NOT_ASKED


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


async def test_it_is_done_once_over_a_restart_too(tmp_path: Path, clock: Any) -> None:
    async with box_at(tmp_path, clock) as box:
        box.answers.set()
        await box.commands.take(written(command()))
        await clock.settle()
        assert box.stages() == [Stage.ACCEPTED, Stage.DONE]
    async with box_at(tmp_path, clock) as box:
        box.answers.set()
        await box.commands.take(written(command()))
        await clock.settle()
        assert box.asked == []
        assert box.stages() == [Stage.DONE], "what became of it is said again"


async def test_what_a_power_cut_ended_is_told_and_not_done_again(tmp_path: Path, clock: Any) -> None:
    async with box_at(tmp_path, clock) as box:
        await box.commands.take(written(command()))
        await clock.settle()
        assert box.asked == ["probe"]
    async with box_at(tmp_path, clock) as box:
        await box.commands.take(written(command()))
        assert box.asked == []
        assert {(one.stage, one.reason) for one in box.told} == {(Stage.FAILED, POWER_CUT)}


async def test_what_comes_late_is_recorded_as_expired_and_not_done(box: Box, clock: Any) -> None:
    clock.wall = NOW + 60_001
    for _ in range(3):
        await box.commands.take(written(command()))
    await clock.settle()
    assert box.asked == []
    assert set(box.stages()) == {Stage.EXPIRED}


async def test_a_repeated_outcome_is_said_ever_less_often(box: Box, clock: Any) -> None:
    box.answers.set()
    await box.commands.take(written(command()))
    await clock.settle()
    for _ in range(600):
        await box.commands.take(written(command()))
        clock._move(clock.monotonic() + 0.1)
    assert len(box.told) <= 2 + 6, "a minute of repetition fills no log"


async def test_a_flood_reaches_a_device_few_times_and_the_log_not_much_oftener(box: Box, clock: Any) -> None:
    box.answers.set()
    for number in range(1000):
        await box.commands.take(written(command(number, expires_at=NOW + 200_000)))
        await box.commands.take(written(command(10_000 + number, action="play")))
    await clock.settle()
    assert box.asked == ["probe"] * PER_DEVICE
    assert len(box.told) <= 2 * PER_NODE
    clock._move(clock.monotonic() + 61)
    await box.commands.take(written(command(999, expires_at=NOW + 200_000)))
    await clock.settle()
    assert len(box.asked) == PER_DEVICE + 1, "one that was not heeded then is heeded when it comes again"


async def test_what_is_no_command_is_not_recorded(box: Box) -> None:
    for raw in ("", "{", "[]", '{"id": 1}', "x" * 5000):
        await box.commands.take(raw)
    assert box.told == []


def test_the_node_declares_its_outcomes() -> None:
    assert COMMAND_OUTCOME in {one.name for one in CATALOG[Kind.EDGE_NODE].metrics}
