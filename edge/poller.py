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

MOST_BACKOFF = 60.0
"""Seconds between two attempts at a device that has been failing for long: so late may a repair be noticed."""

MISCONFIGURED_RETRY = 300.0
"""Seconds between two attempts where only somebody's hand helps."""


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
    """What is known of a device's answering.

    `told` is the presence last said, None before the first word; `retries` counts vain attempts since then.
    """

    told: str | None = None
    failing_since: float | None = None
    retries: int = 0


def succeeded(health: Health) -> tuple[Health, str | None]:
    """Return the health after an answer, and the presence to say now, None if nothing is new."""
    return Health(told=ONLINE), None if health.told == ONLINE else ONLINE


def failed(health: Health, cause: Cause, now: float, grace: float) -> tuple[Health, str | None]:
    """Return the health after a failure, and the cause to say now: once the grace period is over, or at a change.

    A misconfiguration needs no grace: it does not pass by itself.
    """
    since = now if health.failing_since is None else health.failing_since
    said = health.told not in {None, ONLINE}
    after = replace(health, failing_since=since, retries=health.retries + said)
    over = said or now - since >= grace or cause is Cause.MISCONFIGURED
    if not over or health.told == cause:
        return after, None
    return replace(after, told=cause.value), cause.value


def pause(health: Health, rhythm: Rhythm, chance: float) -> float:
    """Return seconds until the next attempt: the poll interval, doubling with each vain one once the failure was said.

    `chance` in [0, 1) spreads the attempts.
    """
    if health.told in {None, ONLINE}:
        return rhythm.poll
    spread = 0.75 + chance / 4
    if health.told == Cause.MISCONFIGURED:
        return MISCONFIGURED_RETRY * spread
    backoff = min(MOST_BACKOFF, rhythm.poll * 2.0 ** min(health.retries, 16))
    return max(rhythm.poll, backoff * spread)


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
        self.stream = stream
        self._name = stream or "the box itself"
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
        # Spread over the first second, so that forty devices are not asked in one instant.
        await self._clock.sleep(self._chance.random() * min(self._rhythm.poll, 1.0))
        while True:
            try:
                async with self._driver as driver:
                    while True:
                        await self._take(await self._ask(driver))
                        await self._clock.sleep(self._rhythm.poll)
            except DeviceUnavailable as exc:
                await self._fail(exc.cause, str(exc))
            except DeviceMisconfigured as exc:
                await self._fail(Cause.MISCONFIGURED, str(exc))
            await self._clock.sleep(pause(self.health, self._rhythm, self._chance.random()))

    async def _ask(self, driver: Driver) -> Sequence[Sample]:
        try:
            async with asyncio.timeout(self._rhythm.deadline):
                return await driver.read()
        except (DeviceUnavailable, DeviceMisconfigured):
            raise
        except TimeoutError as exc:
            raise DeviceUnavailable(Cause.SILENT, f"no answer within {self._rhythm.deadline:g} s") from exc
        except Exception as exc:
            # A driver's mistake must cost one device, not the box; its traceback is worth one look, not one per poll.
            if self.health.failing_since is None:
                log.exception("%s: the driver failed", self._name)
            raise DeviceUnavailable(Cause.NONSENSE, f"the driver failed: {type(exc).__name__}: {exc}") from exc

    async def _take(self, samples: Sequence[Sample]) -> None:
        self.read += len(samples)
        failing_since = self.health.failing_since
        self.health, presence = succeeded(self.health)
        if presence is not None:
            if failing_since is not None:
                log.info("%s answers again after %.0f s", self._name, self._clock.monotonic() - failing_since)
            # After a gap the first values are news, even where they are the old ones.
            self._reported.clear()
            await self._say(presence)
        next_read = self._clock.now_ms() + int(self._rhythm.poll * 1000)
        chosen = worth_reporting(self._reported, samples, self._metrics, next_read=next_read)
        if chosen:
            await self._record(self.stream, chosen)
            self._reported.update({one.metric: one for one in chosen})

    async def _fail(self, cause: Cause, reason: str) -> None:
        self.health, presence = failed(self.health, cause, self._clock.monotonic(), self._rhythm.grace)
        if presence is not None:
            log.warning("%s does not answer: %s (%s)", self._name, reason, cause)
            await self._say(presence)

    async def _say(self, presence: str) -> None:
        self.told_at = self._clock.now_ms()
        if self.stream != NODE_STREAM:
            sample = Sample(metric=f"{PRESENCE}{self.stream}", at=self.told_at, value=presence)
            await self._record(NODE_STREAM, [sample])
