"""The youngest samples as immutable Arrow tables: made of a batch, packed for the inbox, joined as they grow."""

import io
from array import array

import numpy as np
import pyarrow as pa

from hub.storage.timeseries import Batch, Column

SCHEMA = pa.schema(
    [
        ("series", pa.int32()),
        ("at", pa.int64()),
        ("number", pa.float64()),
        ("integer", pa.int64()),
        ("text", pa.string()),
        ("quality", pa.int16()),
        ("flags", pa.uint8()),
        ("row", pa.int64()),
    ]
)


_JOINED, _MOST_JOINED = 8, 250_000

FIRST_ROW = 1 << 40
"""Rows of the tail are numbered from here, above every generation of sealed ones."""

_STORED = pa.schema([field for field in SCHEMA if field.name != "row"])


def table_of(batch: Batch, first_row: int) -> pa.Table:
    """Return the samples of a batch, numbered from `first_row` in the order in which they count as committed."""
    parts = []
    for column, name in ((batch.numbers, "number"), (batch.integers, "integer"), (batch.texts, "text")):
        if len(column):
            parts.append(_part(column, name))
    if not parts:
        return SCHEMA.empty_table()
    return _numbered(pa.concat_tables(parts).combine_chunks(), first_row)


def packed(table: pa.Table) -> bytes:
    """Return a table as bytes, compressed, without its rows' numbers."""
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, _STORED, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(table.select(_STORED.names))
    return sink.getvalue()


def unpacked(blob: bytes, first_row: int) -> pa.Table:
    """Return the table that `packed` made bytes of, numbered from `first_row`."""
    with pa.ipc.open_stream(blob) as reader:
        return _numbered(reader.read_all().select(_STORED.names), first_row)


def joined(tail: tuple[pa.Table, ...]) -> tuple[pa.Table, ...]:
    """Return the tail with its youngest tables joined where they are small: few tables, and few rows copied often."""
    tables = list(tail)
    while (
        len(tables) >= _JOINED
        and tables[-_JOINED].num_rows <= _JOINED * tables[-1].num_rows
        and sum(map(len, tables[-_JOINED:])) <= _MOST_JOINED
    ):
        tables[-_JOINED:] = [pa.concat_tables(tables[-_JOINED:]).combine_chunks()]
    return tuple(tables)


def _part(column: Column, name: str) -> pa.Table:
    marks = np.frombuffer(column.marks, dtype=np.int32)
    size = len(column)
    values = {one: pa.nulls(size, SCHEMA.field(one).type) for one in ("number", "integer", "text")}
    if isinstance(column.value, array):
        numbers = np.frombuffer(column.value, dtype=np.float64)
        values[name] = pa.array(numbers, mask=np.isnan(numbers))
    else:
        values[name] = pa.array(column.value, SCHEMA.field(name).type)
    return pa.table(
        {
            "series": pa.array(np.frombuffer(column.series, dtype=np.int32)),
            "at": pa.array(np.frombuffer(column.at, dtype=np.int64)),
            **values,
            "quality": pa.array((marks >> 8).astype(np.int16)),
            "flags": pa.array((marks & 0xFF).astype(np.uint8)),
        }
    )


def _numbered(table: pa.Table, first_row: int) -> pa.Table:
    return table.append_column("row", pa.array(np.arange(first_row, first_row + table.num_rows, dtype=np.int64)))
