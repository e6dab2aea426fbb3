"""The process that fetches pictures, against the ways in which cameras let one in, and the way to it."""

import asyncio
import contextlib
import re
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager

import cv2
import numpy as np
import pytest
from aiohttp import web

from contract.catalog import STATE, Cause
from contract.clock import SystemClock
from edge.drivers.onvif_camera import Address, OnvifCamera
from edge.poller import DeviceMisconfigured, DeviceUnavailable
from edge.workers import Pool
from simulators.camera.camera import serving
from simulators.camera.device import Camera
from simulators.digest import Digest
from simulators.faults import Fault, Faults

SECRET = "s3cret"


@pytest.fixture
async def frames() -> AsyncIterator[Pool]:
    pool = Pool("edge.camera.frame_worker", 2)
    yield pool
    await pool.end()


class NoDesk:
    """No camera here has management."""

    async def ask(self, question: object, deadline: float) -> dict[str, object]:
        raise AssertionError


def driver(frames: Pool, address: Address, timeout: float = 4.0) -> OnvifCamera:
    return OnvifCamera(
        "cam-01",
        address,
        username="box",
        password=SECRET,
        serial=None,
        events=False,
        timeout=timeout,
        desk=NoDesk(),
        frames=frames,
        clock=SystemClock(),
    )


def camera() -> Camera:
    return Camera(id="cam-01", user="box", password=SECRET, faults=Faults([], time.monotonic))


async def width(one: OnvifCamera) -> object:
    return next(sample.value for sample in await one.read() if sample.metric == "Picture/Width")


@asynccontextmanager
async def snapshots(challenges: list[str], algorithm: str) -> AsyncIterator[tuple[str, list[str]]]:
    """Serve a snapshot to who answers one of the challenges right; yield its address and the logins that came."""
    digest, seen = Digest("camera", "box", SECRET), list[str]()
    image = cv2.imencode(".jpg", np.full((90, 160), 120, dtype=np.uint8))[1].tobytes()

    async def show(request: web.Request) -> web.Response:
        login = request.headers.get("Authorization", "")
        seen.extend([login] if login else [])
        if digest.knows("GET", login, request.path_qs):
            return web.Response(body=image, content_type="image/jpeg")
        answer = web.Response(status=401)
        own = digest.challenge().replace("algorithm=MD5", f"algorithm={algorithm}")
        for one in challenges:
            answer.headers.add("WWW-Authenticate", one.replace("OWN", own))
        return answer

    application = web.Application()
    application.add_routes([web.get("/x.jpg", show)])
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/x.jpg", seen
    finally:
        await runner.cleanup()


@contextmanager
def nobody() -> Iterator[int]:
    """Hold a port at which no connection is ever made, as where no host is: its queue is full."""
    with ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        yield full.getsockname()[1]


@pytest.mark.parametrize("algorithm", ["MD5", "SHA-256"])
@pytest.mark.parametrize("challenges", [["OWN"], ['Basic realm="camera"', "OWN"], ["OWN", 'Basic realm="camera"']])
async def test_of_several_ways_to_log_in_the_one_that_hides_the_password_is_taken(
    frames: Pool, challenges: list[str], algorithm: str
) -> None:
    async with snapshots(challenges, algorithm) as (url, seen):
        assert await width(driver(frames, Address(snapshot=url))) == 160
    assert {login.split()[0] for login in seen} == {"Digest"}


async def test_a_password_is_never_sent_in_the_clear(frames: Pool) -> None:
    async with snapshots(['Basic realm="camera"'], "MD5") as (url, seen):
        with pytest.raises(DeviceUnavailable) as caught:
            await driver(frames, Address(snapshot=url)).read()
    assert caught.value.cause is Cause.UNAUTHORISED
    assert seen == []


