"""Cameras: ONVIF for management, clock and events, RTSP or a snapshot for the picture; any of them will do."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Protocol, Self
from urllib.parse import urlsplit

from contract.catalog import CATALOG, STATE, Cause, Condition, Kind
from contract.clock import Clock
from contract.metrics import Metric, Sample, Value
from edge.poller import DeviceMisconfigured, DeviceUnavailable

MOST_SKEW = 30.0
"""Seconds a camera's clock may be off before its recordings are no evidence of when."""

BLACK = 90.0
"""Share of dark pixels, in %, from which a picture shows nothing."""

PORTS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443}
MOST_GREETING = 4096

EVENTS = {"motion": "Event/Motion", "tamper": "Event/Tamper", "video_loss": "Event/VideoLoss"}
_PICTURE = (
    "Picture/Age",
    "Picture/Brightness",
    "Picture/Sharpness",
    "Picture/Width",
    "Picture/Height",
    "Picture/Codec",
)
_MANAGED = ("Clock/Skew", "Device/Model", "Device/Firmware", "Device/Serial")


class Asks(Protocol):
    """Whom to ask in another process: a worker, or a pool of them."""

    async def ask(self, question: Mapping[str, object], deadline: float) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a camera is, as it was configured; at least one of the three."""

    url: str | None = None
    stream: str | None = None
    snapshot: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """What looking for a picture brought: its measures, or why there is none."""

    picture: Mapping[str, Any] | None = None
    codec: str = ""
    failure: DeviceUnavailable | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Before:
    """What the check before showed; `rebooted_at` is the camera's own text."""

    digest: str | None = None
    rebooted_at: str | None = None


def condition(
    managed: Mapping[str, Any] | None, looked: Looked | None, *, serial: str | None, before: Before
) -> Condition:
    """Return what a check shows of a camera, the worst first; `serial` is the one it must have, if any."""
    if managed is not None and serial is not None and managed["serial"] != serial:
        return Condition.WRONG_DEVICE
    if looked is not None and looked.failure is not None:
        return Condition.NO_STREAM
    if looked is not None and looked.picture is None:
        return Condition.NO_PICTURE
    if looked is not None and looked.picture is not None:
        if looked.picture["dark"] >= BLACK:
            return Condition.BLACK
        if looked.picture["digest"] == before.digest:
            return Condition.FROZEN
    if managed is not None and abs(managed["skew"]) > MOST_SKEW:
        return Condition.CLOCK_OFF
    if (
        managed is not None
        and before.rebooted_at is not None
        and managed["rebooted_at"]
        not in {
            None,
            before.rebooted_at,
        }
    ):
        return Condition.REBOOTED
    return Condition.OK


