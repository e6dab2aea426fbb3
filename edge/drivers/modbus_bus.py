"""One Modbus bus with one master: a serial line, or a gateway behind TCP; its slaves are asked one after the other."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from pymodbus import FramerType, ModbusException
from pymodbus.client import AsyncModbusSerialClient, AsyncModbusTcpClient
from pymodbus.pdu import ExceptionResponse

from contract.catalog import Cause
from contract.clock import Clock
from edge.poller import DeviceUnavailable

# pymodbus reports each silence as an error of its own; the poller says it once, with the device's name.
logging.getLogger("pymodbus.logging").setLevel(logging.CRITICAL)

LONGEST_ANSWER = 15.0
"""Seconds after which the client library gives up by itself; the limits of the devices are shorter."""

BITS_A_CHARACTER = 11
MOST_SILENCE = 0.001_75
"""Seconds between frames above 19,200 baud."""

PATIENCE = 3
"""Questions in a row without a readable answer after which a slave counts as dead."""

FIRST_REST = 10.0
LONGEST_REST = 60.0
"""Seconds for which a dead slave is left alone; doubled each time it is found dead again."""

LATEST = 3.0
"""Seconds after a question that was given up, within which its answer is still expected to come."""

Trace = Callable[[bool, bytes], bytes]
Client = AsyncModbusSerialClient | AsyncModbusTcpClient

_EXCEPTIONS = {2: Cause.NOT_FOUND, 3: Cause.NOT_FOUND, 10: Cause.UNREACHABLE, 11: Cause.SILENT}
"""It does not know the address or the amount; a gateway has no way to the slave, or heard nothing from it.

