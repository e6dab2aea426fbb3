"""IP loudspeakers: control and status by HTTP with Digest login, sound by RTP."""

import asyncio
import ipaddress
import logging
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

import aiohttp
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from contract.catalog import CATALOG, MAINS, STATE, Cause, Condition, Kind
from contract.clock import Clock
from contract.metrics import Metric, Sample
from edge.audio import Encoding, Form
from edge.drivers.http_exchange import exchange
from edge.poller import DeviceMisconfigured, DeviceUnavailable
from edge.rtp import RtpSender

log = logging.getLogger(__name__)

MOST_ANSWER = 64 * 1024
DYNAMIC_PAYLOAD = 96
"""L16 at 16 kHz has no static RTP payload type (RFC 3551, 6)."""

MOST_LOST = 0.1
"""A device that says it lost more than this share of the packets did not let people hear the programme."""

VOLUME_STEP = 5
"""Devices round volumes to steps of their own; a difference up to this is rounding, not disobedience."""

HOT_CELSIUS = 75.0
ALREADY_OPEN = 409


class _Told(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


Answer = TypeVar("Answer", bound=_Told)


class _Answered(DeviceUnavailable):
    """The device refused with this HTTP status."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(Cause.REFUSED, reason)
        self.status = status


class Status(_Told):
    """What GET /api/v1/status answers."""

    model: str = Field(max_length=100)
    firmware: str = Field(max_length=100)
    serial: str | None = Field(default=None, max_length=100)
    uptime_seconds: int = Field(ge=0, le=2**40)
    volume: int = Field(ge=0, le=100)
    muted: bool
    playing: bool
    level_dbfs: float | None = Field(default=None, ge=-200, le=20)
    temperature_celsius: float | None = Field(default=None, ge=-100, le=300)
    amplifier_ok: bool | None = None
    line_ok: bool | None = None
    mains: bool | None = None
    battery_volts: float | None = Field(default=None, ge=0, le=1000)


class Opened(_Told):
    """What PUT /api/v1/stream answers."""

    port: int = Field(ge=1, le=65_535)
    multicast: str | None = Field(default=None, max_length=100)
    """The group it joined, if it was asked to."""


class Closed(_Told):
    """What DELETE /api/v1/stream answers."""

    packets: int = Field(ge=0)
    lost: int = Field(ge=0)


def condition(status: Status, uptime_before: int | None) -> Condition:
    """Return the worst of what a status says; `uptime_before` is the uptime that the status before it gave."""
    if status.amplifier_ok is False:
        return Condition.AMPLIFIER_FAILED
    if status.line_ok is False:
        return Condition.LINE_FAILED
    if status.muted:
        return Condition.MUTED
    if status.temperature_celsius is not None and status.temperature_celsius > HOT_CELSIUS:
        return Condition.HOT
    if uptime_before is not None and status.uptime_seconds < uptime_before:
        return Condition.REBOOTED
    return Condition.OK


def samples(status: Status, uptime_before: int | None, at: int) -> list[Sample]:
    """Return what a status says; supervision that the device does not have is left out, never assumed."""
    values: dict[str, Any] = {
        STATE: condition(status, uptime_before).value,
        "Playback/State": "playing" if status.playing else "idle",
        "Audio/Volume": status.volume,
        "Audio/Level": status.level_dbfs,
        "Audio/Muted": status.muted,
        "Amp/OK": status.amplifier_ok,
        "Line/OK": status.line_ok,
        MAINS: status.mains,
        "Power/BatteryV": status.battery_volts,
        "Device/Temperature": status.temperature_celsius,
        "Device/Uptime": status.uptime_seconds,
        "Device/Model": status.model,
        "Device/Firmware": status.firmware,
        "Device/Serial": status.serial,
    }
    return [Sample(metric=name, at=at, value=value) for name, value in values.items() if value is not None]


class IpSpeaker:
    """A Driver, and a loudspeaker that can be made to sound.

    `codec` is an encoding and its rate, "L16/16000". With `multicast`, "GROUP:PORT", the packets go to a group that the
    device joins, and leave by the local address `interface`; each loudspeaker has its own. Raises DeviceMisconfigured
    where these are no addresses.
    """

    def __init__(
        self,
        *,
        url: str,
        username: str,
        password: str,
        codec: str,
        timeout: float,
        clock: Clock,
        multicast: str | None = None,
        interface: str | None = None,
    ) -> None:
        self._url = url
        self._multicast = multicast
        self._group = None if multicast is None else _group(multicast)
        self._interface = None if interface is None else _own_address(interface)
        self._login = aiohttp.DigestAuthMiddleware(username, password)
        # Shorter to connect than to answer, so that an absent device and a silent one are told apart.
        self._timeout = aiohttp.ClientTimeout(total=timeout, sock_connect=timeout * 2 / 3)
        encoding, _, rate = codec.partition("/")
        self.form = Form(encoding=Encoding(encoding), rate=int(rate))
        self._payload_type = 0 if self.form.encoding is Encoding.PCMU else DYNAMIC_PAYLOAD
        self._uptime: int | None = None
        self._clock = clock
        self._session: aiohttp.ClientSession | None = None
        self._sounding = False
        self.metrics: Sequence[Metric] = CATALOG[Kind.LOUDSPEAKER].metrics

    async def __aenter__(self) -> Self:
        self._session = self._new_session()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def read(self) -> Sequence[Sample]:
        assert self._session is not None  # noqa: S101  # the context is open
        status = await self._status(self._session)
        before, self._uptime = self._uptime, status.uptime_seconds
        return samples(status, before, self._clock.now_ms())

    @asynccontextmanager
    async def sounding(self, *, volume: int) -> AsyncIterator[RtpSender]:
        """Open a stream on the device, and close it on leaving.

        Raises DeviceUnavailable if it cannot be opened, or if at the end the device says that it was mute, broken, too
        quiet, or did not receive what was sent: then people have not heard it.
        """
        if self._sounding:
            raise DeviceUnavailable(Cause.REFUSED, f"{self._url}: is already sounding")
        self._sounding = True
        try:
            async with self._new_session() as session:
                sender = await self._open(session, volume)
                try:
                    yield sender
                    await sender.finish()
                except BaseException:
                    await asyncio.shield(self._abandon(session))
                    raise
                finally:
                    sender.close()
                status, closed = await self._end(session)
                _believe(status, closed, sender.sent, volume)
        finally:
            self._sounding = False

    async def _open(self, session: aiohttp.ClientSession, volume: int) -> RtpSender:
        ask = {
            "codec": self.form.encoding.value,
            "sample_rate": self.form.rate,
            "payload_type": self._payload_type,
            "volume": volume,
        }
        if self._multicast is not None:
            ask["multicast"] = self._multicast
        opened = await self._opened(session, ask)
        try:
            if opened.multicast != self._multicast:
                raise DeviceUnavailable(Cause.REFUSED, f"{self._url}: listens to {opened.multicast}, not to the group")
            status = await self._status(session)
            if status.volume > volume + VOLUME_STEP:
                raise DeviceUnavailable(
                    Cause.REFUSED, f"{self._url}: set its volume to {status.volume} % instead of {volume} %"
                )
            family, address = await self._receiver(opened)
            return RtpSender(
                family,
                address,
                form=self.form,
                payload_type=self._payload_type,
                clock=self._clock,
                interface=self._interface if self._group is not None else None,
            )
        except (OSError, TimeoutError) as exc:
            await self._abandon(session)
            raise DeviceUnavailable(Cause.UNREACHABLE, f"{self._url}: no way for sound: {exc}") from exc
        except BaseException:
            await asyncio.shield(self._abandon(session))
            raise

    async def _receiver(self, opened: Opened) -> tuple[int, tuple[Any, ...]]:
        """Return address family and address of where the packets go."""
        if self._group is not None:
            return socket.AF_INET, self._group
        host = urlsplit(self._url).hostname or ""
        async with asyncio.timeout(self._timeout.total):
            found = await asyncio.get_running_loop().getaddrinfo(host, opened.port, type=socket.SOCK_DGRAM)
        family, _, _, _, address = found[0]
        return family, address

    async def _opened(self, session: aiohttp.ClientSession, ask: object) -> Opened:
        try:
            return await self._call(session, "PUT", "/api/v1/stream", Opened, ask)
        except _Answered as exc:
            if exc.status != ALREADY_OPEN:
                raise
        # A loudspeaker takes orders from its box alone: the open stream is our own, from before a power cut.
        log.warning("%s: a stream was still open; it is closed", self._url)
        await self._call(session, "DELETE", "/api/v1/stream", Closed)
        return await self._call(session, "PUT", "/api/v1/stream", Opened, ask)

    async def _abandon(self, session: aiohttp.ClientSession) -> None:
        """Close the stream where something else is already the news; the device closes a deserted one by itself."""
        try:
            await self._call(session, "DELETE", "/api/v1/stream", Closed)
        except DeviceUnavailable as exc:
            log.warning("the stream could not be closed: %s", exc)

    async def _end(self, session: aiohttp.ClientSession) -> tuple[Status, Closed]:
        try:
            status = await self._status(session)
        finally:
            closed = await self._call(session, "DELETE", "/api/v1/stream", Closed)
        return status, closed

    async def _status(self, session: aiohttp.ClientSession) -> Status:
        return await self._call(session, "GET", "/api/v1/status", Status)

    def _new_session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            timeout=self._timeout, middlewares=[self._login], read_bufsize=MOST_ANSWER, trust_env=False
        )

    async def _call(
        self, session: aiohttp.ClientSession, method: str, path: str, shape: type[Answer], body: object = None
    ) -> Answer:
        """Return the device's answer, checked; raise DeviceUnavailable with the cause."""
        what = f"{method} {self._url}{path}"
        status, raw = await exchange(session, method, self._url + path, body=body, most=MOST_ANSWER)
        if status in {401, 403}:
            raise DeviceUnavailable(Cause.UNAUTHORISED, f"{what}: the device wants another password")
        if status != 200:
            raise _Answered(status, f"{what}: HTTP {status} {raw[:120]!r}")
        return answer(shape, raw, what)


def answer(shape: type[Answer], raw: bytes, what: str) -> Answer:
    """Return a device's JSON in its shape; raise DeviceUnavailable as nonsense otherwise."""
    if len(raw) > MOST_ANSWER:
        raise DeviceUnavailable(Cause.NONSENSE, f"{what}: answered more than {MOST_ANSWER} bytes")
    try:
        return shape.model_validate_json(raw)
    except ValidationError as exc:
        first = exc.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the answer"
        raise DeviceUnavailable(Cause.NONSENSE, f"{what}: {where}: {first['msg']}") from exc


def _believe(status: Status, closed: Closed, sent: int, volume: int) -> None:
    """Raise DeviceUnavailable unless the device's own word is that it sounded."""
    if status.muted:
        raise DeviceUnavailable(Cause.REFUSED, "played, but the device is muted")
    if status.amplifier_ok is False or status.line_ok is False:
        part = "amplifier" if status.amplifier_ok is False else "loudspeaker line"
        raise DeviceUnavailable(Cause.REFUSED, f"played, but the device reports a broken {part}")
    if status.volume < volume - VOLUME_STEP:
        raise DeviceUnavailable(Cause.REFUSED, f"played, but at volume {status.volume} % instead of {volume} %")
    if sent and (closed.packets == 0 or sent - closed.packets > max(1, MOST_LOST * sent)):
        raise DeviceUnavailable(Cause.SILENT, f"the device received {closed.packets} of {sent} packets")


def _group(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    try:
        if ipaddress.IPv4Address(host).is_multicast and 0 < int(port) < 2**16:
            return host, int(port)
    except ValueError:
        pass
    raise DeviceMisconfigured(f"multicast: {text} is no group and port; give one like 239.1.2.3:5004")


def _own_address(text: str) -> str:
    try:
        return str(ipaddress.IPv4Address(text))
    except ValueError as exc:
        raise DeviceMisconfigured(f"interface: {text} is no IPv4 address; give the box's own on that network") from exc
