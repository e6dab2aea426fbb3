"""Others on the same broker: a host that knows no ledgers, and an edge node that knows no positions."""

import json
from collections.abc import Callable

from contract.metrics import DataType
from contract.payload import Payload, WireMetric, encode
from contract.topics import EVERYTHING, MessageType, Topic, state
from edge.broker import Message
from tests.delivery_model.wire import Broker, Port

FOREIGN = "x-01"


class ForeignHost:
    """A Sparkplug host like any other: it says that it is there, and listens."""

    def __init__(self, broker: Broker, host: str, now_ms: Callable[[], int]) -> None:
        self._broker = broker
        self._host = host
        self._now_ms = now_ms
        self.port: Port | None = None

    def arrive(self) -> None:
        topic = state(self._host)
        retained = self._broker.retained.get(topic)
        stamp = max(self._now_ms(), (json.loads(retained)["timestamp"] if retained else 0) + 1)
        will = Message(topic, json.dumps({"online": False, "timestamp": stamp}).encode())
        self.port = Port(client=self._host, will=will)
        self._broker.connect(self.port)
        self._broker.subscribe(self.port, [EVERYTHING])
        self._broker.route(topic, json.dumps({"online": True, "timestamp": stamp}).encode(), retain=True)

    def leave(self) -> None:
        self.listen()
        if self.port is not None:
            self._broker.close(self.port)
            self.port = None

    def listen(self) -> None:
        """Take in what came; it is let go, as what a stranger keeps is nobody's business here."""
        if self.port is not None:
            self.port.waiting.clear()


class ForeignNode:
    """An edge node that numbers nothing: what it says is stored by key, once, or not at all."""

    def __init__(self, broker: Broker, group: str, now_ms: Callable[[], int], serial: Callable[[], int]) -> None:
        self._broker = broker
        self._group = group
        self._now_ms = now_ms
        self._serial = serial
        self._seq = 0
        self.said: dict[int, float] = {}
        """Value by instant, of its one metric."""

    def talk(self) -> None:
        if not self.said:
            self._publish(MessageType.NBIRTH, None, [WireMetric(name="bdSeq", datatype=DataType.INT64, value=0)])
            self._publish(MessageType.DBIRTH, "meter", [self._sample()])
        self._publish(MessageType.DDATA, "meter", [self._sample()])

    def _sample(self) -> WireMetric:
        at = max(self._now_ms(), max(self.said, default=0) + 1)
        self.said[at] = float(self._serial())
        return WireMetric(name="Level", at=at, datatype=DataType.DOUBLE, value=self.said[at])

    def _publish(self, kind: MessageType, device: str | None, metrics: list[WireMetric]) -> None:
        seq = 0 if kind is MessageType.NBIRTH else self._seq
        self._seq = (seq + 1) % 256
        payload = Payload(at=self._now_ms(), seq=seq, metrics=tuple(metrics))
        self._broker.route(str(Topic(self._group, kind, FOREIGN, device)), encode(payload))
