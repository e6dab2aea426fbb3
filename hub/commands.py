"""From a press on a button to the word of the edge node: commands, their stages, and when they are given up.

Kept before it is sent, sent until the edge node says that it has it or it expires. The edge node does each once,
however often it comes.
"""

import asyncio
import logging
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from contract.actions import ACTIONS, Action
from contract.catalog import COMMAND, COMMAND_OUTCOME, Kind
from contract.clock import Clock
from contract.commands import Command, CommandUnreadable, Outcome, Stage, read_outcome, settle, written
from contract.metrics import DataType
from contract.payload import Payload, WireMetric, encode
from contract.topics import MessageType, Topic
from hub.audit import Act, Person
from hub.devices import DeviceKey, NodeKey, device_id
from hub.outcomes import Outcomes
from hub.resending import Owed, Resending
from hub.storage.commands import CommandStore, Kept
from hub.storage.timeseries import EventRow, TimeSeries

log = logging.getLogger(__name__)

EXPIRES_IN = 300
"""Seconds in which a command must reach its edge node: whoever pressed has gone home by then."""

RESEND_AFTER = (1.0, 2.0, 5.0, 10.0, 20.0)
"""Seconds between sendings; the last one repeats."""

NODE_GONE, NEVER_REACHED, NEVER_ANSWERED = "node_gone", "never_reached", "never_answered"


class CommandRefused(Exception):
    """What cannot be asked for; `code` is a word for the pages' catalogue, the text is for programs."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(slots=True, kw_only=True)
class _Sending(Owed):
    command: Command
    node: NodeKey


class Commands:
    """All that was asked of devices. `run` it once."""

    def __init__(
        self,
        *,
        store: CommandStore,
        readings: TimeSeries,
        publish: Callable[[str, bytes], bool],
        online: Callable[[NodeKey], bool],
        clock: Clock,
    ) -> None:
        self._store = store
        self._publish = publish
        self._online = online
        self._clock = clock
        self._under_way = Resending(send=self._send, expired=self._expired, after=RESEND_AFTER, clock=clock)
        self._outcomes = Outcomes(
            COMMAND_OUTCOME, readings=readings, cursor=store.cursor, take=self._take_outcome, clock=clock
        )
        self._watching: set[asyncio.Event] = set()
        self.version = 0

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

    def of(self, device: DeviceKey, most: int = 10) -> Sequence[Kept]:
        """Return the newest commands of a device, newest first."""
        return self._store.of(device, most)

    def ask(self, device: DeviceKey, kind: Kind | None, action: Action, by: Person) -> Kept:
        """Keep a command, and begin to send it; raise CommandRefused."""
        if kind not in ACTIONS[action].kinds:
            raise CommandRefused("no_such_action", f"{action} does not exist for {kind or 'equipment of unknown kind'}")
        now = self._clock.now_ms()
        if self._store.under_way(device, action, now) is not None:
            raise CommandRefused("under_way", f"{action} of {device.device or device.node} is under way already")
        kept = Kept(
            id=secrets.token_hex(16),
            device=device,
            action=action,
            issuer=by.account,
            issued_at=now,
            expires_at=now + EXPIRES_IN * 1000,
            stage=Stage.PENDING,
            reason="" if self._online(device.of_node) else NODE_GONE,
            since=now,
        )
        subject = device_id(device)
        told = {"command": kept.id, "node": device.node, "device": device.device}
        self._store.add(kept, Act(at=now, by=by, what=f"command.{action}", subject=subject, after=told))
        self._begin(kept)
        self._touch()
        return kept

    def outcomes_came(self) -> None:
        """Say that events were committed, among them perhaps outcomes."""
        self._outcomes.came()

    async def run(self) -> None:
        """Take up what was under way, then send and settle until cancelled."""
        for kept in self._store.undelivered():
            self._begin(kept)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._under_way.run(), name="commands: sending")
            tasks.create_task(self._outcomes.run(), name="commands: settle")

    def _begin(self, kept: Kept) -> None:
        command = Command(
            id=kept.id,
            action=kept.action,
            device=kept.device.device,
            issued_at=kept.issued_at,
            expires_at=kept.expires_at,
            issuer=kept.issuer,
        )
        sending = _Sending(expires_at=kept.expires_at, tries=kept.sendings, command=command, node=kept.device.of_node)
        self._under_way.begin(kept.id, sending)

    async def _send(self, sending: _Sending) -> None:
        if not self._online(sending.node):
            return
        at = self._clock.now_ms()
        metric = WireMetric(name=COMMAND, at=at, datatype=DataType.STRING, value=written(sending.command))
        topic = str(Topic(sending.node.group, MessageType.NCMD, sending.node.node))
        if not self._publish(topic, encode(Payload(at=at, metrics=(metric,)))):
            return
        sending.tries += 1
        kept = self._store.get(sending.command.id)
        if kept is not None:
            since = at if kept.stage is Stage.PENDING else kept.since
            stage = settle(kept.stage, Stage.SENT)
            self._store.update(replace(kept, stage=stage, reason="", since=since, sendings=sending.tries))
            self._touch()

    def _expired(self, sending: _Sending) -> None:
        kept = self._store.get(sending.command.id)
        if kept is not None and kept.stage in {Stage.PENDING, Stage.SENT}:
            reason = NEVER_ANSWERED if sending.tries else NEVER_REACHED
            self._move(kept, Stage.EXPIRED, reason, self._clock.now_ms())

    def _take_outcome(self, row: EventRow) -> None:
        try:
            outcome = read_outcome(str(row.value))
        except CommandUnreadable as exc:
            log.warning("what %s says of a command cannot be read: %s", row.key.node, exc)
            self._store.update(None, cursor=row.id)
            return
        kept = self._store.get(outcome.command)
        if kept is None or kept.device.of_node != row.key.of_node:
            # Asked for after the backup that this hub was restored from, or another box's word: neither counts.
            log.info("%s speaks of a command %s that it was not sent", row.key.node, outcome.command[:8])
            self._store.update(None, cursor=row.id)
            return
        self._under_way.end(kept.id)
        self._settle(kept, outcome, row.id)

    def _settle(self, kept: Kept, outcome: Outcome, cursor: int) -> None:
        # That the hub gave up on it is not the box's word.
        gave_up = kept.reason in {NEVER_REACHED, NEVER_ANSWERED}
        stands = Stage.SENT if gave_up else kept.stage
        after = settle(stands, outcome.stage)
        if after is stands:
            self._store.update(None, cursor=cursor)
        else:
            self._move(kept, after, outcome.reason, outcome.at, cursor=cursor)

    def _move(self, kept: Kept, stage: Stage, reason: str, at: int, *, cursor: int | None = None) -> None:
        self._store.update(replace(kept, stage=stage, reason=reason, since=at), cursor=cursor)
        self._touch()

    def _touch(self) -> None:
        self.version += 1
        for watching in self._watching:
            watching.set()
