"""Obeys verified orders: remembers them, fetches the audio, lets it sound, and reports each stage, signed."""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from contract.broadcast import (
    BroadcastRefused,
    Bundle,
    Hello,
    Outcome,
    Root,
    accepted_bundle,
    next_root,
    pinned_root,
    signed,
)
from contract.catalog import BUNDLE, ENVELOPE, HELLO, OUTCOME, REFUSAL, ROOT
from contract.clock import Clock, kernel_synchronised
from contract.commands import FINAL, Stage
from contract.metrics import DataType, Sample
from contract.payload import WireMetric
from contract.positions import NODE_STREAM
from edge.audio import AudioUnreadable, decoded
from edge.audio_cache import AudioCache, AudioMissing
from edge.broadcast import (
    CHALLENGE_EVERY,
    CHALLENGE_VALID,
    RATE_WINDOW,
    Accepted,
    Again,
    Refused,
    Situation,
    examine,
)
from edge.command_journal import CommandJournal
from edge.playout import Loudspeaker, play

log = logging.getLogger(__name__)

REPEAT_OUTCOME_EVERY = 2.0
ALARM_EVERY = 10.0
HELLO_AT_MOST_EVERY = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Who this box is, whom it believes, and its own limit."""

    node: str
    group: str
    deployment: str
    environment: str
    root: str
    identity: Ed25519PrivateKey
    max_volume: int
    trust_clock: bool
    """Believe the clock without asking the kernel (`clock = "trusted"`)."""


Record = Callable[[str, Sequence[Sample]], Awaitable[None]]
Say = Callable[[Sequence[WireMetric]], Awaitable[None]]


class Announcer:
    """The shell around edge/broadcast.py; run it once, hand it what the downlink brings."""

    def __init__(
        self,
        settings: Settings,
        *,
        journal: CommandJournal,
        cache: AudioCache,
        speakers: Mapping[str, Loudspeaker],
        record: Record,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._journal = journal
        self._cache = cache
        self._speakers = speakers
        self._record = record
        self.say: Say = _unheard
        """How a hello gets out; whoever owns the session sets it."""
        self._clock = clock
        self._boot = secrets.token_hex(16)
        self._challenges: dict[str, float] = {}
        self._root = self._kept_root()
        self._bundle = self._kept_bundle()
        self._playing: dict[str, asyncio.Task[None]] = {}
        self._refused: dict[str, str] = {}
        self._repeated: dict[str, float] = {}
        self._alarmed = self._greeted = float("-inf")
        self.counts = dict.fromkeys((*Stage, "alarms"), 0)
        self._draw()

    def hello(self) -> str:
        """Return what this box says of itself now, signed with its identity key."""
        hello = Hello(
            node=self._settings.node,
            boot=self._boot,
            challenge=next(reversed(self._challenges)),
            root_version=self._root.version,
            bundle_version=self._bundle.version if self._bundle else 0,
        )
        return signed(hello, [self._settings.identity])

    async def run(self) -> None:
        """Report what a power cut ended, then draw challenges until cancelled; what sounds by then is stopped."""
        for order in self._journal.unfinished():
            await self._report(order, Stage.FAILED, "the power was cut while it was played")
            self._journal.settle(order, Stage.FAILED)
        try:
            while True:
                await self._clock.sleep(CHALLENGE_EVERY)
                self._draw()
                await self._greet()
        finally:
            for task in self._playing.values():
                task.cancel()
            await asyncio.gather(*self._playing.values(), return_exceptions=True)

    async def take(self, name: str, value: str) -> None:
        """Act on what came for `Broadcast/*`; nothing of it is believed before it is verified."""
        if name == ENVELOPE:
            await self._take_envelope(value)
        elif name == BUNDLE:
            await self._take_bundle(value)
        elif name == ROOT:
            await self._take_root(value)

    async def _take_root(self, raw: str) -> None:
        try:
            self._root = next_root(self._root, raw)
        except BroadcastRefused as exc:
            await self._alarm(str(exc))
            return
        self._journal.keep_trust("root", raw)
        log.warning("root version %d is in force", self._root.version)
        await self._greet()

    async def _take_bundle(self, raw: str) -> None:
        try:
            bundle = self._verified_bundle(raw, self._bundle)
        except BroadcastRefused as exc:
            await self._alarm(str(exc))
            return
        if self._bundle is None or bundle.version > self._bundle.version:
            self._journal.keep_trust("bundle", raw)
            self._bundle = bundle
            log.warning("trust bundle version %d is in force", bundle.version)
            if bundle.renew_by < self._clock.now_ms():
                log.warning("trust bundle version %d is past its renewal date; it stays in force", bundle.version)
        await self._greet()

    async def _take_envelope(self, raw: str) -> None:
        verdict = examine(raw, self._situation())
        match verdict:
            case Accepted():
                await self._accept(verdict)
            case Again(order=order):
                await self._repeat(order.id)
            case Refused():
                await self._refuse(verdict)

    async def _accept(self, accepted: Accepted) -> None:
        order = accepted.order
        self._journal.accept(order.id, accepted.digest, accepted.keyid, self._clock.now_ms())
        log.info("order %s of %s: %s accepted", order.id[:8], order.issuer, order.action)
        await self._report(order.id, Stage.ACCEPTED)
        if order.action == "stop":
            await self._stop(accepted)
            return
        for name in accepted.unknown:
            await self._report(order.id, Stage.REFUSED, "this box has no such loudspeaker", speaker=name)
        task = asyncio.create_task(self._perform(accepted), name=f"order {order.id[:8]}")
        self._playing[order.id] = task
        task.add_done_callback(lambda _: self._playing.pop(order.id, None))

    async def _stop(self, accepted: Accepted) -> None:
        for order in accepted.order.stops:
            self._journal.stop(order, self._clock.now_ms())
            task = self._playing.get(order)
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                self._journal.settle(order, Stage.STOPPED)
                await self._report(order, Stage.STOPPED, f"stopped by {accepted.order.issuer}"[:300])
        self._journal.settle(accepted.order.id, Stage.FINISHED)
        await self._report(accepted.order.id, Stage.FINISHED)

    async def _perform(self, accepted: Accepted) -> None:
        order = accepted.order
        try:
            sound_at = await self._programme(accepted)
        except (AudioMissing, AudioUnreadable) as exc:
            await self._end(order.id, Stage.FAILED, str(exc))
            return
        if self._clock.monotonic() > accepted.start_by:
            await self._end(order.id, Stage.EXPIRED, "its time to start had passed")
            return
        failed: list[str] = []

        async def started(speaker: str, at: int) -> None:
            await self._report(order.id, Stage.STARTED, speaker=speaker, at=at)

        async def ended(speaker: str, reason: str) -> None:
            if reason:
                failed.append(speaker)
                log.warning("order %s: %s did not sound: %s", order.id[:8], speaker, reason)
            await self._report(order.id, Stage.FAILED if reason else Stage.FINISHED, reason, speaker=speaker)

        await play(
            {name: self._speakers[name] for name in accepted.speakers},
            sound_at,
            volume=min(order.volume, self._settings.max_volume),
            repeats=order.repeats,
            started=started,
            ended=ended,
        )
        self._journal.settle(order.id, Stage.FAILED if len(failed) == len(accepted.speakers) else Stage.FINISHED)

    async def _programme(self, accepted: Accepted) -> Callable[[int], Awaitable[NDArray[np.int16]]]:
        within = accepted.start_by - self._clock.monotonic()
        files = [await self._cache.get(step, within) for step in accepted.order.program]
        ready: dict[int, asyncio.Task[NDArray[np.int16]]] = {}

        def joined(rate: int) -> NDArray[np.int16]:
            return np.concatenate([decoded(file, rate) for file in files])

        async def sound_at(rate: int) -> NDArray[np.int16]:
            if rate not in ready:
                ready[rate] = asyncio.create_task(asyncio.to_thread(joined, rate))
            return await asyncio.shield(ready[rate])

        # Decoded before a horn is opened: nobody shall hear it breathe in.
        for rate in {self._speakers[name].sample_rate for name in accepted.speakers}:
            await sound_at(rate)
        return sound_at

    async def _end(self, order: str, stage: Stage, reason: str) -> None:
        self._journal.settle(order, stage)
        log.warning("order %s: %s: %s", order[:8], stage, reason)
        await self._report(order, stage, reason)

    async def _repeat(self, order: str) -> None:
        """Say again what became of an order whose outcome the hub seems to have missed."""
        now = self._clock.monotonic()
        if now - self._repeated.get(order, float("-inf")) < REPEAT_OUTCOME_EVERY:
            return
        self._repeated[order] = now
        for raw in self._journal.outcomes(order):
            await self._record(NODE_STREAM, [Sample(metric=OUTCOME, at=self._clock.now_ms(), value=raw)])

    async def _refuse(self, refused: Refused) -> None:
        if refused.alarm:
            await self._alarm(refused.reason)
            return
        # What a fresh hello mends is no verdict on the order: the hub wraps it again.
        mendable = refused.reason.startswith(("freshness", "bundle"))
        if refused.order is not None and not mendable and refused.order not in self._refused:
            log.warning("order %s refused: %s", refused.order[:8], refused.reason)
            if len(self._refused) > 1000:
                self._refused.clear()
            self._refused[refused.order] = refused.reason
            await self._report(refused.order, Stage.REFUSED, refused.reason)
        await self._greet()

    async def _alarm(self, reason: str) -> None:
        self.counts["alarms"] += 1
        now = self._clock.monotonic()
        if now - self._alarmed < ALARM_EVERY:
            return
        self._alarmed = now
        log.error("an order that nobody here believes: %s (%d so far)", reason, self.counts["alarms"])
        await self._record(NODE_STREAM, [Sample(metric=REFUSAL, at=self._clock.now_ms(), value=reason[:300])])

    async def _report(
        self, order: str, stage: Stage, reason: str = "", *, speaker: str | None = None, at: int | None = None
    ) -> None:
        self.counts[stage] += 1
        now = self._clock.now_ms()
        outcome = Outcome(
            node=self._settings.node, order=order, stage=stage, reason=reason[:300], at=at or now, speaker=speaker
        )
        raw = signed(outcome, [self._settings.identity])
        if stage in FINAL or stage is Stage.ACCEPTED:
            self._journal.keep_outcome(order, speaker or "", raw)
        await self._record(NODE_STREAM, [Sample(metric=OUTCOME, at=now, value=raw)])

    async def _greet(self) -> None:
        now = self._clock.monotonic()
        if now - self._greeted < HELLO_AT_MOST_EVERY:
            return
        self._greeted = now
        at = self._clock.now_ms()
        await self.say([WireMetric(name=HELLO, at=at, datatype=DataType.STRING, value=self.hello())])

    def _situation(self) -> Situation:
        wall = self._clock.now_ms()
        floor = self._bundle.signed_at if self._bundle else 0
        return Situation(
            node=self._settings.node,
            deployment=self._settings.deployment,
            bundle=self._bundle,
            speakers=frozenset(self._speakers),
            monotonic=self._clock.monotonic(),
            wall=max(wall, floor),
            clock_trusted=self._settings.trust_clock or kernel_synchronised(),
            challenges=dict(self._challenges),
            known=self._journal.known(),
            stopped=self._journal.stopped(),
            recent=self._journal.recent(wall - RATE_WINDOW),
        )

    def _draw(self) -> None:
        now = self._clock.monotonic()
        kept = {one: drawn for one, drawn in self._challenges.items() if now - drawn <= CHALLENGE_VALID}
        self._challenges = {**kept, secrets.token_hex(16): now}

    def _kept_root(self) -> Root:
        pinned = pinned_root(self._settings.root)
        kept = self._journal.trust("root")
        if kept is not None:
            with contextlib.suppress(BroadcastRefused):
                # It was reached by a chain that was verified link by link; here its own signatures must still hold.
                root = pinned_root(kept)
                return root if root.version > pinned.version else pinned
        return pinned

    def _kept_bundle(self) -> Bundle | None:
        kept = self._journal.trust("bundle")
        if kept is None:
            return None
        try:
            return self._verified_bundle(kept, None)
        except BroadcastRefused as exc:
            log.error("the kept trust bundle is not believed any more: %s", exc)
            return None

    def _verified_bundle(self, raw: str, current: Bundle | None) -> Bundle:
        settings = self._settings
        return accepted_bundle(
            raw,
            root=self._root,
            deployment=settings.deployment,
            group=settings.group,
            environment=settings.environment,
            current=current,
        )


async def _unheard(_: Sequence[WireMetric]) -> None:
    """Before there is a session nobody can be greeted."""
