"""What is asked of the samples in InfluxDB, and how its answers become what the port tells."""

import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from contract.catalog import PRESENCE
from contract.metrics import Quality, Value
from hub.devices import DeviceKey, NodeKey
from hub.storage import flux
from hub.storage import influx_rollups as rollups
from hub.storage.availability import CLAIM_LOOKBACK_MS, intervals, silences, stretches
from hub.storage.books import Books, Series
from hub.storage.buckets import EXACT_EDGES_MS, buckets, edges_of, mean_of, rolled_edges
from hub.storage.flux import FluxRefused, Points
from hub.storage.influx_samples import COLUMNS, fields_of, joined, latest, newest, numbers, samples
from hub.storage.line_protocol import CONFLICT, FLAGS_FIELD, NULL_BIT, QUALITY_FIELD, Place, stored
from hub.storage.rollups import DAY_MS, HOURS_MS, MINUTES_MS
from hub.storage.samples_as_rows import rows_of, values_of
from hub.storage.timeseries import (
    HISTORICAL_BIT,
    INSTRUMENT_BITS,
    STREAM_GAP_MS,
    Buckets,
    Completeness,
    Interval,
    Raw,
    Rows,
    StoreUnavailable,
)

MONTH_MS = 31 * DAY_MS
BEGINNING, END = -DAY_MS, 4_102_444_800_000
"""Before and after every instant a sample may have: just before 1970, and the year 2100."""

MOST_IN_BUCKETS = 2_000_000
QUICK_SECONDS = 2.0
REST = 20
"""Counting everything that takes longer is followed by a rest of so many times its length."""

_TRUST = f"({QUALITY_FIELD}|{FLAGS_FIELD})$"
"""What ends the names of fields that say how far a value can be trusted."""

