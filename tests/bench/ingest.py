"""What one reading costs the hub: CPU-seconds per million samples, from the wire to the committed row.

Twenty metrics a message, as a box with several probes sends them. In process first, stage by stage; then through a real
Mosquitto, with the broker's own cost beside it. The reference is protobuf's bare parsing of the same payloads.
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
from collections.abc import Callable
from pathlib import Path

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from contract import sparkplug_pb2
from contract.catalog import KIND
from contract.clock import SystemClock
from contract.delivery import EPOCH, FIRST, LAST, Held, held_metrics
from contract.metrics import DataType
from contract.payload import Payload, WireMetric, encode
from hub.broker import Broker, Message
from hub.broker import Settings as BrokerSettings
from hub.counters import Counters
from hub.devices import NodeKey
from hub.ingest import Ingest, Settings
from hub.live_state import LiveState
from hub.storage.embedded import EmbeddedStore
from hub.storage.timeseries import Batch, TimeSeries

MESSAGES, METRICS = 20_000, 20
BATCH = 20_000
SAMPLES = MESSAGES * METRICS
NODE = NodeKey("bench", "bench-01")
TYPES = [DataType.DOUBLE] * 13 + [DataType.INT64] * 4 + [DataType.BOOLEAN] * 2 + [DataType.STRING]


def births(now: int) -> list[tuple[str, bytes]]:
    """Return the births of one edge node with one device of twenty metrics."""
    positions = (EPOCH, FIRST, LAST)
    node = [
        WireMetric(name="bdSeq", at=now, datatype=DataType.INT64, value=0),
        *held_metrics(Held(log="bench", epoch=1, positions={}), now),
        WireMetric(name=EPOCH, at=now, datatype=DataType.UINT64, value=1),
    ]
    device = [
        WireMetric(name=name, alias=alias, at=now, datatype=DataType.UINT64, value=0)
        for alias, name in enumerate(positions)
    ]
    device.append(WireMetric(name=KIND, at=now, datatype=DataType.STRING, value="water_probe"))
    device += [
        WireMetric(name=f"Bench/{number}", alias=number + 10, at=now, datatype=kind)
        for number, kind in enumerate(TYPES)
    ]
    return [
        ("spBv1.0/bench/NBIRTH/bench-01", encode(Payload(at=now, seq=0, metrics=tuple(node)))),
        ("spBv1.0/bench/DBIRTH/bench-01/d", encode(Payload(at=now, seq=1, metrics=tuple(device)))),
    ]


def messages(now: int) -> list[tuple[str, bytes]]:
    """Return data as an edge node sends it: one record of twenty metrics a message."""
    made = []
    for number in range(MESSAGES):
        at = now - MESSAGES + number
        payload = sparkplug_pb2.Payload(timestamp=at, seq=(number + 2) % 256)
        for alias, value in ((0, 1), (1, number), (2, number)):
            payload.metrics.add(alias=alias, timestamp=at, long_value=value)
        for index, kind in enumerate(TYPES):
            metric = payload.metrics.add(alias=index + 10, timestamp=at)
            if kind is DataType.DOUBLE:
                metric.double_value = 7 + (number * 31 + index) % 1000 / 1000
            elif kind is DataType.INT64:
                metric.long_value = number + index
            elif kind is DataType.BOOLEAN:
                metric.boolean_value = number % 2 == 0
            else:
                metric.string_value = "idle"
        made.append(("spBv1.0/bench/DDATA/bench-01/d", payload.SerializeToString()))
    return made


def intake(store: TimeSeries, broker: Broker) -> Ingest:
    """Return an ingest over a store."""
    clock = SystemClock()
    return Ingest(
        broker=broker,
        store=store,
        live=LiveState(clock, [NODE]),
        clock=clock,
        counters=Counters(),
        settings=Settings(ask_kernel=False),
        on_hello=lambda node, raw: None,
        on_events=lambda: None,
    )


def cpu() -> float:
    """Return the CPU-seconds of this process, all threads."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def spent(work: Callable[[], object]) -> float:
    """Return CPU-seconds per million samples of a piece of work over all messages."""
    before = cpu()
    work()
    return (cpu() - before) * 1e6 / SAMPLES


def say(name: str, figure: float, unit: str, *, reference: float | None = None, **detail: object) -> None:
    """Print one figure; the reference is protobuf's bare parse of the same payloads in the same run."""
    told: dict[str, object] = {"bench": name, "figure": round(figure, 3), "unit": unit}
    if reference is not None:
        told |= {"reference": round(reference, 3), "ratio": round(figure / reference, 1)}
    print(json.dumps({**told, "detail": detail}), flush=True)


