"""The outer border of the hub: whose names it answers to, whose pages may change something, who comes in with what.

A page of another site must neither read what the hub knows (DNS rebinding: its Host is not ours) nor act in the name of
somebody who is signed in here (its Origin is not ours). Rights are asked behind this border, by hub/doors.py.
"""

import json
from collections.abc import Sequence
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from ipaddress import ip_address
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from hub.given import Hub
from hub.people.caller import Caller

MOST_BODY = 33 * 1024 * 1024
MOST_STRANGERS_BODY = 64 * 1024
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
CALLER = "hamlet.caller"
FORWARDED = (b"forwarded", b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-real-ip")

HEADERS = [
    (
        b"content-security-policy",
        b"default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self';"
        b" frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    # Not "no-referrer": browsers then say of a form of our own that it comes from nowhere (Origin: null).
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=(self), publickey-credentials-get=(self)"),
]
HSTS = (b"strict-transport-security", b"max-age=31536000")


class Border:
    """ASGI middleware: refuses what comes in by the wrong name, from another page, or too large; knows the caller."""

    def __init__(self, app: ASGIApp, *, names: Sequence[str]) -> None:
        self._app = app
        self._names = frozenset(name.lower() for name in names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        kept = scope["path"].startswith("/static/")

        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = [*message.get("headers", []), *HEADERS]
                if scope.get("scheme") == "https":
                    headers.append(HSTS)
                if not kept and not any(name == b"cache-control" for name, _ in headers):
                    headers.append((b"cache-control", b"no-store"))
                message["headers"] = headers
            await send(message)

        told: dict[bytes, list[str]] = {}
        for name, value in scope["headers"]:
            told.setdefault(name.lower(), []).append(value.decode("latin-1"))
        refused = self._refusal(scope, told)
        if refused is None and not kept:
            # A section that renews itself is no sign that somebody is there.
            renewal = b"hx-request" in told and scope["method"] == "GET"
            scope[CALLER] = identified(scope, used=not renewal)
            refused = _too_large(scope, told)
        if refused is None:
            await self._app(scope, receive, with_headers)
            return
        status, reason = refused
        problem = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": reason}
        body = json.dumps(problem).encode()
        headers = [(b"content-type", b"application/problem+json"), (b"content-length", str(len(body)).encode())]
        await with_headers({"type": "http.response.start", "status": status, "headers": headers})
        await with_headers({"type": "http.response.body", "body": body})

    def _refusal(self, scope: Scope, told: dict[bytes, list[str]]) -> tuple[int, str] | None:
        port = (scope.get("server") or ("", 80))[1]
        standard = port == {"http": 80, "https": 443}.get(scope.get("scheme", "http"))
        own = {f"{name}:{port}" for name in (*LOOPBACK_NAMES, *self._names)} | self._names
        if standard:
            own |= set(LOOPBACK_NAMES)
        hosts = [one.lower() for one in told.get(b"host", [])]
        if len(hosts) != 1 or hosts[0] not in own:
            return (
                403,
                "this hub answers to its own names only: localhost, and those under `names` in its configuration",
            )
        if scope["method"] in SAFE:
            return None
        origins = [one.lower() for one in told.get(b"origin", [])]
        # A browser attaches no Authorization by itself, so a program that brings one needs no Origin.
        if not origins and b"authorization" in told and b"sec-fetch-site" not in told:
            return None
        if origins != [f"{scope.get('scheme', 'http')}://{hosts[0]}"]:
            return 403, "a request that changes something needs this hub's own Origin header, or a token"
        if told.get(b"sec-fetch-site", ["same-origin"]) != ["same-origin"]:
            return 403, "a request that changes something must come from this hub's own pages"
        return None


def cookie_name(scheme: str, what: str) -> str:
    """Return a cookie's name; under TLS one that no other host and no plain page can set."""
    return f"__Host-{what}" if scheme == "https" else what


def cookies(scope: Scope) -> dict[str, str]:
    """Return the cookies of a request; what is no cookie is none."""
    found: dict[str, str] = {}
    for name, value in scope["headers"]:
        if name.lower() == b"cookie":
            try:
                found |= {one: morsel.value for one, morsel in SimpleCookie(value.decode("latin-1")).items()}
            except CookieError:
                continue
    return found


def address_of(scope: Scope) -> str:
    """Return the address a request comes from: the peer's, or what a named proxy says of its own peer."""
    client = scope.get("client")
    return str(client[0]) if client else ""


def from_this_machine(scope: Scope) -> bool:
    """Return whether a request comes from this machine and through no proxy, named or not."""
    if any(name.lower() in FORWARDED for name, _ in scope["headers"]):
        return False
    try:
        return ip_address(address_of(scope)).is_loopback
    except ValueError:
        return False


def identified(scope: Scope, *, used: bool = True) -> Caller | None:
    """Return who a request comes from as things stand now; a token goes before a session.

    `used`: whether this is a sign that somebody is there; a stream that is merely open is none.
    """
    hub: Hub = scope["app"].state.hub
    entrance, address = hub.reception.entrance, address_of(scope)
    for name, value in scope["headers"]:
        if name.lower() == b"authorization":
            kind, _, text = value.decode("latin-1").partition(" ")
            match kind.lower():
                case "bearer":
                    return entrance.program(text.strip(), address)
                case "shell":
                    return entrance.shell(text.strip(), address) if from_this_machine(scope) else None
                case _:
                    return None
    secret = cookies(scope).get(cookie_name(scope.get("scheme", "http"), "session"), "")
    return entrance.caller(secret, address, used=used)


def _too_large(scope: Scope, told: dict[bytes, list[str]]) -> tuple[int, str] | None:
    if scope["method"] in SAFE:
        return None
    # Told before a byte of it is read: a body without a length could fill the disk.
    lengths = told.get(b"content-length", [])
    # With both, servers believe the chunks: the length told would bound nothing.
    if b"transfer-encoding" in told or len(lengths) > 1:
        return 411, "say how long the body is (one Content-Length, no Transfer-Encoding)"
    if not lengths:
        return None
    if not (lengths[0].isascii() and lengths[0].isdigit() and len(lengths[0]) <= 20):
        return 400, f"Content-Length {lengths[0][:20]!r} is no number of bytes"
    most = MOST_BODY if scope[CALLER] is not None else MOST_STRANGERS_BODY
    if int(lengths[0]) > most:
        return 413, f"the body has {lengths[0][:20]} bytes, more than {most}"
    return None
