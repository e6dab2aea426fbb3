"""A process that fetches one picture from a camera and measures it: `python -m edge.camera.frame_worker`."""

import hashlib
import logging
import resource
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import asdict
from io import BytesIO
from typing import Any, Self
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


class Stay(logging.Handler):
    """Keeps the library where it was sent: it follows a camera's redirects, login in hand, and has no option for that.

    It says so in its log first: from then on the process may open nothing more, as long as the context is open. Its log
    is listened to only then, for a thread of the decoder that logs can make Python wait for ever.
    """

    def __init__(self) -> None:
        super().__init__()
        self._files = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.sent_elsewhere = False

    def __enter__(self) -> Self:
        self.sent_elsewhere = False
        av.logging.set_level(av.logging.INFO)
        return self

    def __exit__(self, *_: object) -> None:
        av.logging.set_level(None)
        resource.setrlimit(resource.RLIMIT_NOFILE, self._files)

    def emit(self, record: logging.LogRecord) -> None:
        if "Redirecting to" in record.getMessage():
            self.sent_elsewhere = True
            resource.setrlimit(resource.RLIMIT_NOFILE, (0, self._files[1]))


STAY = Stay()


def look(question: Answer) -> Answer:
    """Return the measures of one picture under `picture`, None where a stream has none; raise DeviceUnavailable.

    `question` has `stream` or `snapshot` (an address without credentials), `username`, `password`, `timeout`.
    """
    if question.get("stream"):
        return _stream(question)
    return _snapshot(question)


def _stream(question: Answer) -> Answer:
    address, timeout = _place(str(question["stream"])), float(question["timeout"])
    begun = time.monotonic()
    try:
        with STAY:
            opened = av.open(_with_login(question), options=OPTIONS, timeout=(timeout * 0.6, timeout * 0.25))
        with opened as container:
            if not container.streams.video:
                raise DeviceUnavailable(Cause.NOT_FOUND, f"{address} has no video")
            video = container.streams.video[0]
            _believable(address, video.codec_context.width, video.codec_context.height)
            picture = _first_key_frame(container, video, begun + timeout * 0.85)
            return {"picture": picture, "codec": video.codec_context.name}
    except DeviceUnavailable:
        raise
    except Exception as exc:
        if STAY.sent_elsewhere:
            raise DeviceUnavailable(Cause.REFUSED, f"{address} sends us to another address") from exc
        raise _unavailable(exc, address, late=time.monotonic() - begun >= timeout * 0.55) from exc


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
        packet.stream.codec_context.flush_buffers()
    except av.error.InvalidDataError:
        return


def _snapshot(question: Answer) -> Answer:
    address, timeout = _place(str(question["snapshot"])), float(question["timeout"])
    begun = time.monotonic()
    try:
        with _opener(question).open(str(question["snapshot"]), timeout=timeout * 0.6) as response:
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


class _Digest(urllib.request.HTTPDigestAuthHandler):
    """Answers the first challenge it can: cameras offer several, and the library looks at the first one alone."""

    def http_error_401(self, req: Any, fp: Any, code: int, msg: str, headers: Any) -> Any:
        offered = headers.get_all("www-authenticate", [])
        del headers["www-authenticate"]
        for one in offered:
            if one.lower().startswith("digest "):
                headers["www-authenticate"] = one
                break
        return super().http_error_401(req, fp, code, msg, headers)

    def get_algorithm_impls(self, algorithm: str) -> tuple[Callable[[str], str], Callable[[str, str], str]]:
        if algorithm != "SHA-256":
            return super().get_algorithm_impls(algorithm)

        def digest(text: str) -> str:
            return hashlib.sha256(text.encode()).hexdigest()

        return digest, lambda secret, text: digest(f"{secret}:{text}")


def _opener(question: Answer) -> urllib.request.OpenerDirector:
    context = ssl.create_default_context()
    # Cameras sign their certificates themselves; the password is not shown to them either way.
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    handlers: list[urllib.request.BaseHandler] = [
        _Stay(),
        urllib.request.ProxyHandler({}),
        urllib.request.HTTPSHandler(context=context),
    ]
    if question.get("username"):
        passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
        passwords.add_password(None, str(question["snapshot"]), str(question["username"]), str(question["password"]))
        handlers.append(_Digest(passwords))
    return urllib.request.build_opener(*handlers)


def _place(address: str) -> str:
    """Return an address for people: without its path, where some cameras want the password."""
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc}"


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
    library = logging.getLogger("libav")
    library.setLevel(logging.INFO)
    library.addHandler(STAY)
    library.propagate = False  # its texts may hold the login
    serve_blocking(look, memory_mib=MEMORY_MIB)
