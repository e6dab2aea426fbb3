"""An RTSP server for one camera (RFC 2326): Digest login, RTP over TCP or UDP, one stream."""

import asyncio
import base64
import logging
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from simulators.camera.picture import FRAMES_A_SECOND, LOOP_SECONDS, Codec, Frame, Loop, loop
from simulators.camera.rtp_video import CLOCK, packet, payloads
from simulators.digest import Digest
from simulators.faults import Fault, Faults

log = logging.getLogger(__name__)

MOST_REQUEST = 8192
SLOW_SECONDS = 2.0
IDLE_SECONDS = 90.0
METHODS = "OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN, GET_PARAMETER"
H264, JPEG = 96, 26
"""RTP payload types: dynamic, and the static one of RFC 3551."""


@dataclass(slots=True, kw_only=True)
class Source:
    """What the server shows: one path, the codec, and where in the loop this camera is."""

    path: str
    codec: Codec
    faults: Faults
    digest: Digest
    phase: float = 0.0
    viewers: int = 0
    writers: set[asyncio.StreamWriter] = field(default_factory=set)

    def shown(self) -> Loop:
        """Return the loop that is shown now."""
        return loop(self.codec, "black" if self.faults.now() is Fault.BLACK else "road")

    def frame(self, at: float) -> Frame:
        """Return the frame of an instant (seconds)."""
        frames = self.shown().frames
        if self.faults.now() is Fault.FROZEN:
            # A camera whose sensor hangs encodes the same picture for ever; each is as good as a key frame.
            return frames[0]
        return frames[int((at + self.phase) * FRAMES_A_SECOND) % (LOOP_SECONDS * FRAMES_A_SECOND)]


@dataclass(slots=True)
class _Session:
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    channel: int | None = None
    udp: "asyncio.DatagramTransport | None" = None
    playing: "asyncio.Task[None] | None" = None


