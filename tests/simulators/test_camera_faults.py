"""How a simulated camera fails, as seen on its wires, and how it keeps strangers and old messages out."""

import asyncio
import base64
import hashlib
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import av
import pytest

from simulators.camera.camera import Found, serving
from simulators.camera.device import Camera
from simulators.camera.onvif import TOPICS
from simulators.faults import Fault, Faults

SHORT = 0.3
KEY, DELTA = 5, 1
"""Types of H.264 NAL units (ITU-T H.264, table 7-1)."""


def camera() -> Camera:
    return Camera(id="cam-01", user="box", password="demo", faults=Faults([], time.monotonic))


def token(*, password: str = "demo", nonce: bytes, at: datetime) -> str:
    created = at.strftime("%Y-%m-%dT%H:%M:%SZ")
    digest = hashlib.sha1(nonce + created.encode() + password.encode(), usedforsecurity=False).digest()
    wss = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity"
    return (
        f'<o:Security xmlns:o="{wss}-secext-1.0.xsd"><o:UsernameToken><o:Username>box</o:Username>'
        f"<o:Password>{base64.b64encode(digest).decode()}</o:Password>"
        f"<o:Nonce>{base64.b64encode(nonce).decode()}</o:Nonce>"
        f'<u:Created xmlns:u="{wss}-utility-1.0.xsd">{created}</u:Created></o:UsernameToken></o:Security>'
    )


@dataclass
class Client:
    """Asks a camera in plain SOAP, as the standard has it and no library."""

    found: Found
    http: aiohttp.ClientSession
    number: int = 0

    async def ask(self, body: str, *, header: str | None = None, url: str | None = None) -> tuple[int, str]:
        self.number += 1
        nonce = self.number.to_bytes(16, "big")
        header = token(nonce=nonce, at=datetime.now(UTC)) if header is None else header
        envelope = "http://www.w3.org/2003/05/soap-envelope"
        told = f'<e:Envelope xmlns:e="{envelope}"><e:Header>{header}</e:Header><e:Body>{body}</e:Body></e:Envelope>'
        address = url or f"{self.found.url}/onvif/device_service"
        async with self.http.post(address, data=told.encode()) as answer:
            return answer.status, await answer.text()

    async def information(self, **more: str) -> tuple[int, str]:
        return await self.ask('<GetDeviceInformation xmlns="http://www.onvif.org/ver10/device/wsdl"/>', **more)

    async def clock(self) -> datetime:
        _, told = await self.ask('<GetSystemDateAndTime xmlns="http://www.onvif.org/ver10/device/wsdl"/>', header="")
        parts = (re.search(rf"<tt:{one}>(\d+)<", told) for one in ("Year", "Month", "Day", "Hour", "Minute", "Second"))
        year, month, day, hour, minute, second = (int(one[1]) for one in parts if one)
        return datetime(year, month, day, hour, minute, second, tzinfo=UTC)

    async def subscribe(self) -> str:
        _, told = await self.ask('<CreatePullPointSubscription xmlns="http://www.onvif.org/ver10/events/wsdl"/>')
        address = re.search(r"<a:Address>([^<]+)<", told)
        assert address is not None
        return address[1]

    async def pull(self, address: str, seconds: float = 10) -> tuple[int, str]:
        asked = f"<Timeout>PT{seconds}S</Timeout><MessageLimit>20</MessageLimit>"
        return await self.ask(
            f'<PullMessages xmlns="http://www.onvif.org/ver10/events/wsdl">{asked}</PullMessages>', url=address
        )


@asynccontextmanager
async def asking(one: Camera) -> AsyncIterator[Client]:
    async with serving(one) as found, aiohttp.ClientSession() as http:
        yield Client(found=found, http=http)


def login(found: Found) -> str:
    return found.stream_url.replace("://", "://box:demo@")


def units(address: str, most: int, seen: list[int] | None = None) -> list[int]:
    """Return the types of the NAL units of some frames; `seen` is filled as they come."""
    seen = [] if seen is None else seen
    options = {"rtsp_transport": "tcp", "analyzeduration": "0", "fpsprobesize": "0"}
    with av.open(address, options=options, timeout=(8, 4)) as stream:
        for number, packet in enumerate(stream.demux(video=0)):
            seen += [unit[0] & 31 for unit in re.split(b"\x00\x00\x00?\x01", bytes(packet)) if unit]
            if number == most:
                break
    return seen