@pytest.mark.parametrize("field", ["url", "stream", "snapshot"])
def test_an_address_with_a_login_in_it_is_refused_and_not_repeated(frames: Pool, field: str) -> None:
    scheme = "rtsp" if field == "stream" else "http"
    with pytest.raises(DeviceMisconfigured, match="password_file") as caught:
        driver(frames, Address(**{field: f"{scheme}://box:{SECRET}@192.0.2.1/"}))
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("fault", [None, Fault.NO_STREAM, Fault.UNAUTHORISED, Fault.REFUSE, Fault.NONSENSE])
async def test_no_failure_tells_a_password_that_stands_in_the_path(frames: Pool, fault: Fault | None) -> None:
    one = camera()
    async with serving(one) as found:
        one.faults.forced = fault
        for address in (
            Address(stream=f"{found.stream_url}/user=box_password={SECRET}"),
            Address(snapshot=f"{found.snapshot_url}/user=box_password={SECRET}"),
        ):
            with pytest.raises(DeviceUnavailable) as caught:
                await driver(frames, address).read()
            assert SECRET not in str(caught.value)
            assert "127.0.0.1" in str(caught.value)


@pytest.mark.parametrize("scheme", ["rtsp", "rtsps", "http", "https"])
async def test_where_nobody_is_and_where_nobody_answers_are_told_apart(frames: Pool, scheme: str) -> None:
    def at(port: int) -> Address:
        url = f"{scheme}://127.0.0.1:{port}/x"
        return Address(stream=url) if scheme.startswith("rtsp") else Address(snapshot=url)

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    with nobody() as port, pytest.raises(DeviceUnavailable) as absent:
        await driver(frames, at(port), timeout=2.0).read()
    with pytest.raises(DeviceUnavailable) as mute:
        await driver(frames, at(server.sockets[0].getsockname()[1]), timeout=2.0).read()
    server.close()
    assert (absent.value.cause, mute.value.cause) == (Cause.UNREACHABLE, Cause.SILENT)


async def test_a_crowd_of_dead_cameras_keeps_no_worker_from_a_living_one(frames: Pool) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    dead = Address(stream=f"rtsp://127.0.0.1:{server.sockets[0].getsockname()[1]}/x")
    async with serving(camera()) as found:
        living = driver(frames, Address(stream=found.stream_url), timeout=5.0)
        await living.read()
        crowd = [asyncio.create_task(driver(frames, dead, timeout=5.0).read()) for _ in range(16)]
        await asyncio.sleep(0)
        begun = time.monotonic()
        assert next(one.value for one in await living.read() if one.metric == STATE) == "ok"
        # One worker in turn for each of them would take 16 s.
        assert time.monotonic() - begun < 4
        causes = [one.cause for one in await asyncio.gather(*crowd, return_exceptions=True)]  # type: ignore[union-attr]  # all fail
    server.close()
    assert causes == [Cause.SILENT] * 16


async def test_a_stream_that_sends_the_box_elsewhere_once_it_has_logged_in_leads_nowhere(frames: Pool) -> None:
    came: list[bytes] = []

    async def elsewhere(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.append(await reader.read(400))
        writer.close()

    canary = await asyncio.start_server(elsewhere, "127.0.0.1", 0)
    location = f"rtsp://127.0.0.1:{canary.sockets[0].getsockname()[1]}/elsewhere"

    async def lying(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                number = re.findall(r"(?i)cseq: *(\d+)", head)[0]
                if head.startswith("OPTIONS"):
                    told = "200 OK\r\nPublic: DESCRIBE, SETUP, PLAY"
                elif "Authorization" in head:
                    told = f"302 Moved\r\nLocation: {location}"
                else:
                    told = '401 Unauthorized\r\nWWW-Authenticate: Digest realm="camera", nonce="n"'
                writer.write(f"RTSP/1.0 {told}\r\nCSeq: {number}\r\n\r\n".encode())
        writer.close()

    server = await asyncio.start_server(lying, "127.0.0.1", 0)
    liar = Address(stream=f"rtsp://127.0.0.1:{server.sockets[0].getsockname()[1]}/x")
    async with serving(camera()) as found:
        good = driver(frames, Address(stream=found.stream_url))
        await good.read()
        with pytest.raises(DeviceUnavailable, match="another address") as caught:
            await driver(frames, liar).read()
        assert caught.value.cause is Cause.REFUSED
        assert came == []
        # The worker that saw it is the one that is asked next.
        assert await width(good) == 320
    server.close()
    canary.close()
