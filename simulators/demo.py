"""A commune on one machine: broker, signer, hub, two edge nodes and simulated hamlets, started and judged together.

It knows the product as a customer does: by its commands, its files and its API.
"""

import argparse
import asyncio
import json
import shutil
import signal
import socket
import sys
import tempfile
import time
import wave
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import av
import numpy as np
from av.audio.resampler import AudioResampler
from numpy.typing import NDArray

from simulators.hearing import heard

GROUP = "c7k2m"
DEPLOYMENT = "smart-hamlet-demo"
COMMUNE = "Xã An Thạnh"
USER, PASSWORD, SNMP_PASSWORD = "box", "demo", "demo-demo"
DEVICES_EACH = 14
"""Four cameras, four loudspeakers, two hotspots and four sensors on each edge node."""

STOP_SECONDS = 40.0
"""An agent may drain for 30 s."""

MOSQUITTO = (shutil.which("mosquitto"), "/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto")


@dataclass(frozen=True, slots=True)
class Hamlet:
    """One edge node and what it is to announce."""

    node: str
    name: str
    sentence: str

    @property
    def number(self) -> str:
        """Return what the names of its devices end in, before their letter."""
        return self.node[-2:]

    def named(self, what: str, count: int = 4) -> Sequence[str]:
        """Return the ids of its devices of one sort."""
        return [f"{what}-{self.number}{letter}" for letter in "abcd"[:count]]

    @property
    def speakers(self) -> Sequence[str]:
        """Return the ids of its loudspeakers."""
        return self.named("speaker")


HAMLETS = (
    Hamlet("c7k2m-01", "Ấp Bình Hòa", "Thông báo: chiều nay triều cường dâng cao, bà con chú ý kê cao tài sản."),
    Hamlet("c7k2m-02", "Ấp Phú Thạnh", "Thông báo: sáng mai trạm y tế tiêm phòng cho trẻ em, mời bà con đưa cháu đến."),
)


class DemoFailed(Exception):
    """What went wrong, for the person who started it."""


@dataclass(slots=True)
class Commune:
    """What runs, and where it is found."""

    folder: Path
    port: int
    mqtt_port: int
    box_mqtt_port: int
    processes: "dict[str, asyncio.subprocess.Process]" = field(default_factory=dict)
    url: str = ""

    async def start(self, name: str, *command: str | Path) -> None:
        """Start a process in a group of its own, its words in `<name>.log`."""
        with (self.folder / f"{name}.log").open("wb") as out:
            self.processes[name] = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )

    def log(self, name: str) -> str:
        """Return the last words of a process."""
        lines = (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-8:])

    def check(self) -> None:
        """Raise DemoFailed if something that must run has ended."""
        for name, process in self.processes.items():
            if process.returncode is not None:
                raise DemoFailed(f"{name} ended with status {process.returncode}:\n{self.log(name)}")

    async def stop(self, *names: str) -> None:
        """End processes with SIGTERM, those named together; kill what does not go."""
        going = [self.processes.pop(name) for name in names if name in self.processes]
        for process in going:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        for process in going:
            try:
                async with asyncio.timeout(STOP_SECONDS):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()


def main() -> int:
    """Run the command line; return 0 only if everything was as it should be."""
    parser = argparse.ArgumentParser(prog="hamlet-demo", description="A smart commune on this machine.")
    parser.add_argument("--seconds", type=float, help="run so long, judge, and end; otherwise until Ctrl-C")
    parser.add_argument("--json", action="store_true", help="end with one JSON line on standard output")
    parser.add_argument("--port", type=int, help="the pages' port (default 8080, or a free one with --seconds)")
    asked = parser.parse_args()
    try:
        return asyncio.run(_run(asked))
    except DemoFailed as exc:
        print(f"demo: {exc}", file=sys.stderr)
        return 1


