"""Sensors that publish on the box's own broker: ESPHome, Tasmota, and LoRaWAN sensors through ChirpStack."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from types import TracebackType
from typing import Self

from contract.catalog import STATE, Cause
from contract.clock import Clock
from contract.metrics import Metric, Sample
from edge.broker import Message
from edge.drivers.local_broker import LocalBroker
from edge.drivers.mqtt_mapping import MOST_PAYLOAD, MqttMapping, Unusable, condition, samples, topics
from edge.poller import DeviceUnavailable

_STATUS = {b"online": True, b"offline": False}


class MqttSensor:
    """A Driver for one sensor; raises DeviceMisconfigured where `topic` does not name one.

    A read returns what came since the last read, of each topic the newest, or only the sensor's state where nothing
    did. Nothing for `silent_after` seconds is silence; so is a last will, at once. What the broker retained is of
    unknown age, and taken for no reading.
    """

    def __init__(
        self,
        broker: LocalBroker,
        *,
        topic: str,
        mapping: MqttMapping,
        silent_after: float,
        timeout: float,
        clock: Clock,
    ) -> None:
        self._broker = broker
        self._topic = topic
        self._mapping = mapping
        self._silent_after = silent_after
        self._timeout = timeout
        self._clock = clock
        self._topics = topics(mapping, topic)
        self._subscriptions = [*self._topics.values, *([self._topics.status] if self._topics.status else [])]
        self._unread: dict[str, tuple[bytes, int]] = {}
        self._latest: dict[str, Sample] = {}
        self._heard_at: float | None = None
        self._online: bool | None = None
        self._unusable = ""
        self._news = asyncio.Event()
        self.metrics: Sequence[Metric] = mapping.metrics
        broker.add(self._subscriptions, self._hear)

    async def __aenter__(self) -> Self:
        try:
            async with asyncio.timeout(self._timeout):
                await self._broker.settled()
        except TimeoutError as exc:
            late = f"{self._broker.name} did not answer within {self._timeout:g} s"
            raise DeviceUnavailable(Cause.UNREACHABLE, late) from exc
        self._broker.check(self._subscriptions)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...  # it goes on listening: what comes while its poller waits must not be lost

    async def read(self) -> Sequence[Sample]:
        self._broker.check(self._subscriptions)
        if self._heard_at is None and self._online is None:
            await self._first_word()
            self._broker.check(self._subscriptions)
        self._raise_if_silent()
        unread, self._unread = self._unread, {}
        found = self._understood(unread)
        if self._unusable:
            raise DeviceUnavailable(Cause.NONSENSE, self._unusable)
        # One read is one instant; of several topics it is that of the newest word.
        at = max((one.at for one in found), default=self._clock.now_ms())
        self._latest.update({one.metric: one for one in found})
        state = Sample(metric=STATE, at=at, value=condition(list(self._latest.values())).value)
        return [*(replace(one, at=at) for one in found), state]

    async def _first_word(self) -> None:
        self._news.clear()
        waiting = asyncio.ensure_future(self._news.wait())
        limit = asyncio.ensure_future(self._clock.sleep(self._timeout))
        try:
            await asyncio.wait({waiting, limit}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
            limit.cancel()

    def _raise_if_silent(self) -> None:
        if self._online is False:
            raise DeviceUnavailable(Cause.SILENT, f"{self._topic}: its last will says that it is gone")
        if self._heard_at is None:
            if self._online is None:
                raise DeviceUnavailable(Cause.SILENT, f"{self._topic}: nothing heard yet")
            return
        silent = self._clock.monotonic() - self._heard_at
        if silent > self._silent_after:
            raise DeviceUnavailable(Cause.SILENT, f"{self._topic}: nothing heard for {silent:.0f} s")

    def _understood(self, unread: dict[str, tuple[bytes, int]]) -> list[Sample]:
        """Return what is usable; note why, if nothing is."""
        found: list[Sample] = []
        reasons = []
        for topic, (payload, received_at) in unread.items():
            try:
                found += samples(
                    self._mapping,
                    self._topics.values[topic],
                    topic=self._topic,
                    payload=payload,
                    received_at=received_at,
                )
            except Unusable as exc:
                reasons.append(f"{topic}: {exc}")
        if unread:
            self._unusable = "" if found else reasons[0]
        return found

    def _hear(self, message: Message) -> None:
        if message.topic == self._topics.status:
            self._online = _STATUS.get(message.payload[:10].lower())
            self._heard_at = self._clock.monotonic() if self._online else self._heard_at
        elif message.retained:
            return
        else:
            # One byte more than may be, so that it is still seen to be too much.
            self._unread[message.topic] = message.payload[: MOST_PAYLOAD + 1], self._clock.now_ms()
            self._heard_at = self._clock.monotonic()
            # Who speaks is there: the will of its former connection may have come after it.
            self._online = self._online or None
        self._news.set()
