"""A process that fetches one picture from a camera and measures it: `python -m edge.camera.frame_worker`."""

import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict
from io import BytesIO
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import av
import numpy as np

from contract.catalog import Cause
from edge.camera.measures import measures
from edge.poller import DeviceUnavailable
from edge.workers import Answer, serve_blocking

MEMORY_MIB = 768
MOST_SIDE = 8192
MOST_PIXELS = 40_000_000
MOST_SNAPSHOT = 16 * 1024 * 1024
MOST_PACKETS = 5000
"""Without a key frame among so many there is none to come."""

OPTIONS = {
    "rtsp_transport": "tcp",
    "analyzeduration": "1000000",
    "fpsprobesize": "0",
    "probesize": "65536",
    "allowed_media_types": "video",
    "protocol_whitelist": "rtsp,rtsps,rtp,tcp,tls,udp",
}


def look(question: Answer) -> Answer:
    """Return the measures of one picture under `picture`, None where a stream has none; raise DeviceUnavailable.

    `question` has `stream` or `snapshot` (an address without credentials), `username`, `password`, `timeout`.
    """
    if question.get("stream"):
        return _stream(question)
    return _snapshot(question)


def _stream(question: Answer) -> Answer:
    address, timeout = str(question["stream"]), float(question["timeout"])
    begun = time.monotonic()
    try:
        _greet(address, timeout * 0.4)
        with av.open(_with_login(question), options=OPTIONS, timeout=(timeout * 0.6, timeout * 0.25)) as container:
            if not container.streams.video:
                raise DeviceUnavailable(Cause.NOT_FOUND, f"{address} has no video")
            video = container.streams.video[0]
            _believable(address, video.codec_context.width, video.codec_context.height)
            picture = _first_key_frame(container, video, begun + timeout * 0.85)
            return {"picture": picture, "codec": video.codec_context.name}
    except DeviceUnavailable:
        raise
    except Exception as exc:
        raise _unavailable(exc, address, late=time.monotonic() - begun >= timeout * 0.55) from exc


def _greet(address: str, timeout: float) -> None:
    """Raise unless what listens there speaks RTSP: the library would wait for sense until its time is up."""
    parts = urlsplit(address)
    if parts.scheme != "rtsp":
        return  # inside TLS the library alone can see it
    with socket.create_connection((str(parts.hostname), parts.port or 554), timeout) as greeted:
        greeted.settimeout(timeout)
        greeted.sendall(f"OPTIONS {address} RTSP/1.0\r\nCSeq: 1\r\n\r\n".encode())
        answer = greeted.recv(64)
        if not answer.startswith(b"RTSP/1."):
            raise DeviceUnavailable(Cause.NONSENSE, f"{address} answered what is no RTSP")
        if answer[9:10] == b"3":
            raise DeviceUnavailable(Cause.REFUSED, f"{address} sends us to another address")


def _first_key_frame(container: Any, video: Any, until: float) -> dict[str, Any] | None:
    try:
        for packet, _ in zip(container.demux(video), range(MOST_PACKETS), strict=False):
            if time.monotonic() > until:
                return None
            if packet.is_keyframe and (frames := list(_decoded(packet))):
                return _measured(frames[0])
    except (av.error.ExitError, av.error.EOFError, TimeoutError):
        return None  # the stream was there and stalled
    return None


def _decoded(packet: Any) -> Iterator[av.VideoFrame]:
    try:
        yield from packet.decode()
        # A decoder that waits for the next frame gives this one when it is asked to finish.
        yield from packet.stream.codec_context.decode(None)
    except av.error.InvalidDataError:
        return


def _snapshot(question: Answer) -> Answer:
    address, timeout = str(question["snapshot"]), float(question["timeout"])
    begun = time.monotonic()
    try:
        with _opener(question, address).open(address, timeout=timeout * 0.6) as response:
            raw = response.read(MOST_SNAPSHOT + 1)
        if len(raw) > MOST_SNAPSHOT:
            raise DeviceUnavailable(Cause.NONSENSE, f"{address} answered more than {MOST_SNAPSHOT} bytes")
        with av.open(BytesIO(raw), "r") as container:
            if not container.streams.video:
                raise DeviceUnavailable(Cause.NONSENSE, f"{address} is no picture")
            video = container.streams.video[0]
            _believable(address, video.codec_context.width, video.codec_context.height)
            frame = next(container.decode(video))
            return {"picture": _measured(frame), "codec": video.codec_context.name}
    except DeviceUnavailable:
        raise
    except Exception as exc:
        raise _unavailable(exc, address, late=time.monotonic() - begun >= timeout * 0.55) from exc


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: object, **kwargs: object) -> None:
        return None


