"""The way in: the right name, password and code together, once; everything else is one and the same refusal."""

import asyncio
import sqlite3
import statistics
import time
from dataclasses import replace
from typing import Any

import pytest

from hub.people.caller import Visitor
from hub.people.entrance import SignInRefused, TooOften
from hub.people.lifetimes import ABSOLUTE_MS, IDLE_MS
from hub.people.secrets import digest
from hub.rights.permissions import STEP_UP_MS, Noun, Role, Verb
from hub.rights.scopes import PROVINCE, Scope

PASSWORD = "bốn con trâu uống nước"
HERE = Visitor(address="192.168.1.7", agent="Firefox")


def somewhere(number: int) -> Visitor:
    return Visitor(address=f"10.0.{number // 250}.{number % 250}")


async def test_name_password_and_code_together_let_somebody_in(house: Any) -> None:
    account, secret = await house.known("lan", Role.OPERATOR)
    came = await house.reception.entrance.by_password(" LAN ", PASSWORD, house.code(secret), HERE)
    caller = house.caller(came)
    assert caller.account.id == account.id
    assert caller.fresh
    assert caller.reach(Noun.ANNOUNCEMENT, Verb.MAKE).covers(PROVINCE)
    assert house.acts()[0] == "session.start"


@pytest.mark.parametrize(
    ("name", "password", "code"),
    [
        ("lan", PASSWORD, "000000"),
        ("lan", PASSWORD, ""),
        ("lan", "wrong password here", "right"),
        ("lan", "", "right"),
        ("nobody", PASSWORD, "right"),
        ("", PASSWORD, "right"),
        ("off", PASSWORD, "right"),
        ("bare", PASSWORD, "right"),
        ("lan' OR 1=1 --", PASSWORD, "right"),
        ("lan", PASSWORD * 1000, "right"),
    ],
)
async def test_every_failure_has_the_same_words(house: Any, name: str, password: str, code: str) -> None:
    _, secret = await house.known("lan", Role.OPERATOR)
    off, _ = await house.known("off", Role.OPERATOR)
    house.account("bare", Role.OPERATOR)
    house.database.execute("UPDATE accounts SET disabled_at = 1 WHERE id = ?", (off.id,))
    typed = house.code(secret) if code == "right" else code
    with pytest.raises(SignInRefused) as refused:
        await house.reception.entrance.by_password(name, password, typed, HERE)
    assert str(refused.value) == "name, password or code is wrong"


async def test_a_name_that_does_not_exist_takes_as_long_as_one_that_does(house: Any, real_hashes: None) -> None:
    await house.known("lan", Role.OPERATOR)
    took: dict[str, list[float]] = {"lan": [], "nobody": []}
    for number in range(12):
        for name, times in took.items():
            start = time.perf_counter()
            with pytest.raises(SignInRefused):
                await house.reception.entrance.by_password(name, "wrong password", "000000", somewhere(number))
            times.append(time.perf_counter() - start)
            await house.clock.advance(60)
    known, unknown = (statistics.median(times) for times in took.values())
    assert 0.6 < known / unknown < 1.6, (known, unknown)


async def test_a_code_serves_once_even_when_two_bring_it_at_the_same_time(house: Any) -> None:
    _, secret = await house.known("lan", Role.OPERATOR)
    code = house.code(secret)
    both = await asyncio.gather(
        *(house.reception.entrance.by_password("lan", PASSWORD, code, somewhere(number)) for number in range(2)),
        return_exceptions=True,
    )
    assert sorted(type(one).__name__ for one in both) == ["SignInRefused", "SignedIn"]
    with pytest.raises(SignInRefused):
        await house.reception.entrance.by_password("lan", PASSWORD, code, HERE)
    await house.clock.advance(30)
    await house.reception.entrance.by_password("lan", PASSWORD, house.code(secret), HERE)


async def test_the_code_before_one_that_was_taken_is_worth_nothing(house: Any) -> None:
    _, secret = await house.known("lan", Role.OPERATOR)
    earlier = house.code(secret)
    await house.clock.advance(30)
    await house.reception.entrance.by_password("lan", PASSWORD, house.code(secret), HERE)
    with pytest.raises(SignInRefused):
        await house.reception.entrance.by_password("lan", PASSWORD, earlier, HERE)


