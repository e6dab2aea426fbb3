"""Which Modbus register holds what: a file, checked when it is read, and registers turned into samples by it. Pure."""

import math
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from contract.catalog import CATALOG, STATE, Condition, Kind
from contract.metrics import Instrument, Metric, Quality, Sample
from edge.drivers.data_file import read

MOST_REGISTERS = 125
"""In one question (Modbus application protocol 1.1b3, 6.3)."""

MOST_GAP = 16
"""Unused registers between two values that are read along rather than asked around: a question costs more."""

_TYPES = {"int16": ">h", "uint16": ">H", "int32": ">i", "uint32": ">I", "float32": ">f"}
_WORDS = {name: struct.calcsize(form) // 2 for name, form in _TYPES.items()}
Decimals = Annotated[int, Field(ge=0, le=6)]
Code = Annotated[int, Field(ge=0, le=65_535)]
Block = tuple[Code, Annotated[int, Field(ge=1, le=MOST_REGISTERS)]]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class MappedValue(_Strict):
    """One value: where it is, and what becomes of the raw number: raw * scale + offset, rounded."""

    metric: str
    address: Code
    type: Literal["int16", "uint16", "int32", "uint32", "float32"]
    scale: Annotated[float, Field(allow_inf_nan=False)] = 1.0
    offset: Annotated[float, Field(allow_inf_nan=False)] = 0.0
    decimals: Decimals = 3
    range: tuple[float, float]

    @model_validator(mode="after")
    def _range_is_the_right_way_up(self) -> "MappedValue":
        if not self.range[0] < self.range[1]:
            raise ValueError(f"range {list(self.range)} is upside down or empty")
        return self

    @property
    def addresses(self) -> Sequence[int]:
        """Return the registers it takes."""
        return range(self.address, self.address + _WORDS[self.type])


class MappedStatus(_Strict):
    """A register that says what the instrument is doing; any other value means measuring."""

    address: Code
    calibrating: list[Code] = Field(default=[])
    fault: list[Code] = Field(default=[])


class RegisterMap(_Strict):
    """Which register holds what, on one kind of hardware.

    `source` is "generic", or the maker's document it was taken from, with its year where it has one. `word_order` is
    that of values of two registers, `byte_order` that within a register (the protocol's own is big). `blocks` are the
    questions to ask, each as first address and count, for devices that answer only some; otherwise they follow from
    the values. `stuck_after_reads` says after how many equal reads of all values a probe must be called stuck; absent
    for values that may stand still.
    """

    name: str
    kind: Literal[Kind.WATER_PROBE, Kind.AIR_STATION, Kind.HYDRO_STATION]
    source: str = Field(min_length=1)
    function: Literal[3, 4] = 3
    word_order: Literal["big", "little"] = "big"
    byte_order: Literal["big", "little"] = "big"
    blocks: list[Block] | None = Field(default=None, min_length=1, max_length=16)
    stuck_after_reads: int | None = Field(default=None, ge=2, le=10_000)
    values: list[MappedValue] = Field(min_length=1, max_length=64)
    status: MappedStatus | None = None

    @model_validator(mode="after")
    def _fits(self) -> "RegisterMap":
        known = {one.name for one in CATALOG[self.kind].metrics} - {STATE}
        taken: dict[int, str] = {}
        for value in self.values:
            if value.metric not in known:
                raise ValueError(
                    f"{value.metric!r} is no metric of a {self.kind}; known are {', '.join(sorted(known))}"
                )
            if value.metric in taken.values():
                raise ValueError(f"{value.metric} is mapped twice; each metric has one value")
            for address in value.addresses:
                if address in taken:
                    raise ValueError(f"register {address} belongs to {taken[address]} and to {value.metric}")
                if address > 65_535:
                    raise ValueError(f"{value.metric} reaches beyond register 65535")
                taken[address] = value.metric
        status = set() if self.status is None else {self.status.address}
        asked = {one for first, count in self.questions for one in range(first, first + count)}
        if max(asked) > 65_535:
            raise ValueError("a block reaches beyond register 65535")
        if left_out := sorted({*taken, *status} - asked):
            raise ValueError(f"register {left_out[0]} is in none of the blocks")
        return self

    @property
    def questions(self) -> list[tuple[int, int]]:
        """Return first address and count of each question that must be asked."""
        if self.blocks is not None:
            return self.blocks
        status = [] if self.status is None else [(self.status.address, 1)]
        blocks: list[tuple[int, int]] = []
        for start, length in sorted([*((one.address, len(one.addresses)) for one in self.values), *status]):
            first, count = blocks[-1] if blocks else (0, 0)
            if blocks and start - (first + count) <= MOST_GAP and start + length - first <= MOST_REGISTERS:
                blocks[-1] = (first, max(count, start + length - first))
            else:
                blocks.append((start, length))
        return blocks

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Return what a device with this map reports, in the catalogue's order."""
        read = {value.metric for value in self.values} | {STATE}
        return tuple(one for one in CATALOG[self.kind].metrics if one.name in read)


def load_map(path: Path) -> RegisterMap:
    """Return a register map; raise DeviceMisconfigured naming file, key and what is wrong."""
    return read(path, RegisterMap, "register map")


def samples(words: Mapping[int, int], mapping: RegisterMap, at: int) -> list[Sample]:
    """Return what registers (by address, 0 to 65,535) say; every block of the map must be there.

    No number (NaN, infinity) becomes a bad sample without value; one outside its range a bad sample with its value.
    """
    instrument = _instrument(words, mapping)
    found = []
    for value in mapping.values:
        number = _raw([words[one] for one in value.addresses], value, mapping) * value.scale + value.offset
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


def condition(found: Sequence[Sample], mapping: RegisterMap, equal_reads: int) -> Condition:
    """Return what the samples show of the probe; `equal_reads` counts reads of the very same registers."""
    if any(one.instrument is Instrument.FAULT for one in found):
        return Condition.INSTRUMENT_FAULT
    if mapping.stuck_after_reads is not None and equal_reads >= mapping.stuck_after_reads:
        return Condition.STUCK
    if any(one.quality is Quality.BAD for one in found):
        return Condition.OUT_OF_RANGE
    if any(one.instrument is Instrument.CALIBRATING for one in found):
        return Condition.CALIBRATING
    return Condition.OK


def _raw(words: Sequence[int], value: MappedValue, mapping: RegisterMap) -> float:
    ordered = list(words) if mapping.word_order == "big" else list(reversed(words))
    packed = struct.pack(f"{'>' if mapping.byte_order == 'big' else '<'}{len(ordered)}H", *ordered)
    return float(struct.unpack(_TYPES[value.type], packed)[0])


def _instrument(words: Mapping[int, int], mapping: RegisterMap) -> Instrument:
    if mapping.status is None:
        return Instrument.MEASURING
    code = words[mapping.status.address]
    if code in mapping.status.fault:
        return Instrument.FAULT
    return Instrument.CALIBRATING if code in mapping.status.calibrating else Instrument.MEASURING
