"""A hotspot on OpenWrt: ubus over HTTP (uhttpd-mod-ubus), with radios, an uplink, and guests who come and go."""

import asyncio
import hashlib
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from aiohttp import web

from simulators.faults import Fault, Faults
from simulators.guests import guests

NOBODY = "0" * 32
SESSION_SECONDS = 300
SLOW_SECONDS = 2.0
OK, INVALID_METHOD, NOT_FOUND, PERMISSION_DENIED = 0, 3, 4, 6
"""ubus' own status codes (libubus, ubusmsg.h)."""

Naming = Literal["phy0-ap0", "wlan0"]
"""How releases name access points: since 23.05, and before."""


@dataclass(slots=True, kw_only=True)
class Router:
    """One hotspot with two radios; run it with `serving`."""

    id: str
    user: str
    password: str
    faults: Faults
    seed: int = 7
    naming: Naming = "phy0-ap0"
    host: str = "127.0.0.1"
    now: Callable[[], float] = time.time
    started: float = field(default_factory=time.monotonic)
    sessions: dict[str, float] = field(default_factory=dict)
    logins: int = 0

    @property
    def access_points(self) -> list[str]:
        """Return the names of its radios' networks."""
        return ["phy0-ap0", "phy1-ap0"] if self.naming == "phy0-ap0" else ["wlan0", "wlan1"]

    def clients(self) -> list[int]:
        """Return how many are on each radio; nobody where the radios are off."""
        if self.faults.now() is Fault.RADIO_OFF:
            return [0, 0]
        there = guests(self.seed, self.id, self.now())
        return [there // 3, there - there // 3]

    async def ubus(self, request: web.Request) -> web.Response:
        """Answer one call, or an array of them."""
        match self.faults.now():
            case Fault.SILENT:
                await asyncio.sleep(3600)
            case Fault.SLOW:
                await asyncio.sleep(SLOW_SECONDS)
            case Fault.NONSENSE:
                return web.Response(text="<html>LuCI</html>", content_type="text/html")
            case _:
                pass
        asked = await request.json()
        if isinstance(asked, list):
            return web.json_response([self._answer(one) for one in asked])
        return web.json_response(self._answer(asked))

    def _answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        number, method, params = asked.get("id"), asked.get("method"), asked.get("params", [])

        def error(code: int, text: str) -> dict[str, Any]:
            return {"jsonrpc": "2.0", "id": number, "error": {"code": code, "message": text}}

        if method not in {"call", "list"} or not isinstance(params, list) or len(params) < 1:
            return error(-32600, "Invalid request")
        session = params[0]
        if self.faults.now() is Fault.UNAUTHORISED:
            self.sessions.clear()  # whoever changes a password ends the sessions that it opened
        if method == "call" and params[1:3] == ["session", "login"]:
            return {"jsonrpc": "2.0", "id": number, "result": self._login(params[3])}
        if self.sessions.get(session, 0.0) < time.monotonic():
            return error(-32002, "Access denied")
        self.sessions[session] = time.monotonic() + SESSION_SECONDS
        if method == "list":
            return {"jsonrpc": "2.0", "id": number, "result": {f"hostapd.{one}": {} for one in self.access_points}}
        return {"jsonrpc": "2.0", "id": number, "result": self._call(str(params[1]), str(params[2]), params[3])}

    def _login(self, arguments: dict[str, Any]) -> list[Any]:
        self.logins += 1
        right = arguments.get("username") == self.user and arguments.get("password") == self.password
        if not right or self.faults.now() is Fault.UNAUTHORISED:
            return [PERMISSION_DENIED]
        session = secrets.token_hex(16)
        self.sessions[session] = time.monotonic() + SESSION_SECONDS
        told = {"ubus_rpc_session": session, "timeout": SESSION_SECONDS, "expires": SESSION_SECONDS, "acls": {}}
        return [OK, {**told, "data": {"username": self.user}}]

    def _call(self, name: str, method: str, arguments: dict[str, Any]) -> list[Any]:
        uptime = int(time.monotonic() - self.started)
        up = self.faults.now() is not Fault.NO_UPLINK
        on = self.faults.now() is not Fault.RADIO_OFF
        if name.startswith("hostapd.") and method == "get_clients":
            point = name.removeprefix("hostapd.")
            if point not in self.access_points or not on:
                return [NOT_FOUND]
            there = self.clients()[self.access_points.index(point)]
            stations = {f"02:00:00:00:{index:02x}:{there:02x}": {"auth": True, "assoc": True} for index in range(there)}
            return [OK, {"freq": 2412, "clients": stations}]
        known: dict[tuple[str, str], dict[str, Any]] = {
            ("system", "board"): {
                "kernel": "6.6.73",
                "hostname": self.id,
                "model": "SIM AP-2",
                "board_name": "sim,ap-2",
                "release": {"distribution": "OpenWrt", "version": "24.10.2", "description": "OpenWrt 24.10.2"},
            },
            ("system", "info"): {
                "localtime": int(self.now()),
                "uptime": uptime,
                "load": [6554, 9830, 8192],  # 1/65536
                "memory": {"total": 126_000_000, "free": 61_000_000, "available": 70_000_000},
            },
            ("network.interface", "dump"): {
                "interface": [
                    {"interface": "lan", "up": True, "device": "br-lan", "uptime": uptime},
                    {"interface": "wan", "up": up, "device": "wan", "l3_device": "wan", "uptime": uptime if up else 0},
                ]
            },
            ("network.device", "status"): {
                "up": up,
                "statistics": {"rx_bytes": uptime * 60_000, "tx_bytes": uptime * 9_000},
            },
            ("iwinfo", "devices"): {"devices": self.access_points if on else []},
        }
        if (name, method) in known:
            return [OK, known[name, method]]
        return [INVALID_METHOD if any(one == name for one, _ in known) else NOT_FOUND]

    def serial(self) -> str:
        """Return its serial number."""
        return hashlib.blake2b(self.id.encode(), digest_size=6).hexdigest()


@asynccontextmanager
async def serving(router: Router, *, port: int = 0) -> AsyncIterator[str]:
    """Run a hotspot and yield its address."""
    application = web.Application()
    application.add_routes([web.post("/ubus", router.ubus)])
    async with powered(application, router.faults, router.host, port, lambda: _restarted(router)) as bound:
        yield f"http://{router.host}:{bound}"


def _restarted(router: Router) -> None:
    router.started = time.monotonic()
    router.sessions.clear()


@asynccontextmanager
async def powered(
    application: web.Application, faults: Faults, host: str, port: int, restarted: Callable[[], None]
) -> AsyncIterator[int]:
    """Serve an application while its device has power and takes connections; yield the port."""
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, host, port)
    await site.start()
    bound = int(runner.addresses[0][1])
    watching = asyncio.create_task(_watched(runner, site, faults, host, bound, restarted))
    try:
        yield bound
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await runner.cleanup()


async def _watched(
    runner: web.AppRunner, site: web.TCPSite, faults: Faults, host: str, port: int, restarted: Callable[[], None]
) -> None:
    open_site: web.TCPSite | None = site
    before: Fault | None = None
    while True:
        fault = faults.now()
        off = fault in {Fault.REFUSE, Fault.MAINS_LOST}
        if off and open_site is not None:
            await open_site.stop()
            open_site = None
            for one in list(runner.server.connections) if runner.server is not None else []:
                if one.transport is not None:
                    one.transport.abort()
        elif not off and open_site is None:
            open_site = web.TCPSite(runner, host, port)
            await open_site.start()
        if fault is not before and (fault is Fault.REBOOT or before is Fault.MAINS_LOST):
            restarted()
        before = fault
        await asyncio.sleep(0.05)
