"""Questions to InfluxDB in its language Flux, and the tables it answers with, read as columns. Pure.

Only what is pushed down to its storage is asked for: equality of tags and fields, ranges, regular expressions, first,
last and count.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv

_PLAIN = re.compile(r"[A-Za-z0-9_./-]")
_FIELD_ENDS = 'r["_field"] =~ /{}/'
_READ = csv.ReadOptions(use_threads=False)
_TYPES = {
    "double": pa.float64(),
    "long": pa.int64(),
    "unsignedLong": pa.uint64(),
    "boolean": pa.bool_(),
    "string": pa.string(),
    "dateTime:RFC3339": pa.timestamp("ns", "UTC"),
}


class FluxRefused(Exception):
    """The server could not answer a question; the text is what it said."""


def text(value: str) -> str:
    """Return a text as a Flux literal in which nothing is code, whatever it contains."""
    return '"' + "".join(one if _PLAIN.match(one) else _bytes(one) for one in value) + '"'


def _bytes(one: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in one.encode("utf-8", "surrogatepass"))


def span(bucket: str, start: int, end: int) -> str:
    """Return the beginning of a question: all points of a bucket with start <= time < end (ms)."""
    return f"from(bucket: {text(bucket)}) |> range(start: {instant(start)}, stop: {instant(max(end, start + 1))})"


def instant(at: int) -> str:
    """Return an instant (ms) as Flux writes it."""
    return f"time(v: {at * 1_000_000})"


def where(**columns: str | Iterable[str]) -> str:
    """Return a filter: each column is the text, or one of the texts."""
    parts = []
    for name, value in columns.items():
        column = f"r[{text(name)}]"
        values = [value] if isinstance(value, str) else list(value)
        parts.append("(" + " or ".join(f"{column} == {text(one)}" for one in values) + ")")
    return f" |> filter(fn: (r) => {' and '.join(parts)})"


def fields(names: Iterable[str], ending: str) -> str:
    """Return a filter: the field has one of the names, or an ending, a regular expression of our own."""
    told = [f'r["_field"] == {text(one)}' for one in sorted(names)]
    return f" |> filter(fn: (r) => {' or '.join([*told, _FIELD_ENDS.format(ending)])})"


def tables(raw: bytes) -> Iterator[pa.Table]:
    """Return the tables of an answer in annotated CSV, neighbours of one shape joined; raise FluxRefused.

    No value we write contains a line break, so an empty line is always the end of a table.
    """
    for block in raw.split(b"\r\n\r\n"):
        told = block.strip(b"\r\n")
        if not told:
            continue
        annotation, _, rest = told.partition(b"\r\n")
        if not annotation.startswith(b"#datatype"):
            message = told.partition(b"\r\n")[2] if told.startswith((b",error", b"error")) else told
            raise FluxRefused(message[:300].decode("utf-8", "replace"))
        header = rest.partition(b"\r\n")[0].decode().split(",")
        types = annotation.decode().split(",")
        if "error" in header:
            raise FluxRefused(rest.partition(b"\r\n")[2][:300].decode("utf-8", "replace"))
        wanted = {
            name: _TYPES[kind]
            for name, kind in zip(header, types, strict=True)
            if name and name not in {"result", "table"} and kind in _TYPES
        }
        yield csv.read_csv(
            pa.BufferReader(rest + b"\r\n"),
            read_options=_READ,
            parse_options=csv.ParseOptions(newlines_in_values=False),
            convert_options=csv.ConvertOptions(
                include_columns=list(wanted), column_types=wanted, strings_can_be_null=False
            ),
        )


@dataclass(frozen=True, slots=True)
class Points:
    """One field of one line of points: instants in ms, ascending, and values."""

    at: NDArray[np.int64]
    value: pa.Array


def by_field(found: Iterable[pa.Table], *keys: str) -> Mapping[tuple[str, ...], Points]:
    """Return an answer's points apart, by the given columns and `_field`; a column that is not there reads as ""."""
    apart: dict[tuple[str, ...], list[Points]] = {}
    for table in found:
        at = instants(table["_time"])
        names = [
            table[one].to_pylist() if one in table.column_names else [""] * table.num_rows for one in (*keys, "_field")
        ]
        for key, first, last in _runs(names):
            part = table["_value"].slice(first, last - first).combine_chunks()
            apart.setdefault(key, []).append(Points(at[first:last], part))
    return {key: _joined(parts) for key, parts in apart.items()}


def instants(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """Return a column of times in ms."""
    whole = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    nanoseconds: NDArray[np.int64] = whole.cast(pa.int64()).to_numpy(zero_copy_only=False)
    return nanoseconds // 1_000_000


def _runs(names: Sequence[Sequence[str]]) -> Iterator[tuple[tuple[str, ...], int, int]]:
    first, rows = 0, list(zip(*names, strict=True))
    for number, row in enumerate(rows):
        if row != rows[first]:
            yield rows[first], first, number
            first = number
    if rows:
        yield rows[first], first, len(rows)


def _joined(parts: list[Points]) -> Points:
    if len(parts) == 1:
        return parts[0]
    at = np.concatenate([one.at for one in parts])
    value = pa.concat_arrays([one.value for one in parts])
    order = np.argsort(at, kind="stable")
    return Points(at[order], value.take(pa.array(order)))
