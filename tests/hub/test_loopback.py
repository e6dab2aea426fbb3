"""Another site's page must neither read the hub nor make a loudspeaker sound."""

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from hub.loopback import MOST_BODY, LoopbackOnly


async def answer(_: Request) -> PlainTextResponse:
    return PlainTextResponse("inside")


APP = LoopbackOnly(Starlette(routes=[Route("/", answer, methods=["GET", "POST", "DELETE"])]))


async def ask(method: str, **headers: str) -> httpx.Response:
    transport = httpx.ASGITransport(APP)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as client:
        return await client.request(
            method, "/", headers={name.replace("_", "-"): value for name, value in headers.items()}
        )


@pytest.mark.parametrize("host", ["localhost:8080", "127.0.0.1:8080", "LOCALHOST:8080"])
async def test_our_own_names_with_our_port_are_answered(host: str) -> None:
    assert (await ask("GET", host=host)).text == "inside"


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8080",
        "127.0.0.1:9090",
        "127.0.0.1",
        "localhost",
        "[::1]:8080",
        "127.0.0.1.evil.example:8080",
        "",
    ],
)
async def test_a_rebound_name_or_another_port_is_refused(host: str) -> None:
    response = await ask("GET", host=host)
    assert response.status_code == 403
    assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("method", ["POST", "DELETE"])
@pytest.mark.parametrize(
    "origin",
    [None, "null", "http://evil.example", "http://127.0.0.1:9090", "http://localhost:8080", "https://127.0.0.1:8080"],
)
async def test_a_change_without_our_own_origin_is_refused(method: str, origin: str | None) -> None:
    headers = {} if origin is None else {"origin": origin}
    assert (await ask(method, **headers)).status_code == 403


async def test_our_own_page_may_change_things() -> None:
    response = await ask("POST", origin="http://127.0.0.1:8080")
    assert response.text == "inside"
    assert "frame-ancestors 'none'" in response.headers["content-security-policy"]


async def test_a_huge_body_is_refused_before_it_is_read() -> None:
    response = await ask("POST", origin="http://127.0.0.1:8080", content_length=str(MOST_BODY + 1))
    assert response.status_code == 413
