"""The tail written into segments: cut by UTC day, in order, each key once, and the rollups that it changes."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from contract.metrics import Quality
from hub.storage.order import CONFLICT_BIT, conflicts, differs, distinct, marked_as_conflicts, newest
from hub.storage.questions import Questions, Snapshot, wanted
from hub.storage.rollups import DAY_MS, HOURS_MS, MINUTES_MS, Walk, roll, wider
from hub.storage.segments import Kind, Segment, Segments
from hub.storage.timeseries import INSTRUMENT_BITS

PART_ROWS = 1_500_000
"""So many rows are ordered and written at a time, in a file of their own: this bounds memory."""

ROLL_ROWS = 400_000
"""So many samples are rolled up at a time."""

Holds = Callable[[NDArray[np.int32]], NDArray[np.int64]]
"""How long a value of each series counts as current (ms)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Rows of one day and a range of series, in order; `fresh` of them have keys that no segment has."""

    day: int
    table: pa.Table
    fresh: int
    conflicts: int


def parts(tail: Sequence[pa.Table], segments: Sequence[Segment], questions: Questions) -> Iterator[Part]:
    """Return the tail in parts, conflicts marked with what is sealed taken into account."""
    for day in sorted({int(one) for table in tail for one in np.unique(table["at"].to_numpy() // DAY_MS)}):
        of_day = [one for one in (_within(table, "at", day * DAY_MS, (day + 1) * DAY_MS) for table in tail) if len(one)]
        for low, high in ranges([one["series"].to_numpy() for one in of_day], PART_ROWS):
            table = distinct(pa.concat_tables([_within(one, "series", low, high + 1) for one in of_day]))
            yield _compared(day, table, segments, questions)


def ranges(series: Sequence[NDArray[np.int32]], most: int) -> Iterator[tuple[int, int]]:
    """Return ranges of series, first and last, that hold at most so many rows each, or are a single series."""
    size = max(int(one.max()) for one in series) + 1
    counts = np.zeros(size, dtype=np.int64)
    for one in series:
        counts += np.bincount(one, minlength=size)
    first, total = 0, 0
    for number in np.flatnonzero(counts):
        if total and total + counts[number] > most:
            yield first, int(number) - 1
            first, total = int(number), 0
        total += int(counts[number])
    yield first, size - 1


def seal(
    tail: Sequence[pa.Table],
    segments: Segments,
    questions: Questions,
    generation: int,
    holds: Holds,
    *,
    minutes_from: int,
) -> tuple[list[Segment], pa.Table]:
    """Write the tail and the rollups it changes; return the new segments and the last sample of each series in them.

    Rollups of 5 minutes are made from the instant `minutes_from` on. Raises OSError with nothing left behind. The new
    segments count when a transaction has named them.
    """
    before, new, lasts, dirty = segments.listed, [], [], []
    try:
        for part in parts(tail, before, questions):
            table = _of_generation(part.table, generation)
            new.append(
                segments.write(Kind.SAMPLES, part.day, generation, table, fresh=part.fresh, conflicts=part.conflicts)
            )
            series, at = table["series"].to_numpy(), table["at"].to_numpy()
            starts = np.flatnonzero(np.append(True, series[1:] != series[:-1]))
            ends = np.append(starts[1:], len(series)) - 1
            lasts.append(table.take(pa.array(ends)))
            dirty.append(_Dirty(series[starts], at[starts], at[ends], ends - starts + 1, holds(series[starts])))
        sealed = Snapshot((), (*before, *new))
        pieces = [_rolled_up(piece, sealed, questions) for one in dirty for piece in one.pieces()]
        for kind, first in ((Kind.MINUTES, minutes_from), (Kind.HOURS, None)):
            rows = newest(pa.concat_tables([_of_generation(one[kind], generation) for one in pieces]))
            rows = rows if first is None else _within(rows, "at", first, 2**63 - 1)
            new += _written_by_day(kind, rows, segments, generation)
    except BaseException:
        segments.discard(new)
        raise
    return new, pa.concat_tables(lasts)


def walk(rows: pa.Table, hold: NDArray[np.int64]) -> Walk:
    """Return samples as rollups want them; numbers count as good where quality and instrument say so."""
    rows = rows.combine_chunks()
    number, integer = rows["number"].combine_chunks(), rows["integer"].combine_chunks()
    value = number.fill_null(np.nan).to_numpy(zero_copy_only=False)
    if integer.null_count < len(integer):
        value = np.where(integer.is_valid().to_numpy(zero_copy_only=False), integer.fill_null(0).to_numpy(), value)
    measuring = (rows["flags"].to_numpy() & INSTRUMENT_BITS) == 0
    good = (rows["quality"].to_numpy() == int(Quality.GOOD)) & measuring & ~np.isnan(value)
    return Walk(
        series=rows["series"].to_numpy(),
        at=rows["at"].to_numpy(),
        value=value,
        good=good,
        text=rows["text"].combine_chunks(),
        hold=hold,
    )


@dataclass(frozen=True, slots=True)
class _Dirty:
    """Series whose rollups change: from the first to the last sample that is new, and as long as it stands."""

    series: NDArray[np.int32]
    first: NDArray[np.int64]
    last: NDArray[np.int64]
    rows: NDArray[np.int64]
    hold: NDArray[np.int64]

    def span(self, width: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return from and up to where rollups of a width change, by series."""
        return self.first // width * width, ((self.last + self.hold) // width + 1) * width

    def pieces(self) -> Iterator["_Dirty"]:
        nth = np.cumsum(self.rows) // ROLL_ROWS
        for one in np.unique(nth):
            which = nth == one
            yield _Dirty(self.series[which], self.first[which], self.last[which], self.rows[which], self.hold[which])


