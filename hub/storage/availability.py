"""When a device did its job: intervals from what its edge node said of it and when that was heard at all. Pure."""

from collections.abc import Iterable, Sequence
from itertools import pairwise

from contract.catalog import ONLINE
from hub.storage.timeseries import STREAM_GAP_MS, Interval, Reach

Span = tuple[int, int]

CLAIM_LOOKBACK_MS = 86_400_000
"""How long before a question's start a claim may have been made; edge nodes repeat theirs every few minutes."""


def stretches(heard: Sequence[int]) -> list[Span]:
    """Return from the first to the last instant of stretches without a silence longer than STREAM_GAP_MS."""
    cuts = [place for place, (one, after) in enumerate(pairwise(heard), start=1) if after - one > STREAM_GAP_MS]
    return [(heard[first], heard[last - 1]) for first, last in pairwise([0, *cuts, len(heard)]) if last > first]


def silences(heard: Sequence[Span], start: int, end: int) -> list[Span]:
    """Return the spans of [start, end) in which an edge node showed no life.

    `heard`: from the first to the last instant of stretches in which its stream was never silent for longer than
    STREAM_GAP_MS, in order, from as long before `start` to as long after `end`.
    """
    if not heard:
        return [(start, end)]
    found = [] if heard[0][0] <= start else [(start, heard[0][0])]
    found += [(one[1], after[0]) for one, after in pairwise(heard)]
    if end - heard[-1][1] > STREAM_GAP_MS:
        found.append((heard[-1][1], end))
    cut = ((max(first, start), min(last, end)) for first, last in found)
    return [(first, last) for first, last in cut if first < last]


def intervals(claims: Iterable[tuple[int, str | None]], silent: Sequence[Span], start: int, end: int) -> list[Interval]:
    """Return [start, end) in intervals, neighbours differing, from claims in time order and spans of silence.

    The last claim before `start` stands there; before the first one nothing is known.
    """
    steps: list[tuple[int, Reach, str]] = [(start, Reach.UNKNOWN, "")]
    for at, told in claims:
        state = Reach.UNKNOWN if told is None else Reach.UP if told == ONLINE else Reach.DOWN
        cause = told if state is Reach.DOWN and told else ""
        if at <= start:
            steps = [(start, state, cause)]
        elif at < end and steps[-1][1:] != (state, cause):
            steps.append((at, state, cause))
    found: list[Interval] = []
    for (first, state, cause), last in zip(steps, [one[0] for one in steps[1:]] + [end], strict=True):
        for low, high, heard in _split(first, last, silent):
            _append(found, low, high, state if heard else Reach.UNKNOWN, cause if heard else "")
    return found


def _split(first: int, last: int, silent: Sequence[Span]) -> Iterable[tuple[int, int, bool]]:
    at = first
    for low, high in silent:
        if high <= at or low >= last:
            continue
        if low > at:
            yield at, low, True
        yield max(low, at), min(high, last), False
        at = min(high, last)
    if at < last:
        yield at, last, True


def _append(found: list[Interval], start: int, end: int, state: Reach, cause: str) -> None:
    if found and (found[-1].state, found[-1].cause) == (state, cause):
        start = found.pop().start
    found.append(Interval(start=start, end=end, state=state, cause=cause))
