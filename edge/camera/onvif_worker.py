"""A process that speaks ONVIF with all cameras of the box: `python -m edge.camera.onvif_worker`."""

import asyncio
import functools
import logging
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import SplitResult, urlsplit, urlunsplit

import aiohttp
import onvif.client
from onvif import ONVIFCamera
from zeep.exceptions import Error as ZeepError
from zeep.exceptions import Fault

from contract.catalog import Cause
from edge.poller import DeviceUnavailable
from edge.workers import Answer, serve

log = logging.getLogger(__name__)

MEMORY_MIB = 512
MOST_ANSWER = 1024 * 1024
MOST_PROFILES = 64
PULL_SECONDS = 20
SUBSCRIPTION = timedelta(seconds=120)
AGAIN_SECONDS = 5.0
NOBODY_ASKS_SECONDS = 600.0
"""After so long without a question about a camera its subscription is given up."""

EVENTS = {
    "MotionAlarm": "motion",
    "CellMotionDetector/Motion": "motion",
    "GlobalSceneChange": "tamper",
    "TamperDetector/Tamper": "tamper",
    "SignalLoss": "video_loss",
    "VideoLoss": "video_loss",
}
"""Parts of topics (ONVIF Imaging, Analytics, Device IO services) and what they mean to us; others are not looked at."""

REBOOT = "OperatingTime/LastReboot"


class BoundedResponse(aiohttp.ClientResponse):
    """An answer that may neither send us elsewhere nor be larger than any camera's."""

    async def start(self, connection: Any) -> "BoundedResponse":
        await super().start(connection)
        if 300 <= self.status < 400:
            self.close()
            raise DeviceUnavailable(Cause.REFUSED, "the camera sends us to another address")
        return self

    async def read(self) -> bytes:
        if self._body is None:
            body = bytearray()
            async for piece in self.content.iter_any():
                body += piece
                if len(body) > MOST_ANSWER:
                    self.close()
                    raise DeviceUnavailable(Cause.NONSENSE, f"the camera answered more than {MOST_ANSWER} bytes")
            self._body = bytes(body)
        return self._body


# The library makes its sessions itself and offers no other way to bound what they accept.
onvif.client.ClientSession = functools.partial(aiohttp.ClientSession, response_class=BoundedResponse, trust_env=False)


onvif.client.DEFAULT_SETTINGS.forbid_dtd = True


class Camera(ONVIFCamera):  # type: ignore[misc]  # the library has no types
    """A camera that is asked only where it was configured to be, and for no longer than its owner wants to wait."""

    _making = asyncio.Lock()

    def __init__(self, place: SplitResult, username: str | None, password: str | None, timeout: float) -> None:
        host = f"[{place.hostname}]" if ":" in str(place.hostname) else place.hostname
        # Given with its scheme, for the library takes what has none for HTTP.
        super().__init__(f"{place.scheme}://{host}", _port(place), username, password, adjust_time=True, no_cache=True)
        # Less to connect than to answer, so that an absent camera and a silent one are told apart.
        self._bounds = aiohttp.ClientTimeout(total=PULL_SECONDS + 10, sock_connect=timeout * 2 / 3)

    def rewrite_url(self, url: str | None) -> str | None:
        """Take an address that the camera gives for its path alone: it may stand behind NAT, or lie."""
        if not url:
            return url
        known, told = urlsplit(f"{self.host}:{self.port}"), urlsplit(url)
        return urlunsplit((known.scheme, known.netloc, told.path, told.query, ""))

    async def create_onvif_service(self, *args: Any, **kwargs: Any) -> Any:
        # One at a time: the library reads its large definitions once for each who asks before they are read.
        async with self._making:
            service = await super().create_onvif_service(*args, **kwargs)
        service.transport._client_timeout = self._bounds  # noqa: SLF001  # the library's own are 30 and 90 s, fixed
        if self.user is None:
            # The library would send an empty login.
            service.ws_client = service.ws_client_authless
        return service


@dataclass(slots=True)
class Known:
    """A camera this process has spoken with."""

    address: str
    camera: Camera
    skew: float
    addresses: dict[str, str]
    asked: float
    events: dict[str, bool] = field(default_factory=dict)
    seen: dict[str, bool] = field(default_factory=dict)
    rebooted_at: str | None = None
    pulling: "asyncio.Task[None] | None" = None


