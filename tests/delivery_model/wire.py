"""The broker and the lines to it: what MQTT promises at QoS 0 and no more, with every fault a line can have.

A connection keeps order. What was on its way when it ends is lost. A client that connects under the id of another
throws that one out, whose will is published.
"""

import asyncio
import random
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from contract.clock import Clock
from edge.broker import BrokerLost, Message, Server

Said = Callable[["Line", str, bytes], None]


@dataclass(slots=True)
class Port:
    """One connection at the broker; `arrived` is rung when something can be taken, or the connection ended."""

    client: str
    filters: list[str] = field(default_factory=list)
    will: Message | None = None
    line: "Line | None" = None
    waiting: deque[Message] = field(default_factory=deque)
    arrived: Callable[[], None] = lambda: None
    open: bool = True


@dataclass(slots=True)
class Line:
    """The way from one box to the broker, with the faults that wait to happen on it."""

    name: str
    clock: Clock | None = None
    up: bool = True
    silent: bool = False
    """Everything vanishes and nobody notices yet."""
    port: Port | None = None
    seconds_a_message: float = 0.0
    cut_at: int = 0
    """The how-manieth message from now finds the line cut; 0 is none."""
    cut_delivers: bool = False
    lose_up: int = 0
    twice_up: int = 0
    lose_down: int = 0
    twice_down: int = 0
    late_down: float = 0.0
    late: deque[tuple[float, Message]] = field(default_factory=deque)
    answers: list[Message] = field(default_factory=list)
    """Everything that was sent to this box, for answers that come again much later."""


