"""Questions over many series or much time: answered from rollups, and from samples where those do not suffice.

Rollups end where the tail begins: for each series that has samples in the tail, what lies after the earliest of them is
rolled up when it is asked for.
"""

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from hub.storage.buckets import Spans, spans_of
from hub.storage.order import in_order
from hub.storage.questions import Questions, Snapshot, wanted
from hub.storage.rollups import HOURS_MS, MINUTES_MS, roll
from hub.storage.sealing import Holds, walk
from hub.storage.segments import Kind
from hub.storage.timeseries import STREAM_GAP_MS

WIDTHS = {Kind.MINUTES: MINUTES_MS, Kind.HOURS: HOURS_MS}

_SAMPLES_A_PIECE = 1_000_000
_SECONDS_A_SAMPLE = 10
"""For sizing pieces only: few series are sampled more often than this."""

_NUMBERS = ("series", "at", "count", "minimum", "maximum", "first", "last", "integral", "covered")

Whole = NDArray[np.int64]


class LongQuestions:
    """Rollups up to the last commit, and what is made of them."""

    def __init__(self, questions: Questions, holds: Holds) -> None:
        self._questions = questions
        self._holds = holds

    def rolled(
        self, snapshot: Snapshot, kind: Kind, series: Sequence[int], start: int, end: int, columns: Sequence[str]
    ) -> pa.Table:
        """Return rollups of [start, end), which are multiples of the kind's width, by series and instant."""
        width, names = WIDTHS[kind], np.array(sorted(series), dtype=np.int32)
        cut = np.clip(_oldest(snapshot.tail, names) // width * width, start, end)
        sealed = cut > start
        found = [self._questions.rollups(snapshot, kind, wanted(names[sealed], start, cut[sealed]), columns)]
        for piece in _pieces(np.flatnonzero(cut < end), end - cut):
            hold = self._holds(names[piece])
            rows = self._questions.samples(snapshot, wanted(names[piece], cut[piece] - hold, end))
            owner = np.searchsorted(names[piece], rows["series"].to_numpy())
            rows = roll(walk(rows, hold[owner]), width)
            owner = np.searchsorted(names[piece], rows["series"].to_numpy())
            at = rows["at"].to_numpy()
            found.append(rows.filter(pa.array((at >= cut[piece][owner]) & (at < end))).select(list(columns)))
        rows = pa.concat_tables(found).combine_chunks()
        return rows.take(pa.array(in_order(rows["series"].to_numpy(), rows["at"].to_numpy())))

    @staticmethod
    def has(snapshot: Snapshot, edges: Whole) -> bool:
        """Return whether spans with these edges are made of rollups that are there."""
        whole_hours, whole_minutes = not (edges % HOURS_MS).any(), not (edges % MINUTES_MS).any()
        return whole_hours or (whole_minutes and int(edges[0]) >= snapshot.minutes_from)

    def spans(self, snapshot: Snapshot, owners: Sequence[Sequence[int]], edges: Whole) -> Spans:
        """Return for each owner, which is some series, its spans; edges are multiples of a rollup's width."""
        kind = Kind.HOURS if not (edges % HOURS_MS).any() else Kind.MINUTES
        owner_of = {one: number for number, several in enumerate(owners) for one in several}
        rows = self.rolled(snapshot, kind, list(owner_of), int(edges[0]), int(edges[-1]), _NUMBERS)
        series = rows["series"].to_numpy()
        lookup = np.zeros(max(owner_of, default=0) + 1, dtype=np.int64)
        lookup[list(owner_of)] = list(owner_of.values())
        columns = {name: rows[name].to_numpy().astype(np.float64) for name in _NUMBERS[2:]}
        return spans_of({**columns, "at": rows["at"].to_numpy()}, lookup[series], len(owners), edges)

    def claims(
        self, snapshot: Snapshot, series: Sequence[int], start: int, end: int
    ) -> Mapping[int, list[tuple[int, str | None]]]:
        """Return for each series of texts when it changed and to what, what stood at `start` included."""
        low, high = start // HOURS_MS * HOURS_MS, -(-end // HOURS_MS) * HOURS_MS
        names = ("series", "at", "samples", "first_at", "first_text", "last_text", "changes")
        rows = self.rolled(snapshot, Kind.HOURS, series, low, high, names)
        rows = rows.filter(pa.array(rows["samples"].to_numpy() > 0)).combine_chunks()
        number, at = rows["series"].to_numpy(), rows["at"].to_numpy()
        first, last = rows["first_text"].combine_chunks(), rows["last_text"].combine_chunks()
        codes = pa.concat_arrays([first, last]).dictionary_encode().indices.fill_null(-1).to_numpy()
        begins, ends = codes[: len(at)], codes[len(at) :]
        new = np.append(True, (number[1:] != number[:-1]) | (begins[1:] != ends[:-1]))[: len(at)]
        restless = rows["changes"].to_numpy() > 0
        told = rows.filter(pa.array(new & ~restless)).select(["series", "first_at", "first_text"])
        found: dict[int, list[tuple[int, str | None]]] = {one: [] for one in series}
        for one, when, text in zip(*(told[name].to_pylist() for name in told.column_names), strict=True):
            found[one].append((when, text))
        # In hours with changes every sample is looked at.
        inner = self._questions.samples(snapshot, wanted(number[restless], at[restless], at[restless] + HOURS_MS))
        for one, when, text in zip(*(inner[name].to_pylist() for name in ("series", "at", "text")), strict=True):
            found[one].append((when, text))
        return {one: sorted(several, key=lambda each: each[0]) for one, several in found.items()}

    def heard(
        self, snapshot: Snapshot, streams: Mapping[int, int], start: int, end: int
    ) -> Mapping[int, list[tuple[int, int]]]:
        """Return for each owner of series the spans in which it was heard at least each STREAM_GAP_MS, in order.

        `streams` says whose each series is. Spans that touch [start, end) or lie beside it are exact.
        """
        low, high = (start - STREAM_GAP_MS) // HOURS_MS * HOURS_MS, -(-(end + STREAM_GAP_MS) // HOURS_MS) * HOURS_MS
        names = ("series", "at", "samples", "first_at", "last_at", "gap")
        rows = self.rolled(snapshot, Kind.HOURS, list(streams), low, high, names)
        rows = rows.filter(pa.array(rows["samples"].to_numpy() > 0)).combine_chunks()
        lookup = np.zeros(max(streams, default=0) + 1, dtype=np.int64)
        lookup[list(streams)] = list(streams.values())
        owner = lookup[rows["series"].to_numpy()]
        first, last = rows["first_at"].to_numpy(), rows["last_at"].to_numpy()
        loose = rows["gap"].to_numpy() > STREAM_GAP_MS
        ends = np.concatenate([first[~loose], first[loose], last[loose]])
        until = np.concatenate([last[~loose], first[loose], last[loose]])
        of = np.concatenate([owner[~loose], owner[loose], owner[loose]])
        joined = _joined(of, ends, until)
        # A silence is one only if no series with a longer pace of its own was heard in it.
        doubtful = np.array(
            [
                row
                for row in np.flatnonzero(loose)
                if not _within(joined.get(int(owner[row]), []), int(first[row]), int(last[row]))
            ],
            dtype=np.int64,
        )
        if len(doubtful):
            number, at = rows["series"].to_numpy()[doubtful], rows["at"].to_numpy()[doubtful]
            inner = self._questions.samples(snapshot, wanted(number, at, at + HOURS_MS))
            when = inner["at"].to_numpy()
            ends, until = np.concatenate([ends, when]), np.concatenate([until, when])
            joined = _joined(np.concatenate([of, lookup[inner["series"].to_numpy()]]), ends, until)
        return {one: joined.get(one, []) for one in set(streams.values())}


def _oldest(tail: Sequence[pa.Table], series: NDArray[np.int32]) -> Whole:
    size = int(series.max()) + 1 if len(series) else 0
    oldest = np.full(size, np.iinfo(np.int64).max // 2)
    for table in tail:
        number, at = table["series"].to_numpy(), table["at"].to_numpy()
        known = number < size
        np.minimum.at(oldest, number[known], at[known])
    return oldest[series]


def _pieces(which: Whole, spans: Whole) -> Iterator[Whole]:
    if len(which):
        nth = np.cumsum(spans[which] // 1000 // _SECONDS_A_SAMPLE) // _SAMPLES_A_PIECE
        yield from np.split(which, np.flatnonzero(np.diff(nth)) + 1)


def _joined(owner: Whole, first: Whole, last: Whole) -> dict[int, list[tuple[int, int]]]:
    """Return spans joined with those that follow within STREAM_GAP_MS, by owner."""
    found: dict[int, list[tuple[int, int]]] = {}
    order = np.lexsort((first, owner))
    owner, first, last = owner[order], first[order], last[order]
    for one in np.unique(owner):
        low, high = np.searchsorted(owner, [one, one + 1])
        reach = np.maximum.accumulate(last[low:high])
        cuts = np.flatnonzero(first[low + 1 : high] - reach[:-1] > STREAM_GAP_MS)
        begins = first[low:high][np.append(0, cuts + 1)]
        ends = reach[np.append(cuts, high - low - 1)]
        found[int(one)] = list(zip(begins.tolist(), ends.tolist(), strict=True))
    return found


def _within(spans: Sequence[tuple[int, int]], first: int, last: int) -> bool:
    """Return whether one of the spans, which are in order, holds all from `first` to `last`."""
    place = bisect_right(spans, (first, 2**63)) - 1
    return place >= 0 and last <= spans[place][1]
