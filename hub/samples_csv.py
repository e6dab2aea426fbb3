"""Samples as CSV (RFC 4180, UTF-8): numbers as they are, text that no spreadsheet takes for a formula. Pure.

A text cell that starts with one of `= + - @`, their full-width forms, tab, line end or an apostrophe gets an apostrophe
in front; take one off again where a text starts with one. Numbers never get one. A null is an empty cell, an empty text
is `""`; texts are always in quotes.
"""

from collections.abc import Collection, Iterator

from hub.storage.timeseries import INSTRUMENT_BITS, TIME_BITS, TIME_SHIFT, Rows

HEADER = b"group,node,device,metric,at,value,quality,instrument,time\r\n"

LINES_A_PIECE = 10_000

_STARTS_A_FORMULA = tuple("=+-@\t\r\n'＝＋－＠")
_NEEDS_QUOTES = frozenset('",\r\n')


def pieces(
    rows: Rows, *, nodes: Collection[str] | None = None, devices: Collection[str] | None = None
) -> Iterator[bytes]:
    """Yield the lines of some samples, a bounded number at a time; of certain nodes and devices only, if given."""
    for start in range(0, rows.num_rows, LINES_A_PIECE):
        text = "".join(_lines(rows.slice(start, LINES_A_PIECE), nodes, devices))
        if text:
            yield text.encode()


def _lines(rows: Rows, nodes: Collection[str] | None, devices: Collection[str] | None) -> Iterator[str]:
    before: tuple[str, ...] = ()
    head = ""
    columns = (rows.column(name).to_pylist() for name in rows.column_names)
    for group, node, device, metric, at, number, integer, text, quality, flags in zip(*columns, strict=True):
        if (nodes is not None and node not in nodes) or (devices is not None and device not in devices):
            continue
        name = (group, node, device, metric)
        if name != before:
            before, head = name, ",".join(word(one) for one in name)
        if number is not None:
            value = repr(number)
        elif integer is not None:
            value = str(integer)
        else:
            value = "" if text is None else _quoted(_harmless(text))
        time = (flags & TIME_BITS) >> TIME_SHIFT
        yield f"{head},{at},{value},{quality},{flags & INSTRUMENT_BITS},{time}\r\n"


def word(text: str) -> str:
    """Return a name as a cell, in quotes only where it needs them."""
    text = _harmless(text)
    return _quoted(text) if _NEEDS_QUOTES.intersection(text) else text


def _harmless(text: str) -> str:
    return f"'{text}" if text.startswith(_STARTS_A_FORMULA) else text


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'
