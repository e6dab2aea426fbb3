"""Signing in with a real browser: a passkey by its virtual authenticator, a password with a code, a light page."""

import asyncio
import re
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pyotp
import pytest
import uvicorn

from hub.audit import Person
from hub.rights.permissions import Role
from hub.web import frames

pytestmark = [pytest.mark.browser]
VENDOR = Path(__file__).parents[3] / "hub" / "web" / "static" / "vendor" / "htmx.min.js"
PASSWORD = "bốn con trâu uống nước"
MOST_BYTES = 60 * 1024


@pytest.fixture
async def port(hub: Any, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[int]:
    """Serve the application of the fixture on a free port."""
    if not VENDOR.exists():
        pytest.skip("the pages' assets are not built (make test builds them)")
    monkeypatch.setattr(frames, "FRAME_SECONDS", 0.05)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(hub, lifespan="off", log_level="critical", timeout_graceful_shutdown=1, ws="none")
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:
        await asyncio.sleep(0.01)
    yield int(listener.getsockname()[1])
    hub.state.hub.closing.set()
    server.should_exit = True
    await running


async def authenticator(page: Any) -> Any:
    """Give a page's browser an authenticator that knows its owner; return how to ask it."""
    session = await page.context.new_cdp_session(page)
    await session.send("WebAuthn.enable")
    options = {
        "protocol": "ctap2",
        "transport": "internal",
        "hasResidentKey": True,
        "hasUserVerification": True,
        "isUserVerified": True,
        "automaticPresenceSimulation": True,
    }
    told = await session.send("WebAuthn.addVirtualAuthenticator", {"options": options})
    return session, told["authenticatorId"]


async def set_up(hub: Any, accounts: Any, page: Any, base: str, *roles: Role) -> str:
    """Let somebody set up their sign-in as people do, by their link; return the secret of their codes."""
    account = accounts(*roles, name="lan")
    link = hub.state.hub.reception.set_up.link_for(account, Person(account="test"))
    await page.goto(f"{base}/set-up/{link}?lang=vi")
    secret = str(await page.locator(".secret").inner_text()).strip()
    await page.fill("#password", PASSWORD)
    await page.fill("#code", pyotp.TOTP(secret).generate_otp(int(time.time()) // 30 - 1))
    await page.click("button.primary")
    await page.wait_for_url(f"{base}/account")
    return secret


async def test_a_passkey_is_made_and_signs_in_by_itself(browser: Any, hub: Any, accounts: Any, port: int) -> None:
    base = f"http://localhost:{port}"
    context = await browser.new_context()
    page = await context.new_page()
    session, key = await authenticator(page)
    await set_up(hub, accounts, page, base, Role.POLICE)
    await page.fill("#passkey-label", "Điện thoại của Lan")
    await page.click("[data-passkey=make]")
    await page.get_by_text("Điện thoại của Lan").first.wait_for(timeout=8000)
    held = (await session.send("WebAuthn.getCredentials", {"authenticatorId": key}))["credentials"]
    assert [one["rpId"] for one in held] == ["localhost"]
    assert held[0]["isResidentCredential"]

    await page.click("text=Đăng xuất >> nth=0")
    await page.wait_for_url(f"{base}/sign-in")
    await page.goto(f"{base}/sign-in?next=/permissions")
    await page.click("[data-passkey=prove]")
    await page.wait_for_url(f"{base}/permissions", timeout=8000)
    (kept,) = hub.state.hub.reception.credentials.passkeys(hub.state.hub.reception.accounts.by_name("lan").id)
    assert kept.uses > 0
    assert kept.used_at is not None

    await context.clear_cookies()
    await session.send("WebAuthn.setUserVerified", {"authenticatorId": key, "isUserVerified": False})
    await page.goto(f"{base}/sign-in?lang=vi")
    await page.click("[data-passkey=prove]")
    await page.get_by_text("Chưa được.").wait_for(timeout=8000)
    assert (await context.request.get(f"{base}/api/session")).status == 401, "without finger, face or PIN nobody"
    await context.close()


async def test_a_copied_passkey_is_refused(browser: Any, hub: Any, accounts: Any, port: int) -> None:
    base = f"http://localhost:{port}"
    context = await browser.new_context()
    page = await context.new_page()
    await authenticator(page)
    await set_up(hub, accounts, page, base, Role.POLICE)
    await page.click("[data-passkey=make]")
    await page.get_by_text("localhost").first.wait_for(timeout=8000)
    store = hub.state.hub.reception.credentials
    (kept,) = store.passkeys(hub.state.hub.reception.accounts.by_name("lan").id)
    store.used(kept.id, uses=10_000, at=1)  # as if its twin had been used often
    await context.clear_cookies()
    await page.goto(f"{base}/sign-in?lang=vi")
    await page.click("[data-passkey=prove]")
    await page.get_by_text("Chưa được.").wait_for(timeout=8000)
    await context.close()


async def test_by_a_bare_address_there_are_no_passkeys_and_password_with_code_serves(
    browser: Any, hub: Any, accounts: Any, port: int
) -> None:
    base = f"http://127.0.0.1:{port}"
    context = await browser.new_context()
    page = await context.new_page()
    secret = await set_up(hub, accounts, page, base, Role.OPERATOR)
    assert await page.locator("[data-passkey]").count() == 0
    assert "localhost" in await page.inner_text("main")
    await context.clear_cookies()
    await page.goto(f"{base}/announce")
    assert page.url == f"{base}/sign-in?next=%2Fannounce"
    assert await page.locator("[data-passkey]").count() == 0
    await page.fill("#name", "lan")
    await page.fill("#password", PASSWORD)
    await page.fill("#code", pyotp.TOTP(secret).now())
    await page.keyboard.press("Enter")
    await page.wait_for_url(f"{base}/announce")
    await context.close()


async def test_the_sign_in_page_is_light(browser: Any, port: int) -> None:
    context = await browser.new_context()
    page = await context.new_page()
    sizes: dict[str, int] = {}

    async def weigh(response: Any) -> None:
        sizes[re.sub(r"^https?://[^/]+", "", response.url)] = len(await response.body())

    waiting: list[Any] = []
    page.on("response", lambda response: waiting.append(asyncio.ensure_future(weigh(response))))
    await page.goto(f"http://localhost:{port}/sign-in?lang=vi", wait_until="networkidle")
    await asyncio.gather(*waiting)
    assert sum(sizes.values()) < MOST_BYTES, sizes
    assert len(sizes) > 2
    await context.close()


async def test_a_page_whose_right_is_withdrawn_leads_to_the_sign_in(
    browser: Any, hub: Any, accounts: Any, port: int
) -> None:
    base = f"http://localhost:{port}"
    context = await browser.new_context()
    page = await context.new_page()
    await set_up(hub, accounts, page, base, Role.OPERATOR)
    await page.goto(f"{base}/")
    await page.get_by_text("probe-01").wait_for(timeout=8000)
    hub.state.hub.reception.sessions.end_all(hub.state.hub.reception.accounts.by_name("lan").id)
    await page.wait_for_url(re.compile(r"/sign-in\?next="), timeout=15_000)
    await context.close()


async def test_each_page_of_an_account_can_be_worked_by_keyboard(
    browser: Any, hub: Any, accounts: Any, port: int
) -> None:
    base = f"http://localhost:{port}"
    context = await browser.new_context()
    page = await context.new_page()
    await set_up(hub, accounts, page, base, Role.ADMINISTRATOR)
    await page.goto(f"{base}/people?lang=en")
    await page.focus("#name")
    await page.keyboard.type("minh")
    await page.keyboard.press("Tab")
    await page.keyboard.type("Minh")
    await page.keyboard.press("Tab")
    await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    await page.wait_for_url(re.compile(r"/people/[0-9a-f]+$"))
    assert "Minh" in await page.inner_text("h1")
    await context.close()
