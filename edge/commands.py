"""Obeys commands, each at most once: on disk before it is done, and what became of it is told like any reading."""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping

from contract.catalog import COMMAND_OUTCOME, ONLINE, Kind
from contract.clock import Clock
from contract.commands import Command, CommandUnreadable, Outcome, Stage, read_command, written
from contract.metrics import Sample
from contract.positions import NODE_STREAM
from edge.command_journal import CommandJournal
from edge.command_rules import RATE_WINDOW, Again, Obey, Settle, Situation, Wait, examine
from edge.health import Health
from edge.poller import Record

log = logging.getLogger(__name__)

ASKED_WITHIN = 120.0
"""Seconds until a device that was to be asked has been: others on its line come first."""

REPEAT_AFTER = 2.0
"""Seconds between two repetitions of one outcome, doubled each time: the hub asks again until it has read it."""

COMPLAIN_EVERY = 60.0

POWER_CUT, NOT_ASKED = "power_cut", "not_asked"
"""Why it failed, in words that the pages know; otherwise it is the cause for which the device does not answer."""

Ask = Callable[[], Awaitable[Health]]


class Commands:
    """The shell around edge/command_rules.py; run it once, hand it what the downlink brings."""

    def __init__(self, *, journal: CommandJournal, kinds: Mapping[str, Kind], record: Record, clock: Clock) -> None:
        self._journal = journal
        self._kinds = kinds
        self._record = record
        self._clock = clock
        self.ask: Mapping[str, Ask] = {}
        """How to have a device asked at once, by its id; set once the pollers exist."""
        self._recent: list[tuple[float, str | None]] = []
        self._repeated: dict[str, tuple[int, float]] = {}
        self._under_way: set[asyncio.Task[None]] = set()
        self._said_at = 0
        self._complained = float("-inf")

    async def run(self) -> None:
        """Report what a power cut ended, then let what is under way go on until cancelled."""
        for command in self._journal.commands_unfinished():
            await self._end(command, Stage.FAILED, POWER_CUT)
        try:
            await asyncio.Event().wait()
        finally:
            for task in self._under_way:
                task.cancel()
            await asyncio.gather(*self._under_way, return_exceptions=True)

    async def take(self, raw: str) -> None:
        """Act on what came as a command."""
        try:
            await self._take(read_command(raw))
        except CommandUnreadable as exc:
            self._complain(str(exc))
        except Exception:
            # A full disk, for one: what cannot be written down is not done, and readings must go on.
            log.exception("a command could not be acted on")

    async def _take(self, command: Command) -> None:
        now = self._clock.monotonic()
        self._recent = [one for one in self._recent if now - one[0] < RATE_WINDOW]
        known = self._journal.command(command.id)
        situation = Situation(
            kinds=self._kinds,
            wall=self._clock.now_ms(),
            known=known is not None,
            recent=Counter(device for _, device in self._recent),
        )
        match examine(command, situation):
            case Again():
                await self._repeat(command.id, known or "")
            case Wait():
                self._complain(f"too many in a minute, {command.action[:40]!r} for {command.device[:40]!r} left")
            case Settle(stage, reason):
                # Not counted against the device that it names: it was not asked.
                self._recent.append((now, None))
                self._journal.accept_command(command.id, situation.wall)
                await self._end(command.id, stage, reason)
            case Obey(action):
                self._recent.append((now, command.device))
                self._journal.accept_command(command.id, situation.wall)
                log.info("command %s: %s of %s accepted", command.id[:8], action, command.device or "the box itself")
                await self._report(command.id, Stage.ACCEPTED)
                task = asyncio.create_task(self._perform(command), name=f"command {command.id[:8]}")
                self._under_way.add(task)
                task.add_done_callback(self._under_way.discard)

    async def _perform(self, command: Command) -> None:
        try:
            try:
                health = await asyncio.wait_for(self.ask[command.device](), ASKED_WITHIN)
            except TimeoutError:
                await self._end(command.id, Stage.FAILED, NOT_ASKED)
                return
            if health.failing_since is None:
                await self._end(command.id, Stage.DONE)
            else:
                # The cause is said once the grace period is over; until then it only did not answer.
                cause = health.told if health.told not in {None, ONLINE} else "silent"
                await self._end(command.id, Stage.FAILED, cause or "")
        except Exception:
            log.exception("command %s crashed", command.id[:8])

    async def _end(self, command: str, stage: Stage, reason: str = "") -> None:
        if reason:
            log.warning("command %s: %s: %s", command[:8], stage, reason)
        await self._report(command, stage, reason)

    async def _report(self, command: str, stage: Stage, reason: str = "") -> None:
        raw = written(Outcome(command=command, stage=stage, reason=reason[:300], at=self._clock.now_ms()))
        self._journal.settle_command(command, stage, raw)
        await self._say(raw)

    async def _say(self, raw: str) -> None:
        # One instant holds one value, and two outcomes may well fall into one millisecond.
        self._said_at = max(self._clock.now_ms(), self._said_at + 1)
        await self._record(NODE_STREAM, [Sample(metric=COMMAND_OUTCOME, at=self._said_at, value=raw)])

    async def _repeat(self, command: str, raw: str) -> None:
        """Say again what became of a command, in case the hub that asks has lost it."""
        now = self._clock.monotonic()
        times, due = self._repeated.get(command, (0, float("-inf")))
        if now < due or not raw:
            return
        if len(self._repeated) > 1000:
            self._repeated.clear()
        self._repeated[command] = times + 1, now + REPEAT_AFTER * 2.0 ** min(times, 16)
        await self._say(raw)

    def _complain(self, sentence: str) -> None:
        now = self._clock.monotonic()
        if now - self._complained >= COMPLAIN_EVERY:
            self._complained = now
            log.warning("a command was not heeded: %s", sentence)