class OnvifCamera:
    """A Driver for one camera. Two kinds of workers do what is dangerous; no picture comes near this process.

    Raises DeviceMisconfigured where an address holds a login: addresses are shown and logged.
    """

    def __init__(
        self,
        name: str,
        address: Address,
        *,
        username: str | None,
        password: str | None,
        serial: str | None,
        events: bool,
        timeout: float,
        desk: Asks,
        frames: Asks,
        clock: Clock,
    ) -> None:
        for one in (address.url, address.stream, address.snapshot):
            if one is not None and "@" in urlsplit(one).netloc:
                raise DeviceMisconfigured(
                    f'devices "{name}": an address must not hold a login; give username and password_file'
                )
        self._name = name
        self._address = address
        self._login = {"username": username, "password": password}
        self._serial = serial
        self._events = events and address.url is not None
        self._timeout = timeout
        self._desk = desk
        self._frames = frames
        self._clock = clock
        self._before = Before()
        self._seen_at: float | None = None
        self._begun = clock.monotonic()
        named = {STATE, *_PICTURE} | set(_MANAGED if address.url else ())
        named |= set(EVENTS.values()) if self._events else set()
        self.metrics: Sequence[Metric] = tuple(one for one in CATALOG[Kind.CAMERA].metrics if one.name in named)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def read(self) -> Sequence[Sample]:
        managed, unmanaged = await self._managed()
        looked = await self._looked(managed)
        if managed is None and (looked is None or looked.failure is not None):
            # Nothing of it answers: what management says of the cause says most.
            failure = unmanaged or (looked.failure if looked else None)
            raise failure or DeviceUnavailable(Cause.NOT_FOUND, f"{self._name} has neither stream nor snapshot")
        state = condition(managed, looked, serial=self._serial, before=self._before)
        at, now = self._clock.now_ms(), self._clock.monotonic()
        values: dict[str, Value] = {STATE: state.value}
        if managed is not None:
            values |= {
                "Clock/Skew": float(managed["skew"]),
                "Device/Model": managed["model"],
                "Device/Firmware": managed["firmware"],
                "Device/Serial": managed["serial"],
            }
            self._before = replace(self._before, rebooted_at=managed["rebooted_at"] or self._before.rebooted_at)
            values |= {EVENTS[name]: bool(on) for name, on in managed["events"].items() if self._events}
        if looked is not None and looked.picture is not None:
            seen = looked.picture
            self._before = replace(self._before, digest=seen["digest"])
            if state not in {Condition.FROZEN, Condition.BLACK}:
                self._seen_at = now
            values |= {
                "Picture/Brightness": float(seen["brightness"]),
                "Picture/Sharpness": float(seen["sharpness"]),
                "Picture/Width": int(seen["width"]),
                "Picture/Height": int(seen["height"]),
                "Picture/Codec": looked.codec,
            }
        values["Picture/Age"] = round(now - (self._begun if self._seen_at is None else self._seen_at), 1)
        return [Sample(metric=name, at=at, value=value) for name, value in values.items()]

    async def _managed(self) -> tuple[Mapping[str, Any] | None, DeviceUnavailable | None]:
        if self._address.url is None:
            return None, None
        question = {
            "camera": self._name,
            "url": self._address.url,
            "timeout": self._timeout,
            "events": self._events,
            **self._login,
        }
        try:
            return await self._desk.ask(question, self._timeout + 1.0), None
        except DeviceUnavailable as exc:
            # A camera that only shares its stream is still a camera that works.
            if self._address.stream is None and self._address.snapshot is None:
                raise
            return None, exc

    async def _looked(self, managed: Mapping[str, Any] | None) -> Looked | None:
        stream = self._address.stream or (managed["stream"] if managed else None)
        snapshot = self._address.snapshot or (managed["snapshot"] if managed else None)
        if stream is None and snapshot is None:
            return None if managed is None else Looked(failure=DeviceUnavailable(Cause.NOT_FOUND, "no stream"))
        where = {"stream": stream} if stream is not None else {"snapshot": snapshot}
        try:
            await greet(stream or str(snapshot), self._timeout * 0.4)
            told = await self._frames.ask({**where, **self._login, "timeout": self._timeout}, self._timeout + 1.0)
        except DeviceUnavailable as exc:
            return Looked(failure=exc)
        return Looked(picture=told["picture"], codec=told["codec"])


async def greet(address: str, within: float) -> None:
    """Raise DeviceUnavailable unless somebody listens there within so many seconds, and speaks RTSP if he should.

    Asked from here: while a worker waits for a dead camera, a living one waits for the worker. What speaks TLS is only
    connected to.
    """
    parts = urlsplit(address)
    what = f"{parts.scheme}://{parts.netloc}"
    try:
        async with asyncio.timeout(within):
            port = parts.port or PORTS[parts.scheme]
            reader, writer = await asyncio.open_connection(parts.hostname, port, limit=MOST_GREETING)
    except TimeoutError as exc:
        raise DeviceUnavailable(Cause.UNREACHABLE, f"{what}: nobody there") from exc
    except ConnectionRefusedError as exc:
        raise DeviceUnavailable(Cause.REFUSED, f"{what} refused the connection") from exc
    except OSError as exc:
        raise DeviceUnavailable(Cause.UNREACHABLE, f"{what}: {exc.strerror or type(exc).__name__}") from exc
    try:
        if parts.scheme == "rtsp":
            writer.write(f"OPTIONS {address} RTSP/1.0\r\nCSeq: 1\r\n\r\n".encode())
            async with asyncio.timeout(within):
                _believe(what, await reader.readexactly(len("RTSP/1.0 200")))
    except TimeoutError as exc:
        raise DeviceUnavailable(Cause.SILENT, f"{what} did not answer in time") from exc
    except asyncio.IncompleteReadError as exc:
        cause = Cause.NONSENSE if exc.partial else Cause.REFUSED
        raise DeviceUnavailable(cause, f"{what} hung up") from exc
    except OSError as exc:
        raise DeviceUnavailable(Cause.REFUSED, f"{what} hung up") from exc
    finally:
        writer.transport.abort()


def _believe(what: str, answer: bytes) -> None:
    """Raise DeviceUnavailable for a greeting that no camera of ours returns."""
    if not answer.startswith(b"RTSP/1."):
        raise DeviceUnavailable(Cause.NONSENSE, f"{what} answered what is no RTSP")
    if answer[9:10] == b"3":
        raise DeviceUnavailable(Cause.REFUSED, f"{what} sends us to another address")
