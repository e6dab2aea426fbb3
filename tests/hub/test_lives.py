"""How a second box under one id, a copied card and a deleted log are noticed, and an honest restart is not."""

from hypothesis import given
from hypothesis import strategies as st

from hub.lives import WITHIN, Life, born, doubt, surprise
from hub.node_delivery import AlarmKind


def epoch(count: int, salt: int = 0) -> int:
    return count << 32 | salt


def after(*births: tuple[str, int, float]) -> tuple[Life, ...]:
    lives: tuple[Life, ...] = ()
    for log, one, at in births:
        lives = born(lives, Life(log, one, at))
    return lives


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0, 100), st.integers(0, 2**32 - 1)), max_size=20))
def test_restarts_and_rebirths_of_one_box_are_never_doubted(steps: list[tuple[int, float, int]]) -> None:
    lives: tuple[Life, ...] = ()
    count, now, salt = 1, 0.0, 0
    for further, seconds, chance in steps:
        count, now, salt = count + further, now + seconds, chance if further else salt
        lives = born(lives, Life("log", epoch(count, salt), now))
        assert doubt(lives) is None


def test_two_logs_within_a_short_time_are_doubted() -> None:
    assert doubt(after(("a", epoch(1), 0), ("b", epoch(1), WITHIN - 1))) is AlarmKind.TWO_LOGS
    assert doubt(after(("a", epoch(1), 0), ("b", epoch(1), WITHIN))) is None


def test_two_epochs_with_one_count_are_doubted() -> None:
    assert doubt(after(("a", epoch(4, 1), 0), ("a", epoch(4, 2), 5))) is AlarmKind.TWO_EPOCHS


def test_copies_of_a_card_that_started_unequally_often_are_doubted_once_both_spoke() -> None:
    lives = after(("a", epoch(4), 0), ("a", epoch(9), 5))
    assert doubt(lives) is None, "so far it may be one box that started five times"
    assert doubt(born(lives, Life("a", epoch(4), 9))) is AlarmKind.EPOCH_BACK


def test_a_stranger_with_a_thousand_lives_costs_no_memory() -> None:
    assert len(after(*((f"log-{one}", epoch(1), one / 10) for one in range(1000)))) <= 9


def test_a_life_without_account_surprises_by_its_log_or_its_count() -> None:
    known = {("a", epoch(5)), ("a", epoch(6))}
    assert surprise("a", epoch(7), known) is None
    assert surprise("a", epoch(6), known) is None
    assert surprise("a", epoch(6, 9), known) is AlarmKind.EPOCH_BACK
    assert surprise("b", epoch(1), known) is AlarmKind.NEW_LOG
    assert surprise("b", epoch(1), ()) is None, "the first log of a new box is none"