class Broker:
    """Routes between ports; `lines` by name, which an edge node's configuration gives as host."""

    def __init__(self, chance: random.Random, now: Callable[[], float]) -> None:
        self._chance = chance
        self._now = now
        self.up = True
        self.lines: dict[str, Line] = {}
        self.ports: list[Port] = []
        self.retained: dict[str, bytes] = {}
        self.watch: list[Said] = []
        self.unique_ids = True
        self.happened: Counter[str] = Counter()
        self.disturbed: Callable[[], None] = lambda: None

    def connect(self, port: Port) -> None:
        """Take a client in; one of the same id is thrown out."""
        if not self.up:
            raise BrokerLost("the broker is down")
        for other in [one for one in self.ports if one.client == port.client]:
            self._note("thrown_out")
            self.close(other)
        self.ports.append(port)

    def subscribe(self, port: Port, filters: Sequence[str]) -> None:
        """Let a port hear; retained messages come first."""
        port.filters += filters
        for topic, payload in self.retained.items():
            if any(_matches(one, topic) for one in filters):
                self._put(port, Message(topic, payload, retained=True))

    def close(self, port: Port, *, politely: bool = False) -> None:
        """End a connection; its will is published unless it said good-bye."""
        if not port.open:
            return
        port.open = False
        if port in self.ports:
            self.ports.remove(port)
        if port.line is not None and port.line.port is port:
            port.line.port = None
            port.line.late.clear()
        port.arrived()
        if port.will is not None and not politely and self.up:
            self.route(port.will.topic, port.will.payload, retain="/STATE/" in port.will.topic)

    def route(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Hand a message to everybody who listens."""
        if not self.up:
            return
        if retain:
            self.retained[topic] = payload
        for port in list(self.ports):
            if any(_matches(one, topic) for one in port.filters):
                self._down(port, Message(topic, payload))

    def said(self, line: Line, topic: str, payload: bytes) -> None:
        """Take what a box publishes."""
        for one in self.watch:
            one(line, topic, payload)
        if line.silent:
            return
        if line.lose_up:
            line.lose_up -= 1
            self._note("lost_up")
            return
        self.route(topic, payload)
        if line.twice_up:
            line.twice_up -= 1
            self._note("twice_up")
            self.route(topic, payload)

    def restart(self, *, keeps: bool) -> None:
        """Everybody is thrown out, nobody's will is published; what was retained stays only with persistence."""
        self.up = False
        for port in list(self.ports):
            self.close(port)
        if not keeps:
            self.retained.clear()
        self.up = True

    def pass_late(self) -> None:
        """Hand over what was held back until now."""
        now = self._now()
        for line in self.lines.values():
            while line.late and line.late[0][0] <= now:
                _, message = line.late.popleft()
                if line.port is not None and not line.silent:
                    self._put(line.port, message)

    def again(self, line: Line, which: int) -> bool:
        """Send a box once more what it was sent long ago; return whether it could be."""
        if line.port is None or line.silent or not line.answers:
            return False
        self._put(line.port, line.answers[which % len(line.answers)])
        return True

    def _down(self, port: Port, message: Message) -> None:
        line = port.line
        if line is None or "/STATE/" in message.topic:
            if line is None or not line.silent:
                self._put(port, message)
            return
        line.answers.append(message)
        if len(line.answers) > 60:
            del line.answers[0]
        if line.silent:
            return
        if line.lose_down:
            line.lose_down -= 1
            self._note("lost_answer")
            return
        copies = 1
        if line.twice_down:
            line.twice_down -= 1
            self._note("twice_answer")
            copies = 2
        for _ in range(copies):
            if line.late_down or line.late:
                line.late.append((self._now() + line.late_down, message))
            else:
                self._put(port, message)

    def _note(self, what: str) -> None:
        self.happened[what] += 1
        if what != "thrown_out":  # two boxes of one id do that for as long as there are two
            self.disturbed()

    @staticmethod
    def _put(port: Port, message: Message) -> None:
        port.waiting.append(message)
        port.arrived()


class BoxConnection:
    """Stands where edge.broker.Connection would."""

    def __init__(self, broker: Broker, port: Port, line: Line) -> None:
        self._broker = broker
        self._port = port
        self._line = line
        self._bell = asyncio.Event()
        port.arrived = self._bell.set

    async def subscribe(self, filters: Sequence[str]) -> None:
        self._stands()
        self._broker.subscribe(self._port, filters)

    async def publish(self, topic: str, payload: bytes, *, qos: int = 0) -> None:
        self._stands()
        line = self._line
        if line.seconds_a_message and line.clock is not None:
            await line.clock.sleep(line.seconds_a_message)
            self._stands()
        if line.cut_at:
            line.cut_at -= 1
            if line.cut_at == 0:
                self._broker._note("cut_at_message")
                if line.cut_delivers:
                    self._broker.said(line, topic, payload)
                self._broker.close(self._port)
                raise BrokerLost("the line was cut")
        self._broker.said(line, topic, payload)

    async def messages(self) -> AsyncIterator[Message]:
        while True:
            while self._port.waiting:
                yield self._port.waiting.popleft()
            self._stands()
            self._bell.clear()
            await self._bell.wait()

    def _stands(self) -> None:
        if not self._port.open:
            raise BrokerLost("the connection is gone")


BROKERS: dict[str, Broker] = {}
"""By the name that stands as host in a box's configuration."""


@asynccontextmanager
async def connect(server: Server, *, client_id: str, will: Message | None, keep_alive: int) -> AsyncIterator[Any]:
    """Stands where edge.broker.connect would."""
    broker = BROKERS[server.host]
    line = broker.lines[server.host]
    if not (line.up and broker.up) or line.silent:
        raise BrokerLost("no way to the broker")
    port = Port(client=client_id, will=will, line=line)
    connection = BoxConnection(broker, port, line)
    broker.connect(port)
    line.port = port
    try:
        yield connection
    finally:
        broker.close(port, politely=True)


def _matches(pattern: str, topic: str) -> bool:
    if pattern.endswith("#"):
        return topic.startswith(pattern[:-1])
    if pattern.endswith("+"):
        return topic.startswith(pattern[:-1])
    return pattern == topic
