"""Another site's page must neither read the hub nor act in somebody's name; nobody borrows this machine's rights."""

from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from hub.border import MOST_BODY, MOST_STRANGERS_BODY, Border, from_this_machine

SOMEBODY = "known"


async def answer(request: Request) -> PlainTextResponse:
    return PlainTextResponse("here" if from_this_machine(request.scope) else "inside")


class Entrance:
    """Knows one session and one token."""

    def caller(self, secret: str, address: str, *, used: bool = True) -> str | None:
        return SOMEBODY if secret == "right" else None

    def program(self, text: str, address: str) -> str | None:
        return SOMEBODY if text == "hamlet_right" else None


@pytest.fixture
def app() -> Starlette:
    made = Starlette(routes=[Route("/", answer, methods=["GET", "POST", "DELETE"])])
    made.state.hub = SimpleNamespace(reception=SimpleNamespace(entrance=Entrance()))
    made.add_middleware(Border, names=["loa.anthanh.vn"])
    return made


async def ask(app: Starlette, method: str, *, client: str = "127.0.0.1", **headers: str) -> httpx.Response:
    transport = httpx.ASGITransport(app, client=(client, 1))
    base = headers.pop("base", "http://127.0.0.1:8080")
    async with httpx.AsyncClient(transport=transport, base_url=base) as client_:
        return await client_.request(
            method, "/", headers=[(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        )


@pytest.mark.parametrize(
    "host",
    ["localhost:8080", "127.0.0.1:8080", "LOCALHOST:8080", "[::1]:8080", "loa.anthanh.vn", "loa.anthanh.vn:8080"],
)
async def test_our_own_names_are_answered(app: Starlette, host: str) -> None:
    assert (await ask(app, "GET", client="10.0.0.9", host=host)).text == "inside"


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8080",
        "127.0.0.1:9090",
        "127.0.0.1",
        "localhost",
        "127.0.0.1.evil.example:8080",
        "loa.anthanh.vn.evil.example",
        "loa.anthanh.vn:9090",
        "",
    ],
)
async def test_a_rebound_name_or_another_port_is_refused(app: Starlette, host: str) -> None:
    response = await ask(app, "GET", host=host)
    assert response.status_code == 403
    assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("method", ["POST", "DELETE"])
@pytest.mark.parametrize(
    "origin",
    [None, "null", "http://evil.example", "http://127.0.0.1:9090", "http://localhost:8080", "https://127.0.0.1:8080"],
)
async def test_a_change_without_our_own_origin_is_refused(app: Starlette, method: str, origin: str | None) -> None:
    headers = {} if origin is None else {"origin": origin}
    assert (await ask(app, method, cookie="session=right", **headers)).status_code == 403


async def test_our_own_page_may_change_things(app: Starlette) -> None:
    response = await ask(app, "POST", origin="http://127.0.0.1:8080", sec_fetch_site="same-origin")
    assert response.text == "here"


@pytest.mark.parametrize("site", ["cross-site", "same-site", "none"])
async def test_what_the_browser_says_came_from_elsewhere_is_refused(app: Starlette, site: str) -> None:
    response = await ask(app, "POST", origin="http://127.0.0.1:8080", sec_fetch_site=site)
    assert response.status_code == 403


async def test_a_program_with_a_token_needs_no_origin_but_never_has_a_foreign_one(app: Starlette) -> None:
    token = {"authorization": "Bearer hamlet_right"}
    assert (await ask(app, "POST", **token)).status_code == 200
    assert (await ask(app, "POST", origin="http://evil.example", **token)).status_code == 403
    assert (await ask(app, "POST", sec_fetch_site="cross-site", **token)).status_code == 403


async def test_a_huge_body_is_refused_before_it_is_read_a_strangers_much_earlier(app: Starlette) -> None:
    ours = {"origin": "http://127.0.0.1:8080"}
    for cookie, most in (("session=right", MOST_BODY), ("session=wrong", MOST_STRANGERS_BODY)):
        response = await ask(app, "POST", cookie=cookie, content_length=str(most + 1), **ours)
        assert response.status_code == 413
    response = await ask(app, "POST", cookie="session=right", content_length=str(MOST_STRANGERS_BODY + 1), **ours)
    assert response.status_code == 200


@pytest.mark.parametrize(
    ("told", "status"),
    [
        ({"content_length": "10", "transfer_encoding": "chunked"}, 411),
        ({"transfer_encoding": "chunked"}, 411),
        ({"content_length": "-1"}, 400),
        ({"content_length": "1e3"}, 400),
        ({"content_length": "9" * 5000}, 400),
    ],
)
async def test_a_length_that_bounds_nothing_is_refused(app: Starlette, told: dict[str, str], status: int) -> None:
    response = await ask(app, "POST", cookie="session=right", origin="http://127.0.0.1:8080", **told)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"


async def test_a_length_in_digits_of_another_script_is_refused(app: Starlette) -> None:
    transport = httpx.ASGITransport(app)
    headers = [(b"origin", b"http://127.0.0.1:8080"), (b"content-length", b"\xb2")]
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as client:
        assert (await client.post("/", headers=headers)).status_code == 400


async def test_no_page_can_run_what_is_written_in_it_and_none_can_be_framed(app: Starlette) -> None:
    headers = (await ask(app, "GET")).headers
    policy = headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["cache-control"] == "no-store"
    assert "strict-transport-security" not in headers


async def test_under_tls_browsers_are_told_never_to_come_without_it(app: Starlette) -> None:
    response = await ask(app, "GET", base="https://loa.anthanh.vn:8080")
    assert "max-age=" in response.headers["strict-transport-security"]


@pytest.mark.parametrize("header", ["x-forwarded-for", "forwarded", "x-real-ip", "x-forwarded-proto"])
async def test_what_came_through_a_proxy_is_not_from_this_machine(app: Starlette, header: str) -> None:
    assert (await ask(app, "GET")).text == "here"
    assert (await ask(app, "GET", **{header: "127.0.0.1"})).text == "inside"
    assert (await ask(app, "GET", client="10.0.0.9")).text == "inside"


@pytest.mark.parametrize(
    "cookie", ["session=right; session", 'session="', "=;=;=", "session=" + "x" * 5000, "séssion=ü", "a=b,c=d;;;"]
)
async def test_a_cookie_of_nonsense_is_none(app: Starlette, cookie: str) -> None:
    assert (await ask(app, "GET", cookie=cookie)).status_code == 200


def scope(**told: Any) -> dict[str, Any]:
    return {"type": "http", "headers": [], **told}


def test_without_a_peer_nothing_is_from_this_machine() -> None:
    assert not from_this_machine(scope(client=None))
    assert not from_this_machine(scope(client=("unix", 0)))
    assert from_this_machine(scope(client=("::1", 1)))
