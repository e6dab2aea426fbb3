"""The table of permissions: total, refusing by default, and never wider than a role, a place, a day or a token."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.catalog import CATALOG, Kind
from hub.rights.commands import sounds
from hub.rights.permissions import (
    LEVELS,
    PERSONAL,
    STEP_UP_MS,
    TABLE,
    Allowed,
    Grant,
    Holder,
    Narrowing,
    Noun,
    Reason,
    Refused,
    Role,
    Verb,
    allowed,
    may_be_held,
    reach,
)
from hub.rights.scopes import PROVINCE, Level, Reach, Scope

NOW = 1_790_000_000_000
scopes = st.one_of(
    st.just(PROVINCE),
    st.sampled_from(["a", "b"]).map(Scope),
    st.tuples(st.sampled_from(["a", "b"]), st.sampled_from(["1", "2"])).map(lambda one: Scope(*one)),
)
instants = st.integers(NOW - 10 * STEP_UP_MS, NOW + 10 * STEP_UP_MS)
grants = st.builds(
    Grant,
    role=st.sampled_from(Role),
    scope=scopes,
    starts=st.none() | instants,
    ends=st.none() | instants,
)
keys = st.tuples(st.sampled_from(Noun), st.sampled_from(Verb))
narrowings = st.builds(Narrowing, rights=st.frozensets(st.sampled_from(sorted(TABLE))), scope=scopes)
holders = st.builds(
    Holder,
    account=st.just("x"),
    grants=st.lists(grants, max_size=4).map(tuple),
    proven_at=st.none() | instants,
    narrowing=st.none() | narrowings,
)


@given(st.none() | holders, keys, scopes, instants)
def test_every_question_has_an_answer_and_yes_needs_a_reason(
    holder: Holder | None, key: tuple[Noun, Verb], place: Scope, now: int
) -> None:
    answer = allowed(holder, *key, place, now)
    if isinstance(answer, Refused):
        assert answer.reason in Reason
        return
    assert holder is not None
    right = TABLE[key]
    assert key[0] in PERSONAL or any(
        one.role in right.roles and one.scope.covers(place) and one.holds(now) for one in holder.grants
    )
    if right.step_up:
        assert holder.proven_at is not None
        assert 0 <= now - holder.proven_at < STEP_UP_MS
    if holder.narrowing is not None:
        assert key in holder.narrowing.rights
        assert holder.narrowing.scope.covers(place)


@given(holders, keys, instants)
def test_a_token_is_never_more_than_its_owner(holder: Holder, key: tuple[Noun, Verb], now: int) -> None:
    owner = Holder(account=holder.account, grants=holder.grants, proven_at=holder.proven_at)
    for place in (PROVINCE, Scope("a"), Scope("b"), Scope("a", "1"), Scope("b", "2")):
        if reach(holder, *key, now).covers(place):
            assert reach(owner, *key, now).covers(place)


@given(holders, grants, keys, scopes, instants)
def test_one_role_more_never_takes_a_right_away(
    holder: Holder, more: Grant, key: tuple[Noun, Verb], place: Scope, now: int
) -> None:
    richer = Holder(account="x", grants=(*holder.grants, more), proven_at=holder.proven_at, narrowing=holder.narrowing)
    if isinstance(allowed(holder, *key, place, now), Allowed):
        assert isinstance(allowed(richer, *key, place, now), Allowed)


@pytest.mark.parametrize("key", list(product(Noun, Verb)))
def test_what_is_not_in_the_table_nobody_may_do(key: tuple[Noun, Verb]) -> None:
    everything = Holder(account="x", grants=tuple(Grant(role=role, scope=PROVINCE) for role in Role), proven_at=NOW)
    assert isinstance(allowed(everything, *key, PROVINCE, NOW), Allowed) == (key in TABLE)


@given(st.sampled_from(sorted(TABLE)), scopes, scopes)
def test_a_right_holds_in_its_place_and_below_and_nowhere_else(
    key: tuple[Noun, Verb], held: Scope, place: Scope
) -> None:
    role = min(TABLE[key].roles)
    holder = Holder(account="x", grants=(Grant(role=role, scope=held),), proven_at=NOW)
    within = key[0] in PERSONAL or held.covers(place)
    assert isinstance(allowed(holder, *key, place, NOW), Allowed) == within


def test_a_deputy_may_from_the_first_instant_until_the_last() -> None:
    one = Grant(role=Role.APPROVER, scope=Scope("a"), starts=NOW, ends=NOW + 10)
    answers = [
        isinstance(
            allowed(
                Holder(account="x", grants=(one,), proven_at=NOW - 100),
                Noun.ANNOUNCEMENT,
                Verb.APPROVE,
                Scope("a"),
                now,
            ),
            Allowed,
        )
        for now in (NOW - 1, NOW, NOW + 9, NOW + 10)
    ]
    assert answers == [False, True, True, False]


@pytest.mark.parametrize(
    ("proven_at", "reason"),
    [(NOW, None), (NOW - STEP_UP_MS + 1, None), (NOW - STEP_UP_MS, Reason.STEP_UP), (NOW + 1, Reason.STEP_UP)],
)
def test_what_matters_most_wants_a_fresh_sign_in(proven_at: int, reason: Reason | None) -> None:
    holder = Holder(account="x", grants=(Grant(role=Role.POLICE, scope=PROVINCE),), proven_at=proven_at)
    answer = allowed(holder, Noun.PICTURE, Verb.SEE, Scope("a", "1"), NOW)
    assert (answer.reason if isinstance(answer, Refused) else None) == reason


@pytest.mark.parametrize(
    "key",
    [
        (Noun.ANNOUNCEMENT, Verb.APPROVE),
        (Noun.ANNOUNCEMENT, Verb.LIVE),
        (Noun.ANNOUNCEMENT, Verb.EMERGENCY),
        (Noun.PICTURE, Verb.SEE),
        (Noun.GRANT, Verb.CHANGE),
        (Noun.GRANT, Verb.DELEGATE),
        (Noun.ACCOUNT, Verb.CHANGE),
    ],
)
def test_speaking_pictures_and_rights_are_marked(key: tuple[Noun, Verb]) -> None:
    assert TABLE[key].step_up


def test_who_gives_rights_makes_nothing_sound() -> None:
    sounding = {Verb.MAKE, Verb.APPROVE, Verb.LIVE, Verb.EMERGENCY}
    assert [
        verb
        for (noun, verb), right in TABLE.items()
        if noun is Noun.ANNOUNCEMENT and verb in sounding and Role.ADMINISTRATOR in right.roles
    ] == []


def test_no_command_makes_a_loudspeaker_sound() -> None:
    """Who mends may send commands to edge nodes; none of those roles may announce."""
    commanding = TABLE[Noun.EDGE_NODE, Verb.WRITE].roles | TABLE[Noun.EDGE_NODE, Verb.REBIRTH].roles
    assert commanding & TABLE[Noun.ANNOUNCEMENT, Verb.MAKE].roles == frozenset()


def test_no_command_reaches_a_metric_of_sound() -> None:
    speaking = {
        one.name for one in CATALOG[Kind.LOUDSPEAKER].metrics if one.name.split("/")[0] in {"Audio", "Playback"}
    }
    assert len(speaking) > 2
    assert all(sounds(name) for name in speaking)
    assert not sounds("Water/pH")


@pytest.mark.parametrize(
    "name",
    [
        "/Playback/Play",
        "\u200bPlayback/Play",
        "speaker-01/Playback/Play",
        "Playback",
        "\uff30layback/x",
        "AUDIO /Volume",
    ],
)
def test_a_metric_of_sound_is_known_under_a_name_dressed_up(name: str) -> None:
    assert sounds(name)


@pytest.mark.parametrize(
    ("role", "levels"),
    [
        (Role.VOLUNTEER, {Level.HAMLET}),
        (Role.PROVINCE_SUPERVISOR, {Level.PROVINCE}),
        (Role.ADMINISTRATOR, {Level.PROVINCE, Level.COMMUNE}),
        (Role.OPERATOR, set(Level)),
    ],
)
def test_a_role_is_held_over_places_of_its_kind(role: Role, levels: set[Level]) -> None:
    places = {Level.PROVINCE: PROVINCE, Level.COMMUNE: Scope("a"), Level.HAMLET: Scope("a", "1")}
    assert {level for level, place in places.items() if may_be_held(role, place)} == levels
    assert LEVELS[role] == levels


@given(st.lists(scopes), scopes)
def test_a_reach_covers_what_one_of_its_scopes_covers_and_is_written_one_way_only(
    held: list[Scope], place: Scope
) -> None:
    over = Reach.over(held)
    assert over.covers(place) == any(one.covers(place) for one in held)
    assert over == Reach.over([*reversed(held), *held])
    assert not any(one != two and one.covers(two) for one in over.scopes for two in over.scopes)


def test_a_hamlet_lies_in_a_commune() -> None:
    with pytest.raises(ValueError, match="its group is missing"):
        Scope("", "n-01")


def test_hamlets_of_one_name_in_two_communes_are_two() -> None:
    assert not Scope("a", "1").covers(Scope("b", "1"))
    assert not Scope("a").covers(PROVINCE)
