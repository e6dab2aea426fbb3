"""Grace periods, back-off and saying it once, with a clock that the test moves and devices that fail on demand."""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from types import TracebackType
from typing import Any, Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.catalog import CATALOG, ONLINE, Cause, Kind
from contract.clock import Clock
from contract.metrics import Metric, Sample
from edge.health import MISCONFIGURED_RETRY, MOST_BACKOFF, Health, Rhythm, failed, pause, succeeded
from edge.poller import DeviceMisconfigured, DeviceUnavailable, Poller
from edge.presence import Place
from edge.topology import Topology

RHYTHM = Rhythm(poll=10.0, deadline=3.0, grace=30.0)


class Device:
    """Answers pH 7, or fails as it is told to."""

    def __init__(self, clock: Clock) -> None:
        self.metrics: Sequence[Metric] = CATALOG[Kind.WATER_PROBE].metrics
        self.failure: BaseException | None = None
        self.hangs = False
        self.asked: list[float] = []
        self.opened = self.closed = 0
        self._clock = clock

    async def __aenter__(self) -> Self:
        self.opened += 1
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closed += 1

    async def read(self) -> Sequence[Sample]:
        self.asked.append(self._clock.monotonic())
        if self.hangs:
            await asyncio.Event().wait()
        if self.failure is not None:
            raise self.failure
        return [Sample(metric="Water/pH", at=self._clock.now_ms(), value=7.0)]


class Recorded:
    """What pollers recorded: presences by device, and readings."""

    def __init__(self) -> None:
        self.presence: list[tuple[str, object]] = []
        self.readings: list[Sample] = []

    async def __call__(self, stream: str, samples: Sequence[Sample]) -> None:
        for sample in samples:
            if sample.metric.startswith("Presence/"):
                assert stream == ""
                self.presence.append((sample.metric.removeprefix("Presence/"), sample.value))
            else:
                self.readings.append(sample)


@asynccontextmanager
async def polling(clock: Any, *devices: Device, record: Any, rhythm: Rhythm = RHYTHM) -> AsyncIterator[list[Poller]]:
    names = [f"probe-{number}" for number in range(1, len(devices) + 1)]
    topology = Topology(dict.fromkeys(names, Place()), sees_mains=lambda: None, record=record, clock=clock)
    pollers = [
        Poller(
            name,
            device,
            rhythm=rhythm,
            record=record,
            attempted=topology.attempted,
            clock=clock,
            chance=random.Random(number),
        )
        for number, (name, device) in enumerate(zip(names, devices, strict=True), 1)
    ]
    tasks = [asyncio.create_task(one.run()) for one in pollers]
    try:
        yield pollers
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_the_first_presence_after_start_is_recorded_before_the_first_reading(clock: Any) -> None:
    device, said = Device(clock), Recorded()
    async with polling(clock, device, record=said) as (poller,):
        await clock.advance(60)
    assert said.presence == [("probe-1", ONLINE)]
    assert [one.value for one in said.readings] == [7.0], "an unchanged value is not worth a message"
    assert poller.read == len(device.asked) >= 6
    assert (device.opened, device.closed) == (1, 1)


