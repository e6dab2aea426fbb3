"""The ONVIF process against cameras that lie about where they are, keep odd customs, or are not there."""

import asyncio
import re
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from contract.catalog import Cause
from edge.poller import DeviceUnavailable
from edge.workers import Worker
from simulators.camera.camera import serving
from simulators.camera.device import Camera
from simulators.faults import Faults

Answers = Callable[[str], str | None]
"""Given what was asked, what is answered instead of the camera's own; None for the camera's own."""

NOT_AUTHORISED = (
    '<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope" xmlns:ter="http://www.onvif.org/ver10/error">'
    "<s:Body><s:Fault><s:Code><s:Value>s:Sender</s:Value><s:Subcode><s:Value>ter:NotAuthorized</s:Value></s:Subcode>"
    '</s:Code><s:Reason><s:Text xml:lang="en">no</s:Text></s:Reason></s:Fault></s:Body></s:Envelope>'
)


@pytest.fixture
async def desk() -> AsyncIterator[Worker]:
    async with Worker("edge.camera.onvif_worker", exclusive=False) as one:
        yield one


def camera() -> Camera:
    return Camera(id="cam-01", user="box", password="demo", faults=Faults([], time.monotonic))


async def check(desk: Worker, url: str, timeout: float = 6.0) -> dict[str, Any]:
    question = {"camera": "c", "url": url, "username": "box", "password": "demo", "timeout": timeout, "events": True}
    return await desk.ask(question, timeout + 2)


@asynccontextmanager
async def between(
    url: str, *, instead: Answers = lambda asked: None, swap: dict[str, str] | None = None, tls: Any = None
) -> AsyncIterator[str]:
    """Stand in front of a camera, pass on what is asked, and spoil the answers; yield the address."""
    async with aiohttp.ClientSession() as camera:

        async def passed_on(request: web.Request) -> web.Response:
            asked = await request.read()
            told = instead(asked.decode())
            if told is not None:
                return web.Response(status=400, text=told, content_type="application/soap+xml")
            async with camera.post(url + request.path_qs, data=asked, headers={"Content-Type": "text/xml"}) as answer:
                text = await answer.text()
                for old, new in (swap or {}).items():
                    text = text.replace(old, new)
                return web.Response(status=answer.status, text=text, content_type="application/soap+xml")

        application = web.Application()
        application.add_routes([web.post("/{path:.*}", passed_on)])
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        try:
            yield f"{'http' if tls is None else 'https'}://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()


@asynccontextmanager
async def canary() -> AsyncIterator[tuple[int, list[str]]]:
    """Listen where nobody has a reason to come; yield the port, and who came."""
    came: list[str] = []

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.append((await reader.read(200)).decode(errors="replace"))
        writer.close()

    server = await asyncio.start_server(client, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], came
    finally:
        server.close()


