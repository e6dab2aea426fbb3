"""What is said of presence when what a device hangs on is out: the cause at its highest place, once, and once over."""

import asyncio
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.catalog import CATALOG, ONLINE, Cause, Kind
from contract.metrics import Sample
from edge.health import Health, Rhythm, failed, succeeded
from edge.poller import DeviceUnavailable, Poller
from edge.presence import BOOT_SECONDS, BOX, Known, Place, heard, mains
from edge.topology import Topology

RHYTHM = Rhythm(poll=10.0, deadline=3.0, grace=30.0)
STREET = {
    "switch": Place(mains=True),
    "cam-1": Place(behind="switch", mains=True),
    "cam-2": Place(behind="switch"),
    "probe": Place(),
}


class Device:
    metrics = CATALOG[Kind.WATER_PROBE].metrics

    def __init__(self, clock: Any) -> None:
        self.out = False
        self.asked: list[float] = []
        self._clock = clock

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None: ...

    async def read(self) -> Sequence[Sample]:
        self.asked.append(self._clock.monotonic())
        if self.out:
            raise DeviceUnavailable(Cause.SILENT, "nothing")
        return [Sample(metric="Water/pH", at=self._clock.now_ms(), value=7.0)]


class Street:
    """Pollers over devices that go out together, and what was said of them."""

    def __init__(self, clock: Any, places: Mapping[str, Place]) -> None:
        self.said: list[tuple[str, object]] = []
        self.mains: bool | None = None
        self.devices = {name: Device(clock) for name in places}
        self.box = Device(clock)
        self.topology = Topology(places, sees_mains=lambda: self.mains, record=self.record, clock=clock)
        self.pollers = {
            name: Poller(
                name,
                device,
                rhythm=RHYTHM,
                record=self.record,
                attempted=self.topology.attempted,
                clock=clock,
                chance=random.Random(number),
            )
            for number, (name, device) in enumerate({BOX: self.box, **self.devices}.items())
        }
        self.topology.ask = {name: one.ask_now for name, one in self.pollers.items()}

    async def record(self, stream: str, samples: Sequence[Sample]) -> None:
        self.said += [
            (one.metric.removeprefix("Presence/"), one.value) for one in samples if one.metric.startswith("Presence/")
        ]

    def out(self, *names: str, out: bool = True) -> None:
        for name in names:
            self.devices[name].out = out

    def news(self) -> list[tuple[str, object]]:
        found, self.said = self.said, []
        return sorted(found, key=str)


@asynccontextmanager
async def street(clock: Any, places: Mapping[str, Place] = STREET) -> AsyncIterator[Street]:
    one = Street(clock, places)
    tasks = [asyncio.create_task(poller.run()) for poller in one.pollers.values()]
    try:
        await clock.advance(15)
        one.news()
        yield one
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_dead_switch_is_the_cause_of_all_behind_it_said_once_each_and_once_over(clock: Any) -> None:
    async with street(clock) as one:
        one.out("switch", "cam-1", "cam-2")
        await clock.advance(300)
        assert one.news() == [("cam-1", "upstream"), ("cam-2", "upstream"), ("switch", "silent")]
        one.out("switch", "cam-1", "cam-2", out=False)
        await clock.advance(70)
        assert one.news() == [("cam-1", ONLINE), ("cam-2", ONLINE), ("switch", ONLINE)]
        assert one.topology.said["probe"] == ONLINE


async def test_a_dead_camera_behind_a_living_switch_is_its_own_cause(clock: Any) -> None:
    async with street(clock) as one:
        one.out("cam-1")
        await clock.advance(60)
        assert one.news() == [("cam-1", "silent")]


async def test_what_stays_dead_once_the_switch_is_back_becomes_its_own_cause(clock: Any) -> None:
    async with street(clock) as one:
        one.out("switch", "cam-1", "cam-2")
        await clock.advance(300)
        one.news()
        one.out("switch", "cam-2", out=False)
        await clock.advance(130)
        assert one.news() == [("cam-1", "silent"), ("cam-2", ONLINE), ("switch", ONLINE)]


