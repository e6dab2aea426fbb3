"""A hotspot that answers SNMP, v2c and v3 with authentication and privacy: standard tables and a subtree of its own."""

import asyncio
import bisect
import hashlib
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from pysnmp.carrier.asyncio.dgram import udp
from pysnmp.entity import config, engine
from pysnmp.entity.rfc3413 import cmdrsp, context
from pysnmp.proto.rfc1902 import (
    Counter32,
    Counter64,
    Gauge32,
    Integer32,
    ObjectIdentifier,
    OctetString,
    TimeTicks,
)
from pysnmp.proto.rfc1905 import EndOfMibView, NoSuchInstance
from pysnmp.smi.instrum import AbstractMibInstrumController

from simulators.faults import Fault, Faults
from simulators.guests import guests

SLOW_SECONDS = 2.0
OFF = frozenset({Fault.REFUSE, Fault.MAINS_LOST})
OWN = "1.3.6.1.4.1.32473.1"
"""Beneath the enterprise number that RFC 5612 keeps for documentation."""

DISCOVERY_BYTES = 90
"""Questions of v3 that carry nothing but the wish to know the engine are shorter than this."""

Values = dict[tuple[int, ...], Any]


@dataclass(slots=True, kw_only=True)
class Agent:
    """One hotspot with an Ethernet uplink and two radios; run it with `serving`."""

    id: str
    community: str
    user: str
    auth_password: str
    privacy_password: str
    faults: Faults
    seed: int = 7
    host: str = "127.0.0.1"
    now: Callable[[], float] = time.time
    started: float = field(default_factory=time.monotonic)

    def values(self) -> Values:
        """Return everything it tells, by object identifier."""
        fault = self.faults.now()
        uptime = time.monotonic() - self.started
        up = 2 if fault is Fault.NO_UPLINK else 1
        on = 2 if fault is Fault.RADIO_OFF else 1
        there = 0 if fault is Fault.RADIO_OFF else guests(self.seed, self.id, self.now())
        received, sent = int(uptime * 60_000), int(uptime * 9_000)
        told: dict[str, Any] = {
            "1.3.6.1.2.1.1.1.0": OctetString(b"SIM AP-3"),
            "1.3.6.1.2.1.1.2.0": ObjectIdentifier(OWN),
            "1.3.6.1.2.1.1.3.0": TimeTicks(int(uptime * 100)),
            "1.3.6.1.2.1.1.5.0": OctetString(self.id.encode()),
            "1.3.6.1.2.1.25.1.1.0": TimeTicks(int(uptime * 100)),
            "1.3.6.1.2.1.25.2.3.1.2.1": ObjectIdentifier("1.3.6.1.2.1.25.2.1.2"),
            "1.3.6.1.2.1.25.2.3.1.4.1": Integer32(1024),
            "1.3.6.1.2.1.25.2.3.1.5.1": Integer32(126_000),
            "1.3.6.1.2.1.25.2.3.1.6.1": Integer32(61_000),
            "1.3.6.1.2.1.25.3.3.1.2.1": Integer32(17),
            f"{OWN}.1.2.1": Gauge32(there // 3),
            f"{OWN}.1.2.2": Gauge32(there - there // 3),
            f"{OWN}.1.3.1": Integer32(on),
            f"{OWN}.1.3.2": Integer32(on),
            f"{OWN}.2.0": Integer32(468),
            f"{OWN}.3.0": OctetString(b"4.2.1"),
            f"{OWN}.4.0": OctetString(hashlib.blake2b(self.id.encode(), digest_size=6).hexdigest().encode()),
        }
        for index, name in enumerate(("lo", "eth0", "ath0", "ath1"), 1):
            status = up if name == "eth0" else on if name.startswith("ath") else 1
            told |= {
                f"1.3.6.1.2.1.2.2.1.2.{index}": OctetString(name.encode()),
                f"1.3.6.1.2.1.2.2.1.8.{index}": Integer32(status),
                f"1.3.6.1.2.1.2.2.1.10.{index}": Counter32(received % 2**32),
                f"1.3.6.1.2.1.2.2.1.16.{index}": Counter32(sent % 2**32),
                f"1.3.6.1.2.1.31.1.1.1.1.{index}": OctetString(name.encode()),
                f"1.3.6.1.2.1.31.1.1.1.6.{index}": Counter64(received),
                f"1.3.6.1.2.1.31.1.1.1.10.{index}": Counter64(sent),
            }
        return {tuple(map(int, oid.split("."))): value for oid, value in told.items()}


class _Instrumentation(AbstractMibInstrumController):  # type: ignore[misc]  # the library has no types
    """Answers from the agent's values, asked anew each time."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def read_variables(self, *asked: Any, **more: Any) -> list[Any]:
        values = self._agent.values()
        return [(oid, values.get(tuple(oid), NoSuchInstance(""))) for oid, _ in asked]

    def read_next_variables(self, *asked: Any, **more: Any) -> list[Any]:
        values = self._agent.values()
        known = sorted(values)
        return [self._after(tuple(oid), known, values) for oid, _ in asked]

    def _after(self, oid: tuple[int, ...], known: list[tuple[int, ...]], values: Values) -> tuple[Any, Any]:
        place = bisect.bisect_right(known, oid)
        if self._agent.faults.now() is Fault.STUCK:
            # The walk comes back to where it was, as careless agents let it.
            place = max(0, place - 2)
        if place >= len(known):
            return ObjectIdentifier(oid), EndOfMibView("")
        return ObjectIdentifier(known[place]), values[known[place]]


@asynccontextmanager
async def serving(agent: Agent, *, port: int = 0) -> AsyncIterator[tuple[str, int]]:
    """Run a hotspot and yield its host and port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((agent.host, 0))
        inner = int(probe.getsockname()[1])
    snmp = _engine(agent, inner)
    front = _Front(agent, inner)
    bound = await front.open(port)
    watching = asyncio.create_task(front.watch(), name=f"{agent.id}: power")
    try:
        yield agent.host, bound
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        front.close()
        snmp.close_dispatcher()


def _engine(agent: Agent, port: int) -> Any:
    snmp = engine.SnmpEngine()
    config.add_transport(snmp, udp.DOMAIN_NAME, udp.UdpTransport().open_server_mode((agent.host, port)))
    config.add_v1_system(snmp, "area", agent.community)
    config.add_v3_user(
        snmp,
        agent.user,
        config.USM_AUTH_HMAC96_SHA,
        agent.auth_password,
        config.USM_PRIV_CFB128_AES,
        agent.privacy_password,
    )
    everything = (1, 3, 6)
    config.add_vacm_user(snmp, 2, "area", "noAuthNoPriv", everything)
    config.add_vacm_user(snmp, 3, agent.user, "authPriv", everything)
    told = context.SnmpContext(snmp)
    told.unregister_context_name(b"")
    told.register_context_name(b"", _Instrumentation(agent))
    for responder in (cmdrsp.GetCommandResponder, cmdrsp.NextCommandResponder, cmdrsp.BulkCommandResponder):
        responder(snmp, told)
    snmp.transport_dispatcher.job_started(1)
    return snmp


class _Front(asyncio.DatagramProtocol):
    """Stands before the agent: what gets through, how late, and in what shape, is decided here."""

    def __init__(self, agent: Agent, inner: int) -> None:
        self._agent = agent
        self._inner = inner
        self._transport: asyncio.DatagramTransport | None = None
        self._port = 0
        self._behind: dict[tuple[str, int], asyncio.DatagramTransport] = {}

    async def open(self, port: int) -> int:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=(self._agent.host, port))
        self._transport = transport
        self._port = int(transport.get_extra_info("sockname")[1])
        return self._port

    def close(self) -> None:
        for one in (self._transport, *self._behind.values()):
            if one is not None:
                one.close()
        self._transport = None
        self._behind.clear()

    async def watch(self) -> None:
        before: Fault | None = None
        while True:
            fault = self._agent.faults.now()
            if fault in OFF and self._transport is not None:
                self.close()
            elif fault not in OFF and self._transport is None:
                await self.open(self._port)
            if fault is not before and (fault is Fault.REBOOT or before is Fault.MAINS_LOST):
                self._agent.started = time.monotonic()
            before = fault
            await asyncio.sleep(0.05)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        fault = self._agent.faults.now()
        if fault is Fault.SILENT:
            return
        if fault is Fault.NONSENSE:
            self.answer(b"\x30\x82\xff\xff" + b"\x02" * 40, addr)
            return
        if fault is Fault.UNAUTHORISED:
            if data[4:5] == b"\x01":  # v2c: a wrong community is met with silence
                return
            if len(data) > DISCOVERY_BYTES:
                data = data[:-1] + bytes([data[-1] ^ 0xFF])  # the digest is wrong now, as with another password
        wait = SLOW_SECONDS if fault is Fault.SLOW else 0.0
        task = asyncio.get_running_loop().create_task(self._forward(data, addr, wait))
        task.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def _forward(self, data: bytes, addr: tuple[str, int], wait: float) -> None:
        await asyncio.sleep(wait)
        behind = self._behind.get(addr)
        if behind is None:
            loop = asyncio.get_running_loop()
            behind, _ = await loop.create_datagram_endpoint(
                lambda: _Back(self, addr), remote_addr=(self._agent.host, self._inner)
            )
            self._behind[addr] = behind
        behind.sendto(data)

    def answer(self, data: bytes, addr: tuple[str, int]) -> None:
        """Send to a client, if the port is still open."""
        if self._transport is not None:
            self._transport.sendto(data, addr)


class _Back(asyncio.DatagramProtocol):
    def __init__(self, front: _Front, addr: tuple[str, int]) -> None:
        self._front = front
        self._addr = addr

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._front.answer(data, self._addr)
