"""Brings signed orders to edge nodes: envelopes made again for each new hello, sent until the box itself has answered.

Whoever merely has rights on the broker can neither start nor end this: a hello counts when the box has signed it.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from contract.broadcast import BroadcastRefused, Hello, as_key, verified
from contract.catalog import BUNDLE, ENVELOPE, ROOT
from contract.clock import Clock
from contract.metrics import DataType
from contract.payload import Payload, WireMetric, encode
from contract.topics import MessageType, Topic
from hub.devices import NodeKey
from hub.resending import Owed, Resending
from hub.signer.client import SignerClient, SignerRefused, SignerUnavailable
from hub.trust import Trust

log = logging.getLogger(__name__)

RESEND_AFTER = (0.3, 1.0, 2.0, 5.0)
"""Seconds between sendings; the last one repeats."""

TRUST_EVERY = 1.0


@dataclass(slots=True, kw_only=True)
class Delivery(Owed):
    """An order on its way to one edge node; `tries` counts the envelopes that left."""

    order: str
    node: NodeKey
    speakers: tuple[str, ...]


class Dispatch:
    """The orders under way. `run` it once; it tells of each order that leaves, and of each whose time is over."""

    def __init__(
        self,
        *,
        signer: SignerClient,
        trust: Trust,
        publish: Callable[[str, bytes], bool],
        clock: Clock,
        sent: Callable[[Delivery], None],
        expired: Callable[[Delivery], None],
    ) -> None:
        self._signer = signer
        self._trust = trust
        self._publish = publish
        self._clock = clock
        self._sent = sent
        self._keys = {node: as_key(raw) for node, raw in trust.identities.items()}
        self._hellos: dict[NodeKey, Hello] = {}
        self._told_trust: dict[NodeKey, float] = {}
        self._under_way = Resending(send=self._send, expired=expired, after=RESEND_AFTER, clock=clock)

    def send(self, order: str, node: NodeKey, speakers: tuple[str, ...], expires_at: int) -> None:
        """Begin to send an order."""
        delivery = Delivery(order=order, node=node, speakers=speakers, expires_at=expires_at)
        self._under_way.begin((order, node), delivery)

    def end(self, order: str, node: NodeKey) -> None:
        """Send an order no more."""
        self._under_way.end((order, node))

    def greeted(self, node: NodeKey) -> bool:
        """Return whether the box has ever said hello to this hub."""
        return node in self._hellos

    def hello(self, node: NodeKey, raw: str) -> None:
        """Take in what a box says of itself; a new challenge makes everything for it due at once.

        Raises BroadcastRefused where the box did not sign it.
        """
        key = self._keys.get(node)
        if key is None:
            return
        hello = verified(Hello, raw, [key])
        if hello.node != node.node:
            raise BroadcastRefused(f"it names {hello.node}")
        before = self._hellos.get(node)
        self._hellos[node] = hello
        self._send_trust(node, hello)
        fresh = before is None or hello.challenge != before.challenge
        self._under_way.hurry(lambda one: one.node == node and (fresh or one.tries > 0))

    async def run(self) -> None:
        """Send and expire until cancelled."""
        await self._under_way.run()

    async def _send(self, delivery: Delivery) -> None:
        hello = self._hellos.get(delivery.node)
        if hello is None:
            return  # its hello will make this due; without one no envelope could be fresh
        self._send_trust(delivery.node, hello)
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
        # Meanwhile it may have been stopped, or answered.
        if not self._under_way.under_way((delivery.order, delivery.node), delivery):
            return
        if self._command(delivery.node, ENVELOPE, envelope):
            delivery.tries += 1
            if delivery.tries == 1:
                self._sent(delivery)

    def _send_trust(self, node: NodeKey, hello: Hello) -> None:
        """Send what a box lacks before any envelope: without it, it could not believe one."""
        now = self._clock.monotonic()
        behind = hello.bundle_version < self._trust.bundle.version or hello.root_version < len(self._trust.roots)
        if not behind or now - self._told_trust.get(node, float("-inf")) < TRUST_EVERY:
            return
        self._told_trust[node] = now
        for root in self._trust.roots[hello.root_version :]:
            self._command(node, ROOT, root)
        self._command(node, BUNDLE, self._trust.bundle_raw)

    def _command(self, node: NodeKey, name: str, value: str) -> bool:
        at = self._clock.now_ms()
        metric = WireMetric(name=name, at=at, datatype=DataType.STRING, value=value)
        topic = str(Topic(node.group, MessageType.NCMD, node.node))
        return self._publish(topic, encode(Payload(at=at, metrics=(metric,))))
