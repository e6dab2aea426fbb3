"""Hotspots asked by SNMP, v2c or v3 with authentication and privacy: standard tables, and a vendor's by its file."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from gufo.snmp import (
    Aes128Key,
    DesKey,
    Md5Key,
    NoSuchInstance,
    Sha1Key,
    Sha256Key,
    SnmpAuthError,
    SnmpError,
    SnmpVersion,
    User,
)
from gufo.snmp.aio import SnmpSession

from contract.catalog import CATALOG, STATE, Cause, Condition, Kind
from contract.clock import Clock
from contract.metrics import Metric, Sample, Value
from edge.drivers.snmp_profile import Column, Profile, Scalar
from edge.drivers.traffic import Counted, rates
from edge.poller import DeviceUnavailable

MOST_ROWS = 2000
ATTEMPTS = 3
"""Datagrams get lost: each question has a third of the time."""

UPTIME = "1.3.6.1.2.1.1.3.0"
"""sysUpTime (RFC 3418), in hundredths of a second since the agent started."""

MODEL = "1.3.6.1.2.1.1.1.0"
"""sysDescr (RFC 3418)."""

IF_NAME, IF_DESCR, IF_STATUS = "1.3.6.1.2.1.31.1.1.1.1", "1.3.6.1.2.1.2.2.1.2", "1.3.6.1.2.1.2.2.1.8"
HC_IN, HC_OUT = "1.3.6.1.2.1.31.1.1.1.6", "1.3.6.1.2.1.31.1.1.1.10"
IN, OUT = "1.3.6.1.2.1.2.2.1.10", "1.3.6.1.2.1.2.2.1.16"
"""The interfaces' tables (RFC 2863)."""

LOADS = "1.3.6.1.2.1.25.3.3.1.2"
STORAGE_TYPE, STORAGE_SIZE, STORAGE_USED = (f"1.3.6.1.2.1.25.2.3.1.{column}" for column in (2, 5, 6))
RAM = "1.3.6.1.2.1.25.2.1.2"
"""The host's resources (RFC 2790)."""

UP = 1
_AUTH = {"md5": Md5Key, "sha1": Sha1Key, "sha256": Sha256Key}
_PRIVACY = {"des": DesKey, "aes128": Aes128Key}

Told = None | str | bytes | int | float


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """How to ask: a community (v2c), or a user with two passwords (v3)."""

    community: str | None = None
    username: str | None = None
    auth: tuple[str, str] | None = None
    """Protocol and password."""
    privacy: tuple[str, str] | None = None

    def user(self) -> User | None:
        """Return the user of v3; None for v2c."""
        if self.username is None or self.auth is None or self.privacy is None:
            return None
        return User(
            name=self.username,
            auth_key=_AUTH[self.auth[0]](self.auth[1].encode()),
            priv_key=_PRIVACY[self.privacy[0]](self.privacy[1].encode()),
        )


