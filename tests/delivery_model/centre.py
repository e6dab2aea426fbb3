"""The hub as a process: the real intake, live state and answers on a shelf and a simulated line."""

import asyncio
import json
from collections import deque
from collections.abc import Callable

from contract.topics import EVERYTHING, state
from edge.broker import Message as Arrived
from hub.broker import Message
from hub.counters import Counters
from hub.devices import NodeKey
from hub.ingest import Ingest, Settings
from hub.live_state import LiveState
from hub.storage.timeseries import StoreUnavailable
from tests.delivery_model.loop import ProcessClock, ProcessLoop
from tests.delivery_model.shelf import Shelf
from tests.delivery_model.wire import Broker, Port

QUIET_AFTER_BIRTH = 1.0


class HubLine:
    """Stands where hub.broker.Broker would, connected whenever there is a broker."""

    def __init__(self, broker: Broker, host: str, loop: ProcessLoop, clock: ProcessClock, last: int) -> None:
        self._broker = broker
        self._host = host
        self._loop = loop
        self._clock = clock
        self.timestamp = last
        self._online_at: float | None = None
        self._bell = asyncio.Event()
        self.port: Port | None = None
        self.dropped = 0
        self.sent: deque[tuple[float, str, bytes]] = deque(maxlen=500)

    @property
    def ready(self) -> bool:
        return self.online and self._clock.monotonic() - (self._online_at or 0.0) >= QUIET_AFTER_BIRTH

    @property
    def online(self) -> bool:
        return self.port is not None and self.port.open

    def connect(self) -> None:
        """Go online if there is a broker and we are not."""
        if self.online or not self._broker.up:
            return
        topic = state(self._host)
        retained = self._broker.retained.get(topic)
        newest = json.loads(retained)["timestamp"] if retained else 0
        self.timestamp = max(self._clock.now_ms(), self.timestamp + 1, newest + 1)
        will = Arrived(topic, self._said(online=False))
        self.port = Port(client=self._host, will=will, arrived=self._bell.set)
        self._broker.connect(self.port)
        self._broker.subscribe(self.port, [EVERYTHING])
        self._online_at = self._clock.monotonic()
        self._broker.route(topic, self._said(online=True), retain=True)

    def publish(self, topic: str, payload: bytes) -> bool:
        if not self.ready:
            return False
        self.sent.append((self._clock.monotonic(), topic, payload))
        self._broker.route(topic, payload)
        return True

    async def take(self, within: float) -> list[Message]:
        if self.port is None or not self.port.waiting:
            self._bell.clear()
            try:
                async with asyncio.timeout(within):
                    await self._bell.wait()
            except TimeoutError:
                return []
        taken = (
            [Message(one.topic, one.payload, self._clock.now_ms()) for one in self.port.waiting] if self.port else []
        )
        if self.port is not None:
            self.port.waiting.clear()
        return taken

    def _said(self, *, online: bool) -> bytes:
        return json.dumps({"online": online, "timestamp": self.timestamp}).encode()


class Centre:
    """The hub's machine. It is off until `start`."""

    def __init__(self, broker: Broker, host: str, nodes: list[NodeKey], world_ms: Callable[[], int]) -> None:
        self._broker = broker
        self._host = host
        self._nodes = nodes
        self._world_ms = world_ms
        self.shelf: Shelf
        self.wrong_ms = 0
        self.loop: ProcessLoop | None = None
        self.lives = 0
        self._last_state = 0

    @property
    def on(self) -> bool:
        return self.loop is not None

    def start(self, now: float) -> None:
        loop = ProcessLoop(now)
        self.clock = ProcessClock(loop, self._world_ms)
        self.clock.wrong_ms = self.wrong_ms
        self.loop = loop
        self.shelf.open()
        self.lives += 1
        self.live = LiveState(self.clock, self._nodes)
        self.line = HubLine(self._broker, self._host, loop, self.clock, self._last_state)
        counters = Counters()
        self._mistakes = counters.dropped.labels("our_mistake")
        self.ingest = Ingest(
            broker=self.line,  # type: ignore[arg-type]  # only ready, take and publish are used
            store=self.shelf,  # type: ignore[arg-type]  # as far as taking in needs it
            live=self.live,
            clock=self.clock,
            counters=counters,
            settings=Settings(ask_kernel=False),
            on_hello=lambda node, raw: None,
            on_events=lambda: None,
        )
        loop.create_task(self.ingest.run(), name="hub")

    def turn(self, now: float) -> bool:
        assert self.loop is not None
        self.line.connect()
        return self.loop.turn(now)

    def failures(self) -> list[BaseException]:
        """Return what ended any task of the hub by surprise; that its store refuses surprises nobody."""
        assert self.loop is not None
        found = [one for one in self.loop.ended() if not isinstance(one, StoreUnavailable)]
        mistakes = self._mistakes._value.get()
        return [*found, AssertionError(f"{mistakes:.0f} messages were not taken in by mistake")] if mistakes else found

    def kill(self) -> None:
        """The process is gone; what was not committed is gone with it."""
        if self.loop is None:
            return
        loop, self.loop = self.loop, None
        down, self.shelf.down = self.shelf.down, True
        loop.kill()
        self.shelf.down = down
        self._last_state = self.line.timestamp
        if self.line.port is not None:
            self._broker.close(self.line.port)

    def jump(self, milliseconds: int) -> None:
        self.wrong_ms += milliseconds
        if self.loop is not None:
            self.clock.wrong_ms = self.wrong_ms
