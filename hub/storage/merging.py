"""Small and late segments brought together: of each past day, files that overlap become files that do not."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hub.storage.order import distinct, newest
from hub.storage.sealing import PART_ROWS, ranges
from hub.storage.segments import Kind, Segment, Segments


def overlapping(segments: Iterable[Segment], before_day: int) -> Iterator[list[Segment]]:
    """Return groups of two or more segments of one kind and one day before `before_day`, linked by common series."""
    groups: dict[tuple[Kind, int], list[Segment]] = {}
    for one in segments:
        if one.day < before_day:
            groups.setdefault((one.kind, one.day), []).append(one)
    for of_day in groups.values():
        linked: list[Segment] = []
        reach = -1
        for one in sorted(of_day, key=lambda each: each.first_series):
            if one.first_series > reach and linked:
                if len(linked) > 1:
                    yield linked
                linked = []
            linked.append(one)
            reach = max(reach, one.last_series)
        if len(linked) > 1:
            yield linked


def merge(group: Sequence[Segment], segments: Segments, generation: int) -> list[Segment]:
    """Write the rows of a group, each key once, into new segments; raise OSError with nothing left behind.

    They count when a transaction has named them in place of the group.
    """
    kind, day = group[0].kind, group[0].day
    files = [pq.ParquetFile(segments.folder / one.file) for one in sorted(group, key=lambda each: each.generation)]
    new: list[Segment] = []
    fresh, told = sum(one.fresh for one in group), sum(one.conflicts for one in group)
    try:
        counted = [file.read(columns=["series"])["series"].to_numpy() for file in files]
        cuts = list(ranges(counted, PART_ROWS))
        del counted
        for low, high in cuts:
            rows = pa.concat_tables(_rows(files, low, high))
            table = distinct(rows) if kind is Kind.SAMPLES else newest(rows)
            number = pa.array(np.full(table.num_rows, generation, dtype=np.int64))
            table = table.set_column(table.schema.get_field_index("row"), "row", number)
            new.append(segments.write(kind, day, generation, table, fresh=fresh, conflicts=told))
            fresh = told = 0
    except BaseException:
        segments.discard(new)
        raise
    finally:
        for file in files:
            file.close()
    return new


def _rows(files: Iterable[pq.ParquetFile], low: int, high: int) -> Iterator[pa.Table]:
    for file in files:
        for group in range(file.num_row_groups):
            known = file.metadata.row_group(group).column(0).statistics
            if known.min <= high and known.max >= low:
                rows = file.read_row_group(group)
                series = rows["series"].to_numpy()
                yield rows.filter(pa.array((series >= low) & (series <= high)))
