"""Births, data and deaths of an edge node as Sparkplug payloads, from what the delivery log holds.

Clauses shown here (prefix `tck-id-` left out): payloads-nbirth-seq, -timestamp, -bdseq; payloads-ndeath-bdseq,
payloads-ndeath-seq; payloads-name-birth-data-requirement, payloads-alias-birth-requirement,
payloads-alias-data-cmd-requirement; payloads-name-cmd-requirement; topics-nbirth-rebirth-metric;
payloads-dbirth-seq-inc, payloads-ddata-seq-inc, payloads-ddeath-seq-inc (the number itself is counted in uplink.py).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from contract import sparkplug_pb2
from contract.catalog import BDSEQ, HELLO, INSTRUMENT, KIND, QUALITY, REBIRTH, TIME, UNIT, UPTIME, Kind
from contract.delivery import DEPTH_METRICS, EPOCH, FIRST, LAST, POSITION_METRICS, Held, held_metrics
from contract.metrics import DataType, Instrument, Metric, Quality, Sample, Timing, Value
from contract.payload import Payload, WireMetric, encode, read_properties, read_value
from contract.positions import NODE_STREAM
from edge.record_bytes import Record

Aliases = Callable[[str, str, DataType], int]
"""From stream, metric name and datatype to the alias that the log gave, once and for all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Born:
    """What a birth says of one metric: its definition and its newest logged sample, if there is one."""

    metric: Metric
    newest: Sample | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Depth:
    """How deep a log is: records not known to be committed, the instant (ms) of the oldest of them, bytes on disk."""

    records: int
    oldest: int | None
    size: int


def record_metrics(
    stream: str, at: int, samples: Iterable[Sample], known: Mapping[str, Metric], alias: Aliases
) -> bytes:
    """Return the samples as they will stand in data, all at one instant; raise ValueError for an undeclared metric."""
    metrics = []
    for sample in samples:
        metric = known.get(sample.metric)
        if metric is None:
            raise ValueError(f"{stream or 'edge node'}: metric {sample.metric!r} is not in its birth")
        metrics.append(
            WireMetric(
                alias=alias(stream, metric.name, metric.datatype),
                at=at,
                datatype=metric.datatype,
                value=sample.value,
                properties=_flags(sample.quality, sample.instrument, sample.time),
            )
        )
    return encode(Payload(metrics=tuple(metrics)))


def read_sample(metric: Metric, raw: bytes) -> Sample:
    """Return the sample that an encoded metric of a record is."""
    wire = sparkplug_pb2.Payload.Metric.FromString(raw)
    flags = read_properties(wire)
    return Sample(
        metric=metric.name,
        at=wire.timestamp,
        value=None if wire.is_null else read_value(wire, metric.datatype),
        quality=Quality(int(str(flags.get(QUALITY, int(Quality.GOOD))))),
        instrument=Instrument(int(str(flags.get(INSTRUMENT, 0)))),
        time=Timing(int(str(flags.get(TIME, 0)))),
    )


def data(
    records: Sequence[Record], *, alias: Aliases, seq: int, now: int, historical: Callable[[Record, int], bool]
) -> bytes:
    """Return NDATA or DDATA with consecutive records of one stream; `historical(record, alias)` is asked per sample."""
    lineage, first = records[0].lineage, records[0]
    message = sparkplug_pb2.Payload(timestamp=now, seq=seq)
    for name, number in ((EPOCH, lineage.epoch), (FIRST, first.offset), (LAST, records[-1].offset)):
        message.metrics.add(alias=alias(lineage.stream, name, DataType.UINT64), timestamp=first.at, long_value=number)
    for record in records:
        logged = sparkplug_pb2.Payload.FromString(record.metrics)
        for metric in logged.metrics:
            if historical(record, metric.alias):
                metric.is_historical = True
        message.metrics.extend(logged.metrics)
    return message.SerializeToString()


