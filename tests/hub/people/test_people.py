"""Looking after people: links serve once, nobody reaches beyond their place, two who edit at once are told."""

import asyncio
from typing import Any

import pytest

from hub.audit import Act
from hub.people.administration import PeopleRefused
from hub.people.lifetimes import DAY, FIRST_START_MS, LONGEST_DEPUTY_MS, SET_UP_MS
from hub.people.own import OwnRefused
from hub.people.set_up import SetUpRefused
from hub.rights.permissions import Grant, Noun, Role, Verb
from hub.rights.scopes import PROVINCE, Scope
from hub.storage.accounts import ChangedMeanwhile, NameTaken
from hub.storage.credentials import Passkey

PASSWORD = "bốn con trâu uống nước"


async def done(house: Any, link: str, *, name: str = "", code: str | None = None, password: str = PASSWORD) -> Any:
    opened = house.reception.set_up.opened(link)
    typed = code if code is not None else house.code(opened.secret)
    return await house.reception.set_up.done(
        link, name=name, full_name="Bà Lan", password=password, code=typed, address="127.0.0.1"
    )


async def test_the_first_start_makes_one_administrator_once(house: Any) -> None:
    set_up = house.reception.set_up
    link = set_up.first_link()
    account = await done(house, link, name="lan")
    caller = house.signed_in(account)
    assert caller.reach(Noun.GRANT, Verb.CHANGE).covers(PROVINCE)
    assert set_up.opened(link) is None
    assert set_up.first_link() is None
    assert {"account.make", "grant.make", "account.set_up"} <= set(house.acts())


async def test_the_first_starts_link_is_over_after_a_quarter_of_an_hour_and_by_the_next_one(house: Any) -> None:
    set_up = house.reception.set_up
    first = set_up.first_link()
    second = set_up.first_link()
    assert set_up.opened(first) is None
    await house.clock.advance(FIRST_START_MS / 1000 - 1)
    assert set_up.opened(second) is not None
    await house.clock.advance(1)
    assert set_up.opened(second) is None


async def test_two_who_open_the_first_link_at_once_make_one_account(house: Any) -> None:
    link = house.reception.set_up.first_link()
    both = await asyncio.gather(done(house, link, name="lan"), done(house, link, name="minh"), return_exceptions=True)
    assert sorted(type(one).__name__ for one in both) == ["Account", "SetUpRefused"]
    assert len(house.reception.accounts.all()) == 1


@pytest.mark.parametrize(
    ("told", "code"),
    [
        ({"code": "000000"}, "wrong_code"),
        ({"password": "password1234"}, "password_known"),
        ({"name": "L"}, "name_form"),
        ({"name": "<script>"}, "name_form"),
        ({"name": "lan\u202e"}, "name_form"),
    ],
)
async def test_a_refused_set_up_leaves_the_link_as_it_was(house: Any, told: dict[str, str], code: str) -> None:
    link = house.reception.set_up.first_link()
    with pytest.raises(SetUpRefused) as refused:
        await done(house, link, **{"name": "lan", **told})
    assert refused.value.code == code
    assert await done(house, link, name="lan")


async def test_a_recovered_account_has_nothing_left_of_before(house: Any) -> None:
    account, secret = await house.known("lan", Role.TECHNICIAN)
    caller = house.signed_in(account)
    rights = frozenset({(Noun.DEVICE, Verb.SEE)})
    token = house.reception.own.make_token(
        caller, label="x", rights=rights, scope=PROVINCE, expires_at=house.clock.now_ms() + DAY
    )
    boss = house.signed_in(house.account("boss", Role.ADMINISTRATOR))
    stolen = Passkey(
        id=b"phone",
        account=account.id,
        site="localhost",
        public_key=b"key",
        uses=0,
        label="phone",
        created_at=1,
        used_at=None,
    )
    act = Act(at=1, by=caller.by, what="passkey.make", subject=account.id)
    house.reception.credentials.add_passkey(stolen, act)
    link = house.reception.set_up.link_for(account, boss.by, "lost phone")
    assert house.reception.entrance.caller(caller.secret, "") is not None, "a link alone changes nothing"
    await done(house, link, password="năm con gà gáy sáng")
    assert house.reception.entrance.caller(caller.secret, "") is None
    assert house.reception.entrance.program(token.text, "") is None
    assert house.reception.credentials.passkeys(account.id) == [], "whoever stole the phone has its passkey"
    await house.clock.advance(60)
    from hub.people.caller import Visitor
    from hub.people.entrance import SignInRefused

    with pytest.raises(SignInRefused):
        await house.reception.entrance.by_password("lan", PASSWORD, house.code(secret), Visitor(address="10.0.0.1"))
    assert "account.recover" in house.acts()


