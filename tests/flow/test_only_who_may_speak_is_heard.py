"""Promise 6: hub, signer, broker, box and horn as they are; a stranger who has every right on the broker."""

import asyncio
import base64
import io
import json
import time
import wave
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiomqtt
import httpx
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from contract import dsse
from contract.broadcast import TYPES, Bundle, Envelope, Order, Outcome, as_key, read, signed, to_bytes
from contract.catalog import BUNDLE, ENVELOPE, OUTCOME, REBIRTH, REFUSAL, ROOT
from contract.clock import SystemClock
from contract.commands import Stage
from contract.dsse import public_bytes
from contract.metrics import DataType, Value
from contract.payload import Payload, WireMetric, decode, encode
from contract.topics import MessageType, Topic
from hub.signer import ceremony
from simulators import demo_people
from simulators.faults import Faults
from simulators.hearing import heard
from simulators.ip_speaker import Speaker, serving
from tests.flow.program import program

pytestmark = pytest.mark.broker

GROUP, NODE, HORN = "c7k2m", "c7k2m-01", "speaker-01"
ENDS_WITHIN = 20.0
RATE = 16_000

HUB = """
[hub]
host_id = "hamlet-hub"
state_dir = "hub"
port = 0
clock = "trusted"
status_file = "hub.json"
[broker]
port = {port}
[broadcast]
signer_socket = "signer.sock"
roots = ["keys/root.json"]
bundle = "keys/bundle.json"
[[edge_nodes]]
group = "c7k2m"
id = "c7k2m-01"
commune = "Xã An Thạnh"
hamlet = "Ấp Bình Hòa"
identity = "{identity}"
"""

SIGNER = """
deployment = "test"
key = "keys/signer.pem"
socket = "signer.sock"
log = "signer.log"
"""

EDGE = """
[node]
group = "c7k2m"
id = "c7k2m-01"
state_dir = "box"
status_file = "box.json"
clock = "trusted"
birth_jitter_seconds = 0
[[brokers]]
host = "127.0.0.1"
port = {port}
[broadcast]
deployment = "test"
environment = "demo"
root = "keys/root.json"
identity_key = "keys/c7k2m-01.pem"
audio_url = "{hub}"
max_volume = 80
[[devices]]
id = "speaker-01"
kind = "loudspeaker"
driver = "ip_speaker"
url = "{horn}"
username = "box"
password_file = "horn.password"
"""


def programme() -> tuple["np.ndarray[Any, np.dtype[np.int16]]", bytes]:
    """Return a second of a rising tone, as samples and as a file to upload."""
    at = np.arange(RATE) / RATE
    sound = (9000 * np.sin(2 * np.pi * (300 * at + 400 * at**2))).astype(np.int16)
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(RATE)
        out.writeframes(sound.tobytes())
    return sound, file.getvalue()


SOUND, FILE = programme()


@dataclass
class Stranger:
    """Somebody with every right on the broker: hears all that is sent, and sends what it likes."""

    client: aiomqtt.Client
    caught: list[str] = field(default_factory=list)

    async def listen(self) -> None:
        async for message in self.client.messages:
            assert isinstance(message.payload, bytes)
            if "/NCMD/" in str(message.topic):
                for metric in decode(message.payload).metrics:
                    if metric.name == ENVELOPE:
                        self.caught.append(str(metric.value))

    async def send(
        self,
        name: str,
        value: Value,
        *,
        kind: MessageType = MessageType.NCMD,
        device: str | None = None,
        datatype: DataType = DataType.STRING,
    ) -> None:
        metric = WireMetric(name=name, at=SystemClock().now_ms(), datatype=datatype, value=value)
        payload = encode(Payload(at=SystemClock().now_ms(), metrics=(metric,)))
        await self.client.publish(str(Topic(GROUP, kind, NODE, device)), payload)


