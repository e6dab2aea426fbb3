"""How long a day of a province's district takes to come in after an outage, while live readings go on.

Eighty edge nodes of 46 devices with 8 metrics each owe what they read every 30 s. Their messages are encoded beforehand
and sent by a process of its own, as far as each one's window allows; it listens for what the hub says to be committed.
Each edge node also sends a live reading a second, whose age is taken when live state has it.

By default an hour of the day is drained and the day reckoned from it; `drain.py 24` drains it all.
"""

import asyncio
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from contract import sparkplug_pb2
from contract.catalog import KIND
from contract.clock import SystemClock
from contract.delivery import EPOCH, FIRST, FIRST_WINDOW_BYTES, LAST, Held, Ledger, held_metrics, read_answer
from contract.metrics import DataType
from contract.payload import Payload, PayloadUnreadable, WireMetric, decode, encode
from contract.positions import Lineage, RangeSet
from hub.broker import Broker, Message
from hub.broker import Settings as BrokerSettings
from hub.counters import Counters
from hub.devices import NodeKey
from hub.ingest import Ingest, Settings
from hub.live_state import LiveState
from hub.storage.embedded import EmbeddedStore

NODES, DEVICES, METRICS, EVERY = 80, 46, 8, 30
CLOSED, RUNNING = 1 << 32, 2 << 32
MESSAGE_BYTES = 60 * 1024
LIVE = "live"

Offsets = tuple[str, int, int, bytes]
"""Device, first and last offset, payload."""


def nodes() -> list[NodeKey]:
    """Return the edge nodes."""
    return [NodeKey("bench", f"bench-{number:02}") for number in range(NODES)]


def device_names() -> list[str]:
    """Return the devices of each edge node."""
    return [f"d{number:02}" for number in range(DEVICES)]


def births(node: NodeKey, hours: float, now: int) -> list[tuple[str, bytes]]:
    """Return the births of one edge node that holds so many hours of its earlier life."""
    records = round(hours * 3600 / EVERY)
    owed = {Lineage(node.node, CLOSED, one): RangeSet([(0, records - 1)]) for one in device_names()}
    held = Held(log=node.node, epoch=RUNNING, positions=owed)
    first = [
        WireMetric(name="bdSeq", at=now, datatype=DataType.INT64, value=0),
        WireMetric(name=EPOCH, at=now, datatype=DataType.UINT64, value=RUNNING),
        *held_metrics(held, now),
    ]
    made = [(f"spBv1.0/bench/NBIRTH/{node.node}", encode(Payload(at=now, seq=0, metrics=tuple(first))))]
    for device in (*device_names(), LIVE):
        metrics = [
            WireMetric(name=name, alias=place, at=now, datatype=DataType.UINT64, value=None)
            for place, name in enumerate((EPOCH, FIRST, LAST))
        ]
        metrics.append(WireMetric(name=KIND, at=now, datatype=DataType.STRING, value="water_probe"))
        metrics += [
            WireMetric(name=f"Bench/{number}", alias=number + 10, at=now, datatype=DataType.DOUBLE, value=None)
            for number in range(METRICS)
        ]
        made.append((f"spBv1.0/bench/DBIRTH/{node.node}/{device}", encode(Payload(at=now, metrics=tuple(metrics)))))
    return made


