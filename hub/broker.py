"""The hub's line to the MQTT broker and its presence as a Sparkplug host; the only file that knows the client library.

paho-mqtt reads in a thread of its own and hands over batches, so a busy event loop loses nothing to the socket.

Sparkplug 3.0.0 clauses shown here (prefix `tck-id-` left out): message-flow-phid-sparkplug-subscription,
message-flow-phid-sparkplug-state-publish, -publish-payload, -publish-payload-timestamp; payloads-state-will-message,
-will-message-qos, -will-message-retain, -will-message-payload; payloads-state-birth, -birth-payload;
message-flow-hid-sparkplug-state-message-delivered; intro-edge-node-and-host (clean session, MQTT 3.1.1).
"""

import asyncio
import contextlib
import json
import logging
import threading
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from contract.clock import Clock
from contract.topics import EVERYTHING, state

log = logging.getLogger(__name__)

MOST_WAITING = 64 * 1024 * 1024
"""Bytes kept unread; what comes beyond is dropped unacknowledged, and edge nodes send it again."""

QUIET_AFTER_BIRTH = 1.0
"""Seconds in which a host that was just born says nothing else: conformance suites take any publish for STATE."""

CONNECT_DEADLINE = 10.0
MOST_BACKOFF = 30.0


@dataclass(frozen=True, slots=True)
class Message:
    """What came in, and when (ms)."""

    topic: str
    payload: bytes
    received_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Where the broker is and who we are on it."""

    host: str
    port: int
    host_id: str
    keep_alive: int = 30
    username: str | None = None
    password: str | None = None


class Broker:
    """Keeps the host connected and online while `run` runs; `take` and `publish` may be called at any time."""

    def __init__(self, settings: Settings, *, state_file: Path, clock: Clock) -> None:
        self._settings = settings
        self._state_file = state_file
        self._clock = clock
        self._topic = state(settings.host_id)
        self._lock = threading.Lock()
        self._waiting: deque[Message] = deque()
        self._bytes = 0
        self._arrived = asyncio.Event()
        self._gone = asyncio.Event()
        self._client: mqtt.Client | None = None
        self._timestamp = 0
        self._remembered = 0
        self._online_at: float | None = None
        self.dropped = 0

    @property
    def ready(self) -> bool:
        """Whether we are online as a host, subscribed, and past the quiet second."""
        return self._online_at is not None and self._clock.monotonic() - self._online_at >= QUIET_AFTER_BIRTH

    @property
    def online(self) -> bool:
        """Whether our STATE says online on a connection that stands."""
        return self._online_at is not None

    async def take(self, within: float) -> list[Message]:
        """Return all that came in since the last call, waiting at most `within` seconds for the first."""
        if not self._waiting:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within):
                    await self._arrived.wait()
        with self._lock:
            taken, self._waiting, self._bytes = self._waiting, deque(), 0
            self._arrived.clear()
        return list(taken)

    def publish(self, topic: str, payload: bytes) -> bool:
        """Send at QoS 0, not retained; return whether there was a ready connection to send it on."""
        client = self._client
        if client is None or not self.ready:
            return False
        return client.publish(topic, payload, qos=0, retain=False).rc == mqtt.MQTT_ERR_SUCCESS

    async def run(self) -> None:
        """Stay connected until cancelled; then publish STATE offline and disconnect."""
        backoff, said = 1.0, False
        loop = asyncio.get_running_loop()
        while True:
            client = self._new_client(loop)
            try:
                async with asyncio.timeout(CONNECT_DEADLINE):
                    await asyncio.to_thread(
                        client.connect, self._settings.host, self._settings.port, self._settings.keep_alive
                    )
                client.loop_start()
                self._client = client
                await self._gone.wait()
                if self.online:
                    backoff = 1.0
                reason = "the connection was closed"
            except (OSError, TimeoutError, ValueError) as exc:
                reason = str(exc) or type(exc).__name__
            except asyncio.CancelledError:
                await asyncio.shield(asyncio.to_thread(self._leave, client))
                raise
            was_online, self._online_at, self._client = self.online, None, None
            await asyncio.to_thread(client.loop_stop)
            if was_online or not said:
                said = True
                log.warning("broker %s:%d is lost: %s", self._settings.host, self._settings.port, reason)
            await self._clock.sleep(backoff)
            backoff = min(backoff * 2, MOST_BACKOFF)

    def _leave(self, client: mqtt.Client) -> None:
        was_online, self._online_at, self._client = self.online, None, None
        if was_online:  # told apart first: our own word of leaving must not be answered as a lie
            info = client.publish(self._topic, self._state(online=False), qos=1, retain=True)
            with contextlib.suppress(ValueError, RuntimeError):
                info.wait_for_publish(timeout=5)
        client.disconnect()
        client.loop_stop()

    def _new_client(self, loop: asyncio.AbstractEventLoop) -> mqtt.Client:
        self._gone = asyncio.Event()
        self._timestamp = self._next_timestamp()
        settings = self._settings
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=settings.host_id,
            clean_session=True,
            protocol=mqtt.MQTTv311,
            reconnect_on_failure=False,
        )
        if settings.username is not None:
            client.username_pw_set(settings.username, settings.password)
        client.will_set(self._topic, self._state(online=False), qos=1, retain=True)
        gone = self._gone

        def on_connect(client: mqtt.Client, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
            if reason.is_failure:
                log.warning("broker %s:%d refuses us: %s", settings.host, settings.port, reason)
                loop.call_soon_threadsafe(gone.set)
                return
            # Subscribed before online: whoever answers our birth must find us listening.
            client.subscribe([(self._topic, 1), (EVERYTHING, 0)])

        def on_subscribe(client: mqtt.Client, _data: Any, _mid: int, reasons: list[Any], _properties: Any) -> None:
            if any(one.is_failure for one in reasons):
                log.error("broker %s:%d refuses the subscription to %s", settings.host, settings.port, EVERYTHING)
                loop.call_soon_threadsafe(gone.set)
                return
            client.publish(self._topic, self._state(online=True), qos=1, retain=True)
            self._online_at = self._clock.monotonic()
            log.info("online as host %s at broker %s:%d", settings.host_id, settings.host, settings.port)

        def on_message(client: mqtt.Client, _data: Any, message: mqtt.MQTTMessage) -> None:
            if message.topic == self._topic:
                if not self._own_state(client, message.payload):
                    loop.call_soon_threadsafe(gone.set)
                return
            size = len(message.payload) + len(message.topic)
            with self._lock:
                if self._bytes + size > MOST_WAITING:
                    self.dropped += 1
                    return
                self._waiting.append(Message(message.topic, bytes(message.payload), self._clock.now_ms()))
                self._bytes += size
                first = len(self._waiting) == 1
            if first:
                loop.call_soon_threadsafe(self._arrived.set)

        def on_disconnect(_client: mqtt.Client, _data: Any, _flags: Any, _reason: Any, _properties: Any) -> None:
            with contextlib.suppress(RuntimeError):  # the loop may be closed already
                loop.call_soon_threadsafe(gone.set)

        client.on_connect = on_connect
        client.on_subscribe = on_subscribe
        client.on_message = on_message
        client.on_disconnect = on_disconnect
        return client

    def _own_state(self, client: mqtt.Client, payload: bytes | bytearray) -> bool:
        """Answer what the broker says of ourselves; return False where only a new, newer connection is believed."""
        try:
            said = json.loads(payload)
            online, timestamp = said["online"], int(said["timestamp"])
        except (ValueError, KeyError, TypeError, RecursionError):
            return True
        if timestamp > self._timestamp:
            self._remember(timestamp)
            log.warning("STATE of %s is newer than our clock: connecting again above it", self._settings.host_id)
            return False
        if not online and self.online:
            client.publish(self._topic, self._state(online=True), qos=1, retain=True)
        return True

    def _state(self, *, online: bool) -> bytes:
        return json.dumps({"online": online, "timestamp": self._timestamp}).encode()

    def _next_timestamp(self) -> int:
        try:
            last = int(self._state_file.read_text(encoding="ascii"))
        except (OSError, ValueError):
            last = 0
        timestamp = max(self._clock.now_ms(), last + 1, self._remembered + 1)
        self._remember(timestamp)
        return timestamp

    def _remember(self, timestamp: int) -> None:
        self._remembered = timestamp
        aside = self._state_file.with_suffix(".new")
        try:
            aside.write_text(str(timestamp), encoding="ascii")
            aside.replace(self._state_file)
        except OSError as exc:
            # A full disk must not cost the hub its line; edge nodes take what our clock says within a connection.
            log.error("%s cannot be written: %s; our STATE is remembered in memory only", self._state_file, exc)