class Desk:
    """Answers for all cameras, each by itself."""

    def __init__(self) -> None:
        self._known: dict[str, Known] = {}

    async def check(self, question: Answer) -> Answer:
        """Return what a camera says of itself; raise DeviceUnavailable.

        `question` has `camera`, `url`, `username`, `password`, `timeout` (seconds), `events`. The answer has `model`,
        `firmware`, `serial`, `skew` (seconds that the camera is ahead), `stream` and `snapshot` (addresses at the
        configured host, or None), `rebooted_at` (the camera's own text, None until it told), and `events` (name to
        whether it was on at any time since the last check).
        """
        name = str(question["camera"])
        try:
            async with asyncio.timeout(float(question["timeout"])):
                return await self._checked(name, question)
        except DeviceUnavailable:
            await self._forget(name)
            raise
        except Exception as exc:
            await self._forget(name)
            raise _unavailable(exc, str(question["url"])) from exc

    async def _checked(self, name: str, question: Answer) -> Answer:
        known = self._known.get(name)
        address = str(question["url"])
        if known is not None and (known.address != address or known.camera.passwd != question["password"]):
            await self._forget(name)
            known = None
        if known is None:
            known = self._known[name] = await _met(question)
        known.asked = time.monotonic()
        known.skew = await _skew(known.camera)
        management = await known.camera.create_devicemgmt_service()
        told = await management.GetDeviceInformation()
        if question["events"] and known.pulling is None:
            known.pulling = asyncio.create_task(_pull(known), name=f"events of {name}")
        answer = {
            "model": f"{told.Manufacturer or ''} {told.Model or ''}".strip()[:100],
            "firmware": str(told.FirmwareVersion or "")[:100],
            "serial": str(told.SerialNumber or "")[:100],
            "skew": round(known.skew, 1),
            "stream": known.addresses.get("stream"),
            "snapshot": known.addresses.get("snapshot"),
            "rebooted_at": known.rebooted_at,
            "events": {one: known.seen.get(one, False) or on for one, on in known.events.items()},
        }
        known.seen.clear()
        return answer

    async def _forget(self, name: str) -> None:
        known = self._known.pop(name, None)
        if known is None:
            return
        if known.pulling is not None:
            known.pulling.cancel()
            await asyncio.gather(known.pulling, return_exceptions=True)
        with suppress(Exception):  # whatever it is, the camera is forgotten
            await known.camera.close()


async def _met(question: Answer) -> Known:
    """Return a camera with its clock read, its services found, and its smallest stream chosen."""
    place = urlsplit(str(question["url"]))
    camera = Camera(place, question["username"], question["password"], float(question["timeout"]))
    try:
        await camera.update_xaddrs()
        media = await camera.create_media_service()
        profiles = (await media.GetProfiles())[:MOST_PROFILES]
        addresses: dict[str, str] = {}
        if profiles:
            token = min(profiles, key=_pixels).token
            setup = {"Stream": "RTP-Unicast", "Transport": {"Protocol": "RTSP"}}
            stream = await media.GetStreamUri({"StreamSetup": setup, "ProfileToken": token})
            addresses["stream"] = _at(place, str(stream.Uri), "rtsp", 554)
            # Many cameras have no snapshot; that is no fault.
            with suppress(Fault):
                snapshot = await media.GetSnapshotUri({"ProfileToken": token})
                addresses["snapshot"] = _at(place, str(snapshot.Uri), "http", 80)
    except BaseException:
        await camera.close()
        raise
    return Known(address=str(question["url"]), camera=camera, skew=0.0, addresses=addresses, asked=time.monotonic())


async def _skew(camera: Camera) -> float:
    """Return by how many seconds the camera's clock is ahead; asked without login (ONVIF Core 24.12, 8.3.5)."""
    management = await camera.create_devicemgmt_service()
    before = time.time()
    try:
        told = (await management.authless_GetSystemDateAndTime()).UTCDateTime
    except Fault:
        # Some want a login even for that, against the standard.
        before = time.time()
        told = (await management.GetSystemDateAndTime()).UTCDateTime
    at = datetime(
        told.Date.Year, told.Date.Month, told.Date.Day, told.Time.Hour, told.Time.Minute, told.Time.Second, tzinfo=UTC
    )
    # Whole seconds are told: on average half of one has passed.
    skew = at.timestamp() + 0.5 - (before + time.time()) / 2
    if camera.dt_diff is None or abs(camera.dt_diff.total_seconds() - skew) > 2:
        camera.dt_diff = timedelta(seconds=skew)
        # The library puts the offset into services when it makes them.
        for service in list(camera.services.values()):
            service.dt_diff = camera.dt_diff
            service.zeep_client.wsse.dt_diff = camera.dt_diff
    return skew


