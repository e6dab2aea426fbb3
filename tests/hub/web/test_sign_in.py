"""Signing in over HTTP: cookies, forms, links, and streams that end with the right to watch them."""

import re
import time
from typing import Any

import httpx
import pyotp
import pytest
from argon2 import PasswordHasher

from hub.api.session import MARK_SECONDS
from hub.audit import Person
from hub.people import passwords
from hub.rights.permissions import Role
from hub.rights.scopes import Scope
from hub.web.refusals import way_back

BASE = "http://127.0.0.1:8080"
OURS = {"Origin": BASE}
PASSWORD = "bốn con trâu uống nước"


@pytest.fixture(autouse=True)
def quick_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "_HASHER", PasswordHasher(time_cost=1, memory_cost=64, parallelism=1))
    passwords._nobodys.cache_clear()


def code(secret: str, later: int = 0) -> str:
    return pyotp.TOTP(secret).generate_otp(int(time.time()) // 30 + later)


def hidden(page: str) -> str:
    found = re.search(r'name="form_token" value="([0-9a-f]+)"', page)
    assert found is not None
    return found[1]


@pytest.fixture
async def lan(hub: Any, accounts: Any, stranger: httpx.AsyncClient) -> tuple[Any, str]:
    """Return somebody who set up their sign-in by a link, and the secret of their codes."""
    account = accounts(Role.OPERATOR, Role.APPROVER, scope=Scope("g"), name="lan")
    link = hub.state.hub.reception.set_up.link_for(account, Person(account="test"))
    told = (await stranger.get(f"/api/set-up/{link}")).json()
    assert told["name"] == "lan"
    body = {"password": PASSWORD, "code": code(told["secret"], -1)}
    assert (await stranger.post(f"/api/set-up/{link}", json=body, headers=OURS)).status_code == 204
    assert (await stranger.get(f"/api/set-up/{link}")).status_code == 404, "it serves once"
    return account, told["secret"]


async def come_in(client: httpx.AsyncClient, secret: str, **change: str) -> httpx.Response:
    form = {"name": "lan", "password": PASSWORD, "code": code(secret), "next": "/announce", **change}
    return await client.post("/sign-in", data=form, headers=OURS)


async def test_a_page_leads_to_the_sign_in_and_back(lan: Any, stranger: httpx.AsyncClient) -> None:
    away = await stranger.get("/announce?speaker=x")
    assert (away.status_code, away.headers["location"]) == (303, "/sign-in?next=%2Fannounce%3Fspeaker%3Dx")
    page = await stranger.get(away.headers["location"])
    assert 'value="/announce?speaker=x"' in page.text
    came = await come_in(stranger, lan[1])
    assert (came.status_code, came.headers["location"]) == (303, "/announce")
    assert (await stranger.get("/announce")).status_code == 200


async def test_the_cookies_are_for_this_hub_and_no_script(lan: Any, stranger: httpx.AsyncClient) -> None:
    came = await come_in(stranger, lan[1])
    session, browser = sorted(came.headers.get_list("set-cookie"), key=lambda one: "browser=" in one)
    assert session.startswith("session=")
    assert {"HttpOnly", "Path=/", "SameSite=lax"} <= set(session.split("; "))
    assert "Max-Age" not in session, "it ends with the browser"
    assert {"HttpOnly", "SameSite=strict", f"Max-Age={MARK_SECONDS}"} <= set(browser.split("; "))


async def test_under_tls_the_cookies_cannot_be_planted_by_a_neighbour(hub: Any, lan: Any) -> None:
    base = "https://127.0.0.1:8080"
    async with httpx.AsyncClient(transport=httpx.ASGITransport(hub), base_url=base) as client:
        form = {"name": "lan", "password": PASSWORD, "code": code(lan[1])}
        came = await client.post("/sign-in", data=form, headers={"Origin": base})
        assert came.status_code == 303
        for one in came.headers.get_list("set-cookie"):
            assert one.startswith("__Host-")
            assert "Secure" in one
        assert (await client.get("/account")).status_code == 200
        plain = client.cookies["__Host-session"]
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(hub), base_url=base, cookies={"session": plain}
    ) as client:
        assert (await client.get("/account")).status_code == 303, "a cookie of the plain name counts for nothing"


@pytest.mark.parametrize("change", [{"name": "nobody"}, {"password": "wrong wrong wrong"}, {"code": "000000"}])
async def test_what_was_wrong_is_not_told(lan: Any, stranger: httpx.AsyncClient, change: dict[str, str]) -> None:
    answer = await come_in(stranger, lan[1], **change)
    assert answer.status_code == 401
    assert "Sai tên, mật khẩu hoặc mã." in answer.text
    assert "session" not in stranger.cookies
    assert PASSWORD not in answer.text


