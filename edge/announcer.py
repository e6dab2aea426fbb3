"""Obeys verified orders: remembers them, fetches the audio, lets it sound, and reports each stage, signed."""

import asyncio
import logging
import secrets
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from contract.broadcast import BroadcastRefused, Hello, Outcome, signed
from contract.catalog import BUNDLE, ENVELOPE, HELLO, OUTCOME, REFUSAL, ROOT
from contract.clock import Clock, kernel_synchronised
from contract.commands import FINAL, Stage
from contract.metrics import DataType, Sample
from contract.payload import WireMetric
from contract.positions import NODE_STREAM
from edge.audio import AudioUnreadable, Decoder, Form, Sound
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
from edge.trust import Anchor, Trust

log = logging.getLogger(__name__)

REPEAT_OUTCOME_AFTER = 2.0
"""Seconds, doubled by each repetition: who replays old envelopes must not fill the log with old outcomes."""

ALARM_EVERY = 10.0
HELLO_AT_MOST_EVERY = 1.0
MOST_REMEMBERED = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Who this box is, whom it believes, and its own limit."""

    node: str
    anchor: Anchor
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
        self._decoder = Decoder()
        self._speakers = speakers
        self._record = record
        self.say: Say = _unheard
        """How a hello gets out; whoever owns the session sets it."""
        self._clock = clock
        self._trust = Trust(settings.anchor, journal, clock)
        self._boot = secrets.token_hex(16)
        self._challenges: dict[str, float] = {}
        self._playing: dict[str, asyncio.Task[None]] = {}
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._refused: set[str] = set()
        self._repeated: dict[str, tuple[int, float]] = {}
        self._alarmed = self._greeted = float("-inf")
        self.counts = dict.fromkeys((*Stage, "alarms"), 0)
        self._draw()

    def hello(self) -> str:
        """Return what this box says of itself now, signed with its identity key."""
        bundle = self._trust.bundle
        hello = Hello(
            node=self._settings.node,
            boot=self._boot,
            challenge=next(reversed(self._challenges)),
            root_version=self._trust.root.version,
            bundle_version=bundle.version if bundle else 0,
        )
        return signed(hello, [self._settings.identity])

    async def run(self) -> None:
        """Report what a power cut ended, then draw challenges until cancelled; what sounds by then is stopped."""
        for order in self._journal.unfinished():
            await self._end(order, Stage.FAILED, "the power was cut before it was finished")
        try:
            while True:
                await self._clock.sleep(CHALLENGE_EVERY)
                self._draw()
                await self._greet()
        finally:
            for order, task in list(self._playing.items()):
                await _cancelled(task)
                await self._end(order, Stage.FAILED, "the box was switched off before it was finished")

    async def take(self, name: str, value: str) -> None:
        """Act on what came for `Broadcast/*`; nothing of it is believed before it is verified."""
        try:
            if name == ENVELOPE:
                await self._take_envelope(value)
            elif name == BUNDLE:
                await self._take_trust(self._trust.take_bundle, value)
            elif name == ROOT:
                await self._take_trust(self._trust.take_root, value)
        except Exception:
            # Whatever is wrong here, a full disk for one: readings must go on, and so must the next envelope.
            log.exception("%s could not be acted on", name)

    async def _take_trust(self, take: Callable[[str], bool], raw: str) -> None:
        try:
            take(raw)
        except BroadcastRefused as exc:
            await self._alarm(str(exc))
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
                await _cancelled(task)
                await self._end(order, Stage.STOPPED, f"stopped by {accepted.order.issuer}")
        await self._end(accepted.order.id, Stage.FINISHED)

    async def _perform(self, accepted: Accepted) -> None:
        try:
            await self._play(accepted)
        except (AudioMissing, AudioUnreadable) as exc:
            await self._end(accepted.order.id, Stage.FAILED, str(exc))
        except Exception:
            log.exception("order %s crashed", accepted.order.id[:8])
            await self._end(accepted.order.id, Stage.FAILED, "this box could not play it; its log says why")

    async def _play(self, accepted: Accepted) -> None:
        with ExitStack() as sounds:
            await self._sound(accepted, await self._programme(accepted, sounds))

    async def _sound(self, accepted: Accepted, sound: Mapping[Form, Sound]) -> None:
        order = accepted.order
        patience = accepted.start_by - self._clock.monotonic()
        if patience < 0:
            await self._end(order.id, Stage.EXPIRED, "its time to start had passed")
            return
        stages: list[Stage] = []

        async def started(speaker: str, at: int) -> None:
            await self._report(order.id, Stage.STARTED, speaker=speaker, at=at)

        async def ended(speaker: str, stage: Stage, reason: str) -> None:
            stages.append(stage)
            if stage is not Stage.FINISHED:
                log.warning("order %s: %s did not sound: %s", order.id[:8], speaker, reason)
            await self._report(order.id, stage, reason, speaker=speaker)

        await play(
            {name: self._speakers[name] for name in accepted.speakers},
            sound,
            volume=min(order.volume, self._settings.max_volume),
            repeats=order.repeats,
            turns={name: self._turns[name] for name in accepted.speakers},
            patience=patience,
            started=started,
            ended=ended,
        )
        self._journal.settle(order.id, Stage.FINISHED if Stage.FINISHED in stages else stages[0])

    async def _programme(self, accepted: Accepted, sounds: ExitStack) -> dict[Form, Sound]:
        """Return the sound in each form that a speaker takes: all of it before a horn is opened and breathes in."""
        within = accepted.start_by - self._clock.monotonic()
        parts = [(await self._cache.get(step, within), step.duration_ms) for step in accepted.order.program]
        forms = {self._speakers[name].form for name in accepted.speakers}
        return {form: sounds.enter_context(await self._decoder.decoded(parts, form)) for form in forms}

    async def _end(self, order: str, stage: Stage, reason: str = "") -> None:
        self._journal.settle(order, stage)
        if reason:
            log.warning("order %s: %s: %s", order[:8], stage, reason)
        await self._report(order, stage, reason)

    async def _repeat(self, order: str) -> None:
        """Say again what became of an order whose outcome the hub seems to have missed."""
        now = self._clock.monotonic()
        times, due = self._repeated.get(order, (0, float("-inf")))
        if now < due:
            return
        self._repeated[order] = times + 1, now + REPEAT_OUTCOME_AFTER * 2**times
        for raw in self._journal.outcomes(order):
            await self._record(NODE_STREAM, [Sample(metric=OUTCOME, at=self._clock.now_ms(), value=raw)])

    async def _refuse(self, refused: Refused) -> None:
        if refused.alarm:
            await self._alarm(refused.reason)
        # What a fresh hello mends is no verdict on the order: the hub wraps it again.
        elif refused.order is not None and not refused.reason.startswith(("freshness", "bundle")):
            await self._say_refused(refused.order, refused.reason)
        await self._greet()

    async def _say_refused(self, order: str, reason: str) -> None:
        if order in self._refused:
            return
        if len(self._refused) >= MOST_REMEMBERED:
            self._refused.clear()
        self._refused.add(order)
        log.warning("order %s refused: %s", order[:8], reason)
        await self._report(order, Stage.REFUSED, reason)

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
        try:
            if stage in FINAL or stage is Stage.ACCEPTED:
                self._journal.keep_outcome(order, speaker or "", raw)
            await self._record(NODE_STREAM, [Sample(metric=OUTCOME, at=now, value=raw)])
        except Exception:
            # The order is on disk already; that a word about it is not must not silence it.
            log.exception("order %s: %s could not be recorded", order[:8], stage)

    async def _greet(self) -> None:
        now = self._clock.monotonic()
        if now - self._greeted < HELLO_AT_MOST_EVERY:
            return
        self._greeted = now
        at = self._clock.now_ms()
        await self.say([WireMetric(name=HELLO, at=at, datatype=DataType.STRING, value=self.hello())])

    def _situation(self) -> Situation:
        wall = self._clock.now_ms()
        return Situation(
            node=self._settings.node,
            deployment=self._settings.anchor.deployment,
            bundle=self._trust.bundle,
            speakers=frozenset(self._speakers),
            monotonic=self._clock.monotonic(),
            wall=wall,
            clock_trusted=self._settings.trust_clock or kernel_synchronised(),
            challenges=dict(self._challenges),
            known=self._journal.known(),
            stopped=self._journal.stopped(),
            recent=self._journal.recent(wall, RATE_WINDOW),
        )

    def _draw(self) -> None:
        now = self._clock.monotonic()
        kept = {one: drawn for one, drawn in self._challenges.items() if now - drawn <= CHALLENGE_VALID}
        self._challenges = {**kept, secrets.token_hex(16): now}


async def _cancelled(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _unheard(_: Sequence[WireMetric]) -> None:
    """Before there is a session nobody can be greeted."""
