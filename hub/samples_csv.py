"""Samples as CSV (RFC 4180, UTF-8): numbers as they are, text that no spreadsheet takes for a formula. Pure.

A text cell that starts with one of `= + - @`, their full-width forms, tab, line end or an apostrophe gets an apostrophe
in front; take one off again where a text starts with one. Numbers never get one. A null is an empty cell, an empty text
is `""`; texts are always in quotes.
"""

from collections.abc import Collection, Iterator
from typing import Any

from hub.rights.scopes import Reach, Scope
from hub.storage.timeseries import INSTRUMENT_BITS, TIME_BITS, TIME_SHIFT, Rows

HEADER = b"group,node,device,metric,at,value,quality,instrument,time\r\n"

LINES_A_PIECE = 10_000

_STARTS_A_FORMULA = tuple("=+-@\t\r\n'＝＋－＠")
_NEEDS_QUOTES = frozenset('",\r\n')


def pieces(
    rows: Rows, *, reach: Reach, nodes: Collection[str] | None = None, devices: Collection[str] | None = None
) -> Iterator[bytes]:
    """Yield the lines of samples within reach, a bounded number at a time; of certain nodes and devices, if given."""
    for start in range(0, rows.num_rows, LINES_A_PIECE):
        text = "".join(_lines(rows.slice(start, LINES_A_PIECE), reach, nodes, devices))
        if text:
            yield text.encode()


def _lines(rows: Rows, reach: Reach, nodes: Collection[str] | None, devices: Collection[str] | None) -> Iterator[str]:
    names = list(zip(*(_names(rows.column(name)) for name in ("group", "node", "device", "metric")), strict=True))
    before: tuple[str, ...] = ()
    head, wanted = "", False
    # Columns become lists of plain numbers at once: item by item they cost ten times as much.
    rest = (rows.column(name).to_numpy().tolist() for name in ("at", "quality", "flags"))
    for name, at, value, quality, flags in zip(names, next(rest), _values(rows), next(rest), next(rest), strict=True):
        if name != before:
            before, head = name, ",".join(word(one) for one in name)
            wanted = (nodes is None or name[1] in nodes) and (devices is None or name[2] in devices)
            wanted = wanted and reach.covers(Scope(name[0], name[1]))
        if wanted:
            time = (flags & TIME_BITS) >> TIME_SHIFT
            yield f"{head},{at},{value},{quality},{flags & INSTRUMENT_BITS},{time}\r\n"


def _names(column: Any) -> list[str]:
    coded = column.combine_chunks()
    texts = coded.dictionary.to_pylist()
    return [texts[code] for code in coded.indices.to_numpy().tolist()]


def _values(rows: Rows) -> list[str]:
    """Return each value as its cell: at most one of number, integer and text is there."""
    cells = [""] * rows.num_rows
    for name, write, nothing in (("number", repr, 0.0), ("integer", str, 0)):
        column = rows.column(name)
        if column.null_count < rows.num_rows:
            there = column.is_valid().to_numpy().tolist()
            given = column.fill_null(nothing).to_numpy().tolist()
            cells = [write(one) if is_ else cell for one, is_, cell in zip(given, there, cells, strict=True)]
    texts = rows.column("text")
    if texts.null_count < rows.num_rows:
        given = texts.to_pylist()
        cells = [cell if one is None else _quoted(_harmless(one)) for one, cell in zip(given, cells, strict=True)]
    return cells


def word(text: str) -> str:
    """Return a name as a cell, in quotes only where it needs them."""
    text = _harmless(text)
    return _quoted(text) if _NEEDS_QUOTES.intersection(text) else text


def _harmless(text: str) -> str:
    return f"'{text}" if text.startswith(_STARTS_A_FORMULA) else text


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'
