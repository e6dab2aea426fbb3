"""The ONVIF side of a camera (ONVIF Core and Media 24.12): device, media and events over SOAP."""

import asyncio
import re
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from xml.sax.saxutils import escape

from aiohttp import web

from simulators.camera.device import Camera
from simulators.camera.picture import FRAMES_A_SECOND, HEIGHT, WIDTH
from simulators.camera.rtsp import Source
from simulators.camera.soap import Asked, Guard, NotSoap, asked, envelope, fault
from simulators.faults import Fault

OPEN = frozenset({"GetSystemDateAndTime", "GetCapabilities", "GetServices", "GetServiceCapabilities", "GetHostname"})
"""What is answered without login (access class PRE_AUTH, Core 24.12, 5.9.4.3)."""

TOPICS = {
    "motion": "tns1:VideoSource/MotionAlarm",
    "tamper": "tns1:VideoSource/GlobalSceneChange/ImagingService",
    "video_loss": "tns1:VideoSource/SignalLoss",
}
"""Properties of a video source, each a boolean State (Imaging 24.12, 5.5)."""

REBOOT = "tns1:Monitoring/OperatingTime/LastReboot"
"""A property that says since when the camera runs; of the device, not of a video source (Core 24.12, 8.9.4)."""

SLOW_SECONDS = 2.0
MOST_REQUEST = 64 * 1024
SUBSCRIPTION_SECONDS = 60.0


@dataclass(slots=True)
class _Subscription:
    ends: float = field(default_factory=lambda: time.monotonic() + SUBSCRIPTION_SECONDS)
    messages: "asyncio.Queue[str]" = field(default_factory=asyncio.Queue)