async def serve(source: Source, host: str, port: int) -> asyncio.Server:
    """Return a running server; closing it also needs `hang_up`."""

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        source.writers.add(writer)
        session = _Session()
        try:
            await _converse(source, session, reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            return
        finally:
            if session.playing is not None:
                session.playing.cancel()
            if session.udp is not None:
                session.udp.close()
            source.writers.discard(writer)
            writer.close()

    return await asyncio.start_server(client, host, port, limit=MOST_REQUEST)


def hang_up(source: Source) -> None:
    """Drop all connections, as a camera that loses power does."""
    for writer in list(source.writers):
        writer.transport.abort()


async def _converse(
    source: Source, session: _Session, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    while True:
        async with asyncio.timeout(IDLE_SECONDS):
            first = await reader.readexactly(1)
            if first == b"$":  # a receiver's RTCP report
                await reader.readexactly(int.from_bytes((await reader.readexactly(3))[1:], "big"))
                continue
            head = (first + await reader.readuntil(b"\r\n\r\n")).decode("utf-8", "replace")
        fault = source.faults.now()
        if fault is Fault.SILENT:
            await asyncio.sleep(3600)
        if fault is Fault.SLOW:
            await asyncio.sleep(SLOW_SECONDS)
        if fault is Fault.NONSENSE:
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n<html>Login</html>\r\n\r\n")
            continue
        request, *lines = head.split("\r\n")
        method, url, _ = request.split(" ", 2)
        headers = {key.strip().lower(): value.strip() for key, _, value in (one.partition(":") for one in lines)}
        writer.write(await _answer(source, session, method, url, headers, writer))
        if method == "TEARDOWN":
            return


async def _answer(
    source: Source, session: _Session, method: str, url: str, headers: dict[str, str], writer: asyncio.StreamWriter
) -> bytes:
    sequence = headers.get("cseq", "0")

    def answer(status: str, *more: str, body: str = "") -> bytes:
        length = [f"Content-Length: {len(body)}"] if body else []
        return "\r\n".join([f"RTSP/1.0 {status}", f"CSeq: {sequence}", *more, *length, "", body]).encode()

    if method == "OPTIONS":
        return answer("200 OK", f"Public: {METHODS}")
    fault = source.faults.now()
    if fault is Fault.UNAUTHORISED or not source.digest.knows(method, headers.get("authorization", "")):
        return answer("401 Unauthorized", f"WWW-Authenticate: {source.digest.challenge()}")
    path = re.sub(r"^rtsps?://[^/]*", "", url).split("?")[0].removesuffix("/trackID=0").rstrip("/")
    if path != source.path or fault is Fault.NO_STREAM:
        return answer("404 Not Found")
    match method:
        case "DESCRIBE":
            return answer("200 OK", f"Content-Base: {url}/", "Content-Type: application/sdp", body=_sdp(source))
        case "SETUP":
            transport = await _transport(session, headers.get("transport", ""), writer)
            if transport is None:
                return answer("461 Unsupported Transport")
            return answer("200 OK", f"Transport: {transport}", f"Session: {session.id};timeout=60")
        case "PLAY":
            if session.playing is None:
                session.playing = asyncio.create_task(_play(source, session, writer))
            return answer("200 OK", f"Session: {session.id}", "Range: npt=0.000-")
        case "TEARDOWN" | "GET_PARAMETER":
            return answer("200 OK", f"Session: {session.id}")
        case _:
            return answer("501 Not Implemented")


def _sdp(source: Source) -> str:
    shown = loop(source.codec, "road")
    if source.codec == "MJPEG":
        media = [f"m=video 0 RTP/AVP {JPEG}", f"a=framerate:{FRAMES_A_SECOND}"]
    else:
        sets = ",".join(base64.b64encode(one).decode() for one in shown.parameter_sets)
        profile = shown.parameter_sets[0][1:4].hex()
        media = [
            f"m=video 0 RTP/AVP {H264}",
            f"a=rtpmap:{H264} H264/{CLOCK}",
            f"a=fmtp:{H264} packetization-mode=1;profile-level-id={profile};sprop-parameter-sets={sets}",
        ]
    lines = ["v=0", "o=- 1 1 IN IP4 127.0.0.1", "s=camera", "c=IN IP4 0.0.0.0", "t=0 0", *media, "a=control:trackID=0"]
    return "\r\n".join(lines) + "\r\n"


async def _transport(session: _Session, asked: str, writer: asyncio.StreamWriter) -> str | None:
    if "interleaved" in asked or "TCP" in asked:
        found = re.search(r"interleaved=(\d+)", asked)
        session.channel = int(found[1]) if found else 0
        return f"RTP/AVP/TCP;unicast;interleaved={session.channel}-{session.channel + 1}"
    found = re.search(r"client_port=(\d+)", asked)
    if found is None:
        return None
    peer, own = writer.get_extra_info("peername")[0], writer.get_extra_info("sockname")[0]
    session.udp, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        asyncio.DatagramProtocol, local_addr=(own, 0), remote_addr=(peer, int(found[1]))
    )
    port = session.udp.get_extra_info("sockname")[1]
    return f"RTP/AVP;unicast;client_port={found[1]}-{int(found[1]) + 1};server_port={port}-{port + 1}"


async def _play(source: Source, session: _Session, writer: asyncio.StreamWriter) -> None:
    source.viewers += 1
    sequence, ssrc = secrets.randbits(16), secrets.randbits(32)
    kind = JPEG if source.codec == "MJPEG" else H264
    start = time.monotonic()
    number = 0
    send = _sender(session, writer)
    try:
        while True:
            frame = source.frame(time.time())
            silent = source.faults.now() is Fault.SILENT or (source.faults.now() is Fault.NO_KEY_FRAMES and frame.key)
            parts = [] if silent else list(payloads(frame))
            for place, payload in enumerate(parts, 1):
                last = place == len(parts)
                timestamp = number * CLOCK // FRAMES_A_SECOND
                send(packet(payload, kind=kind, sequence=sequence, timestamp=timestamp, ssrc=ssrc, last=last))
                sequence += 1
            await writer.drain()
            if writer.is_closing():
                return
            number += 1
            await asyncio.sleep(max(0.0, start + number / FRAMES_A_SECOND - time.monotonic()))
    except OSError:
        return
    finally:
        source.viewers -= 1


def _sender(session: _Session, writer: asyncio.StreamWriter) -> Callable[[bytes], None]:
    udp = session.udp
    if udp is not None:
        return udp.sendto
    channel = session.channel or 0
    return lambda one: writer.write(b"$" + bytes([channel]) + len(one).to_bytes(2, "big") + one)
