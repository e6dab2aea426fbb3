"""An IP loudspeaker: control and status by HTTP with Digest login, sound by RTP, and an ear at its own horn."""

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import secrets
import time
import wave
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.request import parse_http_list, parse_keqv_list

import numpy as np
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from simulators.faults import Fault, Faults
from simulators.rtp_recording import RtpRecording, packet

log = logging.getLogger(__name__)

REALM = "ip-speaker"
SLOW_SECONDS = 2.0
NONCE_SECONDS = 300.0
DESERTED_SECONDS = 10.0
"""A stream without packets for so long closes itself."""

_DIGESTS = {"MD5": hashlib.md5, "SHA-256": hashlib.sha256}


class StreamRequest(BaseModel):
    """Body of PUT /api/v1/stream."""

    model_config = ConfigDict(extra="forbid")

    codec: Literal["PCMU", "L16"]
    sample_rate: Literal[8000, 16000, 48000]
    payload_type: int = Field(ge=0, le=127)
    volume: int = Field(ge=0, le=100)


class VolumeRequest(BaseModel):
    """Body of PUT /api/v1/volume."""

    model_config = ConfigDict(extra="forbid")

    volume: int = Field(ge=0, le=100)


@dataclass(slots=True)
class Stream:
    """Sound that is being received."""

    recording: RtpRecording
    source: str
    transport: asyncio.DatagramTransport
    volume: int
    opened: float
    last_packet: float
    started_at_ms: int | None = None
    started_monotonic_ns: int | None = None

    @property
    def port(self) -> int:
        """Return the UDP port it listens on."""
        return int(self.transport.get_extra_info("sockname")[1])


