"""Which days go, and in which order."""

from hypothesis import given
from hypothesis import strategies as st

from edge.retention import Day, leaving


def day(number: int, size: int = 10, uncommitted: int = 0) -> Day:
    return Day(day=f"2026-11-{number:02}", size=size, uncommitted=uncommitted)


def names(days: list[Day]) -> list[str]:
    return [one.day[-2:] for one in days]


def test_old_days_go_once_they_are_committed_and_not_before() -> None:
    days = [day(1), day(2, uncommitted=1), day(9)]
    gone = leaving(days, today="2026-11-20", keep_from="2026-11-05", budget=1000, hub_known=True)
    assert names(gone) == ["01"]


def test_over_the_budget_committed_days_go_first_then_uncommitted_ones_oldest_first() -> None:
    days = [day(3, uncommitted=5), day(1, uncommitted=5), day(2), day(4), day(5)]

    def gone(budget: int) -> list[str]:
        return names(leaving(days, today="2026-11-05", keep_from="2026-09-01", budget=budget, hub_known=True))

    assert gone(50) == []
    assert gone(41) == ["02"]
    assert gone(25) == ["02", "04", "01"]
    assert gone(1) == ["02", "04", "01", "03"], "today stays"


def test_before_any_hub_has_answered_nothing_uncommitted_goes() -> None:
    days = [day(1, uncommitted=5), day(2)]
    gone = leaving(days, today="2026-11-05", keep_from="2026-09-01", budget=1, hub_known=False)
    assert names(gone) == ["02"]


days = st.lists(
    st.builds(day, st.integers(1, 28), st.integers(0, 100), st.integers(0, 3)),
    unique_by=lambda one: one.day,
    max_size=20,
)


@given(days, st.integers(1, 28), st.integers(1, 28), st.integers(1, 600), st.booleans())
def test_no_more_goes_than_must(days: list[Day], today: int, keep: int, budget: int, hub_known: bool) -> None:
    now, keep_from = f"2026-11-{today:02}", f"2026-11-{keep:02}"
    gone = leaving(days, today=now, keep_from=keep_from, budget=budget, hub_known=hub_known)
    assert len(set(gone)) == len(gone)
    left = sum(one.size for one in days if one not in gone)
    needed = [one for one in gone if one.day >= keep_from or one.uncommitted]
    if needed:
        assert left + needed[-1].size > budget, "the last one had to go"
    if any(one.uncommitted for one in gone):
        assert hub_known
        assert all(one in gone or one.day == now for one in days if not one.uncommitted), "no committed day is spared"
    if left > budget:
        assert all(one in gone or one.day == now or (one.uncommitted and not hub_known) for one in days)