async def rtsp(found: Found, request: str) -> bytes:
    host, port = found.stream_url.removeprefix("rtsp://").split("/")[0].split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(request.replace("URL", found.stream_url).encode())
        async with asyncio.timeout(5):
            return await reader.readuntil(b"\r\n\r\n")
    finally:
        writer.close()


async def test_a_message_is_taken_once_and_only_while_it_is_fresh() -> None:
    now, old = datetime.now(UTC), datetime.now(UTC) - timedelta(minutes=1)
    async with asking(camera()) as client:
        good = token(nonce=b"a", at=now)
        assert (await client.information(header=good))[0] == 200
        for header in (
            good,
            token(nonce=b"b", at=old),
            token(nonce=b"c", at=now, password="wrong"),
            "",
        ):
            status, told = await client.information(header=header)
            assert (status, "ter:NotAuthorized" in told) == (400, True)


async def test_a_camera_judges_freshness_by_its_own_clock() -> None:
    one = camera()
    async with asking(one) as client:
        one.faults.forced = Fault.CLOCK_JUMP
        theirs = await client.clock()
        assert timedelta(minutes=59) < theirs - datetime.now(UTC) < timedelta(minutes=61)
        assert (await client.information())[0] == 400
        assert (await client.information(header=token(nonce=b"x", at=theirs)))[0] == 200


async def test_what_is_no_question_and_what_nobody_knows_gets_a_fault() -> None:
    async with asking(camera()) as client:
        async with client.http.post(f"{client.found.url}/onvif/device_service", data=b"<no") as answer:
            assert (answer.status, "ter:WellFormed" in await answer.text()) == (400, True)
        status, told = await client.ask('<Explode xmlns="http://www.onvif.org/ver10/device/wsdl"/>')
        assert (status, "ter:ActionNotSupported" in told) == (500, True)
        profile = (
            '<GetStreamUri xmlns="http://www.onvif.org/ver10/media/wsdl"><ProfileToken>x</ProfileToken></GetStreamUri>'
        )
        status, told = await client.ask(profile)
        assert (status, "ter:InvalidArgVal" in told) == (400, True)


@pytest.mark.parametrize("what", TOPICS)
async def test_who_waits_is_told_when_something_happens(what: str) -> None:
    async with asking(camera()) as client:
        address = await client.subscribe()
        _, first = await client.pull(address)
        assert first.count('PropertyOperation="Initialized"') == len(TOPICS) + 1
        assert (await client.pull(address, 0.1))[1].count("NotificationMessage") == 0
        waiting = asyncio.create_task(client.pull(address))
        client.found.happen(what, True)
        _, told = await waiting
    assert TOPICS[what] in told
    assert told.count('PropertyOperation="Changed"') == 1
    assert '<tt:SimpleItem Name="State" Value="true"/>' in told


async def test_a_subscription_ends_when_asked_and_when_the_camera_starts_anew() -> None:
    one = camera()
    one.started -= 3600
    space = 'xmlns="http://docs.oasis-open.org/wsn/b-2"'
    async with asking(one) as client:
        first, second = await client.subscribe(), await client.subscribe()
        _, before = await client.pull(second)
        assert (await client.ask(f"<Renew {space}/>", url=first))[0] == 200
        assert (await client.ask(f"<Unsubscribe {space}/>", url=first))[0] == 200
        assert (await client.pull(first))[0] == 400
        one.faults.forced = Fault.REBOOT
        with pytest.raises(aiohttp.ClientError):
            await client.pull(second)
        assert (await client.pull(second))[0] == 400
        _, after = await client.pull(await client.subscribe())
    started = [re.findall(r'Name="Status" Value="([^"]+)"', told)[0] for told in (before, after)]
    assert datetime.fromisoformat(started[1]) - datetime.fromisoformat(started[0]) > timedelta(minutes=59)