@dataclass(slots=True)
class Speaker:
    """One loudspeaker; run it with `serving`."""

    id: str
    user: str
    password: str
    recordings: Path
    faults: Faults
    volume: int = 50
    host: str = "127.0.0.1"
    stream: Stream | None = None
    count: int = 0
    started: float = field(default_factory=time.monotonic)
    nonces: dict[str, float] = field(default_factory=dict)

    def application(self) -> web.Application:
        """Return its HTTP side."""
        application = web.Application(middlewares=[self._failing, self._authorised])
        application.add_routes(
            [
                web.get("/api/v1/status", self._status),
                web.put("/api/v1/stream", self._open),
                web.delete("/api/v1/stream", self._close),
                web.put("/api/v1/volume", self._set_volume),
            ]
        )
        return application

    @web.middleware
    async def _failing(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        match self.faults.now():
            case Fault.SILENT:
                await asyncio.sleep(3600)
            case Fault.SLOW:
                await asyncio.sleep(SLOW_SECONDS)
            case Fault.UNAUTHORISED:
                return self._challenge()
            case Fault.NONSENSE:
                return web.Response(text='<html>Login {"volume": ', content_type="application/json")
            case _:
                pass
        return await handler(request)

    @web.middleware
    async def _authorised(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if not self._knows(request):
            return self._challenge()
        return await handler(request)

    def _challenge(self) -> web.Response:
        now = time.monotonic()
        self.nonces = {nonce: until for nonce, until in self.nonces.items() if until > now}
        nonce = secrets.token_hex(16)
        self.nonces[nonce] = now + NONCE_SECONDS
        # MD5 is what most devices in the field still offer (RFC 7616, 3.4); SHA-256 answers are accepted too.
        header = f'Digest realm="{REALM}", qop="auth", nonce="{nonce}", algorithm=MD5'
        return web.Response(status=401, headers={"WWW-Authenticate": header})

    def _knows(self, request: web.Request) -> bool:
        scheme, _, rest = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "digest":
            return False
        try:
            told = parse_keqv_list(parse_http_list(rest))
            digest = _DIGESTS[told.get("algorithm", "MD5").upper()]
            secret = digest(f"{self.user}:{REALM}:{self.password}".encode()).hexdigest()
            asked = digest(f"{request.method}:{told['uri']}".encode()).hexdigest()
            parts = (secret, told["nonce"], told["nc"], told["cnonce"], told["qop"], asked)
            expected = digest(":".join(parts).encode()).hexdigest()
        except (KeyError, ValueError, IndexError):
            return False
        fresh = self.nonces.get(told["nonce"], 0.0) > time.monotonic()
        right = told.get("username") == self.user and told["uri"] == request.path_qs
        return fresh and right and secrets.compare_digest(told.get("response", ""), expected)

    async def _status(self, request: web.Request) -> web.Response:
        fault, stream = self.faults.now(), self.stream
        return web.json_response(
            {
                "model": "SIM-HORN 30",
                "firmware": "2.4.1",
                "serial": hashlib.blake2b(self.id.encode(), digest_size=4).hexdigest(),
                "uptime_seconds": int(time.monotonic() - self.started),
                "volume": self.volume,
                "muted": fault is Fault.MUTED,
                "playing": stream is not None and stream.recording.packets > 0,
                "stream": None if stream is None else _told(stream),
                "temperature_celsius": 41.5,
                "amplifier_ok": fault is not Fault.AMPLIFIER_FAILED,
                "line_ok": fault is not Fault.LINE_OPEN,
            }
        )

    async def _open(self, request: web.Request) -> web.Response:
        try:
            asked = StreamRequest.model_validate_json(await request.read(), strict=True)
        except ValidationError as exc:
            return _refused(422, _sentence(exc))
        if self.stream is not None:
            return _refused(409, f"a stream from {self.stream.source} is open on port {self.stream.port}")
        source = request.remote or ""
        recording = RtpRecording(codec=asked.codec, sample_rate=asked.sample_rate, payload_type=asked.payload_type)
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: _Ear(self), local_addr=(self.host, 0)
        )
        now = time.monotonic()
        self.volume = asked.volume
        self.stream = Stream(
            recording=recording,
            source=source,
            transport=transport,
            volume=asked.volume,
            opened=now,
            last_packet=now,
        )
        return web.json_response({"port": self.stream.port})

    async def _close(self, request: web.Request) -> web.Response:
        stream = self.stream
        if stream is None:
            return _refused(404, "no stream is open")
        self.end()
        seconds = len(stream.recording.samples()) / stream.recording.sample_rate
        told = _told(stream)
        return web.json_response({"packets": told["packets"], "lost": told["lost"], "seconds": seconds})

    async def _set_volume(self, request: web.Request) -> web.Response:
        try:
            self.volume = VolumeRequest.model_validate_json(await request.read(), strict=True).volume
        except ValidationError as exc:
            return _refused(422, _sentence(exc))
        return web.json_response({"volume": self.volume})

    def hear(self, datagram: bytes, source: str) -> None:
        """Take an RTP packet in, if it comes from whoever opened the stream."""
        stream, one = self.stream, packet(datagram)
        if stream is None or one is None or source != stream.source or self.faults.now() is Fault.DEAF:
            return
        if stream.recording.add(one):
            stream.last_packet = time.monotonic()
            if stream.started_at_ms is None:
                stream.started_at_ms = time.time_ns() // 1_000_000
                stream.started_monotonic_ns = time.monotonic_ns()

    def end(self) -> None:
        """Close the stream, if one is open, and write down what was heard."""
        stream, self.stream = self.stream, None
        if stream is None:
            return
        stream.transport.close()
        if stream.recording.packets:
            self.count += 1
            self._write(stream)

    def _write(self, stream: Stream) -> None:
        recording, fault = stream.recording, self.faults.now()
        mute = fault in {Fault.MUTED, Fault.AMPLIFIER_FAILED, Fault.LINE_OPEN}
        gain = 0.0 if mute else stream.volume / 100
        sound = np.round(recording.samples() * gain).astype("<i2")
        name = self.recordings / f"{self.id}-{self.count}"
        with _durable(name.with_suffix(".wav")) as aside, wave.open(str(aside), "wb") as out:
            out.setnchannels(1)
            out.setsampwidth(2)
            out.setframerate(recording.sample_rate)
            out.writeframes(sound.tobytes())
        facts = {
            "speaker": self.id,
            "codec": recording.codec,
            "sample_rate": recording.sample_rate,
            "started_at_ms": stream.started_at_ms,
            "first_packet_monotonic_ns": stream.started_monotonic_ns,
            "packets": recording.packets,
            "lost": recording.lost,
            "ssrc": recording.ssrc,
            "source": stream.source,
            "volume": stream.volume,
            "silenced_by": fault.value if mute and fault else None,
        }
        # The facts come last: who sees them may rely on the recording.
        with _durable(name.with_suffix(".json")) as aside:
            aside.write_text(json.dumps(facts), encoding="utf-8")

    async def watch(self) -> None:
        """Close deserted streams, until cancelled."""
        while True:
            await asyncio.sleep(0.5)
            if self.stream is not None and time.monotonic() - self.stream.last_packet >= DESERTED_SECONDS:
                log.warning("%s: no sound for %.0f s, stream closed", self.id, DESERTED_SECONDS)
                self.end()


class _Ear(asyncio.DatagramProtocol):
    def __init__(self, speaker: Speaker) -> None:
        self._speaker = speaker

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._speaker.hear(data, addr[0])


@asynccontextmanager
async def serving(speaker: Speaker, *, port: int = 0) -> AsyncIterator[str]:
    """Run a loudspeaker and yield its URL; ends streams and writes recordings on leaving."""
    speaker.recordings.mkdir(parents=True, exist_ok=True)
    runner = web.AppRunner(speaker.application(), access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, speaker.host, port)
    await site.start()
    bound = int(runner.addresses[0][1])
    tasks = [
        asyncio.create_task(speaker.watch(), name=f"{speaker.id}: watch"),
        asyncio.create_task(_refusing(speaker, runner, site, bound), name=f"{speaker.id}: refuse"),
    ]
    try:
        yield f"http://{speaker.host}:{bound}"
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        speaker.end()
        await runner.cleanup()


async def _refusing(speaker: Speaker, runner: web.AppRunner, site: web.TCPSite, port: int) -> None:
    """Close the port while the fault says so, and open it again."""
    open_site: web.TCPSite | None = site
    while True:
        refuse = speaker.faults.now() is Fault.REFUSE
        if refuse and open_site is not None:
            await open_site.stop()
            open_site = None
        elif not refuse and open_site is None:
            open_site = web.TCPSite(runner, speaker.host, port)
            await open_site.start()
        await asyncio.sleep(0.05)


def _told(stream: Stream) -> dict[str, object]:
    recording = stream.recording
    newest = recording.chunks[-1][1].astype(np.float64) if recording.chunks else np.zeros(1)
    level = float(np.sqrt(np.mean(newest**2))) / 32768
    return {
        "codec": recording.codec,
        "sample_rate": recording.sample_rate,
        "port": stream.port if not stream.transport.is_closing() else 0,
        "ssrc": recording.ssrc,
        "packets": recording.packets,
        "lost": recording.lost,
        "level_dbfs": round(20 * float(np.log10(max(level, 1e-5))), 1),
    }


def _refused(status: int, reason: str) -> web.Response:
    return web.json_response({"error": reason}, status=status)


def _sentence(exc: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, one['loc'])) or 'body'}: {one['msg']}" for one in exc.errors())


@contextlib.contextmanager
def _durable(path: Path) -> Iterator[Path]:
    """Yield a file beside `path` to write to; it is fsynced and takes the name when complete."""
    aside = path.with_name(f".{path.name}")
    yield aside
    with aside.open("rb") as written:
        os.fsync(written.fileno())
    aside.replace(path)