async def test_silence_shorter_than_the_grace_period_is_nobodys_news(
    clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    device, said = Device(clock), Recorded()
    async with polling(clock, device, record=said):
        await clock.advance(5)
        device.failure = DeviceUnavailable(Cause.SILENT, "nothing")
        await clock.advance(25)
        device.failure = None
        await clock.advance(30)
    assert said.presence == [("probe-1", ONLINE)]
    assert caplog.messages == []


async def test_a_break_and_a_recovery_are_each_said_once(clock: Any, caplog: pytest.LogCaptureFixture) -> None:
    device, said = Device(clock), Recorded()
    async with polling(clock, device, record=said):
        await clock.advance(5)
        device.failure = DeviceUnavailable(Cause.SILENT, "slave 1 did not answer within 1 s")
        await clock.advance(1000)
        device.failure = None
        await clock.advance(100)
    assert said.presence == [("probe-1", ONLINE), ("probe-1", "silent"), ("probe-1", ONLINE)]
    assert [one.levelno for one in caplog.records] == [logging.WARNING, logging.INFO]
    assert "slave 1 did not answer" in caplog.messages[0]
    assert len(said.readings) >= 2, "after a gap the first value is news"
    assert device.opened == device.closed


async def test_a_device_that_never_answered_is_said_to_be_away_once_the_grace_period_is_over(clock: Any) -> None:
    device, said = Device(clock), Recorded()
    device.failure = DeviceUnavailable(Cause.UNREACHABLE, "no route")
    async with polling(clock, device, record=said):
        await clock.advance(29)
        assert said.presence == []
        await clock.advance(15)
    assert said.presence == [("probe-1", "unreachable")]


async def test_another_cause_is_said_at_once(clock: Any) -> None:
    device, said = Device(clock), Recorded()
    device.failure = DeviceUnavailable(Cause.UNREACHABLE, "no route")
    async with polling(clock, device, record=said):
        await clock.advance(60)
        device.failure = DeviceUnavailable(Cause.UNAUTHORISED, "wrong password")
        await clock.advance(200)
    assert said.presence == [("probe-1", "unreachable"), ("probe-1", "unauthorised")]


async def test_a_misconfiguration_is_said_without_grace_and_seldom_retried(clock: Any) -> None:
    device, said = Device(clock), Recorded()
    device.failure = DeviceMisconfigured("no such register")
    async with polling(clock, device, record=said):
        await clock.advance(3600)
    assert said.presence == [("probe-1", "misconfigured")]
    assert 12 <= len(device.asked) <= 17


async def test_attempts_at_a_dead_device_grow_rare_and_a_repair_is_noticed_within_a_minute(clock: Any) -> None:
    device, said = Device(clock), Recorded()
    device.failure = DeviceUnavailable(Cause.SILENT, "dead")
    async with polling(clock, device, record=said):
        await clock.advance(1000)
        gaps = [after - before for before, after in pairwise(device.asked)]
        assert all(gap == pytest.approx(10) for gap in gaps[:3]), "as often as ever within the grace period"
        assert gaps[-1] >= MOST_BACKOFF * 0.75
        device.failure = None
        await clock.advance(MOST_BACKOFF)
    assert said.presence[-1] == ("probe-1", ONLINE)


async def test_a_driver_that_breaks_costs_its_device_and_one_traceback(
    clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    broken, well, said = Device(clock), Device(clock), Recorded()
    broken.failure = ZeroDivisionError("division by zero")
    async with polling(clock, broken, well, record=said):
        await clock.advance(600)
    assert ("probe-1", "nonsense") in said.presence
    assert ("probe-2", ONLINE) in said.presence
    assert len([one for one in caplog.records if one.exc_info]) == 1
    assert len(well.asked) >= 59


async def test_a_device_that_hangs_is_silent_and_delays_no_other(clock: Any) -> None:
    hanging, well, said = Device(clock), Device(clock), Recorded()
    hanging.hangs = True
    rhythm = Rhythm(poll=10.0, deadline=0.01, grace=0.0)
    async with polling(clock, hanging, well, record=said, rhythm=rhythm):
        await clock.advance(1)
        assert len(well.asked) == 1
        async with asyncio.timeout(5):
            while ("probe-1", "silent") not in said.presence:
                await asyncio.sleep(0.01)
        await clock.advance(100)
        assert len(well.asked) >= 10


FAILURE = st.sampled_from([None, *Cause])


@given(st.lists(st.tuples(FAILURE, st.floats(0.1, 100)), max_size=100), st.floats(0, 60))
def test_a_presence_is_never_said_twice_in_a_row_and_the_last_said_is_true(
    story: list[tuple[Cause | None, float]], grace: float
) -> None:
    health, now, said = Health(), 0.0, [""]
    for cause, wait in story:
        now += wait
        health, presence = succeeded(health, now) if cause is None else failed(health, cause, now, grace)
        if presence is not None:
            assert presence != said[-1]
            assert presence == (ONLINE if cause is None else cause)
            said.append(presence)
        if cause is None:
            assert health.told == ONLINE
            assert health.failing_since is None
        elif health.failing_since is not None and now - health.failing_since >= grace:
            assert health.told == cause


@given(st.integers(0, 10_000), st.floats(0, 1, exclude_max=True), st.floats(0.2, 3600))
def test_a_pause_is_never_shorter_than_the_poll_interval_nor_longer_than_the_cap(
    retries: int, chance: float, poll: float
) -> None:
    rhythm = Rhythm(poll=poll, deadline=1, grace=0)
    waits = pause(Health(told=Cause.SILENT, failing_since=0.0, retries=retries), rhythm, chance)
    assert poll <= waits <= max(poll, MOST_BACKOFF)
    stuck = pause(Health(told=Cause.MISCONFIGURED, failing_since=0.0, retries=retries), rhythm, chance)
    assert 0.75 * MISCONFIGURED_RETRY <= stuck <= MISCONFIGURED_RETRY


async def test_who_asks_is_told_how_an_attempt_went_that_began_after_the_question(clock: Any) -> None:
    device, recorded = Device(clock), Recorded()
    async with polling(clock, device, record=recorded) as (poller,):
        await clock.advance(2)
        before = len(device.asked)
        asking = asyncio.create_task(poller.ask())
        await clock.settle()
        assert (await asking).failing_since is None
        assert len(device.asked) == before + 1
        device.failure = DeviceUnavailable(Cause.REFUSED, "no")
        assert (await asyncio.wait_for(poller.ask(), 5)).failing_since is not None
        assert len(device.asked) == before + 2
        assert (await asyncio.wait_for(poller.ask(), 5)).failing_since is not None, "also while it waits to try again"
