"""An IP loudspeaker: control and status by HTTP with Digest login, sound by RTP, and an ear at its own horn."""

import asyncio
import hashlib
import logging
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from aiohttp import web
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from simulators.digest import Digest
from simulators.faults import Fault, Faults
from simulators.horn_recordings import HornRecordings
from simulators.power_supply import battery_volts
from simulators.rtp_recording import RtpRecording, packet

log = logging.getLogger(__name__)

REALM = "ip-speaker"
SLOW_SECONDS = 2.0
DESERTED_SECONDS = 10.0
"""A stream without packets for so long closes itself."""

SILENCING = frozenset({Fault.MUTED, Fault.AMPLIFIER_FAILED, Fault.LINE_OPEN})
INAUDIBLE_DBFS = -100.0


def _group(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not IPv4Address(host).is_multicast or not 0 < int(port) < 2**16:
        raise ValueError("no group and port")
    return text


class StreamRequest(BaseModel):
    """Body of PUT /api/v1/stream."""

    model_config = ConfigDict(extra="forbid")

    codec: Literal["PCMU", "L16"]
    sample_rate: Literal[8000, 16000, 48000]
    payload_type: int = Field(ge=0, le=127)
    volume: int = Field(ge=0, le=100)
    multicast: Annotated[str, AfterValidator(_group)] | None = None
    """`GROUP:PORT` to join; otherwise packets are taken at a port of the device's own."""


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
    """One loudspeaker; run it with `serving`.

    With `battery` it goes on when the mains is lost, otherwise it vanishes. With `room_metres` a microphone that far
    from the horn keeps a recording of each stream too; `seed` decides upon the echoes there.
    """

    id: str
    user: str
    password: str
    recordings: Path
    faults: Faults
    volume: int = 50
    host: str = "127.0.0.1"
    battery: bool = False
    room_metres: float | None = None
    seed: int = 0
    stream: Stream | None = None
    started: float = field(default_factory=time.monotonic)
    login: Digest = field(init=False)
    kept: HornRecordings = field(init=False)
    _fault_before: Fault | None = None
    _on_battery_since: float | None = None

    def __post_init__(self) -> None:
        self.login = Digest(REALM, self.user, self.password)
        self.kept = HornRecordings(folder=self.recordings, horn=self.id, room_metres=self.room_metres, seed=self.seed)

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

    def follow(self) -> Fault | None:
        """Return the fault in force, after what its beginning and its end do to the device."""
        fault, before = self.faults.now(), self._fault_before
        if fault is not before:
            self._fault_before = fault
            cut_off = Fault.REBOOT if self.battery else Fault.MAINS_LOST
            if fault in {Fault.REBOOT, cut_off}:
                self.end()
            if fault is Fault.REBOOT or (before is Fault.MAINS_LOST and not self.battery):
                self.started = time.monotonic()
            self._on_battery_since = time.monotonic() if fault is Fault.MAINS_LOST else None
        return fault

    def away(self) -> bool:
        """Return whether its ports are closed."""
        fault = self.follow()
        return fault is Fault.REFUSE or (fault is Fault.MAINS_LOST and not self.battery)

    @web.middleware
    async def _failing(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if self.away() and request.transport is not None:
            request.transport.close()
        match self.follow():
            case Fault.SILENT:
                await asyncio.sleep(3600)
            case Fault.SLOW:
                await asyncio.sleep(SLOW_SECONDS)
            case Fault.UNAUTHORISED:
                return self._stranger()
            case Fault.NONSENSE:
                return web.Response(text='<html>Login {"volume": ', content_type="application/json")
            case _:
                pass
        return await handler(request)

    @web.middleware
    async def _authorised(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        known = self.login.knows(request.method, request.headers.get("Authorization", ""), request.path_qs)
        return await handler(request) if known else self._stranger()

    def _stranger(self) -> web.Response:
        return web.Response(status=401, headers={"WWW-Authenticate": self.login.challenge()})

    async def _status(self, request: web.Request) -> web.Response:
        fault, stream = self.follow(), self.stream
        told = None if stream is None else _told(stream)
        status = {
            "model": "SIM-HORN 30",
            "firmware": "2.4.1",
            "serial": hashlib.blake2b(self.id.encode(), digest_size=4).hexdigest(),
            "uptime_seconds": int(time.monotonic() - self.started),
            "volume": self.volume,
            "muted": fault is Fault.MUTED,
            "playing": stream is not None and stream.recording.packets > 0,
            "stream": told,
            "temperature_celsius": 41.5,
            "amplifier_ok": fault is not Fault.AMPLIFIER_FAILED,
            "line_ok": fault is not Fault.LINE_OPEN,
            "mains": fault is not Fault.MAINS_LOST,
        }
        if told is not None:
            status["level_dbfs"] = INAUDIBLE_DBFS if fault in SILENCING else told["level_dbfs"]
        if self.battery:
            since = self._on_battery_since
            status["battery_volts"] = round(battery_volts(None if since is None else time.monotonic() - since), 2)
        return web.json_response(status)

    async def _open(self, request: web.Request) -> web.Response:
        try:
            asked = StreamRequest.model_validate_json(await request.read(), strict=True)
        except ValidationError as exc:
            return _refused(422, _sentence(exc))
        if self.stream is not None:
            return _refused(409, f"a stream from {self.stream.source} is open on port {self.stream.port}")
        source = request.remote or ""
        recording = RtpRecording(codec=asked.codec, sample_rate=asked.sample_rate, payload_type=asked.payload_type)
        try:
            listening = _listening(self.host, asked.multicast)
        except OSError as exc:
            return _refused(422, f"multicast: {exc.strerror}")
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: _Ear(self), sock=listening)
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
        answer: dict[str, object] = {"port": self.stream.port}
        if asked.multicast is not None:
            answer["multicast"] = asked.multicast
        return web.json_response(answer)

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
        if stream is None or one is None or source != stream.source or self.follow() is Fault.DEAF:
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
            self._keep(stream)

    def _keep(self, stream: Stream) -> None:
        recording, fault = stream.recording, self.faults.now()
        mute = fault in SILENCING
        gain = 0.0 if mute else stream.volume / 100
        sound = np.round(recording.samples() * gain).astype(np.int16)
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
        self.kept.keep(sound, recording.sample_rate, facts)

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
        away = speaker.away()
        if away and open_site is not None:
            await open_site.stop()
            open_site = None
        elif not away and open_site is None:
            open_site = web.TCPSite(runner, speaker.host, port)
            await open_site.start()
        await asyncio.sleep(0.05)


def _listening(host: str, multicast: str | None) -> socket.socket:
    """Return where packets arrive: a port of the device's own, or a group that it has joined."""
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        one.setblocking(False)
        if multicast is None:
            one.bind((host, 0))
        else:
            group, _, port = multicast.rpartition(":")
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind((group, int(port)))
            membership = socket.inet_aton(group) + socket.inet_aton(host)
            one.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
    except OSError:
        one.close()
        raise
    return one


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
