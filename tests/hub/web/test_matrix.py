"""Every route and method, asked by everybody: nobody, each role over each place, a token. Made from the route table."""

import re
from collections.abc import Iterator
from itertools import product
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI

from contract.clock import SystemClock
from contract.commands import Stage
from hub import doors
from hub.app import create
from hub.config import Config, HubConfig
from hub.devices import DeviceKey, device_id
from hub.doors import Door, Where, doors_of
from hub.rights.permissions import LEVELS, PERSONAL, TABLE, Role
from hub.rights.scopes import PROVINCE, Scope
from hub.storage.announcements import Announcement, Part

HERE = Scope("g", "n-01")
ELSEWHERE = Scope("h", "n-09")
PLACES = [PROVINCE, Scope("g"), HERE, Scope("h"), ELSEWHERE]
PROBE = device_id(DeviceKey("g", "n-01", "probe-01"))
LOA = DeviceKey("g", "n-01", "loa-01")
BASE = "http://127.0.0.1:8080"
OURS = {"Origin": BASE}

STREAMS = {"/frames/overview", "/frames/announce", "/frames/device"}


def routes() -> list[tuple[str, str, Door]]:
    """Return every route of an application, with its method and its one door."""
    found = create(Config(hub=HubConfig(host_id="hub", state_dir="unused")), SystemClock())
    return [(path, method, of[0]) for path, methods, of in doors_of(found) for method in methods]


ROUTES = routes()
ASKING = [one for one in ROUTES if not one[2].open]
OPEN = [one for one in ROUTES if one[2].open]
OPEN_ON_PURPOSE = {
    "/audio/{sha256}",
    "/healthz",
    "/readyz",
    "/api/session",
    "/sign-in",
    "/sign-in/passkey",
    "/sign-in/passkey/question",
    "/set-up/{link}",
    "/api/set-up/{link}",
}


def test_a_route_without_a_door_does_not_start() -> None:
    application = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    router = APIRouter()

    @router.get("/forgotten")
    async def forgotten() -> None:
        return None

    application.include_router(router)
    with pytest.raises(RuntimeError, match="/forgotten"):
        doors.check(application)


def test_what_is_open_is_open_on_purpose() -> None:
    assert {path for path, _, _ in OPEN} == OPEN_ON_PURPOSE
    assert len(ASKING) > 50


def test_every_right_a_route_asks_for_is_in_the_table() -> None:
    assert {(door.noun, door.verb) for _, _, door in ASKING} <= set(TABLE)


@pytest.fixture
def world(hub: Any) -> dict[str, str]:
    """Put into the hub what the routes' paths name, all of it in one hamlet; return the names."""
    inside = hub.state.hub
    now = inside.clock.now_ms()
    announcement = Announcement(
        id="a" * 32,
        created_at=now,
        expires_at=now + 600_000,
        issuer="Bà Lan",
        text="họp dân",
        filename="",
        sha256="0" * 64,
        duration_ms=1000,
        volume=60,
        parts=(Part(device=LOA, stage=Stage.STARTED, reason="", at={Stage.STARTED: now}),),
    )
    from hub.audit import Act, Person

    act = Act(at=now, by=Person(account="test"), what="announcement.make")
    inside.announcements._store.add(announcement, act)
    person = inside.reception.accounts.add(
        name="somebody", full_name="Ai Đó", home=HERE, at=now, act=Act(at=now, by=Person(account="t"), what="x.y")
    )
    return {"announcement": announcement.id, "account": person.id}


def filled(path: str, world: dict[str, str]) -> str:
    """Return a route's path with the names of things that exist, all in one hamlet."""
    if path.startswith("/people"):
        path = path.replace("{id}", world["account"])
    if "announce" in path:
        path = path.replace("{id}", world["announcement"])
    path = path.replace("{group}", HERE.group).replace("{node}", HERE.node).replace("{id}", PROBE)
    path = re.sub(r"\{[a-z0-9_]+\}", "1", path)
    return f"{path}?id={PROBE}" if path == "/frames/device" else path