async def test_a_camera_that_got_its_mains_back_has_started_anew(eventually: Any) -> None:
    one = camera()
    one.started -= 3600
    began = one.started
    async with asking(one) as client:
        one.faults.forced = Fault.MAINS_LOST
        with pytest.raises(aiohttp.ClientError):
            async with asyncio.timeout(5):
                while True:
                    await client.clock()
        assert one.started == began
        one.faults.forced = None
        await eventually(lambda: one.started > began + 3600)
        assert (await client.information())[0] == 200


@pytest.mark.parametrize("fault", [Fault.SILENT, Fault.SLOW])
async def test_a_camera_may_keep_one_waiting_on_every_wire(fault: Fault) -> None:
    one = camera()
    one.faults.forced = fault
    async with asking(one) as client:
        began = time.monotonic()
        asked = [
            asyncio.create_task(client.information()),
            asyncio.create_task(rtsp(client.found, "OPTIONS URL RTSP/1.0\r\nCSeq: 1\r\n\r\n")),
        ]
        done, waiting = await asyncio.wait(asked, timeout=SHORT)
        assert not done
        if fault is Fault.SLOW:
            await asyncio.gather(*asked)
            assert 1.9 < time.monotonic() - began < 4
        for task in waiting:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)


async def test_a_camera_may_know_nobody_any_more() -> None:
    one = camera()
    one.faults.forced = Fault.UNAUTHORISED
    async with asking(one) as client:
        assert "ter:NotAuthorized" in (await client.information())[1]
        digest = aiohttp.DigestAuthMiddleware("box", "demo")
        async with client.http.get(client.found.snapshot_url, middlewares=[digest]) as answer:
            assert answer.status == 401
        with pytest.raises(av.error.HTTPUnauthorizedError):
            await asyncio.to_thread(units, login(client.found), 1)


async def test_something_else_may_stand_at_a_cameras_address() -> None:
    one = camera()
    one.faults.forced = Fault.NONSENSE
    async with asking(one) as client:
        assert (await client.information())[1].startswith("<html>")
        assert (await rtsp(client.found, "DESCRIBE URL RTSP/1.0\r\nCSeq: 1\r\n\r\n")).startswith(b"HTTP/1.1")


async def test_a_stream_may_end_while_management_lives(eventually: Any) -> None:
    one = camera()
    async with asking(one) as client:
        seen: list[int] = []
        watching = asyncio.create_task(asyncio.to_thread(units, login(client.found), 1000, seen))
        await eventually(lambda: seen)
        one.faults.forced = Fault.NO_STREAM
        await eventually(watching.done, within=3)
        await asyncio.gather(watching, return_exceptions=True)
        with pytest.raises(av.error.HTTPNotFoundError):
            await asyncio.to_thread(units, login(client.found), 1)
        assert (await client.information())[0] == 200


@pytest.mark.parametrize(("fault", "keys"), [(None, True), (Fault.NO_KEY_FRAMES, False)])
async def test_a_stream_may_lack_what_a_decoder_starts_from(fault: Fault | None, keys: bool) -> None:
    one = camera()
    one.faults.forced = fault
    async with serving(one) as found:
        seen = await asyncio.to_thread(units, login(found), 12)
    assert seen.count(DELTA) >= 8
    assert (KEY in seen) is keys


async def test_nothing_is_played_that_was_not_set_up() -> None:
    async with serving(camera()) as found:
        challenge = (await rtsp(found, "DESCRIBE URL RTSP/1.0\r\nCSeq: 1\r\n\r\n")).decode()
        realm, nonce = (re.findall(rf'{name}="([^"]+)"', challenge)[0] for name in ("realm", "nonce"))
        parts = (f"box:{realm}:demo", f"PLAY:{found.stream_url}")
        one, two = (hashlib.md5(part.encode(), usedforsecurity=False).hexdigest() for part in parts)
        response = hashlib.md5(f"{one}:{nonce}:{two}".encode(), usedforsecurity=False).hexdigest()
        digest = f'Digest username="box",realm="{realm}",nonce="{nonce}",uri="{found.stream_url}",response="{response}"'
        told = await rtsp(found, f"PLAY URL RTSP/1.0\r\nCSeq: 2\r\nAuthorization: {digest}\r\n\r\n")
    assert told.startswith(b"RTSP/1.0 455")