async def _run(asked: argparse.Namespace) -> int:
    broker = next((one for one in MOSQUITTO if one and Path(one).is_file()), None)
    if broker is None:
        raise DemoFailed("Mosquitto is not installed. Type: sudo apt-get install mosquitto")
    interrupted = asyncio.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(name, interrupted.set)
    port = asked.port if asked.port is not None else 0 if asked.seconds else _free(8080)
    with tempfile.TemporaryDirectory(prefix="hamlet-demo-") as folder:
        commune = Commune(folder=Path(folder), port=port, mqtt_port=_free(0), box_mqtt_port=_free(0))
        async with AsyncExitStack() as stack:
            stack.push_async_callback(_stop_all, commune)
            session = await stack.enter_async_context(aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=90)))
            await _start_all(commune, broker, session, interrupted)
            print(f"\n  {COMMUNE}: {commune.url}\n", file=sys.stderr if asked.json else sys.stdout, flush=True)
            if asked.seconds is None:
                _say("Ctrl-C ends all of it")
                await _watch(commune, interrupted)
                _say("stopping")
                return 0
            verdict = await _judge(commune, session, asked.seconds, interrupted)
            verdict = {"broker": await _version(broker), **verdict, "url": commune.url}
        if asked.json:
            print(json.dumps(verdict, ensure_ascii=False), flush=True)
        faults = _faults(verdict)
        for fault in faults:
            _say(fault)
        return 1 if faults else 0


