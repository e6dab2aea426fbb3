"""Fields of InfluxDB brought together as samples: value, quality and flags of each instant. Pure."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from contract.metrics import Quality
from hub.storage.flux import Points
from hub.storage.line_protocol import ENCODED_BIT, FLAGS_FIELD, NULL_BIT, OWN_FLAGS, QUALITY_FIELD, Place

COLUMNS = pa.schema(
    [
        ("at", pa.int64()),
        ("number", pa.float64()),
        ("integer", pa.int64()),
        ("text", pa.string()),
        ("quality", pa.int16()),
        ("flags", pa.uint8()),
    ]
)

_MOST_INT64 = (1 << 63) - 1
_NONE = Points(np.empty(0, dtype=np.int64), pa.nulls(0))


def fields_of(place: Place) -> tuple[str, str, str]:
    """Return the names of the fields in which a series' samples stand."""
    return place.field, place.field + QUALITY_FIELD, place.field + FLAGS_FIELD


def samples(place: Place, points: Callable[[str], Points | None]) -> pa.Table:
    """Return the samples of a series in time order, from the points of each of its fields."""
    value, quality, flags = (points(one) or _NONE for one in fields_of(place))
    at = np.unique(np.concatenate([value.at, quality.at, flags.at]))
    marks = _laid(at, flags, 0)
    known = np.zeros(len(at), dtype=bool)
    known[np.searchsorted(at, value.at)] = True
    known &= (marks & NULL_BIT) == 0
    where = np.full(len(at), -1)
    where[np.searchsorted(at, value.at)] = np.arange(len(value.at))
    taken = value.value.take(pa.array(where, mask=~known)) if len(at) else value.value
    columns = {"at": pa.array(at), **_typed(place.letter, taken, marks)}
    columns["quality"] = pa.array(_laid(at, quality, int(Quality.GOOD)).astype(np.int16))
    columns["flags"] = pa.array((marks & ~OWN_FLAGS).astype(np.uint8))
    return pa.table([columns.get(one.name, pa.nulls(len(at), one.type)) for one in COLUMNS], schema=COLUMNS)


def latest(tables: Sequence[pa.Table], most: int) -> pa.Table:
    """Return samples of several series of one metric as one, in time order; of one instant the last series' stands."""
    if len(tables) == 1:
        return tables[0].slice(0, most)
    whole = pa.concat_tables(tables).combine_chunks()
    if not whole.num_rows:
        return COLUMNS.empty_table()
    at = whole["at"].to_numpy()
    order = np.argsort(at, kind="stable")
    stands = np.append(at[order][1:] != at[order][:-1], True)
    return whole.take(pa.array(order[stands][:most]))


def newest(place: Place, told: Mapping[str, tuple[int, Any]]) -> tuple[Any, ...]:
    """Return the newest sample of a series, columns as COLUMNS, from the newest point of each of its fields."""
    value, quality, flags = (told.get(one, (None, None)) for one in fields_of(place))
    at = max(one[0] for one in (value, quality, flags) if one[0] is not None)
    marks = int(flags[1]) if flags[0] == at else 0
    number = integer = text = None
    if value[0] == at and not marks & NULL_BIT:
        match place.letter:
            case "f":
                number = float(value[1])
            case "s":
                text = unquote(value[1]) if marks & ENCODED_BIT else str(value[1])
            case _:
                integer = int(value[1])
                if integer > _MOST_INT64:
                    integer, text = None, str(integer)
    trust = int(quality[1]) if quality[0] == at else int(Quality.GOOD)
    return at, number, integer, text, trust, marks & ~OWN_FLAGS


def numbers(table: pa.Table) -> NDArray[np.float64]:
    """Return the samples' values as numbers, NaN where there is none."""
    number = table["number"].to_numpy(zero_copy_only=False).astype(np.float64)
    integer = table["integer"].to_numpy(zero_copy_only=False).astype(np.float64)
    told: NDArray[np.float64] = np.where(np.isnan(number), integer, number)
    return told


def joined(tables: Iterable[pa.Table]) -> pa.Table:
    """Return tables of one shape as one."""
    found = list(tables)
    return pa.concat_tables(found).combine_chunks() if found else COLUMNS.empty_table()


def _laid(at: NDArray[np.int64], points: Points, otherwise: int) -> NDArray[np.int64]:
    laid = np.full(len(at), otherwise, dtype=np.int64)
    if len(points.at):
        laid[np.searchsorted(at, points.at)] = points.value.to_numpy(zero_copy_only=False)
    return laid


def _typed(letter: str, taken: pa.Array, marks: NDArray[np.int64]) -> dict[str, pa.Array]:
    match letter:
        case "f":
            return {"number": taken.cast(pa.float64())}
        case "i" | "b":
            return {"integer": taken.cast(pa.int64())}
        case "u":
            # What is beyond int64 is text everywhere behind the port.
            large = pc.greater(taken.cast(pa.uint64()), pa.scalar(_MOST_INT64, pa.uint64()))
            return {
                "integer": pc.if_else(large, None, taken).cast(pa.int64()),
                "text": pc.if_else(large, taken.cast(pa.string()), None),
            }
    encoded = np.flatnonzero(marks & ENCODED_BIT)
    texts = taken.cast(pa.string())
    if len(encoded):
        told = texts.to_pylist()
        for one in encoded:
            told[one] = None if told[one] is None else unquote(told[one])
        texts = pa.array(told, pa.string())
    return {"text": texts}
