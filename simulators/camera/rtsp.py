"""An RTSP server for one camera (RFC 2326): Digest login, RTP over TCP or UDP, one stream."""

import asyncio
import base64
import logging
import re
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from simulators.camera.picture import FRAMES_A_SECOND, LOOP_SECONDS, Codec, Loop, loop
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

GARBAGE = b"HTTP/1.1 200 OK\r\n\r\n<html>Login</html>\r\n\r\n"
BREAKING = frozenset({Fault.NO_STREAM, Fault.NONSENSE})
"""Faults that end a stream which is being watched."""


@dataclass(slots=True, kw_only=True)
class Source:
    """What the server shows: one path, the codec, and how many seconds this camera is ahead in the loop."""

    path: str
    codec: Codec
    faults: Faults
    digest: Digest
    phase: int = 0
    writers: set[asyncio.StreamWriter] = field(default_factory=set)

    def shown(self) -> Loop:
        """Return the loop that is shown now."""
        return loop(self.codec, "black" if self.faults.now() is Fault.BLACK else "road")

    def number(self, at: float, later: int = 0) -> int:
        """Return which frame of the loop is seen at an instant (seconds), or so many frames after it."""
        # A camera whose sensor hangs encodes the same picture for ever; each is as good as a key frame.
        frozen = self.faults.now() is Fault.FROZEN
        return 0 if frozen else (int((at + self.phase) * FRAMES_A_SECOND) + later) % (LOOP_SECONDS * FRAMES_A_SECOND)


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
            continue
        if fault is Fault.SLOW:
            await asyncio.sleep(SLOW_SECONDS)
        if fault is Fault.NONSENSE:
            writer.write(GARBAGE)
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
        case "PLAY" if session.udp is None and session.channel is None:
            return answer("455 Method Not Valid in This State")
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
    if session.udp is not None:
        session.udp.close()
    session.udp, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        asyncio.DatagramProtocol, local_addr=(own, 0), remote_addr=(peer, int(found[1]))
    )
    port = session.udp.get_extra_info("sockname")[1]
    return f"RTP/AVP;unicast;client_port={found[1]}-{int(found[1]) + 1};server_port={port}-{port + 1}"


async def _play(source: Source, session: _Session, writer: asyncio.StreamWriter) -> None:
    sequence, ssrc = secrets.randbits(16), secrets.randbits(32)
    kind = JPEG if source.codec == "MJPEG" else H264
    start, began = time.monotonic(), time.time()
    number = 0
    try:
        while not writer.is_closing():
            fault = source.faults.now()
            if fault in BREAKING:
                writer.write(GARBAGE if fault is Fault.NONSENSE else b"")
                writer.close()
                return
            # By count, not by the clock: a frame left out or sent twice would spoil the picture until the next key.
            frame = source.shown().frames[source.number(began, number)]
            silent = fault is Fault.SILENT or (fault is Fault.NO_KEY_FRAMES and frame.key)
            parts = [] if silent else list(payloads(frame))
            timestamp = number * CLOCK // FRAMES_A_SECOND
            packets = [
                packet(one, kind=kind, sequence=sequence + place, timestamp=timestamp, ssrc=ssrc, last=one is parts[-1])
                for place, one in enumerate(parts)
            ]
            sequence += len(packets)
            _send(packets, session, writer)
            await writer.drain()
            number += 1
            await asyncio.sleep(max(0.0, start + number / FRAMES_A_SECOND - time.monotonic()))
    except OSError:
        return


def _send(packets: Sequence[bytes], session: _Session, writer: asyncio.StreamWriter) -> None:
    if session.udp is not None:
        for one in packets:
            session.udp.sendto(one)
        return
    channel = bytes([session.channel or 0])
    writer.write(b"".join(b"$" + channel + len(one).to_bytes(2, "big") + one for one in packets))
