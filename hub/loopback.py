"""Until people can sign in: only this machine's own pages may talk to the hub.

A page of another site must neither read what the hub knows (DNS rebinding: its Host is not ours) nor make a loudspeaker
sound (its Origin is not ours).
"""

import json
from http import HTTPStatus
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

MOST_BODY = 33 * 1024 * 1024
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
NAMES = ("localhost", "127.0.0.1")

HEADERS = [
    (
        b"content-security-policy",
        b"default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; object-src 'none';"
        b" base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
]


class LoopbackOnly:
    """ASGI middleware: 403 to a foreign Host, and to an unsafe method without its own Origin; 413 to huge bodies."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *HEADERS]
            await send(message)

        refused = _refusal(scope)
        if refused is None:
            await self._app(scope, receive, with_headers)
            return
        status, reason = refused
        problem = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": reason}
        body = json.dumps(problem).encode()
        headers = [(b"content-type", b"application/problem+json"), (b"content-length", str(len(body)).encode())]
        await with_headers({"type": "http.response.start", "status": status, "headers": headers})
        await with_headers({"type": "http.response.body", "body": body})


def _refusal(scope: Scope) -> tuple[int, str] | None:
    told: dict[bytes, list[bytes]] = {}
    for name, value in scope["headers"]:
        told.setdefault(name.lower(), []).append(value)
    port = (scope.get("server") or ("", 80))[1]
    own = {name if port == 80 else f"{name}:{port}" for name in NAMES} | {f"{name}:{port}" for name in NAMES}
    hosts = [one.decode("latin-1").lower() for one in told.get(b"host", [])]
    if len(hosts) != 1 or hosts[0] not in own:
        return 403, "this hub answers to localhost and 127.0.0.1 with its own port only"
    if scope["method"] in SAFE:
        return None
    origins = [one.decode("latin-1").lower() for one in told.get(b"origin", [])]
    if origins != [f"{scope.get('scheme', 'http')}://{hosts[0]}"]:
        return 403, "a request that changes something needs this hub's own Origin header"
    # Told before a byte of it is read: a body without a length could fill the disk.
    lengths = [one.decode("latin-1") for one in told.get(b"content-length", [])]
    if len(lengths) != 1 or not lengths[0].isdigit():
        return (411, "say how long the body is (Content-Length)") if b"transfer-encoding" in told else None
    if int(lengths[0]) > MOST_BODY:
        return 413, f"the body has {lengths[0]} bytes, more than {MOST_BODY}"
    return None