@pytest.fixture
def own_certificate(tmp_path: Path) -> ssl.SSLContext:
    """Return a server's side of TLS with a certificate that nobody but itself has signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "IPCAM")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("192.168.1.108"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path / "camera.pem"
    plain = serialization.NoEncryption()
    secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    file.write_bytes(secret + signed.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


async def test_the_addresses_a_camera_gives_lead_to_itself_and_hold_no_login(desk: Worker) -> None:
    async with canary() as (elsewhere, came), serving(camera()) as found:
        here = found.url.removeprefix("http://")
        stream = found.stream_url.removeprefix("rtsp://").split("/")[0]
        swap = {
            f"http://{here}": f"http://admin:secret@127.0.0.1:{elsewhere}",
            f"rtsp://{stream}": f"rtsp://admin:secret@192.0.2.1:{stream.rpartition(':')[2]}",
        }
        async with between(found.url, swap=swap) as url:
            async with asyncio.timeout(10):
                while not (told := await check(desk, url))["events"]:
                    pass
            assert told["stream"] == found.stream_url
            assert told["snapshot"] == f"http://127.0.0.1:{elsewhere}/snapshot.jpg"
            assert came == []


async def test_a_camera_behind_tls_may_have_signed_its_certificate_itself(
    desk: Worker, own_certificate: ssl.SSLContext
) -> None:
    async with serving(camera()) as found, between(found.url, tls=own_certificate) as url:
        async with asyncio.timeout(10):
            while not (told := await check(desk, url))["events"]:
                pass
        assert told["model"] == "SIM SIM-ROAD 2"


async def test_a_camera_that_tells_its_time_only_to_who_logs_in_is_still_read(desk: Worker) -> None:
    def instead(asked: str) -> str | None:
        return NOT_AUTHORISED if "GetSystemDateAndTime" in asked and "Security" not in asked else None

    async with serving(camera()) as found, between(found.url, instead=instead) as url:
        assert abs((await check(desk, url))["skew"]) < 5


@pytest.mark.parametrize(
    "declaration",
    [
        '<!DOCTYPE x SYSTEM "http://127.0.0.1:CANARY/x.dtd">',
        '<!DOCTYPE x [<!ENTITY a SYSTEM "http://127.0.0.1:CANARY/x">]>',
        '<!DOCTYPE x [<!ENTITY % a SYSTEM "http://127.0.0.1:CANARY/x"> %a;]>',
    ],
)
async def test_no_answer_makes_the_box_fetch_anything(desk: Worker, declaration: str) -> None:
    async with canary() as (elsewhere, came):
        body = NOT_AUTHORISED.replace(">no<", ">&a;<") if "ENTITY a" in declaration else NOT_AUTHORISED
        told = f'<?xml version="1.0"?>{declaration.replace("CANARY", str(elsewhere))}{body}'
        async with between("http://127.0.0.1:1", instead=lambda asked: told) as url:
            with pytest.raises(DeviceUnavailable) as caught:
                await check(desk, url)
        assert caught.value.cause is Cause.NONSENSE
        assert came == []


async def test_where_no_camera_is_and_where_one_is_silent_are_told_apart(desk: Worker) -> None:
    with ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        with pytest.raises(DeviceUnavailable) as caught:
            await check(desk, f"http://127.0.0.1:{full.getsockname()[1]}", timeout=2.0)
    assert caught.value.cause is Cause.UNREACHABLE


async def test_what_a_camera_says_in_a_fault_stays_on_one_line(desk: Worker) -> None:
    told = NOT_AUTHORISED.replace("ter:NotAuthorized", "ter:OutOfMemory").replace(">no<", ">no\n2026 ERROR forged<")
    async with between("http://127.0.0.1:1", instead=lambda asked: told) as url:
        with pytest.raises(DeviceUnavailable, match="no 2026 ERROR forged") as caught:
            await check(desk, url)
    assert caught.value.cause is Cause.REFUSED
    assert "\n" not in str(caught.value)


async def test_a_crowd_that_comes_at_once_costs_hardly_more_memory_than_one_camera(desk: Worker) -> None:
    def kibibytes() -> int:
        status = Path(f"/proc/{desk.pid}/status").read_text(encoding="utf-8")
        return int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0])

    question = {"username": "box", "password": "demo", "timeout": 10.0, "events": True}
    async with serving(camera()) as found:
        asked = (desk.ask({**question, "camera": f"cam-{number}", "url": found.url}, 12) for number in range(16))
        assert len(await asyncio.gather(*asked)) == 16
        crowd = kibibytes()
    await desk.end()
    async with serving(camera()) as found:
        await check(desk, found.url)
        assert crowd < 1.3 * kibibytes()


async def test_sixteen_cameras_are_asked_at_once_and_the_dead_delay_none(desk: Worker) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    dead = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with serving(camera()) as found:

        async def one(number: int, url: str) -> str:
            question = {"camera": f"cam-{number}", "url": url, "username": "box", "password": "demo"}
            try:
                told = await desk.ask({**question, "timeout": 4.0, "events": True}, 6)
            except DeviceUnavailable as exc:
                return exc.cause.value
            return str(told["model"])

        await one(0, found.url)
        asked = [asyncio.create_task(one(number, dead)) for number in range(1, 9)]
        begun = time.monotonic()
        alive = await asyncio.gather(*(one(number, found.url) for number in range(9, 17)))
        assert time.monotonic() - begun < 3
        assert alive == ["SIM SIM-ROAD 2"] * 8
        assert await asyncio.gather(*asked) == ["silent"] * 8
    server.close()
