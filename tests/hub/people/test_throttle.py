"""How often signing in may be tried: strangers soon stop, the owner never does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.people import throttle
from hub.people.throttle import ACCOUNT, ADDRESS, Throttle, lanes


def tries(one: Throttle, count: int, now: float, **told: str | None) -> int:
    """Return how many of so many attempts were free."""
    asked = {"address": "10.0.0.1", "name": "lan", "familiar": None, **told}
    return sum(one.take(lanes(**asked), now) == 0 for _ in range(count))  # type: ignore[arg-type]  # names match


def test_an_address_has_so_many_attempts_at_once_and_then_one_in_a_while() -> None:
    one = Throttle()
    assert sum(tries(one, 1, 0.0, name=f"name-{number}") for number in range(100)) == ADDRESS.burst
    assert tries(one, 5, ADDRESS.seconds_each, name="other") == 1


def test_an_account_has_fewer_however_many_addresses_try() -> None:
    one = Throttle()
    free = sum(tries(one, 1, 0.0, address=f"10.0.{number}.1") for number in range(200))
    assert free == ACCOUNT.burst
    assert sum(tries(one, 1, 3600.0, address=f"10.1.{number}.1") for number in range(200)) == ACCOUNT.burst


def test_strangers_cannot_keep_an_owner_out_of_their_own_browser() -> None:
    one = Throttle()
    for number in range(500):
        tries(one, 1, 0.0, address=f"10.0.{number // 250}.{number % 250}")
    assert tries(one, 1, 0.0, address="192.168.1.7", familiar="mark") == 1
    assert one.take(lanes(address="192.168.1.7", name=None, familiar=None), 0.0) == 0, "nor passkeys"


def test_names_that_do_not_exist_are_counted_as_those_that_do() -> None:
    known, unknown = Throttle(), Throttle()
    for number in range(20):
        address = f"10.0.0.{number}"
        asked = lanes(address=address, name="lan", familiar=None), lanes(address=address, name="nobody", familiar=None)
        assert known.take(asked[0], 0.0) == unknown.take(asked[1], 0.0)


def test_who_signs_in_pays_nothing() -> None:
    one = Throttle()
    for _ in range(200):
        asked = lanes(address="10.0.0.1", name="lan", familiar=None)
        assert one.take(asked, 0.0) == 0
        one.give_back(asked, 0.0)


def test_a_refused_attempt_takes_nothing_from_the_other_lane() -> None:
    one = Throttle()
    assert tries(one, 50, 0.0) == ACCOUNT.burst
    assert tries(one, 50, 0.0, name="other") == ACCOUNT.burst


@given(st.lists(st.tuples(st.floats(0, 5), st.sampled_from(["a", "b"]), st.sampled_from(["x", "y"])), max_size=80))
def test_over_any_time_no_lane_gives_more_than_its_pace(moves: list[tuple[float, str, str]]) -> None:
    one, now = Throttle(), 0.0
    free: dict[str, int] = {}
    for pause, address, name in moves:
        now += pause
        if one.take(lanes(address=address, name=name, familiar=None), now) == 0:
            for key in (address, name):
                free[key] = free.get(key, 0) + 1
    for key, count in free.items():
        pace = ADDRESS if key in {"a", "b"} else ACCOUNT
        assert count <= pace.burst + now / pace.seconds_each + 1e-6


def test_the_wait_it_tells_is_enough() -> None:
    one = Throttle()
    tries(one, 50, 0.0)
    seconds = one.take(lanes(address="10.0.0.1", name="lan", familiar=None), 0.0)
    assert 0 < seconds <= ACCOUNT.seconds_each
    assert tries(one, 1, seconds + 1e-6) == 1


def test_a_clock_that_jumps_back_gives_nothing() -> None:
    one = Throttle()
    tries(one, 50, 1000.0)
    assert tries(one, 5, 0.0) == 0


def test_a_flood_of_made_up_names_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle, "MOST_BUCKETS", 100)
    one = Throttle()
    for number in range(5000):
        one.take(lanes(address=f"10.{number // 250}.{number % 250}.1", name=f"n{number}", familiar=None), 0.0)
    assert len(one._buckets) <= 100