async def test_a_replayed_code_is_refused_over_http_too(hub: Any, lan: Any, stranger: httpx.AsyncClient) -> None:
    typed = code(lan[1])
    assert (await come_in(stranger, lan[1], code=typed)).status_code == 303
    async with httpx.AsyncClient(transport=httpx.ASGITransport(hub), base_url=BASE) as other:
        assert (await come_in(other, lan[1], code=typed)).status_code == 401


async def test_guessing_is_slowed_with_the_same_words_for_everybody(
    hub: Any, lan: Any, stranger: httpx.AsyncClient
) -> None:
    answers = []
    for name in ("lan", "nobody"):
        for _ in range(6):
            body = {"name": name, "password": "guess guess guess", "code": "000000"}
            answers.append(await stranger.post("/api/session", json=body, headers=OURS))
    assert [one.status_code for one in answers] == ([401] * 5 + [429]) * 2
    assert int(answers[5].headers["retry-after"]) > 0
    assert answers[0].json() == answers[6].json()
    assert answers[5].json()["code"] == answers[11].json()["code"] == "too_often"
    counted = hub.state.hub.counters.page().decode()
    assert 'hamlet_sign_ins_total{result="wrong"} 10.0' in counted
    assert 'hamlet_sign_ins_total{result="too_often"} 2.0' in counted


@pytest.mark.parametrize(
    ("asked", "led"),
    [
        ("/people?x=1", "/people?x=1"),
        ("//evil.example", "/"),
        ("/\\evil.example", "/"),
        ("https://evil.example", "/"),
        ("javascript:alert(1)", "/"),
        ("/x\r\nSet-Cookie: a=b", "/"),
        ("", "/"),
    ],
)
def test_no_link_leads_from_the_sign_in_to_elsewhere(asked: str, led: str) -> None:
    assert way_back(asked) == led


async def test_a_form_without_this_sessions_token_is_refused(lan: Any, hub: Any, stranger: httpx.AsyncClient) -> None:
    await come_in(stranger, lan[1])
    page = (await stranger.get("/account")).text
    for token in ("", "0" * 64):
        answer = await stranger.post("/sign-out", data={"form_token": token}, headers=OURS)
        assert (answer.status_code, answer.json()["code"]) == (403, "form_token")
    assert (await stranger.get("/account")).status_code == 200
    answer = await stranger.post("/sign-out", data={"form_token": hidden(page)}, headers=OURS)
    assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in")
    assert (await stranger.get("/account")).status_code == 303


async def test_every_form_of_every_page_brings_its_token(sign_in: Any, accounts: Any, hub: Any) -> None:
    client, other = sign_in(*Role), accounts(Role.TESTER)
    for path in ("/", "/announce", "/account", "/account/codes", "/people", f"/people/{other.id}", "/step-up"):
        page = (await client.get(path)).text
        forms = re.findall(r'<form[^>]*method="post".*?</form>', page, re.DOTALL)
        assert forms, path
        assert [one[:120] for one in forms if 'name="form_token"' not in one] == [], path


async def test_a_confirmed_session_is_a_new_one(hub: Any, lan: Any, stranger: httpx.AsyncClient) -> None:
    hub.state.hub.reception.credentials.use_step(lan[0].id, 0)
    await come_in(stranger, lan[1], code=code(lan[1]))
    before = stranger.cookies["session"]
    token = hidden((await stranger.get("/step-up?next=/people")).text)
    form = {"password": PASSWORD, "code": code(lan[1], 1), "form_token": token, "next": "/people", "name": "boss"}
    came = await stranger.post("/step-up", data=form, headers=OURS)
    assert (came.status_code, came.headers["location"]) == (303, "/people")
    assert stranger.cookies["session"] != before
    stale = httpx.AsyncClient(transport=httpx.ASGITransport(hub), base_url=BASE, cookies={"session": before})
    async with stale:
        assert (await stale.get("/account")).status_code == 303


