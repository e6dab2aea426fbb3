"""The edge node's line to an MQTT broker; the only file that knows the client library."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import aiomqtt

DEADLINE = 10.0
"""Seconds for anything a broker is asked to confirm."""

MOST_WAITING = 10_000
"""Commands kept unread; a broker that floods us with more loses them, not the box its memory."""


_BAD_LOGIN = frozenset({4, 5, 134, 135})
"""What a broker answers to a wrong name or password, in MQTT 3.1.1 and as the client library translates it."""


class BrokerLost(Exception):
    """The broker does not answer, turned us away, or went."""


class WrongLogin(BrokerLost):
    """The broker wants another name or password."""


class SubscriptionRefused(BrokerLost):
    """The broker does not let us hear a topic; the connection stands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One broker of the list."""

    host: str
    port: int = 1883
    username: str | None = None
    password: str | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """What came in: topic text and payload bytes; `retained` if the broker kept it from before we listened."""

    topic: str
    payload: bytes
    retained: bool = False


class Connection:
    """A connection that stands; every call raises BrokerLost when it does not any more."""

    def __init__(self, client: aiomqtt.Client) -> None:
        self._client = client

    async def subscribe(self, filters: Sequence[str]) -> None:
        """Return once the broker granted every filter at QoS 1."""
        with _as_lost():
            granted = await self._client.subscribe([(one, 1) for one in filters])
        # An access list that grants only part would leave us deaf on the rest without a word.
        if any(getattr(one, "is_failure", False) or one == 0x80 for one in granted):
            raise SubscriptionRefused(f"the broker refused one of the subscriptions {', '.join(filters)}")

    async def publish(self, topic: str, payload: bytes, *, qos: int = 0) -> None:
        """Return once the message left (QoS 0) or the broker confirmed it (QoS 1); never retained."""
        with _as_lost():
            await self._client.publish(topic, payload, qos=qos, retain=False)

    async def messages(self) -> AsyncIterator[Message]:
        """Yield what comes in, in order, until the connection is lost."""
        with _as_lost():
            async for message in self._client.messages:
                payload = message.payload
                yield Message(str(message.topic), payload if isinstance(payload, bytes) else b"", message.retain)


@asynccontextmanager
async def connect(
    server: Server, *, client_id: str, will: Message | None, keep_alive: int
) -> AsyncIterator[Connection]:
    """Connect with a clean session and the will at QoS 1, not retained; disconnect on leaving; raise BrokerLost."""
    client = aiomqtt.Client(
        server.host,
        server.port,
        identifier=client_id,
        username=server.username,
        password=server.password,
        clean_session=True,
        keepalive=keep_alive,
        timeout=DEADLINE,
        max_queued_incoming_messages=MOST_WAITING,
        will=None if will is None else aiomqtt.Will(will.topic, will.payload, qos=1, retain=False),
    )
    where = f"{server.host}:{server.port}"
    entering = asyncio.ensure_future(client.__aenter__())
    try:
        # The library connects in a thread: left alone half-way, it would go on watching a socket that is another's by
        # then, and keep the loop spinning for ever.
        await asyncio.shield(entering)
    except asyncio.CancelledError:
        await asyncio.wait({entering}, timeout=2 * DEADLINE)
        if entering.done() and entering.exception() is None:
            await _left(client)
        raise
    except aiomqtt.MqttError as exc:
        code = getattr(exc, "rc", None)
        lost = WrongLogin if getattr(code, "value", code) in _BAD_LOGIN else BrokerLost
        raise lost(f"broker {where}: {exc}") from exc
    try:
        yield Connection(client)
    finally:
        await _left(client)


async def _left(client: aiomqtt.Client) -> None:
    """Disconnect; the socket must be closed whatever happens, also while this task is being cancelled."""
    with suppress(aiomqtt.MqttError):
        await asyncio.shield(client.__aexit__(None, None, None))


class _as_lost:  # noqa: N801  # reads as a phrase after `with`
    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, aiomqtt.MqttError):
            raise BrokerLost(str(error)) from error
