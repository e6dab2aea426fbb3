"""Asks each device in its own time, and says once that it stopped answering and once that it answers again.

A driver opens, reads, obeys and raises. Grace periods, retry, back-off and saying it once are decided here, so that
they are the same for all. Every device has a task of its own: one that is dead, slow or lying delays no other.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Protocol, Self

from contract.catalog import Cause
from contract.clock import Clock
from contract.metrics import Metric, Sample
from edge.health import Health, Rhythm, failed, pause, succeeded
from edge.report import worth_reporting

log = logging.getLogger(__name__)


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


Record = Callable[[str, Sequence[Sample]], Awaitable[None]]
Attempted = Callable[[str, Health], Awaitable[None]]
"""Told after every attempt at a device: what is said of its presence depends on others too."""


class Poller:
    """Polls one device until cancelled; `stream` is its id, or NODE_STREAM for the box itself."""

    def __init__(
        self,
        stream: str,
        driver: Driver,
        *,
        rhythm: Rhythm,
        record: Record,
        attempted: Attempted,
        clock: Clock,
        chance: random.Random,
    ) -> None:
        self.stream = stream
        self._name = stream or "the box itself"
        self._driver = driver
        self._rhythm = rhythm
        self._record = record
        self._attempted = attempted
        self._clock = clock
        self._chance = chance
        self._metrics = {one.name: one for one in driver.metrics}
        self._reported: dict[str, Sample] = {}
        self._resting: asyncio.Task[None] | None = None
        self._waiting: list[asyncio.Future[Health]] = []
        self._attending: list[asyncio.Future[Health]] = []
        self.health = Health()
        self.read = 0
        """Samples the driver gave."""

    def ask_now(self) -> None:
        """Ask at once instead of in its turn, and in its ordinary rhythm from then on."""
        self.health = replace(self.health, retries=0)
        if self._resting is not None:
            self._resting.cancel()

    async def ask(self) -> Health:
        """Ask at once, and return how the device is after an attempt that began after this call."""
        waiting: asyncio.Future[Health] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        self.ask_now()
        return await waiting

    async def run(self) -> None:
        """Ask, and ask again."""
        # Spread over the first second, so that forty devices are not asked in one instant.
        await self._rest(self._chance.random() * min(self._rhythm.poll, 1.0))
        while True:
            try:
                async with self._driver as driver:
                    while True:
                        await self._take(await self._ask(driver))
                        await self._rest(self._rhythm.poll)
            except DeviceUnavailable as exc:
                await self._fail(exc.cause, str(exc))
            except DeviceMisconfigured as exc:
                await self._fail(Cause.MISCONFIGURED, str(exc))
            await self._rest(pause(self.health, self._rhythm, self._chance.random()))

    async def _rest(self, seconds: float) -> None:
        self._resting = asyncio.create_task(self._clock.sleep(0 if self._waiting else seconds))
        try:
            await asyncio.wait({self._resting})
        finally:
            self._resting.cancel()
            self._resting = None
            self._attending += self._waiting
            self._waiting = []

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
        self.health, presence = succeeded(self.health, self._clock.monotonic())
        if presence is not None:
            if failing_since is not None:
                log.info("%s answers again after %.0f s", self._name, self._clock.monotonic() - failing_since)
            # After a gap the first values are news, even where they are the old ones.
            self._reported.clear()
        await self._attempted(self.stream, self.health)
        self._attend()
        next_read = self._clock.now_ms() + int(self._rhythm.poll * 1000)
        chosen = worth_reporting(self._reported, samples, self._metrics, next_read=next_read)
        if chosen:
            await self._record(self.stream, chosen)
            self._reported.update({one.metric: one for one in chosen})

    async def _fail(self, cause: Cause, reason: str) -> None:
        self.health, presence = failed(self.health, cause, self._clock.monotonic(), self._rhythm.grace)
        if presence is not None:
            log.warning("%s does not answer: %s (%s)", self._name, reason, cause)
        await self._attempted(self.stream, self.health)
        self._attend()

    def _attend(self) -> None:
        for waiting in self._attending:
            if not waiting.done():
                waiting.set_result(self.health)
        self._attending = []
