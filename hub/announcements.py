"""From a press on "play" to the last verified outcome: orders, envelopes, resending, stages.

An order is made once by the signer; envelopes around it are made again whenever a box says a new hello. Only an outcome
signed by the box itself ends the resending: whoever merely has rights on the broker can neither start nor stop a sound.
"""

import asyncio
import base64
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from contract.broadcast import (
    BroadcastRefused,
    Bundle,
    Hello,
    Key,
    Outcome,
    as_key,
    verified,
)
from contract.catalog import BUNDLE, ENVELOPE, OUTCOME, ROOT
from contract.clock import Clock
from contract.commands import Stage, settle
from contract.metrics import DataType
from contract.payload import Payload, WireMetric, encode
from contract.topics import MessageType, Topic
from hub.audio import AudioStore
from hub.devices import DeviceKey, NodeKey
from hub.signer.client import Made, SignerClient, SignerRefused, SignerUnavailable
from hub.storage.announcements import Announcement, AnnouncementStore, Part
from hub.storage.timeseries import EventRow, TimeSeries

log = logging.getLogger(__name__)

EXPIRES_IN = 600
"""Seconds in which an announcement may start; later it is recorded as expired."""

RESEND_AFTER = (0.3, 1.0, 2.0, 5.0)
"""Seconds between sendings; the last one repeats."""

MOST_OUTCOMES = 200


class AnnouncementRefused(Exception):
    """What cannot be announced; `code` is a word for the pages' catalogue, the text is for programs."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What somebody wants to be heard: text or an audio file, where, how loud (0-100), who asks and why."""

    speakers: Sequence[DeviceKey]
    issuer: str
    volume: int = 60
    text: str = ""
    audio: bytes | None = None
    filename: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """What the hub passes on and checks: the signed bundle and root chain, and the boxes' public keys."""

    bundle_raw: str
    bundle: Bundle
    roots: Sequence[str]
    identities: Mapping[NodeKey, bytes]


@dataclass(slots=True)
class _Delivery:
    """An order on its way to one edge node."""

    order: str
    node: NodeKey
    speakers: tuple[str, ...]
    expires_at: int
    announcement: str
    tries: int = 0
    due: float = 0.0


@dataclass(slots=True)
class _Box:
    """What a box last said of itself."""

    hello: Hello | None = None
    told_bundle: float = field(default=float("-inf"))