async def test_a_link_is_over_after_a_day_and_by_the_next_one(house: Any) -> None:
    account = house.account("lan")
    boss = house.signed_in(house.account("boss", Role.ADMINISTRATOR))
    set_up = house.reception.set_up
    first, second = set_up.link_for(account, boss.by), set_up.link_for(account, boss.by)
    assert set_up.opened(first) is None
    await house.clock.advance(SET_UP_MS / 1000)
    assert set_up.opened(second) is None


async def test_a_link_for_somebody_who_was_disabled_opens_nothing(house: Any) -> None:
    account = house.account("lan")
    boss = house.signed_in(house.account("boss", Role.ADMINISTRATOR))
    link = house.reception.set_up.link_for(account, boss.by)
    house.reception.administration.change(boss, account, revision=account.revision, full_name="Lan", disabled=True)
    assert house.reception.set_up.opened(link) is None


def test_a_link_kept_back_does_not_take_over_an_account_that_was_given_more_since(house: Any) -> None:
    account = house.account("lan", scope=Scope("a"))
    local = house.signed_in(house.account("local", Role.ADMINISTRATOR, scope=Scope("a")))
    boss = house.signed_in(house.account("boss", Role.ADMINISTRATOR))
    link = house.reception.set_up.link_for(account, local.by)
    assert house.reception.set_up.opened(link) is not None
    wide = Grant(role=Role.ADMINISTRATOR, scope=PROVINCE, starts=house.clock.now_ms() + DAY)
    house.reception.administration.give(boss, account, wide, revision=account.revision)
    assert house.reception.set_up.opened(link) is None
    assert house.reception.set_up.opened(house.reception.set_up.link_for(account, boss.by)) is not None


def test_a_link_is_over_once_its_maker_has_lost_the_role(house: Any) -> None:
    account = house.account("lan", scope=Scope("a"))
    local_account = house.account("local", Role.ADMINISTRATOR, scope=Scope("a"))
    boss = house.signed_in(house.account("boss", Role.ADMINISTRATOR))
    link = house.reception.set_up.link_for(account, house.signed_in(local_account).by)
    (given,) = house.reception.accounts.grants(local_account.id, now=house.clock.now_ms())
    house.reception.administration.end(boss, local_account, given, revision=local_account.revision)
    assert house.reception.set_up.opened(link) is None


def change_to(house: Any, boss: Any, account: Any, name: str) -> None:
    house.reception.administration.change(boss, account, revision=account.revision, full_name=name, disabled=False)


def test_two_who_edit_at_once_lose_nothing(house: Any) -> None:
    account = house.account("lan")
    boss = house.signed_in(house.account("boss", Role.ADMINISTRATOR))
    change_to(house, boss, account, "Bà Lan")
    with pytest.raises(ChangedMeanwhile):
        change_to(house, boss, account, "Ông Lan")
    with pytest.raises(ChangedMeanwhile):
        grant = Grant(role=Role.TESTER, scope=PROVINCE)
        house.reception.administration.give(boss, account, grant, revision=account.revision)
    assert house.again(account).full_name == "Bà Lan"
    assert house.reception.accounts.grants(account.id, now=house.clock.now_ms()) == []
    assert house.acts().count("account.change") == 1, "an act that was refused is none"


@pytest.mark.parametrize(
    ("role", "scope", "code"),
    [
        (Role.OPERATOR, Scope("b"), "beyond"),
        (Role.OPERATOR, PROVINCE, "beyond"),
        (Role.ADMINISTRATOR, PROVINCE, "beyond"),
        (Role.PROVINCE_SUPERVISOR, Scope("a"), "scope_too_wide"),
        (Role.VOLUNTEER, Scope("a"), "scope_too_wide"),
    ],
)
def test_an_administrator_gives_nothing_beyond_their_own_place(house: Any, role: Role, scope: Scope, code: str) -> None:
    account = house.account("lan", scope=Scope("a"))
    boss = house.signed_in(house.account("boss", Role.ADMINISTRATOR, scope=Scope("a")))
    with pytest.raises(PeopleRefused) as refused:
        house.reception.administration.give(boss, account, Grant(role=role, scope=scope), revision=account.revision)
    assert refused.value.code == code