def _opener(question: Answer, address: str) -> urllib.request.OpenerDirector:
    handlers: list[urllib.request.BaseHandler] = [_Stay(), urllib.request.ProxyHandler({})]
    if question.get("username"):
        passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
        passwords.add_password(None, address, str(question["username"]), str(question["password"]))
        handlers.append(urllib.request.HTTPDigestAuthHandler(passwords))
    return urllib.request.build_opener(*handlers)


def _with_login(question: Answer) -> str:
    parts = urlsplit(str(question["stream"]))
    if not question.get("username"):
        return urlunsplit(parts)
    login = f"{quote(str(question['username']), safe='')}:{quote(str(question['password']), safe='')}"
    return urlunsplit(parts._replace(netloc=f"{login}@{parts.netloc}"))


def _believable(address: str, width: int, height: int) -> None:
    """Raise DeviceUnavailable for a size that no camera has, before anything is decoded."""
    if max(width, height) > MOST_SIDE or width * height > MOST_PIXELS:
        raise DeviceUnavailable(Cause.NONSENSE, f"{address} says its picture is {width} x {height}")


def _measured(frame: av.VideoFrame) -> dict[str, Any]:
    if max(frame.width, frame.height) > MOST_SIDE or frame.width * frame.height > MOST_PIXELS:
        raise DeviceUnavailable(Cause.NONSENSE, f"a picture of {frame.width} x {frame.height}")
    luma = frame.to_ndarray(format="gray")
    return {"width": frame.width, "height": frame.height, **asdict(measures(luma.astype(np.uint8, copy=False)))}


def _unavailable(exc: Exception, address: str, *, late: bool) -> DeviceUnavailable:
    """Return what an error of the libraries means; their texts may hold the login, so they are not repeated."""
    if isinstance(exc, urllib.error.HTTPError):
        code = exc.code
        cause = {401: Cause.UNAUTHORISED, 403: Cause.UNAUTHORISED, 404: Cause.NOT_FOUND}.get(code, Cause.REFUSED)
        return DeviceUnavailable(cause, f"{address}: HTTP {code}")
    inner = exc.reason if isinstance(exc, urllib.error.URLError) and isinstance(exc.reason, Exception) else exc
    known: list[tuple[tuple[type[BaseException], ...], Cause, str]] = [
        ((av.error.HTTPUnauthorizedError, av.error.HTTPForbiddenError), Cause.UNAUTHORISED, "wants another password"),
        ((av.error.HTTPNotFoundError,), Cause.NOT_FOUND, "has no such path"),
        ((ConnectionRefusedError,), Cause.REFUSED, "refused the connection"),
        ((TimeoutError, av.error.ExitError), Cause.SILENT, "did not answer in time"),
        ((av.error.HTTPError,), Cause.REFUSED, "turned us away"),
    ]
    for kinds, cause, words in known:
        if isinstance(inner, kinds):
            return DeviceUnavailable(cause, f"{address} {words}")
    if late:
        return DeviceUnavailable(Cause.SILENT, f"{address} did not answer in time")
    if isinstance(inner, (ConnectionResetError, BrokenPipeError)):
        return DeviceUnavailable(Cause.REFUSED, f"{address} hung up")
    if isinstance(inner, OSError) and not isinstance(inner, av.error.FFmpegError):
        return DeviceUnavailable(Cause.UNREACHABLE, f"{address}: {inner.strerror or type(inner).__name__}")
    if isinstance(inner, OSError) and inner.errno in {101, 110, 111, 113}:
        return DeviceUnavailable(Cause.UNREACHABLE, f"{address}: {inner.strerror}")
    return DeviceUnavailable(Cause.NONSENSE, f"{address} sent what is no picture ({type(inner).__name__})")


if __name__ == "__main__":
    av.logging.set_level(av.logging.PANIC)
    serve_blocking(look, memory_mib=MEMORY_MIB)
