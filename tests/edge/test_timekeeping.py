"""What a box's clock may say after a boot, and how good it says it is."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.catalog import CATALOG, TIME, Kind
from contract.metrics import Sample, Timing
from contract.payload import decode
from edge.box_clock import BoxClock
from edge.delivery_log import DeliveryLog
from edge.timekeeping import AFTER_LAST_LOGGED, LONGEST_HOLD, Timekeeping, asked, begun, holds, timing, told

KNOWN = {one.name: one for one in CATALOG[Kind.WATER_PROBE].metrics}


def blind(last_logged: int | None = 5_000_000) -> Timekeeping:
    return begun(100.0, trusted=False, has_clock=False, last_logged=last_logged, was_synchronised=False)


def test_without_a_clock_of_its_own_a_box_begins_a_second_after_what_it_last_logged() -> None:
    assert told(blind(), 0, 100.0) == 5_000_000 + AFTER_LAST_LOGGED
    assert told(blind(), 0, 160.0) == 5_000_000 + AFTER_LAST_LOGGED + 60_000
    assert told(blind(), 9_000_000, 100.0) == 9_000_000, "a system that is later is believed"
    assert told(blind(None), 7, 100.0) == 7


def test_once_the_kernel_is_synchronised_the_system_is_believed_even_where_it_is_earlier() -> None:
    assert told(asked(blind(), True), 4_000_000, 130.0) == 4_000_000


@pytest.mark.parametrize(("trusted", "has_clock"), [(True, False), (False, True)])
def test_a_trusted_source_or_a_clock_with_a_battery_is_believed(trusted: bool, has_clock: bool) -> None:
    kept = begun(100.0, trusted=trusted, has_clock=has_clock, last_logged=5_000_000, was_synchronised=False)
    assert told(kept, 17, 100.0) == 17


def test_readings_wait_for_an_unsynchronised_boot_and_then_say_that_nobody_knows() -> None:
    assert holds(blind(), 100.0 + LONGEST_HOLD - 0.1)
    assert not holds(blind(), 100.0 + LONGEST_HOLD)
    assert timing(blind()) is Timing.UNKNOWN


def test_a_clock_that_lost_its_source_in_this_boot_holds_over_and_nothing_waits() -> None:
    kept = asked(asked(blind(), True), False)
    assert timing(kept) is Timing.HOLDOVER
    assert not holds(kept, 100.0)
    again = begun(0.0, trusted=False, has_clock=False, last_logged=5, was_synchronised=True)
    assert timing(again) is Timing.HOLDOVER, "the agent started anew, the box did not"


@given(st.lists(st.booleans(), max_size=20), st.integers(0, 2**42), st.floats(0, 1e6))
def test_a_trusted_clock_is_never_asked_about(answers: list[bool], system: int, now: float) -> None:
    kept = begun(0.0, trusted=True, has_clock=False, last_logged=2**41, was_synchronised=False)
    for one in answers:
        kept = asked(kept, one)
    assert timing(kept) is Timing.SYNCHRONISED
    assert not holds(kept, now)
    assert told(kept, system, now) == system


@given(st.integers(0, 2**42), st.lists(st.tuples(st.integers(0, 2**42), st.floats(0, 1000)), max_size=20))
def test_until_it_is_synchronised_a_box_without_a_clock_never_goes_back_behind_its_log(
    last_logged: int, readings: list[tuple[int, float]]
) -> None:
    kept = blind(last_logged)
    assert all(told(kept, system, 100.0 + later) > last_logged for system, later in readings)


def test_how_good_the_clock_is_outlives_the_agent_within_a_boot(tmp_path: Path, clock: Any) -> None:
    synchronised, boot = True, tmp_path / "boot_id"
    boot.write_text("first\n", encoding="ascii")

    def started(log: DeliveryLog) -> BoxClock:
        one = BoxClock(clock, trusted=False, synchronised=lambda: synchronised)
        one.begin(log, boot_id=boot, clocks=tmp_path / "none")
        return one

    with DeliveryLog(tmp_path / "log", clock) as log:
        log.append("probe", clock.now_ms(), [Sample(metric="Water/pH", at=clock.now_ms(), value=7.0)], KNOWN)
        assert started(log).timing() is Timing.SYNCHRONISED
    synchronised = False
    with DeliveryLog(tmp_path / "log", clock) as log:
        assert started(log).timing() is Timing.HOLDOVER
        boot.write_text("second\n", encoding="ascii")
        clock.wall = 0.0
        rebooted = started(log)
        assert rebooted.timing() is Timing.UNKNOWN
        assert rebooted.holds()
        assert log.last_logged is not None
        assert rebooted.now_ms() == log.last_logged + AFTER_LAST_LOGGED


def test_how_good_the_clock_was_travels_with_the_sample_and_comes_back_in_a_birth(tmp_path: Path, clock: Any) -> None:
    sample = Sample(metric="Water/pH", at=5, value=7.0, time=Timing.UNKNOWN)
    with DeliveryLog(tmp_path, clock) as log:
        record = log.append("probe", 5, [sample], KNOWN)
        assert decode(record.metrics).metrics[0].properties == {TIME: 2}
    with DeliveryLog(tmp_path, clock) as log:
        newest = log.newest("probe", KNOWN["Water/pH"])
        assert newest is not None
        assert newest[0] == sample