def test_nobody_touches_themselves_or_who_holds_more(house: Any) -> None:
    boss_account = house.account("boss", Role.ADMINISTRATOR, scope=Scope("a"))
    boss = house.signed_in(boss_account)
    higher = house.account("higher", Role.APPROVER, scope=PROVINCE, home=Scope("a"))
    for account, code in ((boss_account, "yourself"), (higher, "beyond")):
        with pytest.raises(PeopleRefused) as refused:
            house.reception.administration.may_touch(boss, house.again(account))
        assert refused.value.code == code


def test_somebody_always_administers_the_province(house: Any) -> None:
    one, two = (house.account(name, Role.ADMINISTRATOR) for name in ("one", "two"))
    for account in (one, two):
        house.reception.credentials.set_password(account.id, "kept")
    boss = house.signed_in(two)
    one = house.again(one)
    house.reception.administration.change(boss, one, revision=one.revision, full_name="One", disabled=True)
    outsider = house.signed_in(house.account("outsider", Role.ADMINISTRATOR))
    two = house.again(two)
    given = house.reception.accounts.grants(two.id, now=house.clock.now_ms())[0]
    # The outsider cannot sign in, and so counts for nobody.
    with pytest.raises(PeopleRefused) as refused:
        house.reception.administration.change(outsider, two, revision=two.revision, full_name="Two", disabled=True)
    assert refused.value.code == "last_administrator"
    with pytest.raises(PeopleRefused) as refused:
        house.reception.administration.end(outsider, two, given, revision=two.revision)
    assert refused.value.code == "last_administrator"


def test_a_name_is_one_persons(house: Any) -> None:
    boss = house.signed_in(house.account("boss", Role.ADMINISTRATOR))
    with pytest.raises(NameTaken):
        house.reception.administration.make(boss, name="BOSS", full_name="Lan", home=PROVINCE)