async def answer(client: httpx.AsyncClient, method: str, path: str) -> int:
    """Return the status of a request whose body is empty: who is let in is told what is wrong with it, or served."""
    headers = {} if method == "GET" else OURS
    status = (await client.request(method, path, headers=headers)).status_code
    # Who may confirm that it is them is asked for a password, and has none here.
    return 422 if path == "/step-up" and status in {401, 429} else status


LET_IN = {200, 201, 202, 204, 303, 404, 409, 422, 503}


def expected(door: Door, role: Role | None, place: Scope) -> bool:
    """Return what the table says, worked out without the code that answers."""
    assert door.noun is not None
    assert door.verb is not None
    if door.noun in PERSONAL:
        return True
    if role not in TABLE[door.noun, door.verb].roles:
        return False
    if door.place is Where.WHOLE:
        return place == PROVINCE
    if door.place is Where.LISTED:
        return True
    return place in {PROVINCE, Scope("g")} if door.place is doors.of_commune else place in {PROVINCE, Scope("g"), HERE}


def held() -> Iterator[tuple[Role, Scope]]:
    for role, place in product(Role, PLACES):
        if place.level in LEVELS[role]:
            yield role, place


@pytest.mark.parametrize(("role", "place"), list(held()), ids=str)
async def test_each_role_over_each_place_is_let_in_where_the_table_says_so(
    hub: Any, world: dict[str, str], sign_in: Any, accounts: Any, role: Role, place: Scope
) -> None:
    hub.state.hub.config = hub.state.hub.config.model_copy(
        update={"hub": hub.state.hub.config.hub.model_copy(update={"loopback_metrics": False})}
    )
    hub.state.hub.closing.set()  # so that streams end after their first frame
    wrong = []
    who = accounts(role, scope=place)
    for path, method, door in ASKING:
        # Signed in anew each time: some of these end the session.
        client = sign_in(who=who)
        status = await answer(client, method, filled(path, world))
        may = expected(door, role, place)
        refused = status == 404 if may is False and role in _roles(door) and _hides(door) else status == 403
        if (may and status not in LET_IN) or (not may and not refused):
            wrong.append((method, path, status, "let in" if may else "refused"))
    assert wrong == []


def _roles(door: Door) -> frozenset[Role]:
    assert door.noun is not None
    assert door.verb is not None
    return TABLE[door.noun, door.verb].roles


def _hides(door: Door) -> bool:
    """Return whether a door says of a thing out of reach that there is none."""
    return not isinstance(door.place, Where)


@pytest.mark.parametrize(("path", "method", "door"), ASKING, ids=str)
async def test_nobody_is_let_in_nowhere(
    hub: Any, world: dict[str, str], stranger: httpx.AsyncClient, path: str, method: str, door: Door
) -> None:
    hub.state.hub.config = hub.state.hub.config.model_copy(
        update={"hub": hub.state.hub.config.hub.model_copy(update={"loopback_metrics": False})}
    )
    response = await stranger.request(method, filled(path, world), headers={} if method == "GET" else OURS)
    if response.status_code == 303:
        assert response.headers["location"].startswith("/sign-in?next="), path
    else:
        assert response.status_code == 401, path
        assert response.headers["www-authenticate"] == "Bearer"


async def test_who_holds_no_role_has_only_what_is_their_own(
    hub: Any, world: dict[str, str], sign_in: Any, accounts: Any
) -> None:
    who = accounts()
    for path, method, door in ASKING:
        status = await answer(sign_in(who=who), method, filled(path, world))
        local = path == "/metrics"
        assert (status != 403) == (door.noun in PERSONAL or local), (method, path, status)


