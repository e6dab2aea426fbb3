"""Asks each device in its own time, and says once that it stopped answering and once that it answers again.

A driver opens, reads, obeys and raises. Grace periods, retry, back-off and saying it once are decided here, so that
they are the same for all. Every device has a task of its own: one that is dead, slow or lying delays no other.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Protocol, Self

from contract.catalog import ONLINE, PRESENCE, Cause
from contract.clock import Clock
from contract.metrics import Metric, Sample
from contract.positions import NODE_STREAM
from edge.report import worth_reporting

log = logging.getLogger(__name__)

MOST_BACKOFF = 300.0
"""Seconds between two attempts at a device that has been failing for long."""


class DeviceUnavailable(Exception):
    """Trying again later may work; `cause` is for programs, the text for people."""

    def __init__(self, cause: Cause, reason: str) -> None:
        super().__init__(reason)
        self.cause = cause


class DeviceMisconfigured(Exception):
    """Trying again will not help until somebody changes the configuration."""


class Driver(Protocol):
    """One field device, connected for as long as the context is open; entered anew after each failure."""

    @property
    def metrics(self) -> Sequence[Metric]:
        """Everything it ever reports, known before the device was ever reached."""
        ...

    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    async def read(self) -> Sequence[Sample]:
        """Return what the device says now, all at one instant; raise DeviceUnavailable or DeviceMisconfigured."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Rhythm:
    """How often to ask, how long to wait for an answer, how much silence is nobody's news; all in seconds."""

    poll: float
    deadline: float
    grace: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What is known of a device's answering: `told` is the presence last said, None before the first word."""

    told: str | None = None
    failing_since: float | None = None
    failures: int = 0


def succeeded(health: Health) -> tuple[Health, str | None]:
    """Return the health after an answer, and the presence to say now, None if nothing is new."""
    return Health(told=ONLINE), None if health.told == ONLINE else ONLINE


def failed(health: Health, cause: Cause, now: float, grace: float) -> tuple[Health, str | None]:
    """Return the health after a failure, and the cause to say now: once the grace period is over, or at a change.

    A misconfiguration needs no grace: it does not pass by itself.
    """
    since = now if health.failing_since is None else health.failing_since
    after = replace(health, failing_since=since, failures=health.failures + 1)
    over = now - since >= grace or cause is Cause.MISCONFIGURED or health.told not in {None, ONLINE}
    if not over or health.told == cause:
        return after, None
    return replace(after, told=cause.value), cause.value


def pause(health: Health, rhythm: Rhythm, chance: float) -> float:
    """Return how long to wait before the next attempt: the poll interval, doubling once the grace period is over."""
    if health.told in {None, ONLINE}:
        return rhythm.poll
    longest = min(MOST_BACKOFF, rhythm.poll * 2.0 ** min(health.failures, 12))
    return max(rhythm.poll, longest * (0.75 + chance / 4))


Record = Callable[[str, Sequence[Sample]], Awaitable[None]]


class Poller:
    """Polls one device until cancelled; `stream` is its id, or NODE_STREAM for the box itself."""

    def __init__(
        self,
        stream: str,
        driver: Driver,
        *,
        rhythm: Rhythm,
        record: Record,
        clock: Clock,
        chance: random.Random,
    ) -> None:
        self._stream = stream
        self._driver = driver
        self._rhythm = rhythm
        self._record = record
        self._clock = clock
        self._chance = chance
        self._metrics = {one.name: one for one in driver.metrics}
        self._reported: dict[str, Sample] = {}
        self.health = Health()
        self.told_at: int | None = None
        self.read = 0
        """Samples the driver gave."""

    async def run(self) -> None:
        """Ask, and ask again."""
        # Spread over the first interval, so that forty devices are not asked in one instant.
        await self._clock.sleep(self._chance.random() * min(self._rhythm.poll, 1.0))
        while True:
            try:
                async with self._driver as driver:
                    while True:
                        await self._once(driver)
                        await self._clock.sleep(self._rhythm.poll)
            except DeviceUnavailable as exc:
                await self._fail(exc.cause, str(exc))
            except DeviceMisconfigured as exc:
                await self._fail(Cause.MISCONFIGURED, str(exc))
            except TimeoutError:
                await self._fail(Cause.SILENT, f"no answer within {self._rhythm.deadline:g} s")
            except Exception as exc:  # a driver's mistake must cost one device, not the box
                log.exception("%s: the driver failed", self._stream or "edge node")
                await self._fail(Cause.NONSENSE, f"{type(exc).__name__}: {exc}")
            await self._clock.sleep(pause(self.health, self._rhythm, self._chance.random()))

    async def _once(self, driver: Driver) -> None:
        async with asyncio.timeout(self._rhythm.deadline):
            samples = await driver.read()
        self.read += len(samples)
        failing_since = self.health.failing_since
        self.health, presence = succeeded(self.health)
        if presence is not None:
            if failing_since is not None:
                gone = self._clock.monotonic() - failing_since
                log.info("%s answers again after %.0f s", self._stream or "edge node", gone)
            await self._say(presence)
        next_read = self._clock.now_ms() + int(self._rhythm.poll * 1000)
        chosen = worth_reporting(self._reported, samples, self._metrics, next_read=next_read)
        if chosen:
            await self._record(self._stream, chosen)
            self._reported.update({one.metric: one for one in chosen})

    async def _fail(self, cause: Cause, reason: str) -> None:
        self.health, presence = failed(self.health, cause, self._clock.monotonic(), self._rhythm.grace)
        if presence is not None:
            log.warning("%s stopped answering: %s (%s)", self._stream or "edge node", reason, cause)
            await self._say(presence)

    async def _say(self, presence: str) -> None:
        self.told_at = self._clock.now_ms()
        if self._stream != NODE_STREAM:
            sample = Sample(metric=f"{PRESENCE}{self._stream}", at=self.told_at, value=presence)
            await self._record(NODE_STREAM, [sample])
        # After a gap the first values are news, even where they are the old ones.
        if presence == ONLINE:
            self._reported.clear()
