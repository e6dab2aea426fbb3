"""Runs a camera: opens its ports, and closes them as its power and its faults have it."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

from simulators.camera import rtsp
from simulators.camera.device import Camera
from simulators.camera.onvif import Onvif
from simulators.camera.picture import LOOP_SECONDS, jpeg
from simulators.digest import Digest
from simulators.faults import Fault

PATH = "/live/main"
OFF = frozenset({Fault.REFUSE, Fault.MAINS_LOST})


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Where a running camera is, and how to make things happen in front of it: `happen("motion", True)`."""

    url: str
    stream_url: str
    snapshot_url: str
    happen: Callable[[str, bool], None]


@asynccontextmanager
async def serving(camera: Camera, *, port: int = 0, rtsp_port: int = 0) -> AsyncIterator[Found]:
    """Run a camera and yield where it is."""
    source = rtsp.Source(
        path=PATH,
        codec=camera.codec,
        faults=camera.faults,
        digest=Digest("camera", camera.user, camera.password),
        phase=int(hashlib.blake2b(camera.id.encode(), digest_size=2).hexdigest(), 16) % LOOP_SECONDS,
    )
    stream = await rtsp.serve(source, camera.host, rtsp_port)
    rtsp_at = int(stream.sockets[0].getsockname()[1])
    onvif = Onvif(camera, source, rtsp_at)
    runner = web.AppRunner(onvif.application(_snapshot(camera, source)), access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, camera.host, port)
    await site.start()
    http_at = int(runner.addresses[0][1])
    onvif.port = http_at
    ports = _Ports(camera=camera, source=source, onvif=onvif, runner=runner, site=site, http=http_at, rtsp=rtsp_at)
    ports.stream = stream
    watching = asyncio.create_task(ports.watch(), name=f"{camera.id}: power")
    try:
        yield Found(
            url=f"http://{camera.host}:{http_at}",
            stream_url=f"rtsp://{camera.host}:{rtsp_at}{PATH}",
            snapshot_url=f"http://{camera.host}:{http_at}/snapshot.jpg",
            happen=onvif.happen,
        )
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await ports.close()
        await runner.cleanup()


def _snapshot(camera: Camera, source: rtsp.Source) -> Callable[[web.Request], web.Response]:
    def answer(request: web.Request) -> web.Response:
        fault = camera.faults.now()
        authorization = request.headers.get("Authorization", "")
        if fault is Fault.UNAUTHORISED or not source.digest.knows(request.method, authorization, request.path_qs):
            return web.Response(status=401, headers={"WWW-Authenticate": source.digest.challenge()})
        if fault is Fault.NO_STREAM:
            return web.Response(status=404)
        image = jpeg("black" if fault is Fault.BLACK else "road", source.number(camera.now()))
        return web.Response(body=image, content_type="image/jpeg")

    return answer


@dataclass(slots=True, kw_only=True)
class _Ports:
    """Opens and closes the camera's ports as its power and its faults have it."""

    camera: Camera
    source: rtsp.Source
    onvif: Onvif
    runner: web.AppRunner
    site: web.TCPSite | None
    http: int
    rtsp: int
    stream: asyncio.Server | None = None

    async def watch(self) -> None:
        before: Fault | None = None
        while True:
            fault = self.camera.faults.now()
            if fault in OFF and self.site is not None:
                await self.close()
            elif fault not in OFF and self.site is None:
                self.site = web.TCPSite(self.runner, self.camera.host, self.http)
                await self.site.start()
                self.stream = await rtsp.serve(self.source, self.camera.host, self.rtsp)
            if fault is not before and (fault is Fault.REBOOT or before is Fault.MAINS_LOST):
                self.camera.started = time.monotonic()
                self.onvif.forget()
                self._cut_off()
            before = fault
            await asyncio.sleep(0.05)

    async def close(self) -> None:
        if self.site is not None:
            await self.site.stop()
            self.site = None
        if self.stream is not None:
            self.stream.close()
            self.stream = None
        self._cut_off()

    def _cut_off(self) -> None:
        """Drop every connection, as a power cut does."""
        rtsp.hang_up(self.source)
        for one in list(self.runner.server.connections) if self.runner.server is not None else []:
            if one.transport is not None:
                one.transport.abort()
