"""Anything with an address of which only this is asked: whether it answers, and how fast."""

import asyncio
import logging
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import icmplib

from contract.catalog import CATALOG, Cause, Kind
from contract.clock import Clock
from contract.metrics import Metric, Sample
from edge.poller import DeviceMisconfigured, DeviceUnavailable

log = logging.getLogger(__name__)

PACKETS = 3
INTERVAL = 0.2
REPORTED = ("Reach/RoundTrip", "Reach/Loss")


class Reachability:
    """A Driver that pings, or, where this box may not, opens a TCP connection and closes it."""

    def __init__(self, *, kind: Kind, host: str, tcp_port: int | None, timeout: float, clock: Clock) -> None:
        self._host = host
        self._tcp_port = tcp_port
        self._timeout = timeout
        self._clock = clock
        self._privileged: bool | None = None
        self._may_ping = True
        self.metrics: Sequence[Metric] = tuple(one for one in CATALOG[kind].metrics if one.name in REPORTED)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def read(self) -> Sequence[Sample]:
        address = await self._resolved()
        told = await self._pinged(address) if self._may_ping else None
        if told is None:
            told = await self._connected(address)
        round_trip, loss = told
        at = self._clock.now_ms()
        return [
            Sample(metric="Reach/RoundTrip", at=at, value=round(round_trip, 2)),
            Sample(metric="Reach/Loss", at=at, value=round(loss, 1)),
        ]

    async def _resolved(self) -> str:
        try:
            async with asyncio.timeout(self._timeout):
                found = await asyncio.get_running_loop().getaddrinfo(self._host, None)
        except TimeoutError as exc:
            raise DeviceUnavailable(Cause.SILENT, f"nobody tells the address of {self._host}") from exc
        except OSError as exc:
            raise DeviceUnavailable(Cause.UNREACHABLE, f"{self._host} has no address: {exc.strerror}") from exc
        return str(found[0][4][0])

    async def _pinged(self, address: str) -> tuple[float, float] | None:
        """Return milliseconds and loss in %; None where this box may not send ICMP."""
        each = max(0.1, (self._timeout - INTERVAL * (PACKETS - 1)) / PACKETS)
        for privileged in (True, False) if self._privileged is None else (self._privileged,):
            try:
                answer = await icmplib.async_ping(
                    address, count=PACKETS, interval=INTERVAL, timeout=each, privileged=privileged
                )
            except icmplib.SocketPermissionError:
                continue
            except icmplib.DestinationUnreachable as exc:
                raise DeviceUnavailable(Cause.UNREACHABLE, f"{self._host}: no way there") from exc
            except (icmplib.ICMPLibError, OSError) as exc:
                raise DeviceUnavailable(Cause.UNREACHABLE, f"{self._host}: {type(exc).__name__}") from exc
            self._privileged = privileged
            if not answer.is_alive:
                raise DeviceUnavailable(Cause.SILENT, f"{self._host} answered none of {PACKETS} pings")
            return answer.avg_rtt, answer.packet_loss * 100
        self._may_ping = False
        log.info(
            "%s: this box may not ping (it needs net.ipv4.ping_group_range or CAP_NET_RAW); TCP is tried", self._host
        )
        return None

    async def _connected(self, address: str) -> tuple[float, float]:
        if self._tcp_port is None:
            raise DeviceMisconfigured(
                f"{self._host}: this box may not ping and no tcp_port is given; allow ping or give a port it listens on"
            )
        begun = self._clock.monotonic()
        try:
            async with asyncio.timeout(self._timeout):
                _, writer = await asyncio.open_connection(address, self._tcp_port)
        except TimeoutError as exc:
            raise DeviceUnavailable(Cause.SILENT, f"{self._host}:{self._tcp_port} did not answer") from exc
        except ConnectionRefusedError as exc:
            raise DeviceUnavailable(Cause.REFUSED, f"{self._host}:{self._tcp_port}: {exc.strerror}") from exc
        except OSError as exc:
            raise DeviceUnavailable(Cause.UNREACHABLE, f"{self._host}:{self._tcp_port}: {exc}") from exc
        writer.close()
        return (self._clock.monotonic() - begun) * 1000, 0.0
