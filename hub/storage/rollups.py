"""Rollups: what samples amount to in each 5 minutes and each hour, so that long questions read little. Pure.

A row says of one series and one span: how many samples (`samples`), how many of them good numbers (`count`), their
`minimum`, `maximum`, `first` and `last`; the `integral` (value x ms) and the ms `covered` by good numbers, each
standing until the next sample and at most its series' hold, also into spans without samples:
mean = integral / covered. Of all samples, good or not: the first and last instant, the greatest `gap` between
neighbours (ms), the first and last text, and how often the text `changes` from one to the next. Nothing crosses a
span's border but what stands.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

MINUTES_MS = 300_000
HOURS_MS = 3_600_000
DAY_MS = 86_400_000

Whole = NDArray[np.int64]
Numbers = NDArray[np.float64]
Truth = NDArray[np.bool_]

SCHEMA = pa.schema(
    [
        ("series", pa.int32()),
        ("at", pa.int64()),
        ("samples", pa.int32()),
        ("count", pa.int32()),
        ("minimum", pa.float64()),
        ("maximum", pa.float64()),
        ("first", pa.float64()),
        ("last", pa.float64()),
        ("integral", pa.float64()),
        ("covered", pa.int64()),
        ("first_at", pa.int64()),
        ("last_at", pa.int64()),
        ("gap", pa.int64()),
        ("first_text", pa.string()),
        ("last_text", pa.string()),
        ("changes", pa.int32()),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """Samples ordered by series and instant, each key once; `hold` is how long each may stand (ms)."""

    series: NDArray[np.int32]
    at: Whole
    value: Numbers
    good: Truth
    text: pa.Array
    hold: Whole


def roll(walk: Walk, width: int) -> pa.Table:
    """Return the rollup of samples in spans of `width` ms, a row for each span that has or is covered by one."""
    size = len(walk.at)
    if not size:
        return SCHEMA.empty_table()
    same = walk.series[1:] == walk.series[:-1]
    after = np.append(np.where(same, walk.at[1:], np.iinfo(np.int64).max), np.iinfo(np.int64).max)
    stands = np.where(walk.good, np.minimum(after - walk.at, walk.hold), 0)
    # Each sample is cut where it stands across borders; its first piece is where the sample itself is.
    first_span = walk.at // width
    pieces = np.maximum((walk.at + stands - 1) // width - first_span, 0) + 1
    owner = np.repeat(np.arange(size), pieces)
    nth = np.arange(len(owner)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    span = first_span[owner] + nth
    low = np.maximum(walk.at[owner], span * width)
    covered = np.maximum(np.minimum(walk.at[owner] + stands[owner], (span + 1) * width) - low, 0)
    starts = _starts(walk.series[owner], span)
    itself = nth == 0
    good = itself & walk.good[owner]
    value = np.where(walk.good, walk.value, 0.0)[owner]
    codes = _codes(walk.text)
    beside = np.append(False, same & (first_span[1:] == first_span[:-1]))  # the one before is in the same span
    gap = np.where(beside, np.diff(walk.at, prepend=walk.at[0]), 0)[owner]
    changed = np.where(beside, np.append(False, codes[1:] != codes[:-1]), False)[owner]
    return _table(
        series=walk.series[owner][starts],
        at=span[starts] * width,
        samples=np.add.reduceat(itself.astype(np.int64), starts),
        numbers=_Numbers(
            count=np.add.reduceat(good.astype(np.int64), starts),
            minimum=np.minimum.reduceat(np.where(good, value, np.inf), starts),
            maximum=np.maximum.reduceat(np.where(good, value, -np.inf), starts),
            first=_pick(value, _first(good, starts)),
            last=_pick(value, _last(good, starts)),
            integral=np.add.reduceat(value * covered, starts),
            covered=np.add.reduceat(covered, starts),
        ),
        first=_owner(owner, _first(itself, starts)),
        last=_owner(owner, _last(itself, starts)),
        first_at=walk.at,
        last_at=walk.at,
        gap=np.maximum.reduceat(np.where(itself, gap, 0), starts),
        first_text=walk.text,
        last_text=walk.text,
        changes=np.add.reduceat((itself & changed).astype(np.int64), starts),
    )


def wider(rows: pa.Table, width: int) -> pa.Table:
    """Return the rollup in spans of `width` ms from all rows of a narrower one, ordered by series and instant."""
    if not rows.num_rows:
        return SCHEMA.empty_table()
    rows = rows.combine_chunks()
    series, at = rows["series"].to_numpy(), rows["at"].to_numpy()
    span = at // width
    starts = _starts(series, span)
    column = {name: rows[name].to_numpy(zero_copy_only=False) for name in SCHEMA.names if not name.endswith("text")}
    count = column["count"].astype(np.int64)
    seen = column["samples"] > 0
    # The neighbour before, of those spans in which there were samples at all, within the same wider span.
    before = np.full(len(at), -1)
    with_samples = np.flatnonzero(seen)
    neighbours = (series[with_samples][1:] == series[with_samples][:-1]) & (
        span[with_samples][1:] == span[with_samples][:-1]
    )
    before[with_samples[1:][neighbours]] = with_samples[:-1][neighbours]
    has = before >= 0
    first_at, last_at = _whole(rows, "first_at"), _whole(rows, "last_at")
    gap = np.maximum(_whole(rows, "gap"), np.where(has, first_at - last_at[before], 0))
    first_text, last_text = rows["first_text"].combine_chunks(), rows["last_text"].combine_chunks()
    codes = _codes(pa.concat_arrays([first_text, last_text]))
    turned = has & (codes[: len(at)] != codes[len(at) :][before])
    return _table(
        series=series[starts],
        at=span[starts] * width,
        samples=np.add.reduceat(column["samples"].astype(np.int64), starts),
        numbers=_Numbers(
            count=np.add.reduceat(count, starts),
            minimum=np.fmin.reduceat(np.where(count > 0, column["minimum"], np.inf), starts),
            maximum=np.fmax.reduceat(np.where(count > 0, column["maximum"], -np.inf), starts),
            first=_pick(column["first"], _first(count > 0, starts)),
            last=_pick(column["last"], _last(count > 0, starts)),
            integral=np.add.reduceat(column["integral"], starts),
            covered=np.add.reduceat(column["covered"].astype(np.int64), starts),
        ),
        first=_first(seen, starts),
        last=_last(seen, starts),
        first_at=first_at,
        last_at=last_at,
        gap=np.maximum.reduceat(gap, starts),
        first_text=first_text,
        last_text=last_text,
        changes=np.add.reduceat(column["changes"].astype(np.int64) + turned, starts),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Numbers:
    count: Whole
    minimum: Numbers
    maximum: Numbers
    first: Numbers
    last: Numbers
    integral: Numbers
    covered: Whole


def _table(
    *,
    series: NDArray[np.int32],
    at: Whole,
    samples: Whole,
    numbers: _Numbers,
    first: Whole,
    last: Whole,
    first_at: Whole,
    last_at: Whole,
    gap: Whole,
    first_text: pa.Array,
    last_text: pa.Array,
    changes: Whole,
) -> pa.Table:
    """Return the rows; `first` and `last` say from which sample instants and texts come, -1 from none."""
    none, nothing = numbers.count == 0, samples == 0
    columns = [
        series,
        at,
        samples,
        numbers.count,
        pa.array(numbers.minimum, mask=none),
        pa.array(numbers.maximum, mask=none),
        pa.array(numbers.first, mask=none),
        pa.array(numbers.last, mask=none),
        numbers.integral,
        numbers.covered,
        pa.array(first_at[first], mask=nothing),
        pa.array(last_at[last], mask=nothing),
        gap,
        first_text.take(pa.array(first, mask=nothing)),
        last_text.take(pa.array(last, mask=nothing)),
        changes,
    ]
    arrays = [pa.array(one).cast(field.type) for one, field in zip(columns, SCHEMA, strict=True)]
    return pa.table(arrays, schema=SCHEMA)


def _starts(series: NDArray[np.int32], span: Whole) -> Whole:
    return np.flatnonzero(np.append(True, (series[1:] != series[:-1]) | (span[1:] != span[:-1])))


def _first(which: Truth, starts: Whole) -> Whole:
    none = len(which)
    found: Whole = np.minimum.reduceat(np.where(which, np.arange(none), none), starts)
    return np.where(found == none, -1, found)


def _last(which: Truth, starts: Whole) -> Whole:
    found: Whole = np.maximum.reduceat(np.where(which, np.arange(len(which)), -1), starts)
    return found


def _pick(values: Numbers, which: Whole) -> Numbers:
    return np.where(which < 0, np.nan, values[which])


def _owner(owner: Whole, which: Whole) -> Whole:
    return np.where(which < 0, -1, owner[which])


def _whole(rows: pa.Table, name: str) -> Whole:
    found: Whole = rows[name].combine_chunks().fill_null(0).to_numpy(zero_copy_only=False)
    return found


def _codes(text: pa.Array) -> NDArray[np.int32]:
    """Return numbers that are equal where texts are; a null is a text of its own."""
    found: NDArray[np.int32] = text.dictionary_encode().indices.fill_null(-1).to_numpy(zero_copy_only=False)
    return found
