"""How complete one edge node's day is in the store: from counts to a row of the report. Pure.

Complete is `stored x known`. `stored` is the share of what the edge node is known to have sent off: samples that are
stored, of those plus samples in quarantine plus the void records, each of which counts as many samples as a stored
record holds on average. `known` is the share of the day's elapsed time in which the edge node showed life. Unknown time
counts as not complete, because nobody can say what was measured in it; when its records come in later, it is known.

Lost and quarantined records count on the day the hub learnt of them: a position has no instant.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

from hub.devices import NodeKey
from hub.storage.timeseries import Completeness, Interval, Reach


class Verdict(StrEnum):
    """What a day's row comes to, the first that holds."""

    BEST_EFFORT = "best_effort"
    """Foreign equipment: it numbers nothing, so nobody can say what is missing."""
    UNKNOWN = "unknown"
    """Nothing at all is known of the day."""
    OPEN = "open"
    """More may come: the day is not over, or the edge node holds records of it, or did not say that it has none."""
    LOSSES = "losses"
    """The hub learnt of records that are lost, or put some in quarantine."""
    GAPS = "gaps"
    """Nothing is known to be missing, but for a part of the day nothing is known."""
    WHOLE = "whole"


@dataclass(frozen=True, slots=True, kw_only=True)
class DayReport:
    """One edge node's day. Shares are 0 to 1; `expected` records are None unless all of the day is known and over."""

    records: int
    samples: int
    late_share: float | None
    void: int
    conflicts: int
    quarantined: int
    unknown_ms: int
    expected: int | None
    complete_share: float | None
    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeDay:
    """One edge node's day."""

    node: NodeKey
    foreign: bool
    report: DayReport


@dataclass(frozen=True, slots=True, kw_only=True)
class Days:
    """A day, [start, end) in ms, and how it was for each edge node as far as was known at `at`."""

    day: str
    start: int
    end: int
    at: int
    nodes: Sequence[NodeDay]


def day_report(
    counted: Completeness, *, start: int, end: int, now: int, silent_ms: int, owes: bool, foreign: bool
) -> DayReport:
    """Return the report of [start, end), a day that has begun.

    `silent_ms`: for how long of it the edge node showed no life; `owes`: its log still holds records that old, or it
    has not told. Instants in ms.
    """
    elapsed = min(end, now) - start
    silent = min(max(silent_ms, 0), elapsed)
    known = 1 - silent / elapsed if elapsed > 0 else 0.0
    over = now >= end
    a_record = counted.samples / counted.records if counted.records else 1.0
    sent_off = counted.samples + counted.quarantined + counted.void * a_record
    stored = counted.samples / sent_off if sent_off else None
    settled = over and not owes and silent == 0 and not foreign
    return DayReport(
        records=counted.records,
        samples=counted.samples,
        late_share=counted.historical / counted.samples if counted.samples else None,
        void=counted.void,
        conflicts=counted.conflicts,
        quarantined=counted.quarantined,
        unknown_ms=silent,
        expected=counted.records + counted.void if settled else None,
        complete_share=None if foreign else (stored or 0.0) * known,
        verdict=_verdict(counted, silent=silent, elapsed=elapsed, still=owes or not over, foreign=foreign),
    )


def _verdict(counted: Completeness, *, silent: int, elapsed: int, still: bool, foreign: bool) -> Verdict:
    if foreign:
        return Verdict.BEST_EFFORT
    if not counted.samples and silent >= elapsed:
        return Verdict.UNKNOWN
    if still:
        return Verdict.OPEN
    if counted.void or counted.quarantined:
        return Verdict.LOSSES
    return Verdict.GAPS if silent or not counted.samples else Verdict.WHOLE


def silence(of_devices: Collection[Sequence[Interval]], start: int, end: int) -> int:
    """Return for how many ms of [start, end) an edge node said nothing of any of these devices: it showed no life.

    From availability: while its own stream is silent, all its devices are unknown. Nothing known of any device, or no
    device, is silence throughout.
    """
    spoken, until = 0, start
    for one in sorted((each for of_one in of_devices for each in of_one), key=lambda each: each.start):
        if one.state is not Reach.UNKNOWN:
            first, last = max(one.start, until), min(one.end, end)
            spoken += max(0, last - first)
            until = max(until, last)
    return end - start - spoken
