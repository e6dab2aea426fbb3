"""Which samples of a read are worth a message: report by exception, and again before a value grows old. Pure."""

import math
from collections.abc import Mapping, Sequence

from contract.metrics import Metric, Sample, Value


def worth_reporting(
    reported: Mapping[str, Sample], samples: Sequence[Sample], metrics: Mapping[str, Metric], *, next_read: int
) -> list[Sample]:
    """Return the samples to report, given the last reported one of each metric.

    A sample is worth it when it is the first, when its value moved by more than the deadband, when its quality or the
    instrument's state changed, or when the last report would be older than the maximum report interval at the next
    read (`next_read`, ms). NaN and infinities are never worth it: nobody could store them.
    """
    return [one for one in samples if _worth(reported.get(one.metric), one, metrics[one.metric], next_read)]


def _worth(last: Sample | None, sample: Sample, metric: Metric, next_read: int) -> bool:
    if isinstance(sample.value, float) and not math.isfinite(sample.value):
        return False
    if last is None or (last.quality, last.instrument) != (sample.quality, sample.instrument):
        return True
    if _moved(last.value, sample.value, metric.deadband):
        return True
    # A clock set back must not silence a metric until it has caught up.
    return next_read - last.at >= metric.max_report_seconds * 1000 or sample.at < last.at


def _moved(last: Value, value: Value, deadband: float) -> bool:
    if isinstance(value, (int, float)) and isinstance(last, (int, float)) and not isinstance(value, bool):
        return abs(value - last) > deadband
    return value != last
