"""From a press on "play" to the last verified outcome: what was asked for, its stages, and how it is stopped.

An order is made once by the signer. How far it has come is the word of the box that plays it, and only if the box has
signed that word.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Container, Sequence
from dataclasses import dataclass, replace

from contract.broadcast import BroadcastRefused, Outcome, as_key, verified
from contract.catalog import OUTCOME
from contract.clock import Clock
from contract.commands import FINAL, Stage, settle
from hub.audio import AudioStore
from hub.audit import Act, Person
from hub.devices import DeviceKey, NodeKey
from hub.dispatch import Delivery, Dispatch
from hub.outcomes import Outcomes
from hub.signer.client import Made, SignerClient, SignerRefused, SignerUnavailable
from hub.storage.announcements import Announcement, AnnouncementStore, Part, Stop
from hub.storage.timeseries import EventRow, TimeSeries
from hub.trust import Trust

log = logging.getLogger(__name__)

EXPIRES_IN = 600
"""Seconds in which an announcement may start; later it is recorded as expired."""

NODE_GONE, NEVER_REACHED, NEVER_ANSWERED = "node_gone", "never_reached", "never_answered"
"""Why something waits or has expired, in the hub's own words; the pages' catalogue has sentences for them."""

NOT_CONFIRMED = frozenset({Stage.PENDING, Stage.SENT})


class AnnouncementRefused(Exception):
    """What cannot be announced; `code` is a word for the pages' catalogue, the text is for programs."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What somebody wants to be heard: text or an audio file, where, how loud (0-100), who asks and why."""

    speakers: Sequence[DeviceKey]
    by: Person
    volume: int = 60
    text: str = ""
    audio: bytes | None = None
    filename: str = ""
    why: str = ""