@dataclass
class Place:
    """A hub with its signer, and a hamlet with one box and one horn."""

    folder: Path
    api: httpx.AsyncClient
    stranger: Stranger
    speaker: str
    edge_toml: Path

    @asynccontextmanager
    async def box(self) -> AsyncIterator[None]:
        async with program("edge", "run", str(self.edge_toml), ends_within=ENDS_WITHIN):
            yield

    async def announce(self) -> str:
        answer = await self.api.post(
            "/api/announcements", data={"speakers": [self.speaker], "volume": "70"}, files={"file": ("tone.wav", FILE)}
        )
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    async def part(self, announcement: str) -> dict[str, Any]:
        found = (await self.api.get(f"/api/announcements/{announcement}")).json()["parts"][0]
        assert isinstance(found, dict)
        return found

    async def until(self, announcement: str, stage: str, within: float = 20.0) -> dict[str, Any]:
        deadline = time.monotonic() + within
        while (found := await self.part(announcement))["stage"] != stage:
            assert time.monotonic() < deadline, f"not {stage} within {within} s: {found}"
            await asyncio.sleep(0.05)
        return found

    def counts(self) -> dict[str, int]:
        status = self.folder / "box.json"
        told: dict[str, int] = json.loads(status.read_text())["announcements"] if status.exists() else {}
        return told

    def recordings(self) -> list[Path]:
        return sorted((self.folder / "heard").glob("*.wav"))

    async def refusal(self) -> str | None:
        """Return the last refusal that the hub knows of, as every page and program could."""
        devices = (await self.api.get("/api/devices")).json()["devices"]
        node = next(one for one in devices if one["node"] == NODE and one["device"] == "")
        told = node["values"].get(REFUSAL)
        return told["value"] if told else None


@pytest.fixture
async def place(mosquitto: Any, tmp_path: Path, eventually: Any) -> AsyncIterator[Place]:
    kept = ceremony.demo(tmp_path / "keys", deployment="test", group=GROUP, nodes=[NODE], clock=SystemClock())
    horn = Speaker(
        id=HORN, user="box", password="geheim", recordings=tmp_path / "heard", faults=Faults([], time.monotonic)
    )
    (tmp_path / "horn.password").write_text("geheim")
    (tmp_path / "signer.toml").write_text(SIGNER)
    (tmp_path / "hub.toml").write_text(HUB.format(port=mosquitto.port, identity=kept.identities[NODE]))
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(
            program("hub", "signer", str(tmp_path / "signer.toml"), ends_within=ENDS_WITHIN)
        )
        await stack.enter_async_context(program("hub", "serve", str(tmp_path / "hub.toml"), ends_within=ENDS_WITHIN))
        await eventually((tmp_path / "hub.json").exists, 30)
        await eventually((tmp_path / "signer.sock").exists, 30)
        url = json.loads((tmp_path / "hub.json").read_text())["url"]
        headers = {"Origin": url, "Cookie": await demo_people.cookie(url, tmp_path / "hub.toml", demo_people.JUDGE)}
        api = await stack.enter_async_context(httpx.AsyncClient(base_url=url, headers=headers, timeout=20))
        client = await stack.enter_async_context(aiomqtt.Client("127.0.0.1", mosquitto.port))
        await client.subscribe("spBv1.0/#")
        stranger = Stranger(client)
        listening = asyncio.create_task(stranger.listen())
        horn_url = await stack.enter_async_context(serving(horn))
        edge = tmp_path / "edge.toml"
        edge.write_text(EDGE.format(port=mosquitto.port, hub=url, horn=horn_url))
        found = Place(tmp_path, api, stranger, "", edge)
        async with found.box():
            found.speaker = await known(found, eventually)
        yield found
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


async def known(place: Place, eventually: Any) -> str:
    """Return the horn's id at the hub, once the hub knows it."""
    ids: list[str] = []
    for _ in range(600):
        devices = (await place.api.get("/api/devices")).json()["devices"]
        ids = [one["id"] for one in devices if one["device"] == HORN and one["kind"] == "loudspeaker"]
        if ids:
            return str(ids[0])
        await asyncio.sleep(0.05)
    raise AssertionError("the hub never heard of the horn")


def altered(caught: str, change: Callable[[Envelope], Envelope], key: Ed25519PrivateKey | None = None) -> str:
    """Return a caught envelope with other contents, under its old signature or a stranger's."""
    body = json.loads(caught)
    payload = to_bytes(change(read(Envelope, base64.b64decode(body["payload"]))))
    if key is not None:
        return dsse.sign(TYPES[Envelope], payload, [key])
    return json.dumps({**body, "payload": base64.b64encode(payload).decode()})


