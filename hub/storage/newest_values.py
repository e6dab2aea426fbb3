"""The sample of the greatest instant of every series, kept up to date with each commit."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from hub.storage.order import CONFLICT_BIT
from hub.storage.tail import SCHEMA

_NEVER = np.iinfo(np.int64).min
COLUMNS = ("series", "at", "number", "integer", "text", "quality", "flags")


_ROW = np.dtype(
    [
        ("at", np.int64),
        ("number", np.float64),
        ("integer", np.int64),
        ("whole", np.bool_),
        ("quality", np.int16),
        ("flags", np.uint8),
    ]
)


class NewestValues:
    """Rows by series number. One thread changes them; whoever reads holds the same lock."""

    def __init__(self) -> None:
        self._rows = _blank(1024)
        self._text = np.full(1024, None, dtype=np.object_)

    def take(self, table: pa.Table) -> None:
        """Take samples in the order of their commit; of equal instants the last stands."""
        series, at = table["series"].to_numpy(), table["at"].to_numpy()
        if not len(series):
            return
        highest = int(series.max())
        if highest >= len(self._rows):
            more = 2 * highest - len(self._rows)
            self._rows = np.concatenate([self._rows, _blank(more)])
            self._text = np.concatenate([self._text, np.full(more, None, dtype=np.object_)])
        known = self._rows["at"]
        wins = np.flatnonzero(at >= known[series])
        known[series[wins]] = at[wins]  # of several of one series the last is assigned last
        if (at[wins] > known[series[wins]]).any():  # and need not be the greatest
            np.maximum.at(known, series, at)
        wins = wins[at[wins] == known[series[wins]]]
        number, integer, text = table["number"], table["integer"], table["text"]
        rows = np.empty(len(wins), dtype=_ROW)
        rows["at"] = at[wins]
        rows["number"] = number.to_numpy()[wins] if number.null_count < len(series) else np.nan
        rows["whole"], rows["integer"] = False, 0
        if integer.null_count < len(series):
            rows["integer"] = integer.fill_null(0).to_numpy()[wins]
            rows["whole"] = integer.is_valid().to_numpy()[wins]
        rows["quality"] = table["quality"].to_numpy()[wins]
        rows["flags"] = table["flags"].to_numpy()[wins]
        where = series[wins]
        self._rows[where] = rows
        self._text[where] = text.to_numpy()[wins] if text.null_count < len(series) else None

    def table(self) -> pa.Table:
        """Return a row for each series that has a sample, columns as COLUMNS."""
        which = np.flatnonzero(self._rows["at"] != _NEVER)
        rows = self._rows[which]
        columns = [
            pa.array(which, pa.int32()),
            pa.array(rows["at"]),
            pa.array(rows["number"], mask=np.isnan(rows["number"])),
            pa.array(rows["integer"], mask=~rows["whole"]),
            pa.array(self._text[which], pa.string()),
            pa.array(rows["quality"]),
            pa.array(rows["flags"] & ~np.uint8(CONFLICT_BIT)),
        ]
        return pa.table(columns, schema=pa.schema([SCHEMA.field(name) for name in COLUMNS]))


def _blank(size: int) -> NDArray[np.void]:
    rows = np.zeros(size, dtype=_ROW)
    rows["at"], rows["number"] = _NEVER, np.nan
    return rows