def stage_costs(store: TimeSeries, folder: Path, raw: list[tuple[str, bytes]], now: int) -> dict[str, float]:
    """Take messages in and commit them by hand; return CPU-seconds per million samples of each stage."""
    line = Broker(BrokerSettings(host="", port=1, host_id="bench"), state_file=folder / "s", clock=SystemClock())
    ingest = intake(store, line)
    for topic, payload in births(now):
        ingest.take_in(Message(topic, payload, now))
    stages = {"decode": 0.0, "commit": 0.0}

    def decode(part: list[tuple[str, bytes]]) -> None:
        for topic, payload in part:
            ingest.take_in(Message(topic, payload, now))

    step = BATCH // METRICS
    for start in range(0, len(raw), step):
        part = raw[start : start + step]
        stages["decode"] += spent(lambda part=part: decode(part))  # type: ignore[misc]  # bound at once
        batch, ingest.committing.batch = ingest.committing.batch, Batch()  # the ingest's own loop, by hand
        stages["commit"] += spent(lambda batch=batch: store.commit(batch, now))  # type: ignore[misc]  # bound at once
    return stages


def in_process(folder: Path) -> float:
    """Measure decoding and committing without a broker; return the cost of the bare parse."""
    now = SystemClock().now_ms()
    raw = messages(now)
    bare = spent(lambda: [sparkplug_pb2.Payload.FromString(payload) for _, payload in raw])
    with EmbeddedStore(folder) as store:
        stages = stage_costs(store, folder, raw, now)
        assert store.stats().samples == SAMPLES
        size = store.stats().bytes_on_disk / SAMPLES
    detail = {"samples": SAMPLES, "metrics_a_message": METRICS, "samples_a_commit": BATCH}
    say(
        "ingest/embedded",
        sum(stages.values()),
        "CPU-s per million samples",
        reference=bare,
        **detail,
        broker="excluded",
    )
    for stage, value in stages.items():
        say(f"ingest/{stage}", value, "CPU-s per million samples", reference=bare, **detail)
    say("ingest/inbox", size, "bytes per sample", **detail)
    return bare


async def through_a_broker(folder: Path, bare: float) -> float:
    """Measure and return the same through Mosquitto; the sender runs in a process of its own and is not counted."""
    mosquitto = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = folder / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n", encoding="utf-8")
    process = subprocess.Popen([mosquitto, "-c", config], stderr=subprocess.DEVNULL)
    await asyncio.sleep(0.5)
    with EmbeddedStore(folder / "store") as store:
        settings = BrokerSettings(host="127.0.0.1", port=port, host_id="bench")
        line = Broker(settings, state_file=folder / "host-state", clock=SystemClock())
        ingest = intake(store, line)
        tasks = [asyncio.create_task(line.run()), asyncio.create_task(ingest.run())]
        while not line.ready:
            await asyncio.sleep(0.05)
        before, started = cpu(), time.monotonic()
        sender = await asyncio.create_subprocess_exec(sys.executable, __file__, "send", str(port))
        while store.newest_received() == 0 or sum(map(len, store.ledger(NODE).values())) < MESSAGES:
            await asyncio.sleep(0.1)
        wall, used = time.monotonic() - started, cpu() - before
        await sender.wait()
        ticks = Path(f"/proc/{process.pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()[11:13]
        broker = sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    process.terminate()
    process.wait()
    detail = {"samples": SAMPLES, "seconds": round(wall, 1), "samples_a_second": round(SAMPLES / wall)}
    say("ingest/hub", used * 1e6 / SAMPLES, "CPU-s per million samples", reference=bare, **detail)
    say("ingest/broker", broker * 1e6 / SAMPLES, "CPU-s per million samples", reference=bare, **detail)
    return used * 1e6 / SAMPLES


def send(port: int) -> None:
    """Send births and data at about 4,000 messages a second."""
    now = SystemClock().now_ms()
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="bench-01")
    client.connect("127.0.0.1", port)
    client.loop_start()
    for topic, payload in births(now):
        client.publish(topic, payload).wait_for_publish(5)
    started = time.monotonic()
    for number, (topic, payload) in enumerate(messages(now)):
        info = client.publish(topic, payload)
        if number % 100 == 99:
            info.wait_for_publish(10)
            time.sleep(max(0.0, started + number / 4000 - time.monotonic()))
    client.disconnect()
    client.loop_stop()


def main() -> None:
    """Run both, or the sender."""
    if sys.argv[1:2] == ["send"]:
        send(int(sys.argv[2]))
        return
    with tempfile.TemporaryDirectory() as folder:
        bare = in_process(Path(folder))
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(through_a_broker(Path(folder), bare))


if __name__ == "__main__":
    main()
