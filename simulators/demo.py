"""A commune on one machine: broker, signer, hub, two edge nodes and simulated hamlets, started and judged together.

It knows the product as a customer does: by its commands, its files and its API.
"""

import argparse
import asyncio
import json
import shutil
import signal
import socket
import ssl
import sys
import tempfile
import time
import wave
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import urlsplit

import aiohttp
import av
import numpy as np
from av.audio.resampler import AudioResampler
from numpy.typing import NDArray

from simulators import demo_people, lan
from simulators.demo_commune import (
    COMMUNE,
    DEPLOYMENT,
    DEVICES_EACH,
    GROUP,
    HAMLETS,
    PASSWORD,
    SNMP_PASSWORD,
    edge_toml,
    hamlet_yaml,
    hub_toml,
)
from simulators.demo_people import Known
from simulators.hearing import heard

STOP_SECONDS = 40.0
"""An agent may drain for 30 s."""

MOSQUITTO = (shutil.which("mosquitto"), "/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto")


class DemoFailed(Exception):
    """What went wrong, for the person who started it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OnLan:
    """What phones in the same network need: the address they see, and what they are to trust."""

    address: str
    certificates: lan.Certificates

    def trust(self) -> ssl.SSLContext:
        """Return the trust of a phone that followed the guide."""
        return ssl.create_default_context(cafile=str(self.certificates.authority))


@dataclass(slots=True)
class Commune:
    """What runs, and where it is found."""

    folder: Path
    port: int
    mqtt_port: int
    box_mqtt_port: int
    processes: "dict[str, asyncio.subprocess.Process]" = field(default_factory=dict)
    url: str = ""
    """Where this machine reaches the hub."""
    lan: "OnLan | None" = None

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
    parser.add_argument("--lan", action="store_true", help="for phones in the same network: TLS, a name, a guide")
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
    out = sys.stderr if asked.json else sys.stdout
    with tempfile.TemporaryDirectory(prefix="hamlet-demo-") as folder:
        commune = Commune(folder=Path(folder), port=port, mqtt_port=_free(0), box_mqtt_port=_free(0))
        if asked.lan:
            commune.lan = _on_lan(Path(folder))
        async with AsyncExitStack() as stack:
            stack.push_async_callback(_stop_all, commune)
            session = await stack.enter_async_context(
                aiohttp.ClientSession(
                    timeout=aiohttp.ClientTimeout(total=90),
                    cookie_jar=demo_people.jar(),
                    connector=aiohttp.TCPConnector(ssl=commune.lan.trust() if commune.lan else True),
                )
            )
            known = await _start_all(commune, broker, session, interrupted)
            print(f"\n  {COMMUNE}: {commune.url}\n", file=out, flush=True)
            if commune.lan is not None:
                await _show_to_phones(commune, commune.lan, stack, out)
            if asked.seconds is None:
                _say("Ctrl-C ends all of it")
                await _watch(commune, known, interrupted)
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


async def _start_all(
    commune: Commune, broker: str, session: aiohttp.ClientSession, interrupted: asyncio.Event
) -> Sequence[Known]:
    """Start everything; return the people who can sign in. The session is signed in as who judges."""
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
    (folder / "hamlet.yaml").write_text(hamlet_yaml(box_mqtt_port=commune.box_mqtt_port), encoding="utf-8")
    (folder / "signer.toml").write_text(
        f'deployment = "{DEPLOYMENT}"\nkey = "keys/signer.pem"\nsocket = "signer.sock"\nlog = "signer.log"\n',
        encoding="utf-8",
    )
    address = commune.lan.address if commune.lan else None
    (folder / "hub.toml").write_text(
        hub_toml(identities, port=commune.port, mqtt_port=commune.mqtt_port, lan=address), encoding="utf-8"
    )
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
        text = edge_toml(
            hamlet,
            found["devices"],
            mqtt_port=commune.mqtt_port,
            box_mqtt_port=commune.box_mqtt_port,
            hub_url=commune.url,
        )
        config.write_text(text, encoding="utf-8")
        await commune.start(hamlet.node, *_tool("edge"), "run", config)
    _say("adding people, one for each role")
    known = await _people(commune, session)
    wanted = DEVICES_EACH * len(HAMLETS)
    _say(f"waiting for {wanted} devices")
    async with asyncio.timeout(60):
        while True:
            commune.check()
            with suppress(aiohttp.ClientError):
                told = await _get(commune, session, "/api/stats")
                if told["devices"] == {"total": wanted, "online": wanted} or interrupted.is_set():
                    return known
            await asyncio.sleep(0.2)


def _on_lan(folder: Path) -> OnLan:
    addresses = lan.addresses_here()
    if not addresses:
        raise DemoFailed("this machine is in no network that phones could be in; leave --lan out")
    return OnLan(address=addresses[0], certificates=lan.certificates(folder, lan.NAME, addresses, datetime.now(UTC)))


async def _show_to_phones(commune: Commune, here: OnLan, stack: AsyncExitStack, out: TextIO) -> None:
    """Answer for the name, serve the guide, and show its code; the guide leads on to the pages."""
    port = urlsplit(commune.url).port or 443
    await stack.enter_async_context(lan.announced(lan.NAME, [here.address], port))
    url = f"https://{lan.NAME}:{port}/"
    guide = await stack.enter_async_context(lan.guide(here.address, here.certificates.authority, url))
    print(f"  phones: {guide}, then {url}\n\n{lan.as_blocks(guide)}\n", file=out, flush=True)


async def _people(commune: Commune, session: aiohttp.ClientSession) -> Sequence[Known]:
    everybody = [*demo_people.PEOPLE, demo_people.JUDGE]
    try:
        links = await demo_people.add(everybody, commune.folder / "hub.toml")
        *known, judge = [await demo_people.set_up(session, commune.url, one, links[one.name]) for one in everybody]
        await demo_people.sign_in(session, commune.url, judge)
    except RuntimeError as exc:
        raise DemoFailed(f"{exc}\n{commune.log('hub')}") from exc
    return known


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


async def _watch(commune: Commune, known: Sequence[Known], interrupted: asyncio.Event) -> None:
    """Show who can sign in until it is interrupted; on a terminal with the codes of now."""
    shown = demo_people.table(known, codes=sys.stdout.isatty())
    print("\n".join(shown), flush=True)
    while not interrupted.is_set():
        commune.check()
        now = demo_people.table(known, codes=sys.stdout.isatty())
        if now != shown:
            print(f"\x1b[{len(shown)}A" + "\n".join(f"\x1b[2K{line}" for line in now), flush=True)
            shown = now
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


if __name__ == "__main__":
    sys.exit(main())