def node_birth(
    born: Sequence[Born],
    *,
    held: Held,
    bdseq: int,
    hello: str,
    signs: Sequence[WireMetric],
    alias: Aliases,
    seq: int,
    now: int,
) -> bytes:
    """Return NBIRTH: every metric the node will ever report, what its log holds, and how to ask for a rebirth.

    `signs` are the signs of life, named.
    """
    control = (
        WireMetric(name=BDSEQ, at=now, datatype=DataType.INT64, value=bdseq),
        WireMetric(name=REBIRTH, at=now, datatype=DataType.BOOLEAN, value=False),
        WireMetric(name=KIND, at=now, datatype=DataType.STRING, value=Kind.EDGE_NODE.value),
        WireMetric(name=HELLO, at=now, datatype=DataType.STRING, value=hello or None),
        *signs,
    )
    metrics = (*control, *held_metrics(held, now), *_positions(NODE_STREAM, held.epoch, alias, now))
    return encode(Payload(at=now, seq=seq, metrics=(*metrics, *_born(NODE_STREAM, born, alias, now))))


def device_birth(
    device: str, kind: Kind | None, born: Sequence[Born], *, epoch: int, alias: Aliases, seq: int, now: int
) -> bytes:
    """Return DBIRTH: every metric of one device with its newest logged sample; `kind` None for a retired device."""
    what = WireMetric(name=KIND, at=now, datatype=DataType.STRING, value=kind.value if kind else None)
    metrics = (what, *_positions(device, epoch, alias, now), *_born(device, born, alias, now))
    return encode(Payload(at=now, seq=seq, metrics=metrics))


def node_death(bdseq: int, now: int) -> bytes:
    """Return NDEATH, as will and as last word: bdSeq alone, without seq."""
    metric = WireMetric(name=BDSEQ, at=now, datatype=DataType.INT64, value=bdseq)
    return encode(Payload(at=now, metrics=(metric,)))


def device_death(seq: int, now: int) -> bytes:
    """Return DDEATH."""
    return encode(Payload(at=now, seq=seq))


def signs_of_life(uptime: int, depth: Depth, *, alias: Aliases, now: int, named: bool) -> tuple[WireMetric, ...]:
    """Return how long the agent runs and how deep its log is: said every 30 s, never logged; by name in births only."""
    values = dict(zip((UPTIME, *DEPTH_METRICS), (uptime, depth.records, depth.oldest, depth.size), strict=True))
    return tuple(
        WireMetric(
            name=name if named else None,
            alias=alias(NODE_STREAM, name, DataType.INT64),
            at=now,
            datatype=DataType.INT64,
            value=value,
        )
        for name, value in values.items()
    )


def transient(metrics: Iterable[WireMetric], *, seq: int, now: int) -> bytes:
    """Return NDATA of what is said once and never logged."""
    return encode(Payload(at=now, seq=seq, metrics=tuple(metrics)))


def _born(stream: str, born: Sequence[Born], alias: Aliases, now: int) -> tuple[WireMetric, ...]:
    return tuple(
        WireMetric(
            name=one.metric.name,
            alias=alias(stream, one.metric.name, one.metric.datatype),
            at=one.newest.at if one.newest else now,
            datatype=one.metric.datatype,
            value=one.newest.value if one.newest else None,
            properties={**_unit(one.metric), **_flags(*_believable(one, now))},
        )
        for one in born
    )


def _believable(one: Born, now: int) -> tuple[Quality, Instrument, Timing]:
    if one.newest is None:
        return Quality.STALE, Instrument.MEASURING, Timing.SYNCHRONISED
    stale = now - one.newest.at > one.metric.max_report_seconds * 1000 and not one.metric.event
    return (Quality.STALE if stale else one.newest.quality), one.newest.instrument, one.newest.time


def _positions(stream: str, epoch: int, alias: Aliases, now: int) -> tuple[WireMetric, ...]:
    values: dict[str, Value] = {EPOCH: epoch, FIRST: None, LAST: None}
    return tuple(
        WireMetric(
            name=name,
            alias=alias(stream, name, DataType.UINT64),
            at=now,
            datatype=DataType.UINT64,
            value=values[name],
        )
        for name in POSITION_METRICS
    )


def _unit(metric: Metric) -> dict[str, Value]:
    return {UNIT: metric.unit} if metric.unit else {}


def _flags(quality: Quality, instrument: Instrument, time: Timing) -> dict[str, Value]:
    flags: dict[str, Value] = {}
    if quality is not Quality.GOOD:
        flags[QUALITY] = int(quality)
    if instrument is not Instrument.MEASURING:
        flags[INSTRUMENT] = int(instrument)
    if time is not Timing.SYNCHRONISED:
        flags[TIME] = int(time)
    return flags