class Onvif:
    """Answers for one camera; `port` is where it is reached, known once it listens."""

    def __init__(self, camera: Camera, source: Source, rtsp_port: int) -> None:
        self._camera = camera
        self._source = source
        self._rtsp_port = rtsp_port
        self._guard = Guard(camera.user, camera.password)
        self._subscriptions: dict[str, _Subscription] = {}
        self._states = dict.fromkeys(TOPICS, False)
        self.port = 0

    def application(self, snapshot: Callable[[web.Request], web.Response]) -> web.Application:
        """Return the HTTP side: SOAP if it has ONVIF, and the snapshot."""

        async def shown(request: web.Request) -> web.Response:
            return snapshot(request)

        application = web.Application(middlewares=[self._failing], client_max_size=MOST_REQUEST)
        application.add_routes([web.get("/snapshot.jpg", shown)])
        if self._camera.onvif:
            application.add_routes([web.post("/onvif/{service}", self._soap)])
            application.add_routes([web.post("/onvif/events/{subscription}", self._soap)])
        return application

    def happen(self, what: str, state: bool) -> None:
        """Let something begin or end: motion, tamper or video_loss; every subscriber is told."""
        self._states[what] = state
        for one in self._subscriptions.values():
            one.messages.put_nowait(self._message(what, "Changed"))

    def forget(self) -> None:
        """Forget all subscriptions, as a camera does that starts anew."""
        self._subscriptions.clear()

    @web.middleware
    async def _failing(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        match self._camera.faults.now():
            case Fault.SILENT:
                await asyncio.sleep(3600)
            case Fault.SLOW:
                await asyncio.sleep(SLOW_SECONDS)
            case Fault.NONSENSE:
                return web.Response(text="<html><body>Login</body></html>", content_type="text/html")
            case _:
                pass
        return await handler(request)

    async def _soap(self, request: web.Request) -> web.Response:
        try:
            question = asked(await request.read())
        except NotSoap as exc:
            return _response(400, fault("Sender", "WellFormed", str(exc)))
        if question.operation not in OPEN and not self._lets_in(question):
            return _response(400, fault("Sender", "NotAuthorized", "Sender not authorized"))
        known: dict[str, Callable[[Asked], str]] = {
            "GetSystemDateAndTime": self._date_and_time,
            "GetCapabilities": self._capabilities,
            "GetServices": self._services,
            "GetDeviceInformation": self._device_information,
            "GetHostname": lambda _: (
                "<tds:GetHostnameResponse><tds:HostnameInformation><tt:FromDHCP>false</tt:FromDHCP>"
                f"<tt:Name>{escape(self._camera.id)}</tt:Name></tds:HostnameInformation></tds:GetHostnameResponse>"
            ),
            "GetServiceCapabilities": lambda _: (
                "<tds:GetServiceCapabilitiesResponse><tds:Capabilities><tds:Network/>"
                '<tds:Security UsernameToken="true"/><tds:System/></tds:Capabilities>'
                "</tds:GetServiceCapabilitiesResponse>"
            ),
            "GetProfiles": lambda _: f"<trt:GetProfilesResponse>{self._profiles()}</trt:GetProfilesResponse>",
            "GetVideoSources": self._video_sources,
            "GetStreamUri": self._stream_uri,
            "GetSnapshotUri": self._snapshot_uri,
            "CreatePullPointSubscription": self._subscribe,
        }
        if question.operation in known:
            try:
                return _response(200, envelope(known[question.operation](question)))
            except KeyError as exc:
                return _response(400, fault("Sender", "InvalidArgVal", f"no such profile: {exc}"))
        if question.operation not in {"PullMessages", "Renew", "Unsubscribe", "SetSynchronizationPoint"}:
            return _response(500, fault("Receiver", "ActionNotSupported", question.operation))
        self._drop_expired()
        subscription = self._subscriptions.get(request.match_info.get("subscription", ""))
        if subscription is None:
            return _response(400, fault("Sender", "InvalidArgVal", "no such subscription"))
        return _response(200, envelope(await self._of_subscription(question, request, subscription)))

    def _lets_in(self, question: Asked) -> bool:
        unauthorised = self._camera.faults.now() is Fault.UNAUTHORISED
        return self._guard.lets_in(question.token, self._camera.clock()) and not unauthorised

    def _at(self, path: str) -> str:
        return f"http://{self._camera.host}:{self.port}/onvif/{path}"

    def _date_and_time(self, question: Asked) -> str:
        now = datetime.fromtimestamp(self._camera.clock(), UTC)
        return (
            "<tds:GetSystemDateAndTimeResponse><tds:SystemDateAndTime><tt:DateTimeType>Manual</tt:DateTimeType>"
            "<tt:DaylightSavings>false</tt:DaylightSavings><tt:TimeZone><tt:TZ>UTC-7</tt:TZ></tt:TimeZone>"
            f"<tt:UTCDateTime><tt:Time><tt:Hour>{now.hour}</tt:Hour><tt:Minute>{now.minute}</tt:Minute>"
            f"<tt:Second>{now.second}</tt:Second></tt:Time><tt:Date><tt:Year>{now.year}</tt:Year>"
            f"<tt:Month>{now.month}</tt:Month><tt:Day>{now.day}</tt:Day></tt:Date></tt:UTCDateTime>"
            "</tds:SystemDateAndTime></tds:GetSystemDateAndTimeResponse>"
        )

    def _capabilities(self, question: Asked) -> str:
        return (
            "<tds:GetCapabilitiesResponse><tds:Capabilities>"
            f"<tt:Device><tt:XAddr>{self._at('device_service')}</tt:XAddr></tt:Device>"
            f"<tt:Events><tt:XAddr>{self._at('event_service')}</tt:XAddr>"
            "<tt:WSSubscriptionPolicySupport>false</tt:WSSubscriptionPolicySupport>"
            "<tt:WSPullPointSupport>true</tt:WSPullPointSupport>"
            "<tt:WSPausableSubscriptionManagerInterfaceSupport>false"
            "</tt:WSPausableSubscriptionManagerInterfaceSupport></tt:Events>"
            f"<tt:Media><tt:XAddr>{self._at('media_service')}</tt:XAddr><tt:StreamingCapabilities>"
            "<tt:RTPMulticast>false</tt:RTPMulticast><tt:RTP_TCP>true</tt:RTP_TCP>"
            "<tt:RTP_RTSP_TCP>true</tt:RTP_RTSP_TCP></tt:StreamingCapabilities></tt:Media>"
            "</tds:Capabilities></tds:GetCapabilitiesResponse>"
        )

    def _services(self, question: Asked) -> str:
        spaces = {"device": "device", "media": "media", "event": "events"}
        told = "".join(
            f"<tds:Service><tds:Namespace>http://www.onvif.org/ver10/{space}/wsdl</tds:Namespace>"
            f"<tds:XAddr>{self._at(name + '_service')}</tds:XAddr>"
            "<tds:Version><tt:Major>24</tt:Major><tt:Minor>12</tt:Minor></tds:Version></tds:Service>"
            for name, space in spaces.items()
        )
        return f"<tds:GetServicesResponse>{told}</tds:GetServicesResponse>"

    def _device_information(self, question: Asked) -> str:
        return (
            "<tds:GetDeviceInformationResponse><tds:Manufacturer>SIM</tds:Manufacturer>"
            "<tds:Model>SIM-ROAD 2</tds:Model><tds:FirmwareVersion>5.7.1</tds:FirmwareVersion>"
            f"<tds:SerialNumber>{escape(self._camera.serial)}</tds:SerialNumber>"
            "<tds:HardwareId>1</tds:HardwareId></tds:GetDeviceInformationResponse>"
        )

    def _profiles(self) -> str:
        encoding = "JPEG" if self._camera.codec == "MJPEG" else "H264"
        return "".join(
            f'<trt:Profiles token="{token}" fixed="true"><tt:Name>{token}</tt:Name>'
            '<tt:VideoSourceConfiguration token="source-1"><tt:Name>source</tt:Name><tt:UseCount>2</tt:UseCount>'
            f'<tt:SourceToken>video-1</tt:SourceToken><tt:Bounds x="0" y="0" width="{width}" height="{height}"/>'
            f'</tt:VideoSourceConfiguration><tt:VideoEncoderConfiguration token="{token}-encoder">'
            f"<tt:Name>{token}</tt:Name><tt:UseCount>1</tt:UseCount><tt:Encoding>{encoding}</tt:Encoding>"
            f"<tt:Resolution><tt:Width>{width}</tt:Width><tt:Height>{height}</tt:Height></tt:Resolution>"
            f"<tt:Quality>4</tt:Quality><tt:RateControl><tt:FrameRateLimit>{FRAMES_A_SECOND}</tt:FrameRateLimit>"
            "<tt:EncodingInterval>1</tt:EncodingInterval><tt:BitrateLimit>512</tt:BitrateLimit></tt:RateControl>"
            "<tt:Multicast><tt:Address><tt:Type>IPv4</tt:Type><tt:IPv4Address>0.0.0.0</tt:IPv4Address></tt:Address>"
            "<tt:Port>0</tt:Port><tt:TTL>0</tt:TTL><tt:AutoStart>false</tt:AutoStart></tt:Multicast>"
            "<tt:SessionTimeout>PT60S</tt:SessionTimeout></tt:VideoEncoderConfiguration></trt:Profiles>"
            for token, width, height in (("main", WIDTH * 4, HEIGHT * 4), ("sub", WIDTH, HEIGHT))
        )

    def _video_sources(self, question: Asked) -> str:
        return (
            '<trt:GetVideoSourcesResponse><trt:VideoSources token="video-1">'
            f"<tt:Framerate>{FRAMES_A_SECOND}</tt:Framerate><tt:Resolution><tt:Width>{WIDTH}</tt:Width>"
            f"<tt:Height>{HEIGHT}</tt:Height></tt:Resolution></trt:VideoSources></trt:GetVideoSourcesResponse>"
        )

    def _profile(self, question: Asked) -> str:
        token = question.text("trt:ProfileToken")
        if token not in {"main", "sub"}:
            raise KeyError(token)
        return token

    def _stream_uri(self, question: Asked) -> str:
        self._profile(question)
        uri = f"rtsp://{self._camera.host}:{self._rtsp_port}{self._source.path}"
        return f"<trt:GetStreamUriResponse>{_media_uri(uri)}</trt:GetStreamUriResponse>"

    def _snapshot_uri(self, question: Asked) -> str:
        self._profile(question)
        uri = f"http://{self._camera.host}:{self.port}/snapshot.jpg"
        return f"<trt:GetSnapshotUriResponse>{_media_uri(uri)}</trt:GetSnapshotUriResponse>"

    def _subscribe(self, question: Asked) -> str:
        self._drop_expired()
        name = secrets.token_hex(8)
        one = self._subscriptions[name] = _Subscription()
        self._initialise(one)
        return (
            "<tev:CreatePullPointSubscriptionResponse><tev:SubscriptionReference>"
            f"<a:Address>{self._at(f'events/{name}')}</a:Address></tev:SubscriptionReference>"
            f"{self._times(one)}</tev:CreatePullPointSubscriptionResponse>"
        )

    def _drop_expired(self) -> None:
        now = time.monotonic()
        self._subscriptions = {name: one for name, one in self._subscriptions.items() if one.ends > now}

    async def _of_subscription(self, question: Asked, request: web.Request, subscription: _Subscription) -> str:
        match question.operation:
            case "Renew":
                subscription.ends = time.monotonic() + SUBSCRIPTION_SECONDS
                return f"<wsnt:RenewResponse>{self._times(subscription, 'wsnt')}</wsnt:RenewResponse>"
            case "Unsubscribe":
                self._subscriptions.pop(request.match_info["subscription"], None)
                return "<wsnt:UnsubscribeResponse/>"
            case "SetSynchronizationPoint":
                self._initialise(subscription)
                return "<tev:SetSynchronizationPointResponse/>"
            case _:
                found = await self._pulled(question, subscription)
                return (
                    f"<tev:PullMessagesResponse>{self._times(subscription)}{''.join(found)}</tev:PullMessagesResponse>"
                )

    async def _pulled(self, question: Asked, subscription: _Subscription) -> list[str]:
        told = re.fullmatch(r"PT(\d+(?:\.\d+)?)S", question.text("tev:Timeout", "PT1S"))
        limit = question.text("tev:MessageLimit", "10")
        seconds, most = min(60.0, float(told[1]) if told else 1.0), int(limit) if limit.isdecimal() else 1
        try:
            async with asyncio.timeout(seconds):
                found = [await subscription.messages.get()]
        except TimeoutError:
            return []
        finally:
            # Who pulls needs not renew (Core 24.12, 9.1.1).
            subscription.ends = max(subscription.ends, time.monotonic() + seconds)
        while len(found) < most and not subscription.messages.empty():
            found.append(subscription.messages.get_nowait())
        return found

    def _initialise(self, subscription: _Subscription) -> None:
        """Tell how all properties stand, as a new subscriber wants to know (Core 24.12, 9.4)."""
        started = self.shown(self._camera.clock() - (time.monotonic() - self._camera.started))
        subscription.messages.put_nowait(self._notice(REBOOT, "Initialized", data=_item("Status", started)))
        for what in TOPICS:
            subscription.messages.put_nowait(self._message(what, "Initialized"))

    def _message(self, what: str, operation: str) -> str:
        state = _item("State", "true" if self._states[what] else "false")
        return self._notice(TOPICS[what], operation, source=_item("Source", "video-1"), data=state)

    def _notice(self, topic: str, operation: str, *, data: str, source: str = "") -> str:
        dialect = "http://www.onvif.org/ver10/tev/topicExpression/ConcreteSet"
        return (
            f'<wsnt:NotificationMessage><wsnt:Topic Dialect="{dialect}">{topic}</wsnt:Topic><wsnt:Message>'
            f'<tt:Message UtcTime="{self.shown(self._camera.clock())}" PropertyOperation="{operation}">'
            f"<tt:Source>{source}</tt:Source><tt:Data>{data}</tt:Data></tt:Message></wsnt:Message>"
            "</wsnt:NotificationMessage>"
        )

    def _times(self, subscription: _Subscription, space: str = "tev") -> str:
        now = self._camera.clock()
        told = {"CurrentTime": now, "TerminationTime": now + subscription.ends - time.monotonic()}
        names = reversed(told) if space == "wsnt" else told  # each schema has its own order
        return "".join(f"<{space}:{name}>{self.shown(told[name])}</{space}:{name}>" for name in names)

    @staticmethod
    def shown(at: float) -> str:
        """Return an instant as XML Schema writes it."""
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _media_uri(uri: str) -> str:
    return (
        f"<trt:MediaUri><tt:Uri>{escape(uri)}</tt:Uri><tt:InvalidAfterConnect>false</tt:InvalidAfterConnect>"
        "<tt:InvalidAfterReboot>false</tt:InvalidAfterReboot><tt:Timeout>PT60S</tt:Timeout></trt:MediaUri>"
    )


def _item(name: str, value: str) -> str:
    return f'<tt:SimpleItem Name="{name}" Value="{value}"/>'


def _response(status: int, body: bytes) -> web.Response:
    return web.Response(status=status, body=body, content_type="application/soap+xml", charset="utf-8")
