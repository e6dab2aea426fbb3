"""Sparkplug B payloads: bytes to frozen values and back (Sparkplug 3.0.0, chapter 6).

`encode` and `decode` are for births, commands and tests, where clarity matters. Who reads a million samples an hour
calls `parse` and walks the protobuf message with `read_value`, one call a metric and no object in between.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import DecodeError

from contract import sparkplug_pb2
from contract.metrics import DataType, Value

MAX_BYTES = 1024 * 1024
"""The hub refuses larger messages; our edge nodes stay at 64 KiB."""

_NARROW = {
    DataType.INT8: (0xFF, 0x80),
    DataType.INT16: (0xFFFF, 0x8000),
    DataType.INT32: (0xFFFF_FFFF, 0x8000_0000),
}
_UNSIGNED = {DataType.UINT8: 0xFF, DataType.UINT16: 0xFFFF, DataType.UINT32: 0xFFFF_FFFF}
_WIDE = frozenset({DataType.INT64, DataType.UINT64, DataType.DATETIME})
_TEXT = frozenset({DataType.STRING, DataType.TEXT, DataType.UUID})
_DATATYPES = frozenset(DataType)
_2_63 = 1 << 63
_2_64 = 1 << 64


class PayloadUnreadable(ValueError):
    """Bytes that are no Sparkplug payload, or a value that is not of its declared datatype."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSet:
    """A table as a value: column names, their datatypes, and rows of scalars."""

    columns: tuple[str, ...]
    types: tuple[DataType, ...]
    rows: tuple[tuple[Value, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WireMetric:
    """One metric as it stands in a payload; `at` in milliseconds since 1970 UTC, `value` None means is_null."""

    name: str | None = None
    alias: int | None = None
    at: int | None = None
    datatype: DataType | None = None
    value: Value | DataSet = None
    historical: bool = False
    transient: bool = False
    properties: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """One message; `seq` is absent in NDEATH and in commands."""

    at: int | None = None
    seq: int | None = None
    metrics: tuple[WireMetric, ...] = ()


def parse(raw: bytes) -> sparkplug_pb2.Payload:
    """Return the protobuf message; raise PayloadUnreadable if it is none or larger than MAX_BYTES."""
    if len(raw) > MAX_BYTES:
        raise PayloadUnreadable(f"payload has {len(raw)} bytes, more than {MAX_BYTES}")
    message = sparkplug_pb2.Payload()
    try:
        message.ParseFromString(raw)
    except DecodeError as exc:
        raise PayloadUnreadable("not a Sparkplug B payload (protobuf does not parse)") from exc
    return message


def read_value(metric: Any, datatype: int) -> Value:
    """Return the scalar of a protobuf metric, cell or property, None if it is null.

    Raises PayloadUnreadable where the value is not carried in the field that its datatype prescribes (6.4.16), or does
    not fit it. Infinities and NaN are returned as they are: whether they are welcome is for the caller to say.
    """
    held: str | None = metric.WhichOneof("value")
    if held is None:
        return None
    if datatype in _NARROW and held == "int_value":
        mask, sign = _NARROW[DataType(datatype)]
        low = metric.int_value & mask
        # A negative number comes as two's complement of its own width or of 32 bits; both are in the wild.
        if metric.int_value not in {low, low | (0xFFFF_FFFF ^ mask)}:
            raise PayloadUnreadable(f"{metric.int_value} does not fit {DataType(datatype).name}")
        return int(low - mask - 1 if low & sign else low)
    if datatype in _UNSIGNED and held == "int_value":
        if metric.int_value > _UNSIGNED[DataType(datatype)]:
            raise PayloadUnreadable(f"{metric.int_value} does not fit {DataType(datatype).name}")
        return int(metric.int_value)
    if datatype in {DataType.UINT32, *_WIDE} and held == "long_value":
        number = int(metric.long_value)
        return number - _2_64 if datatype == DataType.INT64 and number >= _2_63 else number
    if datatype in _WIDE and held == "int_value":  # seen from writers that pick the field by magnitude
        return int(metric.int_value)
    if datatype == DataType.DOUBLE and held == "double_value":
        return float(metric.double_value)
    if datatype == DataType.FLOAT and held == "float_value":
        return float(metric.float_value)
    if datatype == DataType.BOOLEAN and held == "boolean_value":
        return bool(metric.boolean_value)
    if datatype in _TEXT and held == "string_value":
        return str(metric.string_value)
    if datatype == DataType.BYTES and held == "bytes_value":
        return bytes(metric.bytes_value)
    raise PayloadUnreadable(f"datatype {_name(datatype)} does not go with {held}")


def decode(raw: bytes) -> Payload:
    """Return the payload as frozen values; raise PayloadUnreadable with the reason."""
    message = parse(raw)
    return Payload(
        at=message.timestamp if message.HasField("timestamp") else None,
        seq=message.seq if message.HasField("seq") else None,
        metrics=tuple(_decode_metric(metric) for metric in message.metrics),
    )


def encode(payload: Payload) -> bytes:
    """Return the bytes of a payload; raise ValueError if a value does not fit its datatype."""
    message = sparkplug_pb2.Payload()
    if payload.at is not None:
        message.timestamp = payload.at
    if payload.seq is not None:
        message.seq = payload.seq
    for metric in payload.metrics:
        _encode_metric(message.metrics.add(), metric)
    return message.SerializeToString()


def _name(datatype: int) -> str:
    return DataType(datatype).name if datatype in _DATATYPES else str(datatype)


def _decode_metric(metric: Any) -> WireMetric:
    name = metric.name if metric.HasField("name") else None
    datatype = metric.datatype if metric.HasField("datatype") else None
    value: Value | DataSet = None
    try:
        if not metric.is_null and metric.WhichOneof("value") is not None:
            if metric.HasField("dataset_value"):
                value = _decode_dataset(metric.dataset_value)
            elif datatype is not None:
                value = read_value(metric, datatype)
            else:
                # Without a birth's alias table only the field tells the type; enough to show, not to store.
                value = getattr(metric, metric.WhichOneof("value"))
    except PayloadUnreadable as exc:
        raise PayloadUnreadable(f"metric {name or metric.alias!r}: {exc}") from exc
    return WireMetric(
        name=name,
        alias=metric.alias if metric.HasField("alias") else None,
        at=metric.timestamp if metric.HasField("timestamp") else None,
        datatype=DataType(datatype) if datatype is not None and datatype in _DATATYPES else None,
        value=value,
        historical=metric.is_historical,
        transient=metric.is_transient,
        properties=read_properties(metric),
    )


def read_properties(metric: Any) -> dict[str, Value]:
    """Return the scalar properties of a protobuf metric; what cannot be read is left out."""
    if not metric.HasField("properties"):
        return {}
    found: dict[str, Value] = {}
    for key, value in zip(metric.properties.keys, metric.properties.values, strict=False):
        try:
            found[key] = read_value(value, value.type)
        except PayloadUnreadable:
            continue
    return found


def _decode_dataset(table: Any) -> DataSet:
    types = tuple(table.types)
    if len(types) != len(table.columns) or any(one not in _DATATYPES for one in types):
        raise PayloadUnreadable(f"a data set with {len(table.columns)} columns and {len(types)} readable types")
    rows: list[tuple[Value, ...]] = []
    for row in table.rows:
        if len(row.elements) != len(types):
            raise PayloadUnreadable(f"a data set row of {len(row.elements)} cells in {len(types)} columns")
        rows.append(tuple(read_value(cell, one) for cell, one in zip(row.elements, types, strict=True)))
    return DataSet(columns=tuple(table.columns), types=tuple(DataType(one) for one in types), rows=tuple(rows))


def _encode_metric(message: Any, metric: WireMetric) -> None:
    if metric.name is not None:
        message.name = metric.name
    if metric.alias is not None:
        message.alias = metric.alias
    if metric.at is not None:
        message.timestamp = metric.at
    if metric.historical:
        message.is_historical = True
    if metric.transient:
        message.is_transient = True
    if metric.properties:
        for key, value in metric.properties.items():
            message.properties.keys.append(key)
            _encode_property(message.properties.values.add(), value)
    if metric.datatype is None:
        raise ValueError(f"metric {metric.name or metric.alias!r} has no datatype to encode its value by")
    if metric.name is not None:
        message.datatype = metric.datatype
    if metric.value is None:
        message.is_null = True
    elif isinstance(metric.value, DataSet):
        _encode_dataset(message.dataset_value, metric.value)
    else:
        try:
            write_value(message, metric.datatype, metric.value)
        except (TypeError, ValueError, OverflowError, struct.error) as exc:
            raise ValueError(
                f"metric {metric.name or metric.alias!r}: {metric.value!r} is not {metric.datatype.name}"
            ) from exc


def write_value(message: Any, datatype: DataType, value: Value) -> None:
    """Set the field of a protobuf metric, cell or property that the datatype prescribes (6.4.16)."""
    if datatype in _NARROW:
        sign = _NARROW[datatype][1]
        number = int(value)  # type: ignore[arg-type]  # a wrong type raises TypeError, which the caller names
        if not -sign <= number < sign:
            raise ValueError
        message.int_value = number & 0xFFFF_FFFF
    elif datatype in _UNSIGNED:
        message.int_value = value
        if message.int_value > _UNSIGNED[datatype]:
            raise ValueError
    elif datatype in _WIDE:
        number = int(value)  # type: ignore[arg-type]  # as above
        message.long_value = number + _2_64 if number < 0 and datatype == DataType.INT64 else number
    elif datatype == DataType.FLOAT:
        message.float_value = value
    elif datatype == DataType.DOUBLE:
        message.double_value = value
    elif datatype == DataType.BOOLEAN:
        message.boolean_value = value
    elif datatype in _TEXT:
        message.string_value = value
    elif datatype == DataType.BYTES:
        message.bytes_value = value
    else:
        raise ValueError


def _encode_property(message: Any, value: Value) -> None:
    match value:
        case bool():
            message.type, message.boolean_value = DataType.BOOLEAN, value
        case int() if -0x8000_0000 <= value < 0x8000_0000:
            message.type, message.int_value = DataType.INT32, value & 0xFFFF_FFFF
        case int():
            message.type, message.long_value = DataType.INT64, value % _2_64
        case float():
            message.type, message.double_value = DataType.DOUBLE, value
        case str():
            message.type, message.string_value = DataType.STRING, value
        case _:
            raise ValueError(f"a property cannot be {value!r}")


def _encode_dataset(message: Any, table: DataSet) -> None:
    message.num_of_columns = len(table.columns)
    message.columns.extend(table.columns)
    message.types.extend(table.types)
    for row in table.rows:
        cells = message.rows.add()
        for datatype, value in zip(table.types, row, strict=True):
            write_value(cells.elements.add(), datatype, value)
