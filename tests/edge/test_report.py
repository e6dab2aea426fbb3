"""Report by exception: what is said, what is left unsaid, and that no value grows old unrepeated."""

import math

from hypothesis import given
from hypothesis import strategies as st

from contract.metrics import DataType, Instrument, Metric, Quality, Sample
from edge.report import worth_reporting

PH = Metric(name="pH", datatype=DataType.DOUBLE, deadband=0.02, max_report_seconds=300)
MUTED = Metric(name="muted", datatype=DataType.BOOLEAN)
METRICS = {one.name: one for one in (PH, MUTED)}
FIRST = Sample(metric="pH", at=1_000_000, value=7.0)


def worth(sample: Sample, last: Sample = FIRST, poll_seconds: int = 10) -> bool:
    chosen = worth_reporting({last.metric: last}, [sample], METRICS, next_read=sample.at + poll_seconds * 1000)
    return bool(chosen)


def later(seconds: float = 10, **change: object) -> Sample:
    told = {"metric": "pH", "at": FIRST.at + int(seconds * 1000), "value": 7.0, **change}
    return Sample(**told)  # type: ignore[arg-type]  # a test's shorthand


def test_the_first_sample_of_a_metric_is_reported() -> None:
    assert worth_reporting({}, [FIRST], METRICS, next_read=0) == [FIRST]


def test_a_change_within_the_deadband_is_not_worth_a_message() -> None:
    assert not worth(later(value=7.02))
    assert worth(later(value=7.03))
    assert worth(later(value=6.97))


def test_a_slow_drift_is_measured_from_what_was_reported_not_from_what_was_read() -> None:
    reported = {"pH": FIRST}
    said = 0
    for step in range(100):
        chosen = worth_reporting(
            reported, [later(step / 10, value=7.0 + step * 0.001)], METRICS, next_read=FIRST.at + 20_000
        )
        reported.update({one.metric: one for one in chosen})
        said += len(chosen)
    assert 3 <= said <= 5


def test_quality_and_instrument_changes_are_always_reported() -> None:
    assert worth(later(quality=Quality.BAD))
    assert worth(later(instrument=Instrument.CALIBRATING))
    assert worth(later(value=None, quality=Quality.BAD))


def test_a_switch_is_reported_when_it_turns() -> None:
    off = Sample(metric="muted", at=0, value=False)
    assert not worth(Sample(metric="muted", at=1, value=False), last=off)
    assert worth(Sample(metric="muted", at=1, value=True), last=off)


def test_a_value_is_repeated_before_it_grows_old() -> None:
    assert not worth(later(280))
    assert worth(later(290)), "the next read, 10 s later, would come at 300 s"


def test_a_clock_set_back_does_not_silence_a_metric() -> None:
    assert worth(later(-3600))


def test_no_number_is_never_reported() -> None:
    assert not worth(later(value=math.nan))
    assert not worth(later(value=math.inf))
    assert worth_reporting({}, [later(value=math.nan)], METRICS, next_read=0) == []


@given(
    readings=st.lists(st.floats(0, 14), min_size=1, max_size=200),
    poll=st.integers(1, 300),
)
def test_what_the_hub_shows_is_never_further_off_or_older_than_promised(readings: list[float], poll: int) -> None:
    reported: dict[str, Sample] = {}
    for number, reading in enumerate(readings):
        sample = Sample(metric="pH", at=number * poll * 1000, value=reading)
        chosen = worth_reporting(reported, [sample], METRICS, next_read=sample.at + poll * 1000)
        reported.update({one.metric: one for one in chosen})
        shown = reported["pH"]
        assert isinstance(shown.value, float)
        assert abs(shown.value - reading) <= PH.deadband
        assert sample.at - shown.at < PH.max_report_seconds * 1000
