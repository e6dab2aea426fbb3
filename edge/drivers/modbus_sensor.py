"""Probes that speak Modbus RTU on a serial line; which register holds what is a file, not code."""

import asyncio
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pymodbus import FramerType, ModbusException
from pymodbus.client import AsyncModbusSerialClient
from pymodbus.client.mixin import ModbusClientMixin
from pymodbus.pdu import ExceptionResponse

from contract.catalog import CATALOG, Cause, Kind
from contract.clock import Clock
from contract.metrics import Instrument, Metric, Quality, Sample
from edge.poller import DeviceMisconfigured, DeviceUnavailable

# pymodbus reports each silence as an error of its own; the poller says it once, with the device's name.
logging.getLogger("pymodbus.logging").setLevel(logging.CRITICAL)

MOST_REGISTERS = 125
"""In one question (Modbus application protocol 1.1b3, 6.3)."""

LONGEST_ANSWER = 15.0
"""Seconds after which the client library gives up by itself; the limits of the devices are shorter."""

BITS_A_CHARACTER = 11
MOST_SILENCE = 0.001_75
"""Seconds between frames above 19,200 baud."""

_WORDS = {"int16": 1, "uint16": 1, "int32": 2, "uint32": 2, "float32": 2}
_TYPES = {name: ModbusClientMixin.DATATYPE[name.upper()] for name in _WORDS}
Decimals = Annotated[int, Field(ge=0, le=6)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class MappedValue(_Strict):
    """One value: where it is, and what becomes of the raw number."""

    metric: str
    address: int = Field(ge=0, le=65_535)
    type: Literal["int16", "uint16", "int32", "uint32", "float32"]
    scale: float = 1.0
    offset: float = 0.0
    decimals: Decimals = 3
    range: tuple[float, float]

    @model_validator(mode="after")
    def _range_is_the_right_way_up(self) -> "MappedValue":
        if self.range[0] >= self.range[1]:
            raise ValueError(f"range {list(self.range)} is upside down or empty")
        return self


class MappedStatus(_Strict):
    """A register that says what the instrument is doing; any other value means measuring."""

    address: int = Field(ge=0, le=65_535)
    calibrating: list[int] = []
    fault: list[int] = []


class RegisterMap(_Strict):
    """Which register holds what; read in one question."""

    name: str
    kind: Kind
    hardware: str
    function: Literal[3, 4] = 3
    word_order: Literal["big", "little"] = "big"
    values: list[MappedValue] = Field(min_length=1)
    status: MappedStatus | None = None

    @model_validator(mode="after")
    def _fits(self) -> "RegisterMap":
        known = {one.name for one in CATALOG[self.kind].metrics}
        taken: dict[int, str] = {}
        for value in self.values:
            if value.metric not in known:
                raise ValueError(
                    f"{value.metric!r} is no metric of a {self.kind}; known are {', '.join(sorted(known))}"
                )
            for address in range(value.address, value.address + _WORDS[value.type]):
                if address in taken:
                    raise ValueError(f"register {address} belongs to {taken[address]} and to {value.metric}")
                taken[address] = value.metric
        if self.count > MOST_REGISTERS:
            raise ValueError(f"{self.count} registers do not fit one question of {MOST_REGISTERS}")
        return self

    @property
    def first(self) -> int:
        """Return the lowest address that is read."""
        return min(self._addresses())

    @property
    def count(self) -> int:
        """Return how many registers are read."""
        return max(self._addresses()) - self.first + 1

    def _addresses(self) -> list[int]:
        last = [value.address + _WORDS[value.type] - 1 for value in self.values]
        status = [self.status.address] if self.status else []
        return [value.address for value in self.values] + last + status


def load_map(path: Path) -> RegisterMap:
    """Return a register map; raise DeviceMisconfigured naming file, key and what is wrong."""
    try:
        return RegisterMap.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as exc:
        raise DeviceMisconfigured(f"register map {path}: {exc}") from exc
    except ValidationError as exc:
        first = exc.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the map"
        raise DeviceMisconfigured(f"register map {path}: {where}: {first['msg']}") from exc


def samples(registers: Sequence[int], mapping: RegisterMap, at: int) -> list[Sample]:
    """Return what the registers say, from `mapping.first` on; raise DeviceUnavailable where there are too few.

    No number (NaN, infinity) becomes a bad sample without value; one outside its range a bad sample with its value.
    """
    if len(registers) != mapping.count:
        raise DeviceUnavailable(Cause.NONSENSE, f"answered {len(registers)} registers instead of {mapping.count}")
    instrument = _instrument(registers, mapping)
    found = []
    for value in mapping.values:
        start = value.address - mapping.first
        words = list(registers[start : start + _WORDS[value.type]])
        raw = ModbusClientMixin.convert_from_registers(words, _TYPES[value.type], mapping.word_order)
        number = float(raw) * value.scale + value.offset if isinstance(raw, (int, float)) else math.nan
        good = math.isfinite(number) and value.range[0] <= number <= value.range[1]
        found.append(
            Sample(
                metric=value.metric,
                at=at,
                value=round(number, value.decimals) if math.isfinite(number) else None,
                quality=Quality.GOOD if good else Quality.BAD,
                instrument=instrument,
            )
        )
    return found


def _instrument(registers: Sequence[int], mapping: RegisterMap) -> Instrument:
    if mapping.status is None:
        return Instrument.MEASURING
    code = registers[mapping.status.address - mapping.first]
    if code in mapping.status.fault:
        return Instrument.FAULT
    return Instrument.CALIBRATING if code in mapping.status.calibrating else Instrument.MEASURING


class SerialLine:
    """One serial port with one master; questions of all its probes go one after the other."""

    def __init__(self, port: str, baud: int) -> None:
        self.port = port
        self._baud = baud
        self._turn = asyncio.Lock()
        self._client: AsyncModbusSerialClient | None = None
        self._received = 0

    async def ask(self, mapping: RegisterMap, slave: int, timeout: float) -> list[int]:
        """Return the registers; raise DeviceUnavailable telling an absent port, silence, nonsense and refusal apart."""
        async with self._turn:
            client = await self._connected()
            try:
                return await self._answer(client, mapping, slave, timeout)
            finally:
                # Slaves tell one frame from the next by 3.5 silent characters (Modbus over serial line 1.02, 2.5.1.1).
                await asyncio.sleep(max(MOST_SILENCE, 3.5 * BITS_A_CHARACTER / self._baud))

    async def _answer(
        self, client: AsyncModbusSerialClient, mapping: RegisterMap, slave: int, timeout: float
    ) -> list[int]:
        whom = f"slave {slave} on {self.port}"
        self._received = 0
        question = client.read_holding_registers if mapping.function == 3 else client.read_input_registers
        try:
            async with asyncio.timeout(timeout):
                answer = await question(mapping.first, count=mapping.count, device_id=slave)
        except (ModbusException, TimeoutError) as exc:
            if not client.connected:
                self.close()
                raise DeviceUnavailable(Cause.UNREACHABLE, f"{self.port} was closed") from exc
            if self._received:
                unreadable = f"{whom} answered {self._received} bytes that are no answer"
                raise DeviceUnavailable(Cause.NONSENSE, unreadable) from exc
            raise DeviceUnavailable(Cause.SILENT, f"{whom} did not answer within {timeout:g} s") from exc
        if isinstance(answer, ExceptionResponse):
            # 1-3: it does not know the function, the address or the amount; 4 and above: it knows, and cannot.
            code = answer.exception_code
            cause = Cause.REFUSED if code in {1, 2, 3} else Cause.NONSENSE
            raise DeviceUnavailable(cause, f"{whom} answered Modbus exception {code}")
        return list(answer.registers)

    def close(self) -> None:
        """Close the port; the next question opens it again."""
        if self._client is not None:
            self._client.close()
            self._client = None

    async def _connected(self) -> AsyncModbusSerialClient:
        if self._client is not None and self._client.connected:
            return self._client
        self.close()
        client = AsyncModbusSerialClient(
            self.port,
            framer=FramerType.RTU,
            baudrate=self._baud,
            timeout=LONGEST_ANSWER,
            retries=0,
            reconnect_delay=0,  # no attempts behind our back: the poller decides when
            trace_packet=self._trace,
        )
        try:
            connected = await client.connect()
        except OSError as exc:
            raise DeviceUnavailable(Cause.UNREACHABLE, f"{self.port} cannot be opened: {exc}") from exc
        if not connected:
            client.close()
            raise DeviceUnavailable(Cause.UNREACHABLE, f"{self.port} cannot be opened")
        self._client = client
        return client

    def _trace(self, sending: bool, data: bytes) -> bytes:
        if not sending:
            self._received += len(data)
        return data


class ModbusSensor:
    """A Driver for one slave on a line."""

    def __init__(self, line: SerialLine, *, slave: int, mapping: RegisterMap, timeout: float, clock: Clock) -> None:
        self._line = line
        self._slave = slave
        self._mapping = mapping
        self._timeout = timeout
        self._clock = clock
        read = {value.metric for value in mapping.values}
        self.metrics: Sequence[Metric] = tuple(one for one in CATALOG[mapping.kind].metrics if one.name in read)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def read(self) -> Sequence[Sample]:
        registers: list[Any] = await self._line.ask(self._mapping, self._slave, self._timeout)
        return samples(registers, self._mapping, self._clock.now_ms())