def another_order(envelope: Envelope) -> Envelope:
    order = read(Order, envelope.order_bytes()).model_copy(update={"id": "f" * 32, "volume": 100})
    return envelope.model_copy(update={"order": base64.b64encode(to_bytes(order)).decode()})


@pytest.mark.timeout(120)
async def test_what_a_person_announces_is_heard_once_whatever_the_network_repeats(
    place: Place, eventually: Any
) -> None:
    async with place.box():
        waiting = await place.announce()
        told = await place.until(waiting, "finished")
        assert told["at"]["pending"] <= told["at"]["accepted"] <= told["at"]["started"] <= told["at"]["finished"]
        for _ in range(3):
            await place.stranger.send(REBIRTH, True, datatype=DataType.BOOLEAN)
            for one in place.stranger.caught:
                await place.stranger.send(ENVELOPE, one)
        second = await place.announce()
        await place.until(second, "finished")
    async with place.box():  # and after a restart
        for one in place.stranger.caught:
            await place.stranger.send(ENVELOPE, one)
        third = await place.announce()
        await place.until(third, "finished")
    assert len(place.recordings()) == 3
    for recording in place.recordings():
        with wave.open(str(recording)) as played:
            there = np.frombuffer(played.readframes(played.getnframes()), dtype="<i2")
        assert heard(there, SOUND, rate=RATE).heard
        assert json.loads(recording.with_suffix(".json").read_text())["volume"] == 70


@pytest.mark.timeout(120)
async def test_an_announcement_waits_for_a_box_that_is_away_and_can_be_stopped_meanwhile(
    place: Place, eventually: Any
) -> None:
    heard_later = await place.announce()
    never_heard = await place.announce()
    assert (await place.api.post(f"/api/announcements/{never_heard}/stop")).status_code == 202
    async with place.box():
        await place.until(heard_later, "finished")
        await eventually(lambda: place.counts().get("finished", 0) >= 2, 20, "the stop is an order that finished too")
    assert (await place.part(never_heard))["stage"] == "stopped"
    assert len(place.recordings()) == 1


@pytest.mark.timeout(120)
async def test_a_stranger_with_every_right_on_the_broker_is_met_with_silence_and_an_alarm(
    place: Place, eventually: Any
) -> None:
    mine = Ed25519PrivateKey.generate()
    async with place.box():
        genuine = await place.announce()
        await place.until(genuine, "finished")
        caught = place.stranger.caught[-1]
        unsigned = json.dumps({**json.loads(caught), "signatures": []})
        bundle = read(Bundle, dsse.opened((place.folder / "keys/bundle.json").read_text(), TYPES[Bundle]).payload)
        entry = bundle.keys[0].model_copy(update=as_key(public_bytes(mine)).model_dump())
        forged_bundle = signed(bundle.model_copy(update={"version": 9, "keys": (entry,)}), [mine])
        attempts = [
            (ENVELOPE, unsigned),
            (ENVELOPE, altered(caught, another_order)),
            (ENVELOPE, altered(caught, another_order, mine)),
            (BUNDLE, forged_bundle),
            (ROOT, (place.folder / "keys/root.json").read_text()),
            (ENVELOPE, altered(caught, another_order, mine)),
            (ENVELOPE, caught),
            (ENVELOPE, "{"),
            ("Playback/Play", "https://example.org/anthem.mp3"),
        ]
        for name, value in attempts:
            await place.stranger.send(name, value)
        for metric, datatype, wanted in (
            ("Playback/State", DataType.STRING, "playing"),
            ("Audio/Volume", DataType.INT32, 100),
        ):
            await place.stranger.send(metric, wanted, kind=MessageType.DCMD, device=HORN, datatype=datatype)
        lie = Outcome(node=NODE, order=genuine, stage=Stage.FAILED, reason="a lie", at=1)
        await place.stranger.send(OUTCOME, signed(lie, [mine]), kind=MessageType.NDATA)
        await eventually(lambda: place.counts().get("alarms", 0) >= 6, 20)
        last = await place.announce()
        await place.until(last, "finished")
        for _ in range(100):
            if await place.refusal():
                break
            await asyncio.sleep(0.05)
        assert "no signature by a signer" in (await place.refusal() or "")
    assert len(place.recordings()) == 2, "the two that a person announced"
    assert place.counts()["started"] == 2
    assert (await place.part(genuine))["stage"] == "finished"