class TestDeputies:
    def setting(self, house: Any) -> tuple[Any, Any, Any]:
        approver = house.account("leader", Role.APPROVER, scope=Scope("a"))
        deputy = house.account("vice", scope=Scope("a"))
        given = house.reception.accounts.grants(approver.id, now=house.clock.now_ms())[0]
        return approver, deputy, given

    def may(self, house: Any, account: Any) -> bool:
        over = house.signed_in(account).reach(Noun.ANNOUNCEMENT, Verb.APPROVE)
        return bool(over.covers(Scope("a", "1")))

    async def test_a_deputy_stands_in_from_day_to_day(self, house: Any) -> None:
        approver, deputy, given = self.setting(house)
        now = house.clock.now_ms()
        house.reception.administration.delegate(
            house.signed_in(approver), given, deputy, starts=now + DAY, ends=now + 3 * DAY
        )
        seen = []
        for _ in range(4):
            seen.append(self.may(house, deputy))
            await house.clock.advance(DAY / 1000)
        assert seen == [False, True, True, False]
        assert "grant.delegate" in house.acts()

    async def test_a_deputy_falls_with_whom_they_stand_in_for(self, house: Any) -> None:
        approver, deputy, given = self.setting(house)
        now = house.clock.now_ms()
        house.reception.administration.delegate(house.signed_in(approver), given, deputy, starts=now, ends=now + DAY)
        assert self.may(house, deputy)
        boss = house.signed_in(house.account("boss", Role.ADMINISTRATOR))
        house.reception.administration.end(boss, house.again(approver), given, revision=house.again(approver).revision)
        await house.clock.advance(0.001)
        assert not self.may(house, deputy)

    def test_a_disabled_leader_has_no_deputies(self, house: Any) -> None:
        approver, deputy, given = self.setting(house)
        now = house.clock.now_ms()
        house.reception.administration.delegate(house.signed_in(approver), given, deputy, starts=now, ends=now + DAY)
        house.database.execute("UPDATE accounts SET disabled_at = 1 WHERE id = ?", (approver.id,))
        assert not self.may(house, deputy)

    async def test_a_deputy_is_recalled_by_their_principal_only(self, house: Any) -> None:
        approver, deputy, given = self.setting(house)
        now = house.clock.now_ms()
        me = house.signed_in(approver)
        house.reception.administration.delegate(me, given, deputy, starts=now, ends=now + DAY)
        (theirs,) = house.reception.accounts.deputies(approver.id, now=now)
        with pytest.raises(PeopleRefused):
            house.reception.administration.recall(house.signed_in(deputy), theirs)
        house.reception.administration.recall(me, theirs)
        await house.clock.advance(0.001)
        assert not self.may(house, deputy)

    @pytest.mark.parametrize(
        ("starts", "ends", "code"),
        [(2, 1, "dates"), (-3, -1, "dates"), (0, LONGEST_DEPUTY_MS // DAY + 1, "dates_long")],
    )
    def test_days_that_make_no_sense_are_refused(self, house: Any, starts: int, ends: int, code: str) -> None:
        approver, deputy, given = self.setting(house)
        now = house.clock.now_ms()
        with pytest.raises(PeopleRefused) as refused:
            house.reception.administration.delegate(
                house.signed_in(approver), given, deputy, starts=now + starts * DAY, ends=now + ends * DAY
            )
        assert refused.value.code == code

    def test_a_deputy_cannot_pass_it_on_and_nobody_passes_on_what_is_not_theirs(self, house: Any) -> None:
        approver, deputy, given = self.setting(house)
        now = house.clock.now_ms()
        house.reception.administration.delegate(house.signed_in(approver), given, deputy, starts=now, ends=now + DAY)
        (theirs,) = house.reception.accounts.grants(deputy.id, now=now)
        third = house.account("third")
        operator = house.account("op", Role.OPERATOR, scope=Scope("a"))
        (operating,) = house.reception.accounts.grants(operator.id, now=now)
        for who, what in ((deputy, theirs), (deputy, given), (operator, operating), (operator, given)):
            with pytest.raises(PeopleRefused) as refused:
                house.reception.administration.delegate(house.signed_in(who), what, third, starts=now, ends=now + DAY)
            assert refused.value.code == "not_yours"
        for nobody in (None, approver):
            with pytest.raises(PeopleRefused) as refused:
                house.reception.administration.delegate(
                    house.signed_in(approver), given, nobody, starts=now, ends=now + DAY
                )
            assert refused.value.code == "no_such_person"


class TestOwn:
    async def test_a_new_password_signs_every_other_browser_out(self, house: Any) -> None:
        account, _ = await house.known("lan", Role.OPERATOR)
        here, there = house.signed_in(account), house.signed_in(account)
        await house.reception.own.change_password(here, "năm con gà gáy sáng")
        assert house.reception.entrance.caller(here.secret, "") is not None
        assert house.reception.entrance.caller(there.secret, "") is None
        with pytest.raises(OwnRefused):
            await house.reception.own.change_password(here, "password1234")

    async def test_new_codes_count_once_one_was_typed(self, house: Any) -> None:
        account, secret = await house.known("lan", Role.OPERATOR)
        caller = house.signed_in(account)
        new = house.reception.own.new_codes(caller)
        with pytest.raises(OwnRefused):
            house.reception.own.confirm_codes(caller, house.code(secret))
        house.reception.own.confirm_codes(caller, house.code(new))
        await house.clock.advance(30)
        from hub.people.caller import Visitor

        await house.reception.entrance.by_password("lan", PASSWORD, house.code(new), Visitor(address="10.0.0.1"))

    @pytest.mark.parametrize(
        ("rights", "days", "code"),
        [
            ({(Noun.ANNOUNCEMENT, Verb.MAKE)}, 1, "token_rights"),
            ({(Noun.OWN_ACCOUNT, Verb.CHANGE)}, 1, "token_rights"),
            ({(Noun.DEVICE, Verb.EMERGENCY)}, 1, "token_rights"),
            (set(), 1, "token_rights"),
            ({(Noun.DEVICE, Verb.SEE)}, 0, "token_expiry"),
            ({(Noun.DEVICE, Verb.SEE)}, 367, "token_expiry"),
        ],
    )
    def test_a_token_with_too_much_is_refused(self, house: Any, rights: Any, days: int, code: str) -> None:
        caller = house.signed_in(house.account("lan", Role.TECHNICIAN))
        with pytest.raises(OwnRefused) as refused:
            house.reception.own.make_token(
                caller,
                label="x",
                rights=frozenset(rights),
                scope=PROVINCE,
                expires_at=house.clock.now_ms() + days * DAY,
            )
        assert refused.value.code == code

    def test_nobody_ends_what_is_not_theirs(self, house: Any) -> None:
        lan, minh = (house.signed_in(house.account(name, Role.OPERATOR)) for name in ("lan", "minh"))
        assert minh.session is not None
        with pytest.raises(OwnRefused):
            house.reception.own.end_session(lan, minh.session.id)
        assert house.reception.entrance.caller(minh.secret, "") is not None
        for end in (house.reception.own.revoke_token, house.reception.own.remove_passkey):
            with pytest.raises(OwnRefused):
                end(lan, "00")