async def test_what_wants_a_fresh_sign_in_is_not_given_to_an_old_one(
    hub: Any, world: dict[str, str], sign_in: Any, accounts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hub.people import caller
    from hub.rights import permissions

    monkeypatch.setattr(permissions, "STEP_UP_MS", 0)
    who, marked = accounts(*Role), 0
    for path, method, door in ASKING:
        assert door.noun is not None
        assert door.verb is not None
        if TABLE[door.noun, door.verb].step_up:
            marked += 1
            response = await sign_in(who=who).request(
                method, filled(path, world), headers={} if method == "GET" else OURS
            )
            if response.status_code == 303:
                assert response.headers["location"].startswith("/step-up?next="), path
            else:
                assert (response.status_code, response.json()["code"]) == (403, "step_up"), path
    assert marked > 10
    assert caller is not None


async def test_a_token_has_what_it_was_given_and_nothing_else(
    hub: Any, world: dict[str, str], sign_in: Any, accounts: Any
) -> None:
    hub.state.hub.closing.set()
    boss = sign_in(who=accounts(*Role))
    body = {"label": "x", "rights": ["device see"], "group": "g", "expires_at": hub.state.hub.clock.now_ms() + 60_000}
    made = await boss.post("/api/me/tokens", json=body, headers=OURS)
    assert made.status_code == 201
    bearer = {"Authorization": f"Bearer {made.json()['token']}"}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(hub), base_url=BASE, headers=bearer) as program:
        for path, method, door in ASKING:
            status = (await program.request(method, filled(path, world))).status_code
            given = (door.noun, door.verb) == ("device", "see") or path == "/metrics"
            assert (status in LET_IN) == given, (method, path, status)
        assert len((await program.get("/api/devices")).json()["devices"]) == 5
    revoked = await boss.delete(f"/api/me/tokens/{made.json()['id']}", headers=OURS)
    assert revoked.status_code == 204
    async with httpx.AsyncClient(transport=httpx.ASGITransport(hub), base_url=BASE, headers=bearer) as program:
        assert (await program.get("/api/devices")).status_code == 401


class TestWhatIsListedEndsWhereTheReachEnds:
    """Routes whose door asks "anywhere" must show only what lies within: each of them, by name."""

    @pytest.mark.parametrize(
        "path",
        [
            "/api/devices",
            "/api/last",
            f"/api/availability?device={PROBE}",
            "/api/completeness?day=2026-11-25",
            "/api/completeness.csv?day=2026-11-25",
            "/api/samples.csv?from=0&to=86400000",
            "/api/announcements",
            "/",
            "/announce",
            "/people",
            "/reports/completeness",
            "/frames/overview",
            "/frames/announce",
        ],
    )
    async def test_a_neighbour_sees_nothing_of_it(
        self, hub: Any, world: dict[str, str], sign_in: Any, path: str
    ) -> None:
        from contract.metrics import DataType
        from hub.storage.timeseries import Batch

        inside, batch = hub.state.hub, Batch()
        key = DeviceKey("g", "n-01", "probe-01")
        batch.numbers.put(inside.store.series(key, "Water/pH", DataType.DOUBLE), 1000, 7.0, 192 << 8)
        inside.store.commit(batch, 1)
        inside.closing.set()
        roles = [role for role in Role if PLACES[3].level in LEVELS[role]]
        own = (await sign_in(*roles, scope=Scope("g")).get(path)).text
        theirs = (await sign_in(*roles, scope=Scope("h")).get(path)).text
        marks = ("probe-01", "n-01", "họp dân", "Ấp Bình Hòa", "somebody", PROBE)
        assert any(one in own for one in marks), "otherwise the test shows nothing"
        assert [one for one in marks if one in theirs.replace("?next", "") and one != PROBE] == []

    def test_no_listed_route_is_forgotten_here(self) -> None:
        listed = {path for path, method, door in ASKING if door.place is Where.LISTED and door.noun not in PERSONAL}
        tested = {
            "/api/devices",
            "/api/last",
            "/api/availability",
            "/api/completeness",
            "/api/completeness.csv",
            "/api/samples.csv",
            "/api/announcements",  # POST: test_api, only a loudspeaker within reach can be chosen
            "/",
            "/announce",
            "/people",  # POST: test_people, beyond
            "/account/deputies",  # by the rules of hub/people/administration.py: test_people
            "/reports/completeness",
            "/frames/overview",
            "/frames/announce",
        }
        assert listed == tested