async def _start_all(commune: Commune, broker: str, session: aiohttp.ClientSession, interrupted: asyncio.Event) -> None:
    folder = commune.folder
    _say("making keys for a demonstration")
    nodes = [word for hamlet in HAMLETS for word in ("--node", hamlet.node)]
    keys = folder / "keys"
    trust = await asyncio.create_subprocess_exec(
        *_tool("hub"), "trust", "--dir", keys, "--deployment", DEPLOYMENT, "--group", GROUP, *nodes,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await trust.communicate()
    if trust.returncode:
        raise DemoFailed("keys could not be made")
    identities = json.loads(out)["identities"]
    _say("starting broker, simulators, signer and hub")
    for name, port in (("broker", commune.mqtt_port), ("box-broker", commune.box_mqtt_port)):
        (folder / f"{name}.conf").write_text(
            f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n"
            "max_queued_messages 100000\nmax_inflight_messages 0\n",
            encoding="utf-8",
        )
    (folder / "hamlet.yaml").write_text(_hamlet_yaml(commune), encoding="utf-8")
    (folder / "signer.toml").write_text(
        f'deployment = "{DEPLOYMENT}"\nkey = "keys/signer.pem"\nsocket = "signer.sock"\nlog = "signer.log"\n',
        encoding="utf-8",
    )
    (folder / "hub.toml").write_text(_hub_toml(commune, identities), encoding="utf-8")
    for name in ("broker", "box-broker"):
        await commune.start(name, broker, "-c", folder / f"{name}.conf")
    await commune.start(
        "simulators", *_tool("simulators"), "run", folder / "hamlet.yaml", "--status", folder / "sim.json"
    )
    await commune.start("signer-process", *_tool("hub"), "signer", folder / "signer.toml")
    await commune.start("hub", *_tool("hub"), "serve", folder / "hub.toml")
    found = await _json_file(commune, folder / "sim.json", interrupted)
    commune.url = (await _json_file(commune, folder / "hub.json", interrupted))["url"]
    (folder / "device.password").write_text(PASSWORD, encoding="utf-8")
    (folder / "snmp.password").write_text(SNMP_PASSWORD, encoding="utf-8")
    for hamlet in HAMLETS:
        _say(f"starting the edge node of {hamlet.name}")
        config = folder / f"{hamlet.node}.toml"
        config.write_text(_edge_toml(commune, hamlet, found["devices"]), encoding="utf-8")
        await commune.start(hamlet.node, *_tool("edge"), "run", config)
    wanted = DEVICES_EACH * len(HAMLETS)
    _say(f"waiting for {wanted} devices")
    async with asyncio.timeout(60):
        while True:
            commune.check()
            with suppress(aiohttp.ClientError):
                told = await _get(commune, session, "/api/stats")
                if told["devices"] == {"total": wanted, "online": wanted} or interrupted.is_set():
                    return
            await asyncio.sleep(0.2)


async def _judge(
    commune: Commune, session: aiohttp.ClientSession, seconds: float, interrupted: asyncio.Event
) -> dict[str, Any]:
    started = time.monotonic()
    devices = (await _get(commune, session, "/api/devices"))["devices"]
    by_name = {one["device"]: one["id"] for one in devices}
    _say("announcing, one sentence in each hamlet")
    sent = []
    for hamlet in HAMLETS:
        form = {"text": hamlet.sentence, "speakers": by_name[hamlet.speakers[0]], "volume": "60", "why": "demo"}
        async with session.post(
            f"{commune.url}/api/announcements", data=form, headers={"Origin": commune.url}
        ) as response:
            told = await response.json()
            if response.status != 201:
                raise DemoFailed(f"the announcement was refused: {told.get('detail')}")
            sent.append((hamlet.speakers[0], told))
    while time.monotonic() - started < seconds and not interrupted.is_set():
        commune.check()
        await asyncio.sleep(0.2)
    claimed = {}
    for speaker, one in sent:
        told = await _get(commune, session, f"/api/announcements/{one['id']}")
        claimed[one["id"]] = all(part["stage"] == "finished" for part in told["parts"])
        reasons = [part["reason"] for part in told["parts"] if part["reason"]]
        _say(f"{speaker}: {', '.join(part['stage'] for part in told['parts'])} {' '.join(reasons)}")
    stats = await _get(commune, session, "/api/stats")
    _say("stopping the edge nodes; what they hold is delivered first")
    await commune.stop(*(hamlet.node for hamlet in HAMLETS))
    status = [json.loads((commune.folder / f"{one.node}.json").read_text(encoding="utf-8")) for one in HAMLETS]
    stored = (await _get(commune, session, "/api/stats"))["samples"]
    programmes = {one["id"]: await _bytes(commune, session, f"/audio/{one['sha256']}") for _, one in sent}
    await commune.stop("simulators")
    proven = {one["id"]: _proven(commune.folder, speaker, programmes[one["id"]]) for speaker, one in sent}
    strays = len(list((commune.folder / "recordings").glob("*.json"))) - sum(proven.values())
    if strays:
        _say(f"{strays} recordings that no announcement explains")
    by_kind = {kind: one["total"] for kind, one in sorted(stats["by_kind"].items())}
    agree = all(claimed[one["id"]] == proven[one["id"]] for _, one in sent) and strays == 0
    return {
        "devices": {**stats["devices"], "by_kind": by_kind},
        "samples": {
            "read": sum(one["read"] for one in status),
            "reported": sum(one["reported"] for one in status),
            "stored": stored["stored"],
            "quarantined": stored["quarantined"],
        },
        "announcements": {
            "sent": len(sent),
            "claimed": sum(claimed.values()),
            "heard": sum(proven.values()) if agree else -1,
        },
    }


def _faults(verdict: dict[str, Any]) -> list[str]:
    devices, samples, announcements = verdict["devices"], verdict["samples"], verdict["announcements"]
    faults = []
    if devices["online"] != devices["total"] or not devices["total"]:
        faults.append(f"{devices['online']} of {devices['total']} devices were online")
    if samples["stored"] != samples["reported"] or not samples["stored"]:
        faults.append(f"{samples['stored']} of {samples['reported']} reported samples were stored")
    if samples["quarantined"]:
        faults.append(f"{samples['quarantined']} samples were put into quarantine")
    if len(set(announcements.values())) != 1 or not announcements["sent"]:
        faults.append(f"announcements sent, claimed and heard do not agree: {announcements}")
    return faults


def _proven(folder: Path, speaker: str, programme: bytes) -> bool:
    """Return whether exactly one recording of the loudspeaker holds the programme."""
    proofs = 0
    for facts in sorted((folder / "recordings").glob(f"{speaker}-*.json")):
        with wave.open(str(facts.with_suffix(".wav"))) as recorded:
            rate = recorded.getframerate()
            recording = np.frombuffer(recorded.readframes(recorded.getnframes()), dtype="<i2")
        proofs += heard(recording, _decoded(folder, programme, rate), rate=rate).heard
    return proofs == 1


def _decoded(folder: Path, programme: bytes, rate: int) -> NDArray[np.int16]:
    path = folder / "programme.flac"
    path.write_bytes(programme)
    resampler = AudioResampler(format="s16", layout="mono", rate=rate)
    with av.open(str(path)) as container:
        pieces = [one.to_ndarray()[0] for frame in container.decode(audio=0) for one in resampler.resample(frame)]
    pieces += [one.to_ndarray()[0] for one in resampler.resample(None)]
    return np.concatenate(pieces).astype(np.int16)


async def _watch(commune: Commune, interrupted: asyncio.Event) -> None:
    while not interrupted.is_set():
        commune.check()
        with suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                await interrupted.wait()


async def _stop_all(commune: Commune) -> None:
    await commune.stop(*(hamlet.node for hamlet in HAMLETS))
    for name in ("hub", "signer-process", "simulators", "broker", "box-broker"):
        await commune.stop(name)


async def _json_file(commune: Commune, path: Path, interrupted: asyncio.Event) -> Any:
    async with asyncio.timeout(30):
        while not path.exists():
            commune.check()
            if interrupted.is_set():
                raise DemoFailed("interrupted")
            await asyncio.sleep(0.05)
    return json.loads(path.read_text(encoding="utf-8"))


async def _get(commune: Commune, session: aiohttp.ClientSession, path: str) -> Any:
    async with session.get(commune.url + path) as response:
        return await response.json()


async def _bytes(commune: Commune, session: aiohttp.ClientSession, path: str) -> bytes:
    async with session.get(commune.url + path) as response:
        return await response.read()


async def _version(broker: str) -> str:
    asking = await asyncio.create_subprocess_exec(broker, "-h", stdout=asyncio.subprocess.PIPE)
    out, _ = await asking.communicate()
    return out.decode().splitlines()[0].replace("mosquitto version", "mosquitto").strip()


def _tool(name: str) -> tuple[str, str, str]:
    return sys.executable, "-m", name


def _free(wanted: int) -> int:
    """Return the wanted port of 127.0.0.1 if it is free, else another that is."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return int(probe.getsockname()[1])
    raise DemoFailed("no port of 127.0.0.1 is free")


def _say(sentence: str) -> None:
    print(f"demo: {sentence}", file=sys.stderr, flush=True)


def _hamlet_yaml(commune: Commune) -> str:
    login = {"user": USER, "password": PASSWORD}
    snmp = {"user": USER, "community": "hamlet", "auth_password": SNMP_PASSWORD, "privacy_password": SNMP_PASSWORD}
    hamlets = []
    for one in HAMLETS:
        number = one.number
        cameras: list[dict[str, object]] = [{"id": name, **login} for name in one.named("cam")]
        cameras[-1] |= {"codec": "MJPEG", "onvif": False}
        probes = [{"id": f"water-{number}", "slave": 1}, {"id": f"gauge-{number}", "slave": 2, "layout": "hydro"}]
        air = {"id": f"air-{number}", "shape": "esphome", "layout": "air", "topic": f"air-{number}", "every_seconds": 2}
        hamlets.append(
            {
                "name": one.name,
                "power_supply": f"run/power-{number}",
                "buses": [{"link": f"run/{one.node}", "probes": probes}],
                "uarts": [{"id": f"dust-{number}", "model": "pms5003", "link": f"run/dust-{number}"}],
                "mqtt_sensors": [air],
                "speakers": [{"id": name, **login} for name in one.speakers],
                "cameras": cameras,
                "routers": [{"id": f"wifi-{number}a", **login}],
                "snmp_hotspots": [{"id": f"wifi-{number}b", **snmp}],
            }
        )
    told = {"seed": 7, "recordings": "recordings", "broker": {"port": commune.box_mqtt_port}, "hamlets": hamlets}
    return json.dumps(told, ensure_ascii=False)


def _hub_toml(commune: Commune, identities: dict[str, str]) -> str:
    nodes = "".join(
        f'[[edge_nodes]]\ngroup = "{GROUP}"\nid = "{hamlet.node}"\ncommune = "{COMMUNE}"\nhamlet = "{hamlet.name}"\n'
        f'identity = "{identities[hamlet.node]}"\n'
        for hamlet in HAMLETS
    )
    return (
        f'[hub]\nhost_id = "hamlet-hub"\nstate_dir = "hub"\nport = {commune.port}\nclock = "trusted"\n'
        f'status_file = "hub.json"\n'
        f"[broker]\nport = {commune.mqtt_port}\n"
        f'[broadcast]\nsigner_socket = "signer.sock"\nroots = ["keys/root.json"]\nbundle = "keys/bundle.json"\n{nodes}'
    )


def _edge_toml(commune: Commune, hamlet: Hamlet, found: dict[str, Any]) -> str:
    number, login = hamlet.number, {"username": USER, "password_file": "device.password"}
    devices: list[dict[str, Any]] = []

    def add(name: str, kind: str, driver: str, **more: object) -> None:
        devices.append({"id": name, "kind": kind, "driver": driver, "poll_seconds": 2, "mains": True, **more})

    for slave, (name, kind, file) in enumerate(
        (
            (f"water-{number}", "water_probe", "generic-water-probe.yaml"),
            (f"gauge-{number}", "hydro_station", "generic-hydro-station.yaml"),
        ),
        start=1,
    ):
        add(name, kind, "modbus_sensor", port=f"run/{hamlet.node}", slave=slave, register_map=file)
    add(f"dust-{number}", "air_station", "uart_sensor", model="pms5003", port=f"run/dust-{number}")
    local = {"port": commune.box_mqtt_port, "mapping": "esphome-air.yaml", "topic": f"air-{number}"}
    add(f"air-{number}", "air_station", "mqtt_sensor", **local)
    for name in hamlet.speakers:
        add(name, "loudspeaker", "ip_speaker", url=found[name]["url"], **login)
    for place, name in enumerate(hamlet.named("cam")):
        # The last one has no ONVIF, as many that hang there already.
        where = {"stream_url": found[name]["stream_url"]} if place == 3 else {"url": found[name]["url"]}
        add(name, "camera", "onvif_camera", **where, **login, poll_seconds=10)
    add(f"wifi-{number}a", "hotspot", "openwrt_hotspot", url=found[f"wifi-{number}a"]["url"], **login)
    passwords = {f"{what}_password_file": "snmp.password" for what in ("auth", "privacy")}
    snmp = {"username": USER, **passwords, "profile": "simulated.yaml", "uplink_interface": "eth0"}
    spot = found[f"wifi-{number}b"]
    add(f"wifi-{number}b", "hotspot", "snmp_hotspot", host=spot["host"], port=spot["port"], **snmp)
    # JSON's strings, numbers and booleans are TOML's.
    tables = "".join(
        "[[devices]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in one.items()) for one in devices
    )
    return (
        f'[node]\ngroup = "{GROUP}"\nid = "{hamlet.node}"\nstate_dir = "{hamlet.node}"\n'
        f'status_file = "{hamlet.node}.json"\nclock = "trusted"\npower_supply = "run/power-{number}"\n'
        'primary_host = "hamlet-hub"\nbirth_jitter_seconds = 0\n'
        f'[[brokers]]\nhost = "127.0.0.1"\nport = {commune.mqtt_port}\n'
        f'[broadcast]\ndeployment = "{DEPLOYMENT}"\nenvironment = "demo"\nroot = "keys/root.json"\n'
        f'identity_key = "keys/{hamlet.node}.pem"\naudio_url = "{commune.url}"\nmax_volume = 80\n{tables}'
    )


if __name__ == "__main__":
    sys.exit(main())