def message(epoch: int, first: int, ats: list[int], now: int, *, historical: bool) -> bytes:
    """Return data with a record for each instant."""
    made = sparkplug_pb2.Payload(timestamp=now)
    for alias, value in ((0, epoch), (1, first), (2, first + len(ats) - 1)):
        made.metrics.add(alias=alias, timestamp=ats[0], long_value=value)
    for at in ats:
        for number in range(METRICS):
            metric = made.metrics.add(alias=number + 10, timestamp=at)
            metric.double_value = 7 + (at // 1000 * 31 + number) % 1000 / 1000
            if historical:
                metric.is_historical = True
    return made.SerializeToString()


def history(hours: float, now: int) -> list[Offsets]:
    """Return what one edge node owes, packed up to MESSAGE_BYTES; it is the same for all of them."""
    start, records = now - round(hours * 3_600_000) - 3_600_000, round(hours * 3600 / EVERY)
    size = len(message(CLOSED, 0, [start], now, historical=True))
    packed = MESSAGE_BYTES // size
    made = []
    for device in device_names():
        for first in range(0, records, packed):
            ats = [start + offset * EVERY * 1000 for offset in range(first, min(records, first + packed))]
            made.append((device, first, first + len(ats) - 1, message(CLOSED, first, ats, now, historical=True)))
    return made


class Owing:
    """One edge node's history on its way, as much at a time as its window allows."""

    def __init__(self, node: NodeKey, owed: list[Offsets]) -> None:
        self.node = node
        self._owed = list(reversed(owed))
        self._aloft: list[Offsets] = []
        self._window = FIRST_WINDOW_BYTES
        self.known = False

    @property
    def done(self) -> bool:
        """Whether the hub has said that it has everything."""
        return not self._owed and not self._aloft

    def hears(self, payload: bytes) -> None:
        """Take in what the hub says."""
        try:
            answers = list(read_answer(decode(payload)))
        except PayloadUnreadable:
            return
        for what in answers:
            if isinstance(what, Ledger):
                self._window, self.known = what.window, True
            said = {one.stream: ranges for one, ranges in what.positions.items() if one.epoch == CLOSED}
            whole = isinstance(what, Ledger) and CLOSED in what.floors
            self._aloft = [
                one
                for one in self._aloft
                if not whole and not said.get(one[0], RangeSet()).covers(RangeSet([(one[1], one[2])]))
            ]

    def due(self) -> list[Offsets]:
        """Return what may be sent now."""
        sent: list[Offsets] = []
        under_way = sum(len(one[3]) for one in self._aloft)
        while self.known and self._owed and under_way + len(self._owed[-1][3]) <= self._window:
            sent.append(self._owed.pop())
            under_way += len(sent[-1][3])
        self._aloft += sent
        return sent


def send(port: int, hours: float) -> None:
    """Be eighty edge nodes until the hub has everything; say the CPU-seconds that took."""
    now = SystemClock().now_ms()
    owed = history(hours, now)
    owing = {node.node: Owing(node, owed) for node in nodes()}
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="bench-sender")
    client.max_queued_messages_set(0)

    def heard(_client: mqtt.Client, _data: object, said: mqtt.MQTTMessage) -> None:
        owing[said.topic.rsplit("/", 1)[1]].hears(bytes(said.payload))

    client.on_message = heard
    client.connect("127.0.0.1", port)
    client.subscribe("spBv1.0/bench/NCMD/+")
    print("ready", flush=True)
    sys.stdin.readline()
    for node in nodes():
        for topic, payload in births(node, hours, now):
            client.publish(topic, payload)
            client.loop(0)
    while not all(one.known for one in owing.values()):
        client.loop(0.1)
    print("born", flush=True)
    before = resource.getrusage(resource.RUSAGE_SELF)
    live, offset = time.monotonic(), 0
    while not all(one.done for one in owing.values()):
        client.loop(0.01)
        for one in owing.values():
            for device, _, _, payload in one.due():
                client.publish(f"spBv1.0/bench/DDATA/{one.node.node}/{device}", payload)
        if time.monotonic() >= live:
            live += 1.0
            at = SystemClock().now_ms()
            payload = message(RUNNING, offset, [at], at, historical=False)
            offset += 1
            for node in nodes():
                client.publish(f"spBv1.0/bench/DDATA/{node.node}/{LIVE}", payload)
    after = resource.getrusage(resource.RUSAGE_SELF)
    print(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, flush=True)
    client.disconnect()


async def drain(folder: Path, hours: float) -> None:
    """Let the hub take it all in, and say what that took."""
    mosquitto = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = folder / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n", encoding="utf-8")
    process = subprocess.Popen([mosquitto, "-c", config], stderr=subprocess.DEVNULL)
    await asyncio.sleep(0.5)
    clock, ages = SystemClock(), list[float]()
    with EmbeddedStore(folder / "store") as store:
        line = Broker(
            BrokerSettings(host="127.0.0.1", port=port, host_id="bench"), state_file=folder / "host-state", clock=clock
        )
        ingest = Ingest(
            broker=line,
            store=store,
            live=LiveState(clock, nodes()),
            clock=clock,
            counters=Counters(),
            settings=Settings(ask_kernel=False),
            on_hello=lambda node, raw: None,
            on_events=lambda: None,
        )
        take_in = ingest.take_in

        def timed(message: Message) -> None:
            take_in(message)
            if message.topic.endswith(LIVE) and "/DDATA/" in message.topic:
                ages.append(time.time() - sparkplug_pb2.Payload.FromString(message.payload).timestamp / 1000)

        ingest.take_in = timed  # type: ignore[method-assign]  # only here is anyone interested
        tasks = [asyncio.create_task(line.run()), asyncio.create_task(ingest.run())]
        sender = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            __file__,
            "send",
            str(port),
            str(hours),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert sender.stdout is not None
        assert sender.stdin is not None
        await sender.stdout.readline()
        while not line.ready:
            await asyncio.sleep(0.05)
        sender.stdin.write(b"go\n")
        await sender.stdout.readline()
        used, started = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
        said = await sender.stdout.readline()
        wall, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_SELF)
        await sender.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        ticks = Path(f"/proc/{process.pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()[11:13]
    process.terminate()
    process.wait()
    samples = NODES * DEVICES * METRICS * round(hours * 3600 / EVERY)
    ages.sort()
    detail = {
        "nodes": NODES,
        "hours": hours,
        "samples": samples,
        "seconds": round(wall, 1),
        "samples_a_second": round(samples / wall),
        "live_p99_seconds": round(ages[len(ages) * 99 // 100], 3),
        "live_most_seconds": round(ages[-1], 3),
        "hub_cpu_s_per_million": round(
            (after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime) * 1e6 / samples, 3
        ),
        "broker_cpu_s_per_million": round(sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK") * 1e6 / samples, 3),
        "sender_cpu_s_per_million": round(float(said) * 1e6 / samples, 3),
        "cores": os.cpu_count(),
        "load_before": round(os.getloadavg()[2], 1),
    }
    day = {"bench": "drain", "figure": round(wall / 60 * 24 / hours, 1), "unit": "min for 24 h of 80 edge nodes"}
    print(json.dumps({**day, "detail": detail}), flush=True)


def main() -> None:
    """Drain, or be the sender."""
    if sys.argv[1:2] == ["send"]:
        send(int(sys.argv[2]), float(sys.argv[3]))
        return
    hours = float(sys.argv[1]) if sys.argv[1:] else 1.0
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(drain(Path(folder), hours))


if __name__ == "__main__":
    main()