class TestFirstStart:
    async def test_it_is_for_who_sits_at_the_machine(self, hub: Any) -> None:
        link = hub.state.hub.reception.set_up.first_link()
        for address, headers, status in (
            ("127.0.0.1", {}, 200),
            ("192.168.1.7", {}, 404),
            ("127.0.0.1", {"X-Forwarded-For": "127.0.0.1"}, 404),
        ):
            transport = httpx.ASGITransport(hub, client=(address, 1))
            async with httpx.AsyncClient(transport=transport, base_url=BASE, headers=headers) as client:
                assert (await client.get(f"/set-up/{link}")).status_code == status
                assert (await client.get(f"/api/set-up/{link}")).status_code == 404, "and not for programs"
                form = {"name": "lan", "full_name": "Lan", "password": "short", "code": ""}
                answer = await client.post(f"/set-up/{link}", data=form, headers=OURS)
                assert answer.status_code == (422 if status == 200 else 404)

    async def test_it_makes_an_administrator_who_is_signed_in_at_once(
        self, hub: Any, stranger: httpx.AsyncClient
    ) -> None:
        link = hub.state.hub.reception.set_up.first_link()
        page = (await stranger.get(f"/set-up/{link}")).text
        secret = re.search(r'class="secret">([A-Z2-7]+)<', page)
        assert secret is not None
        assert "<svg" in page
        form = {"name": "Lan", "full_name": "Bà Lan", "password": PASSWORD, "code": code(secret[1])}
        came = await stranger.post(f"/set-up/{link}", data=form, headers=OURS)
        assert (came.status_code, came.headers["location"]) == (303, "/account")
        assert "Quản trị viên" in (await stranger.get("/account")).text
        assert (await stranger.get(f"/set-up/{link}")).status_code == 404


class TestPeople:
    async def test_somebody_is_added_given_a_role_and_a_link(self, sign_in: Any, stranger: httpx.AsyncClient) -> None:
        boss = sign_in(Role.ADMINISTRATOR)
        made = await boss.post("/people", data={"name": "minh", "full_name": "Ông Minh", "home": "g/"}, headers=OURS)
        where = made.headers["location"]
        page = (await boss.get(where)).text
        revision = re.search(r'name="revision" value="(\d+)"', page)
        assert revision is not None
        role = {"role": "volunteer", "scope": "g/n-01", "revision": revision[1], "starts": "", "ends": ""}
        assert (await boss.post(f"{where}/grants", data=role, headers=OURS)).status_code == 303
        assert "Tình nguyện viên" in (await boss.get(where)).text
        shown = (await boss.post(f"{where}/recover", data={"why": "người mới"}, headers=OURS)).text
        link = re.search(r"http://127.0.0.1:8080(/set-up/[\w-]+)", shown)
        assert link is not None
        assert "Ông Minh" in (await stranger.get(link[1])).text

    async def test_two_who_edit_one_person_at_once_lose_nothing(self, sign_in: Any, accounts: Any) -> None:
        one, two, minh = sign_in(Role.ADMINISTRATOR), sign_in(Role.ADMINISTRATOR), accounts(name="minh")
        path = f"/people/{minh.id}"
        seen = await one.get(path)
        revision = re.search(r'name="revision" value="(\d+)"', seen.text)
        assert revision is not None
        assert seen.headers["etag"] == f'"{revision[1]}"'
        first = await one.post(path, data={"full_name": "Ông Minh", "revision": revision[1]}, headers=OURS)
        second = await two.post(path, data={"full_name": "Bà Minh", "revision": revision[1]}, headers=OURS)
        assert (first.status_code, second.status_code) == (303, 412)
        assert "Người khác vừa sửa" in second.text
        assert "Ông Minh" in second.text
        assert "Bà Minh" not in second.text

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("full_name", "<script>alert(1)</script>"),
            ("full_name", "{{ 7 * 7 }}"),
            ("full_name", "';DROP TABLE acts;--"),
        ],
    )
    async def test_a_hostile_name_is_a_name(self, sign_in: Any, accounts: Any, field: str, value: str) -> None:
        boss, minh = sign_in(Role.ADMINISTRATOR), accounts(name="minh")
        form = {"revision": str(minh.revision), field: value}
        assert (await boss.post(f"/people/{minh.id}", data=form, headers=OURS)).status_code == 303
        page = (await boss.get(f"/people/{minh.id}")).text
        assert "<script>alert" not in page
        assert "49" not in re.sub(r"\d{3,}", "", page) or value != "{{ 7 * 7 }}"
        assert (await boss.get("/people")).status_code == 200

    async def test_a_commune_sees_its_own_people_only(self, sign_in: Any, accounts: Any) -> None:
        here, there = accounts(scope=Scope("g"), name="here-one"), accounts(scope=Scope("h"), name="there-one")
        boss = sign_in(Role.ADMINISTRATOR, scope=Scope("g"))
        page = (await boss.get("/people")).text
        assert "here-one" in page
        assert "there-one" not in page
        assert (await boss.get(f"/people/{here.id}")).status_code == 200
        hidden_one, none = await boss.get(f"/people/{there.id}"), await boss.get("/people/none")
        assert (hidden_one.status_code, none.status_code) == (404, 404)
        assert hidden_one.text.replace(there.id, "none") == none.text
