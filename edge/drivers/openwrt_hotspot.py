"""Hotspots on OpenWrt: ubus over HTTP. Of the people on them only their number leaves the box."""

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import aiohttp
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from contract.catalog import CATALOG, STATE, Cause, Condition, Kind
from contract.clock import Clock
from contract.metrics import Metric, Sample, Value
from edge.drivers.http_exchange import exchange
from edge.drivers.traffic import Counted, rates
from edge.poller import DeviceUnavailable

NOBODY = "0" * 32
"""The session of who has not logged in."""

MOST_ANSWER = 256 * 1024
MOST_POINTS = 16
DENIED = -32002
UNKNOWN_METHOD, UNKNOWN_OBJECT, NO_PERMISSION = 3, 4, 6
"""ubus' own status codes (libubus, ubusmsg.h)."""

REPORTED = (
    STATE,
    "Wifi/Clients",
    "Wifi/RadiosOn",
    "Traffic/Received",
    "Traffic/Sent",
    "Uplink/OK",
    "Device/CPU",
    "Device/Memory",
    "Device/Uptime",
    "Device/Model",
    "Device/Firmware",
)


class _Told(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class _Release(_Told):
    description: str = Field(default="", max_length=200)


class _Board(_Told):
    model: str = Field(default="", max_length=200)
    release: _Release = _Release()


class _Memory(_Told):
    total: int = Field(gt=0)
    available: int | None = Field(default=None, ge=0)
    free: int = Field(default=0, ge=0)


class _Info(_Told):
    uptime: int = Field(ge=0, lt=2**40)
    load: tuple[int, int, int]
    memory: _Memory


class _Interface(_Told):
    interface: str
    up: bool
    l3_device: str | None = Field(default=None, max_length=64)


class _Interfaces(_Told):
    interface: list[_Interface] = Field(max_length=200)


class _Statistics(_Told):
    rx_bytes: int = Field(ge=0)
    tx_bytes: int = Field(ge=0)


class _Device(_Told):
    statistics: _Statistics


class _Clients(_Told):
    clients: dict[str, Any] = Field(max_length=2000)


class _Session(_Told):
    ubus_rpc_session: str = Field(min_length=1, max_length=64)


class _Error(_Told):
    code: int


class _Answer(_Told):
    result: list[Any] | dict[str, Any] | None = None
    error: _Error | None = None


Shape = TypeVar("Shape", bound=_Told)


class OpenwrtHotspot:
    """A Driver for one hotspot; logs in once and again when its session is over."""

    def __init__(self, *, url: str, username: str, password: str, uplink: str, timeout: float, clock: Clock) -> None:
        self._url = url
        self._login = {"username": username, "password": password}
        self._uplink = uplink
        self._timeout = aiohttp.ClientTimeout(total=timeout, sock_connect=timeout * 2 / 3)
        self._clock = clock
        self._http: aiohttp.ClientSession | None = None
        self._session = NOBODY
        self._counted: Counted | None = None
        self._uptime: int | None = None
        self.metrics: Sequence[Metric] = tuple(one for one in CATALOG[Kind.HOTSPOT].metrics if one.name in REPORTED)

    async def __aenter__(self) -> Self:
        self._http = aiohttp.ClientSession(timeout=self._timeout, trust_env=False)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._http is not None:
            await self._http.close()
            self._http = None

    async def read(self) -> Sequence[Sample]:
        board = await self._call("system", "board", _Board)
        info = await self._call("system", "info", _Info)
        interfaces = (await self._call("network.interface", "dump", _Interfaces)).interface
        clients = await self._clients()
        uplink = next((one for one in interfaces if one.interface == self._uplink), None)
        if uplink is None:
            names = ", ".join(one.interface[:32] for one in interfaces[:10])
            raise DeviceUnavailable(
                Cause.NOT_FOUND, f"{self._url} has no interface {self._uplink!r}; it has {names}; name it as uplink"
            )
        traffic = await self._traffic(uplink) if uplink.up else {}
        memory = info.memory
        used = memory.total - (memory.free if memory.available is None else memory.available)
        values: dict[str, Value] = {
            STATE: self._state(info, clients, uplink).value,
            "Wifi/Clients": sum(clients),
            "Wifi/RadiosOn": len(clients),
            "Uplink/OK": uplink.up,
            **traffic,
            # OpenWrt gives the load times 65,536; one core fully used is 100 %.
            "Device/CPU": round(min(1000.0, info.load[0] / 655.36), 1),
            "Device/Memory": round(max(0.0, 100 * used / memory.total), 1),
            "Device/Uptime": info.uptime,
            "Device/Model": board.model,
            "Device/Firmware": board.release.description,
        }
        at = self._clock.now_ms()
        return [Sample(metric=name, at=at, value=value) for name, value in values.items()]

    def _state(self, info: _Info, clients: Sequence[int], uplink: _Interface) -> Condition:
        before, self._uptime = self._uptime, info.uptime
        if not clients:
            return Condition.NO_RADIO
        if not uplink.up:
            return Condition.NO_UPLINK
        return Condition.REBOOTED if before is not None and info.uptime < before else Condition.OK

    async def _clients(self) -> list[int]:
        """Return how many people each access point has that is on: releases name them phy0-ap0 or wlan0, so we ask."""
        told = await self._in_session("list", ["hostapd.*"], "list hostapd.*")
        named = sorted(one for one in told if one.startswith("hostapd.")) if isinstance(told, dict) else []
        found = [await self._call(one, "get_clients", _Clients, optional=True) for one in named[:MOST_POINTS]]
        return [len(one.clients) for one in found if one is not None]

    async def _traffic(self, uplink: _Interface) -> dict[str, Value]:
        if uplink.l3_device is None:
            return {}
        status = await self._call("network.device", "status", _Device, {"name": uplink.l3_device})
        before = self._counted
        self._counted = Counted(
            at=self._clock.monotonic(), received=status.statistics.rx_bytes, sent=status.statistics.tx_bytes
        )
        return rates(before, self._counted)

    async def _logged_in(self) -> str:
        if self._session == NOBODY:
            told = await self._asked("call", [NOBODY, "session", "login", self._login])
            self._session = self._shaped(
                _Session, self._result(told, "session login"), "session login"
            ).ubus_rpc_session
        return self._session

    async def _call(
        self,
        name: str,
        method: str,
        shape: type[Shape],
        arguments: Mapping[str, object] | None = None,
        *,
        optional: bool = False,
    ) -> Any:
        """Return what a call gives in its shape; None where it is `optional` and the router knows no such object."""
        what = f"{name} {method}"
        told = await self._in_session("call", [name, method, arguments or {}], what)
        if optional and isinstance(told, list) and told and told[0] in {UNKNOWN_METHOD, UNKNOWN_OBJECT}:
            return None  # hostapd takes its object away while a radio is off
        return self._shaped(shape, self._result(told, what), what)

    async def _in_session(self, kind: str, params: Sequence[object], what: str) -> object:
        """Return the answer to a question of who is logged in; logs in anew, once, where the router forgot us."""
        try:
            return await self._asked(kind, [await self._logged_in(), *params])
        except _SessionOver:
            # A router that was restarted, or was not asked for long, forgets who logged in.
            self._session = NOBODY
        try:
            return await self._asked(kind, [await self._logged_in(), *params])
        except _SessionOver:
            denied = f"{self._url}: this user may not call {what}; see its access list"
            raise DeviceUnavailable(Cause.UNAUTHORISED, denied) from None

    def _result(self, told: object, what: str) -> object:
        if not isinstance(told, list) or not told or not isinstance(told[0], int):
            raise DeviceUnavailable(Cause.NONSENSE, f"{self._url} {what}: answered no status")
        if told[0] == NO_PERMISSION:
            raise DeviceUnavailable(Cause.UNAUTHORISED, f"{self._url} {what}: wants another user or password")
        if told[0] in {UNKNOWN_METHOD, UNKNOWN_OBJECT}:
            raise DeviceUnavailable(Cause.NOT_FOUND, f"{self._url} does not know {what}")
        if told[0] != 0:
            raise DeviceUnavailable(Cause.REFUSED, f"{self._url} {what}: ubus status {told[0]}")
        return told[1] if len(told) > 1 else {}

    def _shaped(self, shape: type[Shape], told: object, what: str) -> Shape:
        try:
            return shape.model_validate(told)
        except ValidationError as exc:
            first = exc.errors()[0]
            where = ".".join(str(one)[:40] for one in first["loc"]) or "the answer"
            # Not the value: it may be somebody's hardware address.
            raise DeviceUnavailable(Cause.NONSENSE, f"{self._url} {what}: {where}: {first['msg']}") from None

    async def _asked(self, method: str, params: Sequence[object]) -> object:
        assert self._http is not None  # noqa: S101  # the context is open
        question = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        where = f"{self._url}/ubus"
        status, raw = await exchange(self._http, "POST", where, body=question, most=MOST_ANSWER)
        if status != 200:
            cause = {401: Cause.UNAUTHORISED, 403: Cause.UNAUTHORISED, 404: Cause.NOT_FOUND}.get(status, Cause.REFUSED)
            raise DeviceUnavailable(cause, f"{where}: HTTP {status}")
        try:
            answer = _ANSWER.validate_json(raw)
        except ValidationError as exc:
            raise DeviceUnavailable(Cause.NONSENSE, f"{where} answered what is no JSON-RPC") from exc
        if answer.error is not None:
            if answer.error.code == DENIED:
                raise _SessionOver(Cause.UNAUTHORISED, f"{where}: access denied")
            raise DeviceUnavailable(Cause.REFUSED, f"{where}: JSON-RPC error {answer.error.code}")
        return answer.result


class _SessionOver(DeviceUnavailable):
    """The session is unknown to the router."""


_ANSWER = TypeAdapter(_Answer)