class Announcements:
    """Everything announced, and the loop that brings it to the boxes. `run` it once."""

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
        self._readings = readings
        self._audio = audio
        self._signer = signer
        self._trust = trust
        self._publish = publish
        self._clock = clock
        self._keys: dict[NodeKey, Key] = {node: as_key(raw) for node, raw in trust.identities.items()}
        self._boxes: dict[NodeKey, _Box] = {}
        self._deliveries: dict[tuple[str, NodeKey], _Delivery] = {}
        self._wake = asyncio.Event()
        self._news = asyncio.Event()
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
                issuer=request.issuer,
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
            issuer=request.issuer,
            text=request.text,
            filename=request.filename,
            sha256=programme.sha256,
            duration_ms=programme.duration_ms,
            volume=request.volume,
            parts=tuple(
                Part(device=one, stage=Stage.PENDING, reason="", at={Stage.PENDING: now})
                for one in dict.fromkeys(request.speakers)
            ),
        )
        self._store.add(announcement, why=request.why)
        self._deliver(announcement, made.id, made.expires_at)
        self._touch()
        return announcement

    async def stop(self, wanted: str, issuer: str) -> Announcement:
        """Have a stop signed for an announcement and begin to send it; raise AnnouncementRefused."""
        announcement = self._store.get(wanted)
        if announcement is None:
            raise AnnouncementRefused("unknown", f"there is no announcement {wanted[:40]!r}")
        made = await self._signed(
            self._signer.stop(issuer=issuer, why="stop", stops=[announcement.id], expires_in_s=EXPIRES_IN)
        )
        self._store.audit(self._clock.now_ms(), issuer, "stop", "", announcement.id)
        self._deliver(announcement, made.id, made.expires_at)
        return announcement

    def hello(self, node: NodeKey, raw: str) -> None:
        """Take in what a box says of itself; a new challenge makes everything for it due at once."""
        key = self._keys.get(node)
        if key is None:
            return
        try:
            hello = verified(Hello, raw, [key])
        except BroadcastRefused as exc:
            self._count_forgery(f"hello of {node.node}: {exc}")
            return
        if hello.node != node.node:
            self._count_forgery(f"hello of {node.node} names {hello.node}")
            return
        box = self._boxes.setdefault(node, _Box())
        fresh = box.hello is None or hello.challenge != box.hello.challenge
        box.hello = hello
        if hello.bundle_version < self._trust.bundle.version or hello.root_version < len(self._trust.roots):
            self._send_trust(node, box)
        for delivery in self._deliveries.values():
            if delivery.node == node and (fresh or delivery.tries):
                delivery.due = self._clock.monotonic()
        self._wake.set()

    def outcomes_came(self) -> None:
        """Say that events were committed, among them perhaps outcomes."""
        self._news.set()

    async def run(self) -> None:
        """Take up what was under way, then send and settle until cancelled."""
        for announcement in self._store.recent(200):
            if not announcement.settled and announcement.expires_at > self._clock.now_ms():
                self._deliver(announcement, announcement.id, announcement.expires_at)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._send_in_time(), name="announcements: send")
            tasks.create_task(self._settle_in_time(), name="announcements: settle")
            tasks.create_task(self._tick(), name="announcements: tick")

    async def _tick(self) -> None:
        while True:
            await self._clock.sleep(0.25)
            self._wake.set()
            self._expire()

    async def _signed(self, asking: Awaitable[Made]) -> Made:
        try:
            return await asking
        except SignerRefused as exc:
            raise AnnouncementRefused("signer_refused", str(exc)) from exc
        except SignerUnavailable as exc:
            raise AnnouncementRefused("no_signer", str(exc)) from exc

    def _deliver(self, announcement: Announcement, order: str, expires_at: int) -> None:
        for node in {part.device.of_node for part in announcement.parts}:
            speakers = tuple(part.device.device for part in announcement.parts if part.device.of_node == node)
            self._deliveries[order, node] = _Delivery(
                order=order,
                node=node,
                speakers=speakers,
                expires_at=expires_at,
                announcement=announcement.id,
                due=self._clock.monotonic(),
            )
        self._wake.set()

    async def _send_in_time(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            now = self._clock.monotonic()
            for delivery in [one for one in self._deliveries.values() if one.due <= now]:
                await self._send(delivery)

    async def _send(self, delivery: _Delivery) -> None:
        wait = RESEND_AFTER[min(delivery.tries, len(RESEND_AFTER) - 1)]
        delivery.due = self._clock.monotonic() + wait
        box = self._boxes.get(delivery.node)
        hello = box.hello if box else None
        if hello is None:
            return  # its hello will make this due; without one no envelope could be fresh
        try:
            envelope = await self._signer.wrap(
                delivery.order,
                node=delivery.node.node,
                speakers=delivery.speakers,
                challenge=hello.challenge,
                min_bundle=self._trust.bundle.version,
            )
        except (SignerRefused, SignerUnavailable) as exc:
            log.warning("order %s for %s: %s", delivery.order[:8], delivery.node.node, exc)
            return
        if self._command(delivery.node, ENVELOPE, envelope):
            delivery.tries += 1
            if delivery.order == delivery.announcement:
                self._advance(delivery.announcement, delivery.node, None, Stage.SENT, "", self._clock.now_ms())

    def _send_trust(self, node: NodeKey, box: _Box) -> None:
        now = self._clock.monotonic()
        if now - box.told_bundle < 1.0 or box.hello is None:
            return
        box.told_bundle = now
        for root in self._trust.roots[box.hello.root_version :]:
            self._command(node, ROOT, root)
        self._command(node, BUNDLE, self._trust.bundle_raw)

    def _command(self, node: NodeKey, name: str, value: str) -> bool:
        at = self._clock.now_ms()
        metric = WireMetric(name=name, at=at, datatype=DataType.STRING, value=value)
        topic = str(Topic(node.group, MessageType.NCMD, node.node))
        return self._publish(topic, encode(Payload(at=at, metrics=(metric,))))

    async def _settle_in_time(self) -> None:
        while True:
            while True:
                rows = await asyncio.to_thread(self._readings.events, self._store.cursor(), OUTCOME, MOST_OUTCOMES)
                for row in rows:
                    self._take_outcome(row)
                if len(rows) < MOST_OUTCOMES:
                    break
            await self._news.wait()
            self._news.clear()

    def _take_outcome(self, row: EventRow) -> None:
        node = row.key.of_node
        key = self._keys.get(node)
        try:
            if key is None:
                raise BroadcastRefused("its identity key is not known here")
            outcome = verified(Outcome, str(row.value), [key])
            if outcome.node != node.node:
                raise BroadcastRefused(f"it names {outcome.node}")
        except BroadcastRefused as exc:
            self._count_forgery(f"outcome of {node.node}: {exc}")
            self._store.advance(row.id)
            return
        delivery = self._deliveries.get((outcome.order, node))
        # An acceptance is enough to stop resending: the box has the order on disk and owes an outcome.
        if delivery is not None:
            del self._deliveries[outcome.order, node]
        self._advance(outcome.order, node, outcome.speaker, outcome.stage, outcome.reason, outcome.at, cursor=row.id)

    def _advance(
        self,
        announcement: str,
        node: NodeKey,
        speaker: str | None,
        stage: Stage,
        reason: str,
        at: int,
        *,
        cursor: int | None = None,
    ) -> None:
        known = self._store.get(announcement)
        if known is None:  # the outcome of a stop order, or of an announcement before a restore
            if cursor is not None:
                self._store.advance(cursor)
            return
        moved = [
            replace(part, stage=after, reason=reason or part.reason, at={**part.at, stage: at})
            for part in known.parts
            if part.device.of_node == node and speaker in {None, part.device.device}
            for after in [settle(part.stage, stage)]
            if after is not part.stage
        ]
        if moved or cursor is not None:
            self._store.update(announcement, moved, cursor=cursor)
        if moved:
            self._touch()

    def _expire(self) -> None:
        now = self._clock.now_ms()
        for key, delivery in list(self._deliveries.items()):
            if now <= delivery.expires_at:
                continue
            del self._deliveries[key]
            if delivery.order == delivery.announcement:
                reason = "never_reached" if delivery.tries == 0 else "never_answered"
                self._advance(delivery.announcement, delivery.node, None, Stage.EXPIRED, reason, now)

    def _count_forgery(self, sentence: str) -> None:
        self.forged += 1
        log.error("not believed: %s (%d so far)", sentence, self.forged)

    def _touch(self) -> None:
        self.version += 1
        for watching in self._watching:
            watching.set()


def identity(text: str) -> bytes:
    """Return a box's public key from its base64; raise ValueError if it is none."""
    raw = base64.b64decode(text, validate=True)
    if len(raw) != 32:
        raise ValueError(f"{len(raw)} bytes, an Ed25519 public key has 32")
    return raw