Tags = Mapping[str, str]
Ask = Callable[[str], bytes]
Rolled = Callable[[Collection[NodeKey]], tuple[int, int, Collection[int]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Counted:
    commits: int
    samples: int
    conflicts: int
    took: float
    at: float


class InfluxQuestions:
    """Questions about one bucket. `places` grows as series do: a series' number - 1 is its place's index.

    `rolled` tells of some edge nodes from when until when their hours are rolled up, and which of them are owed.
    """

    def __init__(
        self, ask: Ask, bucket: str, rollup_bucket: str, books: Books, places: Sequence[Place], rolled: Rolled
    ) -> None:
        self._ask = ask
        self._bucket = bucket
        self._rollup_bucket = rollup_bucket
        self._rolled = rolled
        self._books = books
        self._places = places
        self._counting = threading.Lock()
        self._counted: _Counted | None = None

    def samples(self, key: DeviceKey, metric: str, start: int, end: int, most: int) -> pa.Table:
        """Return at most `most` samples of a metric with start <= at < end, in time order."""
        found = []
        for place in self._places_of(self._books.numbers(key, metric)):
            asked = self._asked(place, key, start, end) + flux.where(_field=fields_of(place))
            found.append(samples(place, _of_one(self._points(f"{asked} |> limit(n: {most})"))))
        return latest(found, most) if found else COLUMNS.empty_table()

    def stood(self, key: DeviceKey, metrics: Collection[str], start: int, end: int) -> Mapping[tuple[str, int], Value]:
        """Return what is stored of a device's metrics in [start, end), by metric and instant."""
        wanted = {one: self._places_of(self._books.numbers(key, one)) for one in metrics}
        found: dict[tuple[str, int], Value] = {}
        for metric, table in self._of_device(key, wanted, start, end).items():
            found |= {(metric, at): told for at, told in zip(table["at"].to_pylist(), values_of(table), strict=True)}
        return found

    def raw(self, key: DeviceKey, metric: str, start: int, end: int, most: int) -> Raw:
        """Return a page of a series."""
        found = self.samples(key, metric, start, end, most)
        return Raw(
            at=found["at"].to_pylist(),
            value=values_of(found),
            quality=found["quality"].to_pylist(),
            flags=found["flags"].to_pylist(),
        )

    def last(self, group: str | None) -> Rows:
        """Return the newest sample of every series of a group, or of all."""
        told: dict[tuple[str, ...], dict[str, tuple[int, Any]]] = {}
        for question in self._last_questions(group):
            for table in self._tables(question):
                names = [
                    table[one].to_pylist() if one in table.column_names else [""] * table.num_rows
                    for one in ("_measurement", "group", "node", "device", "_field", "_value")
                ]
                instants = flux.instants(table["_time"]).tolist()
                for at, measurement, *tags, name, word in zip(instants, *names, strict=True):
                    told.setdefault((measurement, *tags), {})[name] = (at, word)
        found, rows = [], []
        for series, place in self._all():
            key = series.key
            device = told.get((place.measurement, stored(key.group), stored(key.node), stored(key.device)), {})
            if any(name in device for name in fields_of(place)):
                found.append(series)
                rows.append(newest(place, device))
        columns = list(zip(*rows, strict=True)) or [()] * len(COLUMNS)
        arrays = [pa.array(one, field.type) for one, field in zip(columns, COLUMNS, strict=True)]
        numbered = pa.array(np.arange(1, len(found) + 1, dtype=np.int32))
        return rows_of(pa.table([numbered, *arrays], names=["series", *COLUMNS.names]), found)

    def _last_questions(self, group: str | None) -> Iterator[str]:
        """Return a question for each measurement and type: tables of one type come together, and are read so."""
        bare: dict[str, dict[str, set[str]]] = {}
        for series, place in self._all():
            if group is None or series.key.group == group:
                names = bare.setdefault(place.measurement, {}).setdefault(place.letter, set())
                if not place.field.endswith(f"__{place.letter}"):
                    names.add(place.field)
        tag = {} if group is None else {"group": stored(group)}
        for measurement, letters in bare.items():
            start = flux.span(self._bucket, BEGINNING, END) + flux.where(_measurement=measurement, **tag)
            for letter, names in letters.items():
                yield f"{start}{flux.fields(names, f'__{letter}$')} |> last()"
            yield f"{start}{flux.fields((), _TRUST)} |> last()"

    def export(
        self, start: int, end: int, groups: Collection[str] | None, metrics: Collection[str] | None
    ) -> Iterator[Rows]:
        """Return every sample in order, a device or a month of a series at a time.

        InfluxDB holds nothing still for a reader: what is committed meanwhile may be in it or not.
        """
        wanted: dict[DeviceKey, dict[str, list[Place]]] = {}
        named = {}
        for one, place in self._all():
            named[one.key, one.metric] = one
            if (groups is None or one.key.group in groups) and (metrics is None or one.metric in metrics):
                wanted.setdefault(one.key, {}).setdefault(one.metric, []).append(place)
        for key, of_device in sorted(wanted.items()):
            if end - start <= DAY_MS:
                found = self._of_device(key, of_device, start, end)
                yield from (_rows([(named[key, metric], found[metric])]) for metric in sorted(of_device))
                continue
            for metric in sorted(of_device):
                for first in range(start, end, MONTH_MS):
                    page = self.samples(key, metric, first, min(first + MONTH_MS, end), MOST_IN_BUCKETS)
                    if page.num_rows:
                        yield _rows([(named[key, metric], page)])

    def buckets(self, key: DeviceKey, metric: str, start: int, end: int, count: int, hold_ms: int) -> Buckets:
        """Return a series in equal spans of time."""
        places = self._places_of(self._books.numbers(key, metric))
        edges = edges_of(start, end, count)
        rolled = len(places) <= 1 and hold_ms == rollups.hold_ms(metric)
        if rolled and end - start > EXACT_EDGES_MS and (end - start) // count >= MINUTES_MS:
            edges = rolled_edges(start, end, count)
        if rolled and places and not (edges % HOURS_MS).any():
            return self._from_rollups({key: places[0]}, metric, edges, _tags(key))[key]
        found = self.samples(key, metric, int(edges[0]) - hold_ms, int(edges[-1]), MOST_IN_BUCKETS)
        return _buckets(found, edges, hold_ms)

    def by_group(self, metric: str, start: int, end: int, count: int, hold_ms: int) -> Mapping[str, Buckets]:
        """Return the mean over each group's devices, a question for each group and place."""
        devices: dict[str, dict[DeviceKey, list[Place]]] = {}
        for one, place in self._all():
            if one.metric == metric:
                devices.setdefault(one.key.group, {}).setdefault(one.key, []).append(place)
        found = {}
        rolled = hold_ms == rollups.hold_ms(metric) and (end - start) // count >= MINUTES_MS
        edges = rolled_edges(start, end, count) if rolled else edges_of(start, end, count)
        low, high = int(edges[0]) - hold_ms, int(edges[-1])
        for group, keys in devices.items():
            tags = {"group": stored(group)}
            if rolled and not (edges % HOURS_MS).any() and all(len(places) == 1 for places in keys.values()):
                one_each = {key: places[0] for key, places in sorted(keys.items())}
                found[group] = mean_of(list(self._from_rollups(one_each, metric, edges, tags).values()))
                continue
            fields = {name for places in keys.values() for one in places for name in fields_of(one)}
            measurements = {one.measurement for places in keys.values() for one in places}
            points = self._by_device(self._bucket, measurements, fields, low, high, tags)
            each = []
            for key, places in sorted(keys.items()):
                tables = [samples(one, _of_device(points[one.measurement], key)) for one in places]
                table = latest(tables, MOST_IN_BUCKETS)
                each.append(_buckets(table, edges, hold_ms))
            found[group] = mean_of(each)
        return found

    def of_node(self, node: NodeKey, start: int, end: int) -> rollups.Samples:
        """Return the samples of every series of numbers of an edge node."""
        wanted = {
            (one.key, one.metric): place
            for one, place in self._all()
            if one.key.of_node == node and place.letter != "s"
        }
        asked = flux.span(self._bucket, start, end)
        asked += flux.where(group=stored(node.group), node=stored(node.node))
        asked += ' |> drop(columns: ["_start", "_stop", "group", "node"])'
        points = flux.by_field(self._tables(asked), "_measurement", "device")

        def of(key: DeviceKey, place: Place) -> Callable[[str], Points | None]:
            return lambda name: points.get((place.measurement, stored(key.device), name))

        return {
            (key, metric): (place, samples(place, of(key, place)))
            for (key, metric), place in wanted.items()
            if any(of(key, place)(name) for name in fields_of(place))
        }

    def _from_rollups(
        self, devices: Mapping[DeviceKey, Place], metric: str, edges: NDArray[np.int64], tags: Tags
    ) -> dict[DeviceKey, Buckets]:
        """Return devices' spans from hours that are rolled up, and from samples of those that are not.

        `tags` are what the devices have in common, and no other one that has the metric.
        """
        measurements = {place.measurement for place in devices.values()}
        since, until, owed = self._rolled({one.of_node for one in devices})
        good, raw = rollups.spans(int(edges[0]), int(edges[-1]), (since, until), owed)
        parts: dict[DeviceKey, list[Mapping[str, NDArray[np.float64]]]] = {key: [] for key in devices}
        if good:
            fields = {name for place in devices.values() for name in rollups.fields_of(place)}
            points = self._by_device(self._rollup_bucket, measurements, fields, good[0], good[-1] + HOURS_MS, tags)
            for key, place in devices.items():
                columns = rollups.from_points(place, _of_device(points[place.measurement], key))
                wanted = np.isin(columns["at"].astype(np.int64), good)
                parts[key].append({name: one[wanted] for name, one in columns.items()})
        for first, last in raw:
            for low in range(first, last, MONTH_MS):
                high = min(low + MONTH_MS, last)
                fields = {name for place in devices.values() for name in fields_of(place)}
                points = self._by_device(self._bucket, measurements, fields, low - rollups.MOST_HOLD_MS, high, tags)
                for key, place in devices.items():
                    table = samples(place, _of_device(points[place.measurement], key))
                    parts[key].append(rollups.from_samples(table, metric, low, high))
        return {key: rollups.in_spans(several, edges) for key, several in parts.items()}

    def _by_device(
        self, bucket: str, measurements: Collection[str], fields: Collection[str], start: int, end: int, tags: Tags
    ) -> dict[str, Mapping[tuple[str, ...], Points]]:
        """Return points by measurement, then by node, device and field."""
        found = {}
        for measurement in measurements:
            asked = flux.span(bucket, start, end)
            asked += flux.where(_measurement=measurement, **tags, _field=sorted(fields))
            found[measurement] = flux.by_field(self._tables(asked + _BARE), "node", "device")
        return found

    def availability(
        self, devices: Collection[DeviceKey], start: int, end: int
    ) -> Mapping[DeviceKey, Sequence[Interval]]:
        """Return each device's intervals, from two questions for each edge node."""
        of_node: dict[NodeKey, list[DeviceKey]] = {}
        for one in devices:
            of_node.setdefault(one.of_node, []).append(one)
        found: dict[DeviceKey, Sequence[Interval]] = {}
        for node, own in of_node.items():
            stream = DeviceKey(node.group, node.node, "")
            silent = silences(stretches(self._heard(stream, start, end)), start, end)
            claims = self._claims(stream, [one.device for one in own], start - CLAIM_LOOKBACK_MS, end)
            found |= {one: intervals(claims[one.device], silent, start, end) for one in own}
        return found

    def _claims(
        self, stream: DeviceKey, devices: Sequence[str], start: int, end: int
    ) -> dict[str, list[tuple[int, str | None]]]:
        """Return when an edge node said what of its devices."""
        places = {one: self._places_of(self._books.numbers(stream, PRESENCE + one)) for one in devices}
        fields = sorted({name for several in places.values() for place in several for name in fields_of(place)})
        if not fields:
            return {one: [] for one in devices}
        any_place = next(place for several in places.values() for place in several)
        points = _of_one(self._points(self._asked(any_place, stream, start, end) + flux.where(_field=fields)))
        found: dict[str, list[tuple[int, str | None]]] = {}
        for one, several in places.items():
            tables = [samples(place, points) for place in several]
            claims = latest(tables, MOST_IN_BUCKETS) if tables else COLUMNS.empty_table()
            told = zip(claims["at"].to_pylist(), values_of(claims), strict=True)
            found[one] = [(at, None if word is None else str(word)) for at, word in told]
        return found

    def completeness(self, node: NodeKey, start: int, end: int) -> Completeness:
        """Return the counts of one edge node; quarantine and voids are the books'."""
        devices: dict[DeviceKey, dict[str, list[Place]]] = {}
        for one, place in self._all():
            if one.key.of_node == node:
                devices.setdefault(one.key, {}).setdefault(one.metric, []).append(place)
        counted = records = historical = 0
        for key, of_device in devices.items():
            found = self._of_device(key, of_device, start, end).values()
            counted += sum(one.num_rows for one in found)
            records += len(np.unique(np.concatenate([one["at"].to_numpy() for one in found])))
            historical += sum(int(np.count_nonzero(one["flags"].to_numpy() & HISTORICAL_BIT)) for one in found)
        conflicts = self._count(
            flux.span(self._bucket, start, end)
            + flux.where(_measurement=CONFLICT, group=stored(node.group), node=stored(node.node))
        )
        quarantined, void = self._books.missing(node, start, end)
        return Completeness(
            samples=counted,
            records=records,
            historical=historical,
            conflicts=conflicts,
            quarantined=quarantined,
            void=void,
        )

    def counts(self, commits: int) -> tuple[int, int]:
        """Return how many samples and conflicts there are, as of the last commit; older where counting takes long."""
        with self._counting:
            known, now = self._counted, time.monotonic()
            old = known is None or known.commits != commits
            if known is None or (old and (known.took < QUICK_SECONDS or now - known.at > REST * known.took)):
                whole = flux.span(self._bucket, BEGINNING, END)
                data = f'{whole} |> filter(fn: (r) => r["_measurement"] != {flux.text(CONFLICT)}'
                values = self._count(f'{data} and r["_field"] !~ /{_TRUST}/)')
                nulls = self._count(f'{data} and r["_field"] =~ /{FLAGS_FIELD}$/ and r["_value"] >= {NULL_BIT})')
                conflicts = self._count(whole + flux.where(_measurement=CONFLICT))
                took = time.monotonic() - now
                known = _Counted(
                    commits=commits, samples=values + nulls, conflicts=conflicts, took=took, at=time.monotonic()
                )
                self._counted = known
            return known.samples, known.conflicts

    def _heard(self, stream: DeviceKey, start: int, end: int) -> list[int]:
        own = [place for one, place in self._all() if one.key == stream]
        if not own:
            return []
        asked = self._asked(own[0], stream, start - STREAM_GAP_MS, end + STREAM_GAP_MS)
        found = [flux.instants(one["_time"]) for one in self._tables(f'{asked} |> keep(columns: ["_time", "_field"])')]
        return [int(one) for one in np.unique(np.concatenate(found))] if found else []

    def _of_device(
        self, key: DeviceKey, wanted: Mapping[str, Sequence[Place]], start: int, end: int
    ) -> dict[str, pa.Table]:
        points: dict[str, Callable[[str], Points | None]] = {}
        for place in (one for places in wanted.values() for one in places):
            if place.measurement not in points:
                points[place.measurement] = _of_one(self._points(self._asked(place, key, start, end)))
        return {
            metric: latest([samples(one, points[one.measurement]) for one in places], MOST_IN_BUCKETS)
            for metric, places in wanted.items()
        }

    def _all(self) -> Iterator[tuple[Series, Place]]:
        # A series may have been made and not placed yet; nothing of it is stored then.
        return zip(self._books.all_series(), list(self._places), strict=False)

    def _places_of(self, numbers_of: Sequence[int]) -> Sequence[Place]:
        return [self._places[number - 1] for number in numbers_of if number <= len(self._places)]

    def _asked(self, place: Place, key: DeviceKey, start: int, end: int) -> str:
        return flux.span(self._bucket, start, end) + flux.where(_measurement=place.measurement, **_tags(key))

    def _points(self, asked: str) -> Mapping[tuple[str, ...], Points]:
        return flux.by_field(self._tables(asked + _BARE))

    def _count(self, asked: str) -> int:
        tables = self._tables(f'{asked} |> count() |> keep(columns: ["_value"]) |> group() |> sum()')
        return sum(sum(one["_value"].to_pylist()) for one in tables)

    def _tables(self, question: str) -> Sequence[pa.Table]:
        try:
            return list(flux.tables(self._ask(question)))
        except FluxRefused as exc:
            raise StoreUnavailable(f"InfluxDB cannot answer a question: {exc}") from exc


_BARE = ' |> drop(columns: ["_start", "_stop", "_measurement"])'


def _tags(key: DeviceKey) -> Tags:
    tags = {"group": stored(key.group), "node": stored(key.node)}
    return {**tags, "device": stored(key.device)} if key.device else tags


def _of_one(points: Mapping[tuple[str, ...], Points]) -> Callable[[str], Points | None]:
    return lambda name: points.get((name,))


def _of_device(points: Mapping[tuple[str, ...], Points], key: DeviceKey) -> Callable[[str], Points | None]:
    return lambda name: points.get((stored(key.node), stored(key.device), name))


def _buckets(found: pa.Table, edges: NDArray[np.int64], hold_ms: int) -> Buckets:
    values = numbers(found)
    measuring = (found["flags"].to_numpy() & INSTRUMENT_BITS) == 0
    good = (found["quality"].to_numpy() == int(Quality.GOOD)) & measuring & ~np.isnan(values)
    return buckets(found["at"].to_numpy(), values, good, edges=edges, hold_ms=hold_ms)


def _rows(pieces: Sequence[tuple[Series, pa.Table]]) -> Rows:
    """Return samples with their series' names."""
    whole = joined(one for _, one in pieces)
    which = np.repeat(np.arange(1, len(pieces) + 1, dtype=np.int32), [one.num_rows for _, one in pieces])
    return rows_of(whole.add_column(0, "series", pa.array(which, pa.int32())), [one for one, _ in pieces])