class Announcements:
    """Everything announced. `run` it once."""

    def __init__(
        self,
        *,
        store: AnnouncementStore,
        readings: TimeSeries,
        audio: AudioStore,
        signer: SignerClient,
        trust: Trust,
        publish: Callable[[str, bytes], bool],
        clock: Clock,
    ) -> None:
        self._store = store
        self._audio = audio
        self._signer = signer
        self._clock = clock
        self._keys = {node: as_key(raw) for node, raw in trust.identities.items()}
        self._dispatch = Dispatch(
            signer=signer, trust=trust, publish=publish, clock=clock, sent=self._sent, expired=self._expired
        )
        self._outcomes = Outcomes(OUTCOME, readings=readings, cursor=store.cursor, take=self._take_outcome, clock=clock)
        self._watching: set[asyncio.Event] = set()
        self.version = 0
        self.forged = 0
        """Hellos and outcomes that their box did not sign."""

    async def changed(self, seen: int) -> int:
        """Return the version once it is another than the one seen."""
        while self.version == seen:
            watching = asyncio.Event()
            self._watching.add(watching)
            try:
                await watching.wait()
            finally:
                self._watching.discard(watching)
        return self.version

    def recent(self, most: int = 20) -> Sequence[Announcement]:
        """Return the newest announcements, newest first."""
        return self._store.recent(most)

    def get(self, wanted: str) -> Announcement | None:
        """Return an announcement by its id."""
        return self._store.get(wanted)

    async def announce(self, request: Request) -> Announcement:
        """Make the audio, have the order signed, keep it, begin to send; raise AnnouncementRefused or AudioRefused."""
        if not request.speakers:
            raise AnnouncementRefused("no_speaker", "choose at least one loudspeaker")
        strangers = [one for one in request.speakers if one.of_node not in self._keys]
        if strangers:
            raise AnnouncementRefused(
                "no_identity",
                f"edge node {strangers[0].node} has no identity key; name it in the hub's [[edge_nodes]]",
            )
        if request.audio is not None:
            programme = await self._audio.from_file(request.audio)
        else:
            programme = await self._audio.from_text(request.text)
        made = await self._signed(
            self._signer.play(
                issuer=request.by.account,
                why=request.why,
                program=[programme.step()],
                text=request.text,
                targets=sorted({one.node for one in request.speakers}),
                volume=request.volume,
                expires_in_s=EXPIRES_IN,
            )
        )
        now = self._clock.now_ms()
        announcement = Announcement(
            id=made.id,
            created_at=now,
            expires_at=made.expires_at,
            issuer=request.by.name or request.by.account,
            text=request.text,
            filename=request.filename,
            sha256=programme.sha256,
            duration_ms=programme.duration_ms,
            volume=request.volume,
            parts=tuple(self._waiting(one, now) for one in dict.fromkeys(request.speakers)),
        )
        self._store.add(announcement, _made(announcement, request))
        self._send(announcement, made.id, made.expires_at, NOT_CONFIRMED)
        self._touch()
        return announcement

    async def stop(self, wanted: str, by: Person) -> Announcement:
        """Have a stop signed for an announcement and begin to send it; raise AnnouncementRefused."""
        announcement = self._store.get(wanted)
        if announcement is None:
            raise AnnouncementRefused("unknown", f"there is no announcement {wanted[:40]!r}")
        if all(_standing(part) in FINAL for part in announcement.parts):
            return announcement
        made = await self._signed(
            self._signer.stop(
                issuer=by.account,
                why="stop",
                stops=[announcement.id],
                targets=sorted({part.device.node for part in announcement.parts}),
                expires_in_s=EXPIRES_IN,
            )
        )
        stop = Stop(order=made.id, announcement=announcement.id, expires_at=made.expires_at)
        at = self._clock.now_ms()
        self._store.add_stop(stop, Act(at=at, by=by, what="announcement.stop", subject=announcement.id))
        for node in _nodes(announcement):
            self._dispatch.end(announcement.id, node)
            # What never left the hub is stopped by not sending it.
            self._decide(announcement.id, node, {Stage.PENDING}, Stage.STOPPED)
        self._send(announcement, stop.order, stop.expires_at, frozenset(Stage) - FINAL)
        return self._store.get(announcement.id) or announcement

    def hello(self, node: NodeKey, raw: str) -> None:
        """Take in what a box says of itself."""
        try:
            self._dispatch.hello(node, raw)
        except BroadcastRefused as exc:
            self._count_forgery(f"hello of {node.node}: {exc}")

    def outcomes_came(self) -> None:
        """Say that events were committed, among them perhaps outcomes."""
        self._outcomes.came()

    async def run(self) -> None:
        """Take up what was under way, then send and settle until cancelled."""
        for announcement in self._store.undelivered():
            stops = self._store.stops(announcement.id)
            if stops:
                self._send(announcement, stops[-1].order, stops[-1].expires_at, NOT_CONFIRMED)
            else:
                self._send(announcement, announcement.id, announcement.expires_at, NOT_CONFIRMED)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._dispatch.run(), name="announcements: dispatch")
            tasks.create_task(self._outcomes.run(), name="announcements: settle")

    async def _signed(self, asking: Awaitable[Made]) -> Made:
        try:
            return await asking
        except SignerRefused as exc:
            raise AnnouncementRefused("signer_refused", str(exc)) from exc
        except SignerUnavailable as exc:
            raise AnnouncementRefused("no_signer", str(exc)) from exc

    def _waiting(self, device: DeviceKey, now: int) -> Part:
        reason = "" if self._dispatch.greeted(device.of_node) else NODE_GONE
        return Part(device=device, stage=Stage.PENDING, reason=reason, at={Stage.PENDING: now})

    def _send(self, announcement: Announcement, order: str, expires_at: int, stages: Container[Stage]) -> None:
        """Send an order to each edge node of which a loudspeaker stands at one of the stages."""
        for node in _nodes(announcement):
            parts = [part for part in announcement.parts if part.device.of_node == node]
            if any(_standing(part) in stages for part in parts):
                self._dispatch.send(order, node, tuple(part.device.device for part in parts), expires_at)

    def _sent(self, delivery: Delivery) -> None:
        self._decide(delivery.order, delivery.node, {Stage.PENDING}, Stage.SENT)

    def _expired(self, delivery: Delivery) -> None:
        announcement = self._store.stopped_by(delivery.order) or delivery.order
        reason = NEVER_ANSWERED if delivery.tries else NEVER_REACHED
        self._decide(announcement, delivery.node, NOT_CONFIRMED, Stage.EXPIRED, reason)

    def _take_outcome(self, row: EventRow) -> None:
        node = row.key.of_node
        try:
            if node not in self._keys:
                raise BroadcastRefused("its identity key is not known here")
            outcome = verified(Outcome, str(row.value), [self._keys[node]])
            if outcome.node != node.node:
                raise BroadcastRefused(f"it names {outcome.node}")
        except BroadcastRefused as exc:
            self._count_forgery(f"outcome of {node.node}: {exc}")
            self._store.advance(row.id)
            return
        # An acceptance is enough to stop resending: the box has the order on disk and owes an outcome.
        self._dispatch.end(outcome.order, node)
        stopped = self._store.stopped_by(outcome.order)
        if stopped is None:
            self._box_said(outcome, node, row.id)
            return
        if outcome.stage is Stage.FINISHED:
            # The box will not play it any more, should it still come; what it had begun it reports by itself.
            self._decide(stopped, node, NOT_CONFIRMED, Stage.STOPPED)
        self._store.advance(row.id)

    def _box_said(self, outcome: Outcome, node: NodeKey, cursor: int) -> None:
        known = self._store.get(outcome.order)
        if known is None:
            # Announced after the backup that this hub was restored from; the signer's log has the order itself.
            self._store.sounded_unknown(outcome.order, outcome.stage, at=outcome.at, who=node.node, cursor=cursor)
            return
        moved = [
            _moved(part, after, outcome.reason, outcome.at)
            for part in known.parts
            if part.device.of_node == node and outcome.speaker in {None, part.device.device}
            for after in [settle(_standing(part), outcome.stage)]
            if after is not _standing(part)
        ]
        self._store.update(outcome.order, moved, cursor=cursor)
        if moved:
            self._touch()

    def _decide(
        self, announcement: str, node: NodeKey, stages: Container[Stage], stage: Stage, reason: str = ""
    ) -> None:
        """Move the parts of one edge node that stand at one of the stages."""
        known = self._store.get(announcement)
        moved = [
            _moved(part, stage, reason, self._clock.now_ms())
            for part in (known.parts if known is not None else ())
            if part.device.of_node == node and part.stage in stages
        ]
        if moved:
            self._store.update(announcement, moved)
            self._touch()

    def _count_forgery(self, sentence: str) -> None:
        self.forged += 1
        log.error("not believed: %s (%d so far)", sentence, self.forged)

    def _touch(self) -> None:
        self.version += 1
        for watching in self._watching:
            watching.set()


def _made(announcement: Announcement, request: Request) -> Act:
    """Return the act of announcing: what was to be heard, where and how loud."""
    heard = {"text": announcement.text} if announcement.text else {"file": announcement.filename}
    return Act(
        at=announcement.created_at,
        by=request.by,
        what="announcement.make",
        subject=announcement.id,
        why=request.why,
        after={
            **heard,
            "sha256": announcement.sha256,
            "volume": announcement.volume,
            "speakers": [f"{one.device.node}/{one.device.device}" for one in announcement.parts],
        },
    )


def _nodes(announcement: Announcement) -> list[NodeKey]:
    return list(dict.fromkeys(part.device.of_node for part in announcement.parts))


def _standing(part: Part) -> Stage:
    """Return the stage that a box's word is measured against: that the hub gave up on it is not the box's word."""
    return Stage.SENT if part.reason in {NEVER_REACHED, NEVER_ANSWERED} else part.stage


def _moved(part: Part, stage: Stage, reason: str, at: int) -> Part:
    reached: dict[Stage, int] = {one: when for one, when in part.at.items() if one is not Stage.EXPIRED}
    return replace(part, stage=stage, reason=reason, at={**reached, stage: at})