class SnmpHotspot:
    """A Driver for one hotspot."""

    def __init__(
        self,
        *,
        host: str,
        port: int,
        login: Login,
        profile: Profile,
        uplink_interface: str | None,
        timeout: float,
        clock: Clock,
    ) -> None:
        self._host = host
        self._port = port
        self._login = login
        self._profile = profile
        self._uplink = uplink_interface
        self._timeout = timeout
        self._clock = clock
        self._session: SnmpSession | None = None
        self._knows_engine = False
        self._counted: Counted | None = None
        self._uptime: int | None = None
        named = {STATE, "Device/Uptime", "Device/CPU", "Device/Memory", "Device/Model"}
        named |= {"Uplink/OK", "Traffic/Received", "Traffic/Sent"} if uplink_interface is not None else set()
        for key, metric in (
            ("clients", "Wifi/Clients"),
            ("radios", "Wifi/RadiosOn"),
            ("temperature", "Device/Temperature"),
            ("firmware", "Device/Firmware"),
            ("serial", "Device/Serial"),
        ):
            named |= {metric} if getattr(profile, key) is not None else set()
        self.metrics: Sequence[Metric] = tuple(one for one in CATALOG[Kind.HOTSPOT].metrics if one.name in named)

    async def __aenter__(self) -> Self:
        user = self._login.user()
        self._session = SnmpSession(
            self._host,
            port=self._port,
            community=self._login.community or "",
            user=user,
            version=SnmpVersion.v2c if user is None else SnmpVersion.v3,
            timeout=self._timeout / ATTEMPTS,
        )
        self._knows_engine = False
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session = None

    async def read(self) -> Sequence[Sample]:
        where = f"{self._host}:{self._port}"
        begun = self._clock.monotonic()
        try:
            async with asyncio.timeout(self._timeout):
                values = await self._read()
        except SnmpAuthError as exc:
            raise DeviceUnavailable(Cause.UNAUTHORISED, f"{where} wants another user or password") from exc
        except TimeoutError as exc:
            if self._clock.monotonic() - begun < self._timeout / ATTEMPTS / 2:
                raise DeviceUnavailable(Cause.REFUSED, f"{where}: its port is closed") from exc
            # With v2c a wrong community is silence too: the protocol has no other word for it (RFC 3584, 5.2).
            hint = "" if self._login.community is None else ", or the community is wrong"
            silent = f"{where} did not answer within {self._timeout:g} s{hint}"
            raise DeviceUnavailable(Cause.SILENT, silent) from exc
        except ConnectionRefusedError as exc:
            raise DeviceUnavailable(Cause.REFUSED, f"{where}: {exc.strerror}") from exc
        except OSError as exc:
            raise DeviceUnavailable(Cause.UNREACHABLE, f"{where}: {exc}") from exc
        except (SnmpError, ValueError, OverflowError, TypeError) as exc:
            raise DeviceUnavailable(Cause.NONSENSE, f"{where} answered what is no SNMP ({type(exc).__name__})") from exc
        at = self._clock.now_ms()
        return [Sample(metric=name, at=at, value=value) for name, value in values.items()]

    async def _read(self) -> dict[str, Value]:
        if not self._knows_engine:
            # Engine, boots and time of v3 (RFC 3414, 4); an agent that started anew has others.
            assert self._session is not None  # noqa: S101  # the context is open
            await self._session.refresh()
            self._knows_engine = True
        uptime = _number(await self._get(UPTIME))
        if uptime is None:
            raise DeviceUnavailable(Cause.NONSENSE, f"{self._host}:{self._port} does not tell its uptime (sysUpTime)")
        values: dict[str, Value] = {"Device/Uptime": int(uptime) // 100}
        profile = self._profile
        model = await self._get(profile.model.oid if profile.model else MODEL)
        values |= {"Device/Model": _text(model)} if model is not None else {}
        for scalar, metric in ((profile.firmware, "Device/Firmware"), (profile.serial, "Device/Serial")):
            told = await self._get(scalar.oid) if scalar else None
            values |= {metric: _text(told)} if told is not None else {}
        values |= await self._temperature(profile.temperature)
        loads = [one for one in map(_number, (await self._column(LOADS)).values()) if one is not None]
        values |= {"Device/CPU": round(sum(loads) / len(loads), 1)} if loads else {}
        values |= await self._memory()
        values |= await self._counts("Wifi/Clients", profile.clients)
        values |= await self._counts("Wifi/RadiosOn", profile.radios)
        values |= await self._through_uplink()
        values[STATE] = self._state(values, int(uptime)).value
        return values

    def _state(self, values: Mapping[str, Value], uptime: int) -> Condition:
        before, self._uptime = self._uptime, uptime
        if values.get("Wifi/RadiosOn") == 0:
            return Condition.NO_RADIO
        if values.get("Uplink/OK") is False:
            return Condition.NO_UPLINK
        # The counter wraps after 497 days; a wrap looks like a start, once in so long.
        return Condition.REBOOTED if before is not None and uptime < before else Condition.OK

    async def _temperature(self, scalar: Scalar | None) -> dict[str, Value]:
        told = _number(await self._get(scalar.oid)) if scalar else None
        return {"Device/Temperature": round(told * scalar.scale, 1)} if told is not None and scalar else {}

    async def _memory(self) -> dict[str, Value]:
        types = await self._column(STORAGE_TYPE)
        row = next((row for row, told in types.items() if str(told).lstrip(".") == RAM), None)
        if row is None:
            return {}
        size, used = [_number(await self._get(f"{column}.{row}")) for column in (STORAGE_SIZE, STORAGE_USED)]
        return {"Device/Memory": round(100 * used / size, 1)} if size and used is not None else {}

    async def _counts(self, metric: str, column: Column | None) -> dict[str, Value]:
        if column is None:
            return {}
        numbers = [one for one in map(_number, (await self._column(column.oid)).values()) if one is not None]
        total = sum(numbers) if column.equal_to is None else sum(one == column.equal_to for one in numbers)
        return {metric: int(total)}

    async def _through_uplink(self) -> dict[str, Value]:
        if self._uplink is None:
            return {}
        names = await self._column(IF_NAME) or await self._column(IF_DESCR)
        if not names:
            raise DeviceUnavailable(Cause.NONSENSE, f"{self._host} tells of no interface at all")
        row = next((row for row, told in names.items() if _text(told) == self._uplink), None)
        if row is None:
            known = ", ".join(_text(one)[:32] for one in list(names.values())[:10])
            raise DeviceUnavailable(
                Cause.NOT_FOUND, f"{self._host} has no interface {self._uplink!r}; it has {known}; name it as uplink"
            )
        up = _number(await self._get(f"{IF_STATUS}.{row}")) == UP
        return {"Uplink/OK": up, **(await self._traffic(row) if up else {})}

    async def _traffic(self, row: str) -> dict[str, Value]:
        for received_at, sent_at, bits in ((HC_IN, HC_OUT, 64), (IN, OUT, 32)):
            received, sent = [_number(await self._get(f"{one}.{row}")) for one in (received_at, sent_at)]
            if received is not None and sent is not None:
                before = self._counted
                self._counted = Counted(at=self._clock.monotonic(), received=int(received), sent=int(sent), bits=bits)
                same = before is not None and before.bits == bits
                return rates(before if same else None, self._counted)
        return {}

    async def _get(self, oid: str) -> Told:
        """Return a value; None where the agent has none."""
        assert self._session is not None  # noqa: S101  # the context is open
        for attempt in range(1, ATTEMPTS + 1):
            begun = self._clock.monotonic()
            try:
                return await self._session.get(oid)
            except NoSuchInstance:
                return None
            except TimeoutError:
                # A closed port is told at once, and asking again helps nobody.
                if attempt == ATTEMPTS or self._clock.monotonic() - begun < self._timeout / ATTEMPTS / 2:
                    raise
        return None

    async def _column(self, oid: str) -> dict[str, Told]:
        """Return the values of a column by row; raise DeviceUnavailable for one without end."""
        assert self._session is not None  # noqa: S101  # the context is open
        found: dict[str, Told] = {}
        last: tuple[int, ...] = ()
        async for told, value in self._session.getbulk(oid):
            here = tuple(map(int, told.split(".")))
            if here <= last:
                raise DeviceUnavailable(Cause.NONSENSE, f"{self._host} walks in a circle at {told[:80]}")
            if len(found) >= MOST_ROWS:
                raise DeviceUnavailable(Cause.NONSENSE, f"{self._host} has more than {MOST_ROWS} rows at {oid}")
            last = here
            found[told.removeprefix(f"{oid}.")] = value
        return found


def _number(told: Told) -> float | None:
    return float(told) if isinstance(told, (int, float)) and not isinstance(told, bool) else None


def _text(told: Told) -> str:
    text = told.decode("utf-8", "replace") if isinstance(told, bytes) else str(told)
    return "".join(one if one.isprintable() else " " for one in text)[:100].strip()