def _rolled_up(dirty: _Dirty, sealed: Snapshot, questions: Questions) -> dict[Kind, pa.Table]:
    low, high = dirty.span(HOURS_MS)
    rows = questions.samples(sealed, wanted(dirty.series, low - dirty.hold, high))
    samples = walk(rows, dirty.hold[np.searchsorted(dirty.series, rows["series"].to_numpy())])
    minutes = roll(samples, MINUTES_MS)
    found = {Kind.MINUTES: minutes, Kind.HOURS: wider(minutes, HOURS_MS)}
    for kind, width in ((Kind.MINUTES, MINUTES_MS), (Kind.HOURS, HOURS_MS)):
        low, high = dirty.span(width)
        rolled = found[kind]
        owner, at = np.searchsorted(dirty.series, rolled["series"].to_numpy()), rolled["at"].to_numpy()
        found[kind] = rolled.filter(pa.array((at >= low[owner]) & (at < high[owner])))
    return found


def _written_by_day(kind: Kind, rows: pa.Table, segments: Segments, generation: int) -> list[Segment]:
    new: list[Segment] = []
    try:
        for day in np.unique(rows["at"].to_numpy() // DAY_MS):
            of_day = _within(rows, "at", int(day) * DAY_MS, (int(day) + 1) * DAY_MS)
            new.append(segments.write(kind, int(day), generation, of_day, fresh=0, conflicts=0))
    except BaseException:
        segments.discard(new)
        raise
    return new


def _compared(day: int, table: pa.Table, segments: Sequence[Segment], questions: Questions) -> Part:
    series, at = table["series"], table["at"].to_numpy()
    snapshot = Snapshot((), tuple(segments))
    low, high = series[0].as_py(), series[-1].as_py()
    if not snapshot.meeting(Kind.SAMPLES, low, high, int(at.min()), int(at.max()) + 1):
        return Part(day=day, table=table, fresh=table.num_rows, conflicts=conflicts(table))
    stored = questions.same_keys(snapshot, table)
    place = stored["place"].to_numpy()
    before = (stored["flags"].to_numpy() & CONFLICT_BIT) != 0
    marked = np.zeros(table.num_rows, dtype=bool)
    marked[place] = before | differs(table.take(pa.array(place)), stored)
    table = marked_as_conflicts(table, marked)
    counted = conflicts(table) - int(np.count_nonzero(before))
    return Part(day=day, table=table, fresh=table.num_rows - len(place), conflicts=counted)


def _within(table: pa.Table, name: str, low: int, high: int) -> pa.Table:
    """Return the rows with low <= column < high; the table itself where that is all of it."""
    column = table[name].to_numpy()
    inside = (column >= low) & (column < high)
    return table if inside.all() else table.filter(pa.array(inside))


def _of_generation(table: pa.Table, generation: int) -> pa.Table:
    row = pa.array(np.full(table.num_rows, generation, dtype=np.int64))
    place = table.schema.get_field_index("row")
    return table.append_column("row", row) if place < 0 else table.set_column(place, "row", row)
