"""What one reading costs into InfluxDB, the hub's part and the server's; and what it costs Telegraf, where it is there.

The samples are those of the `ingest` benchmark. Telegraf gets them in the form it is fastest with, a line of line
protocol a message; the reference is the hub taking the same samples in from Sparkplug through the same kind of broker.
"""

import asyncio
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from contract import sparkplug_pb2
from contract.clock import SystemClock
from hub.storage.influxdb import InfluxStore, Settings

TELEGRAF = """
[agent]
  interval = "1s"
  flush_interval = "1s"
  metric_batch_size = 5000
  metric_buffer_limit = 1000000
  omit_hostname = true
[[inputs.mqtt_consumer]]
  servers = ["tcp://127.0.0.1:{port}"]
  topics = ["bench"]
  qos = 0
  max_undelivered_messages = 100000
  data_format = "influx"
[[outputs.influxdb_v2]]
  urls = ["{url}"]
  token = "{token}"
  organization = "{org}"
  bucket = "telegraf"
"""


def sibling(path: Path) -> Any:
    """Return a module beside this one, which is in no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    assert isinstance(module, ModuleType)
    return module


HERE = Path(__file__).parent


def cpu_of(process: int) -> float:
    """Return the CPU-seconds of a process so far."""
    ticks = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()[11:13]
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


def hub_into(server: Any, ingest: Any, folder: Path, bare: float) -> None:
    """Measure decoding and committing into InfluxDB, without a broker."""
    now = SystemClock().now_ms()
    raw = ingest.messages(now)
    settings = Settings(url=server.url, org=server.org, token=server.token)
    with InfluxStore(folder, settings, lambda key: None) as store:
        before = cpu_of(server.process.pid)
        stages = ingest.stage_costs(store, folder, raw, now)
        took = (cpu_of(server.process.pid) - before) * 1e6 / ingest.SAMPLES
        assert store.stats().samples == ingest.SAMPLES
        name = store.name
    detail = {"samples": ingest.SAMPLES, "samples_a_commit": ingest.BATCH, "store": name, "broker": "excluded"}
    unit = "CPU-s per million samples"
    ingest.say("ingest/influxdb", sum(stages.values()), unit, reference=bare, influxd=round(took, 3), **detail)
    for stage, value in stages.items():
        ingest.say(f"ingest/influxdb/{stage}", value, unit, reference=bare, **detail)


@contextmanager
def mosquitto(folder: Path) -> Iterator[int]:
    """Run a broker; yield its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    config = folder / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n", encoding="utf-8")
    program = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
    process = subprocess.Popen([program, "-c", config], stderr=subprocess.DEVNULL)
    time.sleep(0.5)
    yield port
    process.terminate()
    process.wait()


def telegraf_into(server: Any, ingest: Any, folder: Path, hub: float) -> None:
    """Measure Telegraf taking the same samples from a broker into InfluxDB."""
    server.make_bucket("telegraf")
    with mosquitto(folder) as port:
        config = folder / "telegraf.conf"
        config.write_text(
            TELEGRAF.format(port=port, url=server.url, token=server.token, org=server.org), encoding="utf-8"
        )
        with (folder / "telegraf.log").open("wb") as out:
            telegraf = subprocess.Popen(["telegraf", "--config", config], stdout=out, stderr=out)
        try:
            log = folder / "telegraf.log"
            deadline = time.monotonic() + 30
            while "Connected [tcp" not in log.read_text(encoding="utf-8"):
                assert time.monotonic() < deadline, log.read_text(encoding="utf-8")
                time.sleep(0.1)
            before = cpu_of(telegraf.pid), cpu_of(server.process.pid)
            subprocess.run([sys.executable, __file__, "send", str(port)], check=True, timeout=120)
            while server.count("telegraf") < ingest.SAMPLES:
                assert time.monotonic() < deadline + 90, f"{server.count('telegraf')} of {ingest.SAMPLES}"
                time.sleep(0.5)
            used, took = (
                (after - earlier) * 1e6 / ingest.SAMPLES
                for after, earlier in zip((cpu_of(telegraf.pid), cpu_of(server.process.pid)), before, strict=True)
            )
        finally:
            telegraf.terminate()
            telegraf.wait(20)
    told = subprocess.run(["telegraf", "--version"], capture_output=True, text=True, check=True).stdout.split()
    detail = {"samples": ingest.SAMPLES, "influxd": round(took, 3), "version": told[1], "reference_is": "ingest/hub"}
    ingest.say("ingest/telegraf", used, "CPU-s per million samples", reference=hub, **detail)


def lines(ingest: Any, now: int) -> list[bytes]:
    """Return the benchmark's messages as line protocol."""
    made = []
    for _, payload in ingest.messages(now):
        told = sparkplug_pb2.Payload.FromString(payload)
        fields = []
        for metric in told.metrics[3:]:
            name, kind = f"Bench/{metric.alias - 10}", metric.WhichOneof("value")
            value = getattr(metric, kind)
            text = {"double_value": repr(value), "boolean_value": str(value).lower(), "string_value": f'"{value}"'}
            fields.append(f"{name}={text.get(kind, f'{value}i')}")
        made.append(f"device,group=bench,node=bench-01,device=d {','.join(fields)} {told.timestamp}000000".encode())
    return made


def send(port: int) -> None:
    """Send at about 4,000 messages a second, as the sender of the `ingest` benchmark does."""
    ingest = sibling(HERE / "ingest.py")
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="bench-lines")
    client.connect("127.0.0.1", port)
    client.loop_start()
    started = time.monotonic()
    for number, line in enumerate(lines(ingest, SystemClock().now_ms())):
        info = client.publish("bench", line)
        if number % 100 == 99:
            info.wait_for_publish(10)
            time.sleep(max(0.0, started + number / 4000 - time.monotonic()))
    client.disconnect()
    client.loop_stop()


def main() -> None:
    """Run what the machine has the programs for, or the sender."""
    if sys.argv[1:2] == ["send"]:
        send(int(sys.argv[2]))
        return
    if shutil.which("influxd") is None:
        print("influx: influxd is not installed; nothing was measured", file=sys.stderr)
        return
    ingest = sibling(HERE / "ingest.py")
    server_of = sibling(HERE.parent / "conftest.py").Influx
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for one in ("influx", "hub", "embedded", "broker", "telegraf"):
            (folder / one).mkdir()
        server = server_of(folder / "influx", ours=True)
        server.start()
        try:
            bare = ingest.in_process(folder / "embedded")
            hub_into(server, ingest, folder / "hub", bare)
            if shutil.which("telegraf") is None:
                print("influx: telegraf is not installed; it was not compared with", file=sys.stderr)
                return
            hub = asyncio.run(ingest.through_a_broker(folder / "broker", bare))
            telegraf_into(server, ingest, folder / "telegraf", hub)
        finally:
            server.stop()


if __name__ == "__main__":
    main()
