"""From a signed envelope at the broker to what people hear at the horn: the whole agent, a loudspeaker, real audio."""

import asyncio
import base64
import hashlib
import io
import json
import secrets
import sys
import time
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiomqtt
import numpy as np
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from contract.broadcast import Class, Envelope, Hello, Order, Step, as_key, signed, to_bytes, verified
from contract.catalog import BUNDLE, ENVELOPE, HELLO
from contract.clock import SystemClock
from contract.metrics import DataType
from contract.payload import Payload, WireMetric, decode, encode
from contract.topics import MessageType, Topic
from hub.signer import ceremony
from simulators.faults import Faults
from simulators.hearing import heard
from simulators.ip_speaker import Speaker, serving

pytestmark = pytest.mark.broker

RATE = 16_000
NODE = "c7k2m-01"
EDGE = """
[node]
group = "c7k2m"
id = "c7k2m-01"
state_dir = "state"
status_file = "status.json"
clock = "trusted"
birth_jitter_seconds = 0

[[brokers]]
host = "127.0.0.1"
port = {port}

[broadcast]
deployment = "test"
environment = "demo"
root = "trust/root.json"
identity_key = "trust/c7k2m-01.pem"
audio_url = "{audio}"
max_volume = 60

[[devices]]
id = "speaker-01"
kind = "loudspeaker"
driver = "ip_speaker"
url = "{url}"
username = "box"
password_file = "speaker.password"
"""


def programme() -> tuple[np.ndarray[Any, np.dtype[np.int16]], bytes]:
    """Return a second and a half of a rising tone, as samples and as a WAV file."""
    at = np.arange(int(1.5 * RATE)) / RATE
    sound = (12_000 * np.sin(2 * np.pi * (300 * at + 400 * at**2))).astype(np.int16)
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(RATE)
        out.writeframes(sound.tobytes())
    return sound, file.getvalue()


@asynccontextmanager
async def hub_audio(raw: bytes) -> AsyncIterator[str]:
    async def audio(request: web.Request) -> web.Response:
        return web.Response(body=raw)

    application = web.Application()
    application.router.add_get("/audio/{digest}", audio)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


class Hub:
    """Hears the box's hello, and sends it what a test wants, with every right that a broker can give."""

    def __init__(self, client: aiomqtt.Client, identity: str) -> None:
        self._client = client
        self._identity = as_key(base64.b64decode(identity))
        self.hello: Hello | None = None

    async def listen(self) -> None:
        async for message in self._client.messages:
            assert isinstance(message.payload, bytes)
            for metric in decode(message.payload).metrics:
                if metric.name == HELLO and isinstance(metric.value, str):
                    self.hello = verified(Hello, metric.value, [self._identity])

    async def send(self, name: str, value: str) -> None:
        metric = WireMetric(name=name, at=0, datatype=DataType.STRING, value=value)
        topic = str(Topic("c7k2m", MessageType.NCMD, NODE))
        await self._client.publish(topic, encode(Payload(at=0, metrics=(metric,))))


def envelope(raw: bytes, hello: Hello, key: Ed25519PrivateKey) -> str:
    now = SystemClock().now_ms()
    step = Step(
        step="speech",
        sha256=hashlib.sha256(raw).hexdigest(),
        bytes=len(raw),
        media_type="audio/wav",
        duration_ms=1500,
    )
    order = Order.model_validate(
        {
            "deployment": "test",
            "id": secrets.token_hex(16),
            "action": "play",
            "class": Class.NORMAL,
            "kind": "test",
            "issuer": "tester",
            "issued_at": now,
            "expires_at": now + 60_000,
            "start_within_s": 30,
            "program": (step,),
            "volume": 80,
        }
    )
    wrapped = Envelope(
        node=NODE,
        speakers=("speaker-01",),
        challenge=hello.challenge,
        sequence=now,
        issued_at=now,
        expires_at=now + 60_000,
        min_bundle=1,
        order=base64.b64encode(to_bytes(order)).decode(),
    )
    return signed(wrapped, [key])


async def test_a_signed_order_is_heard_and_an_unsigned_one_is_silence_and_an_alarm(
    mosquitto: Any, tmp_path: Path, eventually: Any
) -> None:
    trust = ceremony.demo(tmp_path / "trust", deployment="test", group="c7k2m", nodes=[NODE], clock=SystemClock())
    signer = load_pem_private_key(trust.signer_key.read_bytes(), password=None)
    assert isinstance(signer, Ed25519PrivateKey)
    sound, raw = programme()
    horn = Speaker(
        id="speaker-01",
        user="box",
        password="geheim",
        recordings=tmp_path / "heard",
        faults=Faults([], time.monotonic),
    )
    status = tmp_path / "status.json"

    def announcements() -> dict[str, int]:
        told: dict[str, int] = json.loads(status.read_text())["announcements"] if status.exists() else {}
        return told

    async with (
        serving(horn) as url,
        hub_audio(raw) as audio,
        aiomqtt.Client("127.0.0.1", mosquitto.port) as client,
    ):
        await client.subscribe("spBv1.0/c7k2m/#")
        hub = Hub(client, trust.identities[NODE])
        listening = asyncio.create_task(hub.listen())
        (tmp_path / "speaker.password").write_text("geheim")
        (tmp_path / "edge.toml").write_text(EDGE.format(port=mosquitto.port, audio=audio, url=url))
        process = await asyncio.create_subprocess_exec(sys.executable, "-m", "edge", "run", str(tmp_path / "edge.toml"))
        try:
            await eventually(lambda: hub.hello is not None)
            await hub.send(BUNDLE, trust.bundle.read_text())
            await eventually(lambda: hub.hello is not None and hub.hello.bundle_version == 1)
            assert hub.hello is not None
            await hub.send(ENVELOPE, envelope(raw, hub.hello, signer))
            recording = tmp_path / "heard" / "speaker-01-1.wav"
            await eventually(recording.with_suffix(".json").exists)
            await eventually(lambda: announcements().get("finished", 0) == 1)
            await hub.send(ENVELOPE, envelope(raw, hub.hello, Ed25519PrivateKey.generate()))
            await eventually(lambda: announcements().get("alarms", 0) == 1)
            assert announcements()["started"] == announcements()["accepted"] == 1
        finally:
            process.terminate()
            await asyncio.wait_for(process.wait(), 20)
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
    assert process.returncode == 0
    assert [one.name for one in sorted((tmp_path / "heard").glob("*.wav"))] == ["speaker-01-1.wav"]
    with wave.open(str(recording)) as played:
        there = np.frombuffer(played.readframes(played.getnframes()), dtype="<i2")
    # The box's own limit, 60, holds against an order for 80.
    assert json.loads(recording.with_suffix(".json").read_text())["volume"] == 60
    assert heard(there, sound, rate=RATE).heard