async def _pull(known: Known) -> None:
    """Keep the newest state of each event, until cancelled or nobody asks any more."""
    while time.monotonic() - known.asked < NOBODY_ASKS_SECONDS:
        manager = None
        try:
            manager = await known.camera.create_pullpoint_manager(SUBSCRIPTION, lambda: None)
            service = manager.get_service()
            while time.monotonic() - known.asked < NOBODY_ASKS_SECONDS:
                question = {"MessageLimit": 100, "Timeout": timedelta(seconds=PULL_SECONDS)}
                async with asyncio.timeout(PULL_SECONDS + 10):
                    answer = await service.PullMessages(question)
                for message in answer.NotificationMessage or []:
                    _note(known, message)
        except Exception as exc:  # noqa: BLE001  # the library raises its own, zeep's and aiohttp's
            # Events are a help, not a duty: a camera without them, or that lost our subscription, is asked again later.
            log.debug("no events: %s", exc)
        finally:
            if manager is not None:
                with suppress(Exception):
                    await manager.shutdown()
        await asyncio.sleep(AGAIN_SECONDS)


def _note(known: Known, message: Any) -> None:
    # zeep calls the content of an element that may hold anything `_value_1`.
    topic = str(message.Topic._value_1 if message.Topic is not None else "")  # noqa: SLF001
    told = message.Message._value_1  # noqa: SLF001
    items = (told.Data.SimpleItem if told is not None and told.Data is not None else None) or []
    if REBOOT in topic and items:
        known.rebooted_at = str(items[0].Value)[:40]
    name = next((meaning for part, meaning in EVENTS.items() if part in topic), None)
    if name is None:
        return
    for item in items:
        if item.Name in {"State", "IsMotion", "IsTamper"} and str(item.Value).lower() in {"true", "false", "1", "0"}:
            known.events[name] = str(item.Value).lower() in {"true", "1"}
            known.seen[name] = known.seen.get(name, False) or known.events[name]


def _pixels(profile: Any) -> int:
    encoder = profile.VideoEncoderConfiguration
    if encoder is None or encoder.Resolution is None:
        return 10**9
    return int(encoder.Resolution.Width) * int(encoder.Resolution.Height)


def _port(place: SplitResult) -> int:
    return place.port or (443 if place.scheme == "https" else 80)


def _at(place: SplitResult, told: str, scheme: str, port: int) -> str:
    """Return an address that a camera gave, at the host we know and without a login."""
    parts = urlsplit(told)
    if parts.scheme not in {scheme, f"{scheme}s"}:
        raise DeviceUnavailable(Cause.NONSENSE, f"the camera gives {parts.scheme[:20]!r} for {scheme}")
    host = f"[{place.hostname}]" if ":" in str(place.hostname) else place.hostname
    query = f"?{parts.query}" if parts.query else ""
    return f"{parts.scheme}://{host}:{parts.port or port}{parts.path}{query}"


def _unavailable(exc: Exception, url: str) -> DeviceUnavailable:
    if isinstance(exc.__cause__, aiohttp.ConnectionTimeoutError):
        return DeviceUnavailable(Cause.UNREACHABLE, f"{url}: nobody there")
    if isinstance(exc, (TimeoutError, aiohttp.ServerTimeoutError)):
        return DeviceUnavailable(Cause.SILENT, f"{url} did not answer in time")
    if isinstance(exc, Fault):
        subcodes = " ".join(str(one) for one in exc.subcodes or [])
        if "NotAuthorized" in subcodes or "NotAuthorized" in str(exc.code) or "authorized" in str(exc.message).lower():
            return DeviceUnavailable(Cause.UNAUTHORISED, f"{url} wants another user or password")
        return DeviceUnavailable(Cause.REFUSED, f"{url}: {' '.join(str(exc.message or 'a fault').split())[:200]}")
    if isinstance(exc, aiohttp.ClientConnectorError):
        refused = isinstance(exc.os_error, ConnectionRefusedError)
        return DeviceUnavailable(Cause.REFUSED if refused else Cause.UNREACHABLE, f"{url}: {exc.os_error.strerror}")
    if isinstance(exc, (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)):
        return DeviceUnavailable(Cause.REFUSED, f"{url} hung up")
    if isinstance(exc, ZeepError) and getattr(exc, "status_code", None) in {401, 403}:
        return DeviceUnavailable(Cause.UNAUTHORISED, f"{url} wants another user or password")
    if isinstance(exc, ZeepError) and getattr(exc, "status_code", None) == 404:
        return DeviceUnavailable(Cause.NOT_FOUND, f"{url} has no ONVIF service there")
    return DeviceUnavailable(Cause.NONSENSE, f"{url} answered what is no ONVIF ({type(exc).__name__})")


if __name__ == "__main__":
    logging.getLogger().setLevel(logging.WARNING)
    asyncio.run(serve(Desk().check, memory_mib=MEMORY_MIB))