With any other code the slave turns us away.
"""


Question = tuple[int, int, int]
"""Function, first address, count."""


@dataclass(slots=True)
class _Slave:
    failures: int = 0
    rest: float = 0.0
    rests_until: float = 0.0
    cause: Cause = Cause.SILENT
    owes: Question | None = None
    owes_until: float = 0.0


class Bus:
    """Asks slaves in turns; one that is dead costs the others its time limit three times, then once per rest."""

    def __init__(self, name: str, client: Callable[[Trace], Client], *, gap: float, clock: Clock) -> None:
        self.name = name
        self._new_client = client
        self._gap = gap
        self._clock = clock
        self._turn = asyncio.Lock()
        self._client: Client | None = None
        self._received = 0
        self._unopened: DeviceUnavailable | None = None
        self._slaves: dict[int, _Slave] = {}

    async def ask(self, slave: int, function: int, first: int, count: int, timeout: float) -> list[int]:
        """Return `count` registers; raise DeviceUnavailable telling no port, silence, nonsense and refusal apart.

        A slave that rests is not asked: it raises at once, with the cause it had.
        """
        known = self._slaves.setdefault(slave, _Slave())
        question = (function, first, count)
        self._spare(slave, known, question)
        unopened = self._unopened
        async with self._turn:
            if self._unopened is not None and self._unopened is not unopened:
                # Opening failed while this one queued: eight devices must not wait for the same dead gateway in turn.
                raise DeviceUnavailable(self._unopened.cause, str(self._unopened))
            client = await self._connected(timeout)
            try:
                found = await self._answer(client, slave, function, first, count, timeout)
            except DeviceUnavailable as exc:
                if exc.cause in {Cause.SILENT, Cause.NONSENSE}:
                    self._was_dead(known, question, exc.cause)
                else:
                    known.failures, known.rest = 0, 0.0
                raise
            finally:
                await asyncio.sleep(self._gap)
        known.failures, known.rest = 0, 0.0
        return found

    def _spare(self, slave: int, known: _Slave, question: Question) -> None:
        now = self._clock.monotonic()
        if now < known.rests_until:
            wait = known.rests_until - now
            whom = f"slave {slave} on {self.name} failed {known.failures} times"
            raise DeviceUnavailable(known.cause, f"{whom}; asked again in {wait:.0f} s")
        # RTU answers do not say to which question they belong: a late one would pass for the answer to this one.
        if now < known.owes_until and known.owes is not None and known.owes != question:
            late = f"slave {slave} on {self.name} may still answer an earlier question"
            raise DeviceUnavailable(known.cause, late)

    def _was_dead(self, known: _Slave, question: Question, cause: Cause) -> None:
        now = self._clock.monotonic()
        known.failures, known.cause = known.failures + 1, cause
        known.owes, known.owes_until = question, now + LATEST
        if known.failures >= PATIENCE:
            known.rest = min(LONGEST_REST, 2 * known.rest) or FIRST_REST
            known.rests_until = now + known.rest

    async def _answer(
        self, client: Client, slave: int, function: int, first: int, count: int, timeout: float
    ) -> list[int]:
        whom = f"slave {slave} on {self.name}"
        self._received = 0
        question = client.read_holding_registers if function == 3 else client.read_input_registers
        try:
            async with asyncio.timeout(timeout):
                answer = await question(first, count=count, device_id=slave)
        except (ModbusException, TimeoutError) as exc:
            if not client.connected:
                self.close()
                raise DeviceUnavailable(Cause.UNREACHABLE, f"{self.name} was closed") from exc
            if self._received:
                unreadable = f"{whom} answered {self._received} bytes that are no answer"
                raise DeviceUnavailable(Cause.NONSENSE, unreadable) from exc
            raise DeviceUnavailable(Cause.SILENT, f"{whom} did not answer within {timeout:g} s") from exc
        if isinstance(answer, ExceptionResponse):
            code = answer.exception_code
            cause = _EXCEPTIONS.get(code, Cause.REFUSED)
            raise DeviceUnavailable(
                cause, f"{whom} answered Modbus exception {code} for registers {first} to {first + count - 1}"
            )
        if len(answer.registers) != count:
            raise DeviceUnavailable(Cause.NONSENSE, f"{whom} answered {len(answer.registers)} registers, not {count}")
        return list(answer.registers)

    def close(self) -> None:
        """Close the port; the next question opens it again."""
        if self._client is not None:
            self._client.close()
            self._client = None

    async def _connected(self, timeout: float) -> Client:
        if self._client is not None and self._client.connected:
            return self._client
        self.close()
        client = self._new_client(self._trace)
        try:
            async with asyncio.timeout(timeout):
                connected = await client.connect()
        except (OSError, TimeoutError) as exc:
            client.close()
            text = f"{self.name} cannot be opened: {exc or 'nobody there'}"
            self._unopened = DeviceUnavailable(Cause.UNREACHABLE, text)
            raise self._unopened from exc
        if not connected:
            client.close()
            self._unopened = await _unopened(self.name, client, timeout)
            raise self._unopened
        self._client, self._unopened = client, None
        return client

    def _trace(self, sending: bool, data: bytes) -> bytes:
        if not sending:
            self._received += len(data)
        return data


def serial_bus(port: str, baud: int, clock: Clock) -> Bus:
    """Return the bus of a serial port, 8 data bits, no parity, one stop bit."""

    def client(trace: Trace) -> AsyncModbusSerialClient:
        return AsyncModbusSerialClient(
            port,
            framer=FramerType.RTU,
            baudrate=baud,
            timeout=LONGEST_ANSWER,
            retries=0,
            reconnect_delay=0,  # no attempts behind our back: the poller decides when
            trace_packet=trace,
        )

    # Slaves tell one frame from the next by 3.5 silent characters (Modbus over serial line 1.02, 2.5.1.1).
    return Bus(port, client, gap=max(MOST_SILENCE, 3.5 * BITS_A_CHARACTER / baud), clock=clock)


def tcp_bus(host: str, port: int, clock: Clock) -> Bus:
    """Return the bus behind a Modbus TCP gateway."""

    def client(trace: Trace) -> AsyncModbusTcpClient:
        return AsyncModbusTcpClient(
            host, port=port, timeout=LONGEST_ANSWER, retries=0, reconnect_delay=0, trace_packet=trace
        )

    return Bus(f"{host}:{port}", client, gap=0.0, clock=clock)


async def _unopened(name: str, client: Client, timeout: float) -> DeviceUnavailable:
    """Return why it cannot be opened: the client library keeps that to itself."""
    if isinstance(client, AsyncModbusTcpClient):
        host, _, port = name.rpartition(":")
        try:
            async with asyncio.timeout(timeout):
                _, writer = await asyncio.open_connection(host, int(port))
            writer.close()
        except ConnectionRefusedError as exc:
            return DeviceUnavailable(Cause.REFUSED, f"{name}: {exc.strerror}")
        except (OSError, TimeoutError) as exc:
            return DeviceUnavailable(Cause.UNREACHABLE, f"{name}: {exc or 'nobody there'}")
    return DeviceUnavailable(Cause.UNREACHABLE, f"{name} cannot be opened")
