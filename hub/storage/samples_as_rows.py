"""Stored samples as the port gives them: series by name, values as they were."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from contract.metrics import Value
from hub.storage.books import Series
from hub.storage.order import CONFLICT_BIT
from hub.storage.timeseries import ROWS, Rows


def rows_of(found: pa.Table, names: Sequence[Series]) -> Rows:
    """Return samples with their series' numbers replaced by names, each distinct text once."""
    numbers, which = np.unique(found["series"].to_numpy(), return_inverse=True)
    series = [names[number - 1] for number in numbers.tolist()]
    columns = []
    for texts in (
        [one.key.group for one in series],
        [one.key.node for one in series],
        [one.key.device for one in series],
        [one.metric for one in series],
    ):
        coded = pa.array(texts, pa.string()).dictionary_encode()
        columns.append(pa.DictionaryArray.from_arrays(coded.indices.take(pa.array(which)), coded.dictionary))
    columns += [found[name].combine_chunks() for name in ROWS.names[4:-1]]
    columns.append(pa.array(found["flags"].to_numpy() & ~np.uint8(CONFLICT_BIT)))
    return pa.table(columns, schema=ROWS)


def values_of(rows: pa.Table) -> list[Value]:
    """Return the values of samples: each a number, an integer, a text or None."""
    columns = (rows[name].to_pylist() for name in ("number", "integer", "text"))
    return [
        number if number is not None else integer if integer is not None else text
        for number, integer, text in zip(*columns, strict=True)
    ]
