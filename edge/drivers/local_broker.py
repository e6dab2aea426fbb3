"""What sensors publish on the box's own broker: one connection that listens for all of them."""

import asyncio
import secrets
from collections.abc import Callable, Iterable

from contract.catalog import Cause
from contract.clock import Clock
from edge.broker import BrokerLost, Connection, Message, Server, SubscriptionRefused, WrongLogin, connect
from edge.poller import DeviceUnavailable

RETRY_SECONDS = 5.0
KEEP_ALIVE = 30

Hear = Callable[[Message], None]


class LocalBroker:
    """Listens from the first `settled` until `close`, and again by itself after a loss.

    Every sensor is made, and `add`ed, before the first `settled`. What is retained is told again at every connect.
    """

    def __init__(self, server: Server, clock: Clock) -> None:
        self.name = f"broker {server.host}:{server.port}"
        self._server = server
        self._clock = clock
        self._hearers: dict[str, list[Hear]] = {}
        self._refused: dict[str, str] = {}
        self._lost: tuple[Cause, str] | None = (Cause.UNREACHABLE, f"{self.name} was not reached yet")
        self._settled = asyncio.Event()
        self._listening: asyncio.Task[None] | None = None

    def add(self, topics: Iterable[str], hear: Hear) -> None:
        """Have `hear` told every message on these topics."""
        for topic in topics:
            self._hearers.setdefault(topic, []).append(hear)

    async def settled(self) -> None:
        """Begin to listen, if nobody did, and return once the first attempt succeeded or failed."""
        if self._listening is None or self._listening.done():
            self._listening = asyncio.create_task(self._listen(), name=f"{self.name}: sensors")
        await self._settled.wait()

    def check(self, topics: Iterable[str]) -> None:
        """Raise DeviceUnavailable where the broker is lost, or does not let us hear one of the topics."""
        if self._lost is not None:
            raise DeviceUnavailable(*self._lost)
        for topic in topics:
            if topic in self._refused:
                raise DeviceUnavailable(Cause.REFUSED, f"{self.name}: {self._refused[topic]}")

    def close(self) -> None:
        """Listen no more."""
        if self._listening is not None:
            self._listening.cancel()
            self._listening = None

    async def _listen(self) -> None:
        identity = f"hamlet-sensors-{secrets.token_hex(4)}"
        while True:
            try:
                async with connect(self._server, client_id=identity, will=None, keep_alive=KEEP_ALIVE) as connection:
                    await self._subscribe(connection)
                    self._lost = None
                    self._settled.set()
                    async for message in connection.messages():
                        for hear in self._hearers.get(message.topic, ()):
                            hear(message)
            except BrokerLost as exc:
                cause = Cause.UNAUTHORISED if isinstance(exc, WrongLogin) else Cause.UNREACHABLE
                self._lost = cause, f"{self.name}: {exc}"
            self._settled.set()
            await self._clock.sleep(RETRY_SECONDS)

    async def _subscribe(self, connection: Connection) -> None:
        self._refused.clear()
        for topic in self._hearers:
            try:
                await connection.subscribe([topic])
            except SubscriptionRefused as exc:
                self._refused[topic] = str(exc)
