"""Samples brought into order by series and instant, each (series, instant) once. Pure.

Of one (series, instant) the row with the greatest number in the column `row` stands: numbers grow with each commit.
Where its value was not always the same, the row that stands carries CONFLICT_BIT from then on, so that conflicts are
still counted after the other row is gone.
"""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

CONFLICT_BIT = 0b1000_0000
"""In a stored row's flags, beside the layout that the port gives them; never shown outside."""

Indices = NDArray[np.int64]


def in_order(series: NDArray[np.int32], at: NDArray[np.int64]) -> Indices:
    """Return the order by series and instant that keeps rows of the same key as they come."""
    # Two passes of a radix sort by 16 bits: series come in any order, but each is nearly always in order of time.
    order = np.argsort((series & 0xFFFF).astype(np.uint16), kind="stable")
    high = (series >> 16).astype(np.uint16)
    if high.any():
        order = order[np.argsort(high[order], kind="stable")]
    sorted_series, sorted_at = series[order], at[order]
    back = (sorted_series[1:] == sorted_series[:-1]) & (sorted_at[1:] < sorted_at[:-1])
    if back.any():
        untidy = np.isin(sorted_series, np.unique(sorted_series[1:][back]))
        rows = order[untidy]
        order[untidy] = rows[np.lexsort((at[rows], series[rows]))]
    return order


def distinct(table: pa.Table, key: str = "series") -> pa.Table:
    """Return the rows of a table ordered by `key` and instant, of each the one of greatest `row`, conflicts marked."""
    table = table.combine_chunks()
    if _is_distinct(table, key):
        return table
    order, stands = _standing(table, key)
    kept = table.take(pa.array(order[stands]))
    if stands.all():
        return kept
    # Only keys that occur more than once are looked at: neighbours that differ, or were marked before.
    group: Indices = np.cumsum(stands) - stands  # which kept row each ordered row ends in
    earlier = np.flatnonzero(~stands)
    left, right = table.take(pa.array(order[earlier])), table.take(pa.array(order[earlier + 1]))
    told = differs(left, right) | ((left["flags"].to_numpy() & CONFLICT_BIT) != 0)
    marked = np.zeros(kept.num_rows, dtype=bool)
    marked[group[earlier[told]]] = True
    return marked_as_conflicts(kept, marked)


def newest(table: pa.Table) -> pa.Table:
    """Return the rows of a table ordered by series and instant, of each the one of greatest `row`."""
    table = table.combine_chunks()
    if _is_distinct(table, "series"):
        return table
    order, stands = _standing(table, "series")
    return table.take(pa.array(order[stands]))


def differs(left: pa.Table, right: pa.Table) -> NDArray[np.bool_]:
    """Return for each pair of rows whether their values differ."""
    found = np.zeros(left.num_rows, dtype=bool)
    for name in ("number", "integer", "text"):
        one, other = left[name], right[name]
        missing = one.is_null().to_numpy(), other.is_null().to_numpy()
        values = one.to_numpy(zero_copy_only=False), other.to_numpy(zero_copy_only=False)
        found |= (missing[0] != missing[1]) | (~missing[0] & ~missing[1] & (values[0] != values[1]))
    return found


def marked_as_conflicts(table: pa.Table, which: NDArray[np.bool_]) -> pa.Table:
    """Return the table with the conflict bit set in some of its rows."""
    flags = table["flags"].to_numpy() | np.where(which, np.uint8(CONFLICT_BIT), np.uint8(0))
    return table.set_column(table.schema.get_field_index("flags"), "flags", pa.array(flags, pa.uint8()))


def conflicts(table: pa.Table) -> int:
    """Return how many rows of a table carry the mark."""
    return int(np.count_nonzero(table["flags"].to_numpy() & CONFLICT_BIT))


def _is_distinct(table: pa.Table, key: str) -> bool:
    """Return whether rows are in order already, as those of one segment are."""
    series, at = table[key].to_numpy(), table["at"].to_numpy()
    return bool(((series[1:] > series[:-1]) | ((series[1:] == series[:-1]) & (at[1:] > at[:-1]))).all())


def _standing(table: pa.Table, key: str) -> tuple[Indices, NDArray[np.bool_]]:
    """Return the order of rows, and which of them stand."""
    row = table["row"].to_numpy()
    series, at = table[key].to_numpy(), table["at"].to_numpy()
    if (row[1:] < row[:-1]).any():
        by_row = np.argsort(row, kind="stable")
        order = by_row[in_order(series[by_row], at[by_row])]
    else:
        order = in_order(series, at)
    series, at = series[order], at[order]
    last = np.ones(min(len(order), 1), dtype=bool)
    return order, np.append((series[1:] != series[:-1]) | (at[1:] != at[:-1]), last)