async def test_a_session_planted_before_is_not_the_one_that_is_signed_in(house: Any) -> None:
    attacker, _ = await house.known("eve", Role.VOLUNTEER)
    planted = house.reception.entrance.start(attacker.id, HERE)
    _, secret = await house.known("lan", Role.OPERATOR)
    came = await house.reception.entrance.by_password(
        "lan", PASSWORD, house.code(secret), HERE, instead_of=planted.secret
    )
    assert came.secret != planted.secret
    assert house.reception.entrance.caller(planted.secret, HERE.address) is None


async def test_confirming_it_is_you_changes_the_session_and_ends_the_old_one(house: Any) -> None:
    _, secret = await house.known("lan", Role.POLICE)
    first = await house.reception.entrance.by_password("lan", PASSWORD, house.code(secret), HERE)
    await house.clock.advance(STEP_UP_MS / 1000)
    assert not house.caller(first).fresh
    second = await house.reception.entrance.by_password(
        "lan", PASSWORD, house.code(secret), HERE, instead_of=first.secret
    )
    assert house.caller(second).fresh
    assert house.reception.entrance.caller(first.secret, HERE.address) is None


async def test_a_session_ends_unused_and_in_any_case(house: Any) -> None:
    account, _ = await house.known("lan", Role.OPERATOR)
    entrance = house.reception.entrance
    idle, used, watched = (entrance.start(account.id, HERE).secret for _ in range(3))
    for _ in range(20):
        await house.clock.advance(IDLE_MS / 20_000)
        entrance.caller(used, HERE.address)
        entrance.caller(watched, HERE.address, used=False)
    assert entrance.caller(idle, HERE.address) is None
    assert entrance.caller(watched, HERE.address, used=False) is None, "a page that is merely open is nobody"
    assert entrance.caller(used, HERE.address) is not None
    for _ in range(3 * ABSOLUTE_MS // IDLE_MS):
        await house.clock.advance(IDLE_MS / 3000)
        entrance.caller(used, HERE.address)
    assert entrance.caller(used, HERE.address) is None


async def test_what_a_database_thief_reads_opens_nothing(house: Any) -> None:
    account, secret = await house.known("lan", Role.OPERATOR)
    came = house.reception.entrance.start(account.id, HERE)
    link = house.reception.set_up.link_for(account, house.caller(came).by)
    rights = frozenset({(Noun.DEVICE, Verb.SEE)})
    handed = house.reception.own.make_token(
        house.caller(came), label="x", rights=rights, scope=PROVINCE, expires_at=house.clock.now_ms() + 1000
    )
    dump = "\n".join(house.database.iterdump())
    for one in (came.secret, link, handed.text, secret, PASSWORD):
        assert one not in dump
    for stolen in house.database.execute("SELECT digest FROM sessions").fetchall():
        assert house.reception.entrance.caller(stolen[0].hex(), HERE.address) is None
    assert house.reception.sessions.session(digest(came.secret)) is not None


async def test_guessing_is_stopped_and_the_owner_still_comes_in(house: Any) -> None:
    account, secret = await house.known("lan", Role.OPERATOR)
    entrance = house.reception.entrance
    own = replace(HERE, mark=(await entrance.by_password("lan", PASSWORD, house.code(secret), HERE)).mark)
    await house.clock.advance(600)
    refused = []
    for number in range(12):
        with pytest.raises(SignInRefused) as failure:
            await entrance.by_password("lan", f"guess number {number}", "000000", somewhere(number))
        refused.append(isinstance(failure.value, TooOften))
    assert refused == [False] * 5 + [True] * 7
    with pytest.raises(TooOften):
        await entrance.by_password("lan", PASSWORD, house.code(secret), Visitor(address="10.9.9.9"))
    came = await entrance.by_password("lan", PASSWORD, house.code(secret), own)
    assert came.account.id == account.id


@pytest.mark.parametrize("mark", ["", ".", "x.y", "00000000.", "0123456789abcdef." + "0" * 64])
async def test_a_forged_mark_of_an_earlier_sign_in_is_a_strangers(house: Any, mark: str) -> None:
    await house.known("lan", Role.OPERATOR)
    for number in range(6):
        with pytest.raises(SignInRefused):
            await house.reception.entrance.by_password("lan", "guess guess", "0", somewhere(number))
    with pytest.raises(TooOften):
        await house.reception.entrance.by_password("lan", "guess guess", "0", replace(HERE, mark=mark))


async def test_a_mark_is_for_one_name(house: Any) -> None:
    for name in ("lan", "minh"):
        _, secret = await house.known(name, Role.OPERATOR)
    came = await house.reception.entrance.by_password("minh", PASSWORD, house.code(secret), HERE)
    for number in range(6):
        with pytest.raises(SignInRefused):
            await house.reception.entrance.by_password("lan", "guess guess", "0", somewhere(number))
    with pytest.raises(TooOften):
        await house.reception.entrance.by_password("lan", "guess guess", "0", replace(HERE, mark=came.mark))


async def test_a_disabled_account_and_an_ended_role_count_at_the_next_question(house: Any) -> None:
    account = house.account("lan", Role.OPERATOR, scope=Scope("a"))
    came = house.reception.entrance.start(account.id, HERE)
    assert house.caller(came).reach(Noun.ANNOUNCEMENT, Verb.MAKE)
    given = house.reception.accounts.grants(account.id, now=house.clock.now_ms())[0]
    boss = house.signed_in(house.account("boss", Role.ADMINISTRATOR))
    house.reception.administration.end(boss, house.again(account), given, revision=house.again(account).revision)
    await house.clock.advance(0.001)
    assert not house.caller(came).reach(Noun.ANNOUNCEMENT, Verb.MAKE)
    account = house.again(account)
    house.reception.administration.change(
        boss, account, revision=account.revision, full_name=account.full_name, disabled=True
    )
    assert house.reception.entrance.caller(came.secret, HERE.address) is None


async def test_a_token_does_what_it_was_made_for_until_it_is_revoked_or_over(house: Any) -> None:
    account = house.account("lan", Role.TECHNICIAN)
    caller = house.signed_in(account)
    own, entrance = house.reception.own, house.reception.entrance
    rights = frozenset({(Noun.DEVICE, Verb.SEE)})
    expires_at = house.clock.now_ms() + 60_000
    first, second = (
        own.make_token(caller, label="máy đo", rights=rights, scope=Scope("a"), expires_at=expires_at) for _ in "12"
    )
    program = entrance.program(first.text, "10.0.0.1")
    assert program is not None
    assert program.reach(Noun.DEVICE, Verb.SEE).scopes == {Scope("a")}
    assert not program.reach(Noun.HISTORY, Verb.SEE)
    assert not program.fresh
    own.revoke_token(caller, first.token.id)
    assert entrance.program(first.text, "10.0.0.1") is None
    await house.clock.advance(60)
    assert entrance.program(second.text, "10.0.0.1") is None
    for nonsense in ("", "hamlet_", "hamlet_" + "x" * 43, "x" * 10_000, first.text[:-1]):
        assert entrance.program(nonsense, "10.0.0.1") is None


async def test_a_lost_key_file_is_said_not_guessed_around(house: Any, tmp_path: Any) -> None:
    from hub.people.reception import KEY_FILE, open_reception
    from hub.people.sealing import SealBroken

    _, secret = await house.known("lan", Role.OPERATOR)
    (tmp_path / KEY_FILE).unlink()
    other = open_reception(house.database, house.audit, tmp_path, house.clock)
    with pytest.raises(SealBroken, match="bring back the right file"):
        await other.entrance.by_password("lan", PASSWORD, house.code(secret), HERE)


def test_secrets_never_stand_twice(house: Any) -> None:
    account = house.account("lan")
    seen = {house.reception.entrance.start(account.id, HERE).secret for _ in range(50)}
    assert len(seen) == 50
    with pytest.raises(sqlite3.IntegrityError):
        house.database.execute("INSERT INTO accounts SELECT * FROM accounts")