async def test_what_hangs_on_a_switch_that_came_back_is_asked_at_once(clock: Any) -> None:
    async with street(clock) as one:
        one.out("switch", "cam-2")
        await clock.advance(900)
        one.out("switch", "cam-2", out=False)
        before = len(one.devices["cam-2"].asked)
        while one.topology.said["switch"] != ONLINE:
            await clock.advance(1)
        await clock.advance(1)
        assert len(one.devices["cam-2"].asked) == before + 1
        assert one.topology.said["cam-2"] == ONLINE


async def test_lost_mains_are_said_of_all_on_them_and_not_of_the_rest(clock: Any) -> None:
    async with street(clock) as one:
        one.mains = True
        await clock.advance(30)
        one.mains = False
        one.out("switch", "cam-1", "cam-2", "probe")
        await clock.advance(300)
        assert one.news() == [("cam-1", "mains"), ("cam-2", "mains"), ("probe", "silent"), ("switch", "mains")]
        one.mains = True
        one.out("switch", "cam-1", "cam-2", "probe", out=False)
        await clock.advance(70)
        assert one.news() == [("cam-1", ONLINE), ("cam-2", ONLINE), ("probe", ONLINE), ("switch", ONLINE)]


async def test_a_device_still_starting_after_the_mains_came_back_is_given_time(clock: Any) -> None:
    async with street(clock) as one:
        one.mains = True
        await clock.advance(30)
        one.mains = False
        one.out("switch")
        await clock.advance(100)
        assert one.topology.said["switch"] == "mains"
        one.mains = True
        await clock.advance(BOOT_SECONDS - 20)
        assert one.topology.said["switch"] == "mains"
        await clock.advance(100)
        assert one.topology.said["switch"] == "silent"


async def test_a_box_that_sees_no_mains_blames_nobodys_mains(clock: Any) -> None:
    async with street(clock) as one:
        one.out("switch")
        await clock.advance(60)
        assert one.news() == [("switch", "silent")]


async def test_the_box_looks_at_its_mains_before_a_device_on_them_is_blamed(clock: Any) -> None:
    """The mains fail between two looks of the box: whoever falls silent first must not be called broken."""
    async with street(clock) as one:
        one.mains = True
        await clock.advance(30)
        one.pollers[BOX].health = Health(told=ONLINE)
        one.out("switch")
        one.mains = False
        await clock.advance(60)
        assert ("switch", "silent") not in one.said
        assert one.topology.said["switch"] == "mains"


EVENT = st.tuples(st.sampled_from(["switch", "cam-1", "cam-2", "probe", BOX]), st.booleans(), st.floats(0.1, 40.0))


@given(st.lists(EVENT, max_size=60))
@settings(max_examples=300)
def test_nothing_is_said_twice_and_nobody_is_blamed_while_what_it_hangs_on_is_out(
    story: list[tuple[str, bool, float]],
) -> None:
    known, now = Known(places=STREET), 0.0
    health = dict.fromkeys(STREET, Health())
    said: dict[str, str] = {}
    for who, well, wait in story:
        now += wait
        if who == BOX:
            told = mains(known, well, now)
        else:
            health[who] = (succeeded(health[who], now) if well else failed(health[who], Cause.SILENT, now, 30.0))[0]
            told = heard(known, who, health[who], now)
        known = told.known
        for device, presence in told.say.items():
            assert said.get(device) != presence
            said[device] = presence
            if presence == Cause.SILENT:
                behind = STREET[device].behind
                assert behind is None or said.get(behind) == ONLINE
                assert not STREET[device].mains or known.mains.present is not False
        assert said == dict(known.said)


@pytest.mark.parametrize("order", [["switch", "cam-1"], ["cam-1", "switch"]])
def test_it_does_not_matter_who_is_found_dead_first(order: list[str]) -> None:
    known = Known(places=STREET)
    for name in order:
        known = heard(known, name, succeeded(Health(), 0.0)[0], 0.0).known
    said: list[tuple[str, str]] = []
    health = {name: known.health[name] for name in order}
    for now in (10.0, 20.0, 45.0, 46.0, 60.0, 61.0):
        for name in order:
            health[name] = failed(health[name], Cause.SILENT, now, 30.0)[0]
            told = heard(known, name, health[name], now)
            known = told.known
            said += told.say.items()
    assert sorted(said) == [("cam-1", "upstream"), ("switch", "silent")]
