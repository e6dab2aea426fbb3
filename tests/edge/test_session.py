"""When an edge node is born, waits and dies."""

import random

from hypothesis import given
from hypothesis import strategies as st

from edge.session import (
    CALM_AFTER,
    MOST_BACKOFF,
    WAIT_WITH_OTHER_BROKERS,
    Action,
    Bear,
    Connect,
    Connected,
    Event,
    HostSaid,
    Leave,
    LedgerCame,
    Lost,
    Phase,
    RebirthAsked,
    Rules,
    Session,
    Tick,
    step,
)

ONE = Rules(brokers=1, waits_for_host=True, birth_jitter=30.0)
TWO = Rules(brokers=2, waits_for_host=True, birth_jitter=0.0)


def walk(rules: Rules, *events: Event, session: Session | None = None) -> tuple[Session, list[Action]]:
    session = session or Session()
    done: list[Action] = []
    for event in events:
        session, actions = step(session, event, rules)
        done += actions
    return session, done


def born(rules: Rules = TWO) -> Session:
    session, _ = walk(rules, Connected(0, 0), HostSaid(1, True, 100, 0), Tick(40))
    assert session.phase is Phase.BORN
    return session


def test_nothing_is_born_before_the_primary_host_is_online() -> None:
    session, done = walk(ONE, Connected(0, 0.5), Tick(1000))
    assert (session.phase, done) == (Phase.WAITING, [])


def test_births_are_spread_over_the_jitter() -> None:
    session, done = walk(ONE, Connected(0, 0), HostSaid(10, True, 100, 0.5), Tick(24.9))
    assert done == []
    assert walk(ONE, Tick(25), session=session)[1] == [Bear()]


def test_without_a_primary_host_it_is_born_by_itself() -> None:
    rules = Rules(waits_for_host=False, birth_jitter=0)
    assert walk(rules, Connected(0, 0.9), Tick(0))[1] == [Bear()]


def test_a_host_that_goes_offline_ends_the_session_with_a_death_and_the_next_broker() -> None:
    session, done = walk(TWO, HostSaid(50, False, 100, 0), session=born())
    assert done[0] == Leave(death=True)
    assert isinstance(done[1], Connect)
    assert (session.phase, session.broker) == (Phase.OFFLINE, 1)


def test_an_offline_word_older_than_the_last_online_one_changes_nothing() -> None:
    before = born()
    assert walk(TWO, HostSaid(50, False, 99, 0), session=before) == (before, [])


def test_a_retained_offline_word_before_birth_does_not_spin_the_loop() -> None:
    session, done = walk(ONE, Connected(0, 0), *(HostSaid(one, False, 100, 0) for one in range(100)))
    assert (session.phase, done) == (Phase.WAITING, [])


def test_a_host_that_goes_before_the_jitter_is_over_is_waited_for_again() -> None:
    session, done = walk(ONE, Connected(0, 0), HostSaid(1, True, 5, 0.9), HostSaid(2, False, 5, 0), Tick(99))
    assert (session.phase, done) == (Phase.WAITING, [])


def test_with_another_broker_it_does_not_wait_for_ever() -> None:
    session, done = walk(TWO, Connected(0, 0), Tick(WAIT_WITH_OTHER_BROKERS - 0.1))
    assert done == []
    session, done = walk(TWO, Tick(WAIT_WITH_OTHER_BROKERS), session=session)
    assert done[0] == Leave(death=False)
    assert session.broker == 1


def test_a_rebirth_is_obeyed_once_born_and_not_before() -> None:
    assert walk(TWO, RebirthAsked(50), session=born())[1] == [Bear()]
    assert walk(TWO, Connected(0, 0), RebirthAsked(1))[1] == []


def test_the_timestamp_counts_within_one_connection_only() -> None:
    session, _ = walk(ONE, Lost(50, 0), Connected(60, 0), HostSaid(61, True, 3, 0), Tick(61), session=born(ONE))
    assert session.phase is Phase.BORN


def test_back_off_doubles_and_starts_anew_only_after_a_calm_session() -> None:
    waits, session = [], Session()
    for _ in range(9):
        session, (action,) = step(session, Lost(0, 1.0), ONE)
        assert isinstance(action, Connect)
        waits.append(action.at)
    assert waits == [1, 2, 4, 8, 16, 32, MOST_BACKOFF, MOST_BACKOFF, MOST_BACKOFF]
    again, _ = walk(ONE, Connected(0, 0), HostSaid(1, True, 9, 0), Tick(40), LedgerCame(50), session=session)
    short, _ = step(again, Lost(60, 1.0), ONE)
    calm, _ = step(again, Lost(50 + CALM_AFTER, 1.0), ONE)
    assert short.retries == 10
    assert calm.retries == 1


@given(st.lists(st.integers(0, 6), max_size=60), st.integers(0, 2**32))
def test_nothing_is_ever_born_while_the_host_is_not_online(moves: list[int], seed: int) -> None:
    chance = random.Random(seed)
    session, now, online = Session(), 0.0, False
    for move in moves:
        now += chance.random() * 40
        possible: list[Event] = [
            Connected(now, chance.random()),
            Lost(now, chance.random()),
            HostSaid(now, True, int(now * 10), chance.random()),
            HostSaid(now, False, int(now * 10), chance.random()),
            RebirthAsked(now),
            LedgerCame(now),
            Tick(now),
        ]
        event = possible[move]
        if isinstance(event, Connected) and session.phase is not Phase.OFFLINE:
            continue
        before = session
        session, actions = step(session, event, TWO)
        online = (online or (isinstance(event, HostSaid) and event.online)) and not (
            isinstance(event, Lost | Connected) or (isinstance(event, HostSaid) and not event.online)
        )
        if Bear() in actions:
            assert online
        if session.phase is Phase.OFFLINE and before.phase is Phase.BORN and not isinstance(event, Lost):
            assert Leave(death=True) in actions


def test_a_flood_of_rebirth_requests_is_one_birth_a_second() -> None:
    session, done = walk(TWO, *(RebirthAsked(50 + one / 1000) for one in range(900)), Tick(50.95), session=born())
    assert done == [Bear()]
    session, done = walk(TWO, Tick(51.0), Tick(51.5), session=session)
    assert done == [Bear()], "the last request is not forgotten"
