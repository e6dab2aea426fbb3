"""The pages in a real browser: accessible, never scrolled sideways, usable by keyboard, honest when cut off."""

import asyncio
import socket
from collections.abc import AsyncIterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from contract.positions import Lineage
from hub.audit import Person
from hub.devices import DeviceKey, NodeKey, device_id
from hub.node_delivery import Alarm, AlarmKind, Depth, NodeDelivery
from hub.people.caller import Visitor
from hub.rights.permissions import Role
from hub.storage.timeseries import Batch, Quarantined, Void

pytestmark = [pytest.mark.browser]
PROBE = device_id(DeviceKey("g", "n-01", "probe-01"))
NODE = device_id(DeviceKey("g", "n-01", ""))
LOA = device_id(DeviceKey("g", "n-01", "loa-01"))
AXE = Path(__file__).parents[2] / "interop" / "node_modules" / "axe-core" / "axe.min.js"
VENDOR = Path(__file__).parents[3] / "hub" / "web" / "static" / "vendor" / "htmx.min.js"


@pytest.fixture
async def people(accounts: Any) -> Any:
    """Return somebody who may do everything but speak in an emergency."""
    return accounts(*(role for role in Role if role is not Role.DUTY_OFFICER))


@pytest.fixture
async def context(browser: Any, hub: Any, url: str, people: Any) -> AsyncIterator[Any]:
    """Return a browser's context in which they are signed in."""
    made = await browser.new_context()
    await signed_in(made, hub, url, people)
    yield made
    await made.close()


async def signed_in(context: Any, hub: Any, url: str, who: Any) -> None:
    came = hub.state.hub.reception.entrance.start(who.id, Visitor(address="127.0.0.1"))
    await context.add_cookies([{"name": "session", "value": came.secret, "url": url, "httpOnly": True}])


@pytest.fixture
async def url(hub: Any) -> AsyncIterator[str]:
    """Serve the application of the fixture on a free port."""
    if not VENDOR.exists():
        pytest.skip("the pages' assets are not built (make test builds them)")
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(hub, lifespan="off", log_level="critical", timeout_graceful_shutdown=1, ws="none")
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:
        await asyncio.sleep(0.01)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    hub.state.hub.closing.set()
    server.should_exit = True
    await running


def in_trouble(hub: Any) -> NodeDelivery:
    """Return how an edge node stands that has everything a page can show, with what the store has of it."""
    now, life = hub.state.hub.clock.now_ms(), Lineage("log", 7 << 32, "probe-01")
    node = NodeKey("g", "n-01")
    if not hub.state.hub.store.ledger(node):
        made = Batch(committed=[(node, life, first, first + 5) for first in range(0, 1000, 10)])
        made.voids.append(Void(node=node, lineage=life, first=2000, last=2999, at=now - 5000))
        key = DeviceKey("g", "n-01", "probe-01")
        for reason in ("impossible_time", "refused by the store: <no>"):
            made.quarantined.append(Quarantined(key=key, reason=reason, payload=b"", received_at=now, samples=3))
        hub.state.hub.store.commit(made, now)
    return NodeDelivery(
        foreign=False,
        log="log",
        epoch=7 << 32,
        floor=6 << 32,
        closed=1,
        depth=Depth(records=50, oldest=now - 3_600_000, bytes_on_disk=5_000_000, told_at=now),
        acknowledged_at=now,
        alarms=tuple(Alarm(kind=kind, since=now - 60_000) for kind in AlarmKind),
    )


PATHS = [
    "/",
    f"/devices/{PROBE}",
    f"/devices/{NODE}",
    "/reports/completeness",
    "/announce",
    "/sign-in",
    "/step-up",
    "/account",
    "/account/codes",
    "/people",
    "/people/{person}",
    "/permissions",
    "/audit",
    "/audit?account={person}",
    "/set-up/{link}",
]


# What stands on each page is looked at in every way; forms that share their parts in the two that differ most.
LOOKS = [
    *product(PATHS[:5], (360, 1280), ("light", "dark"), ("vi", "en")),
    *((path, *look) for path in PATHS[5:] for look in ((360, "dark", "vi"), (1280, "light", "en"))),
]


@pytest.mark.parametrize(("path", "width", "scheme", "language"), LOOKS)
async def test_every_page_is_accessible_and_fits(
    browser: Any,
    hub: Any,
    people: Any,
    url: str,
    path: str,
    width: int,
    scheme: str,
    language: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hub.state.hub.ingest, "delivery", lambda key: in_trouble(hub))
    if not AXE.exists():
        pytest.skip("axe-core is not installed (make test installs it)")
    context = await browser.new_context(viewport={"width": width, "height": 740}, color_scheme=scheme)
    if not path.startswith(("/sign-in", "/set-up")):
        await signed_in(context, hub, url, people)
    link = hub.state.hub.reception.set_up.link_for(people, Person(account="test"))
    path = path.format(person=people.id, link=link)
    page = await context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    asks = "&" if "?" in path else "?"
    await page.goto(f"{url}{path}{asks}lang={language}")
    await page.wait_for_load_state("load")
    assert await page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    # Added by the test, so the page's own policy against foreign scripts does not count.
    await page.evaluate(AXE.read_text(encoding="utf-8"))
    found = await page.evaluate(
        "axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa', 'wcag22aa', 'best-practice']})"
    )
    assert [(one["id"], [node["html"][:120] for node in one["nodes"]]) for one in found["violations"]] == []
    assert faults == []
    await context.close()


async def test_a_page_follows_what_happens_without_being_loaded_again(context: Any, hub: Any, url: str) -> None:
    page = await context.new_page()
    await page.goto(f"{url}/?lang=vi")
    state = hub.state.hub.live.state(DeviceKey("g", "n-01", "probe-01"))
    state.slots["Water/pH"].value = 6.66
    hub.state.hub.live.touch()
    await page.get_by_text("6,66").wait_for(timeout=8000)
    await page.close()


async def test_what_a_reader_opened_stays_open_when_its_section_is_renewed(
    context: Any, hub: Any, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub.state.hub.ingest, "delivery", lambda key: in_trouble(hub))
    page = await context.new_page()
    await page.goto(f"{url}/devices/{NODE}?lang=vi")
    await page.click("#ledger summary")
    await page.evaluate("document.querySelector('#delivery').dataset.old = 'yes'")
    renew = "htmx.ajax('GET', location.pathname + '/delivery', {target: '#delivery', swap: 'outerHTML'})"
    await page.evaluate(renew)
    await page.wait_for_selector("#delivery:not([data-old]) #ledger[open]", timeout=8000)
    await page.close()


async def test_everything_can_be_done_by_keyboard(context: Any, url: str) -> None:
    page = await context.new_page()
    await page.goto(f"{url}/announce?lang=vi")
    await page.keyboard.press("Tab")
    assert await page.evaluate("document.activeElement.className") == "skip"
    await page.focus("#text")
    await page.keyboard.type("Mời bà con họp dân")
    await page.focus(f'input[value="{LOA}"]')
    await page.keyboard.press("Space")
    assert await page.is_checked(f'input[value="{LOA}"]')
    await page.focus("button.primary")
    await page.keyboard.press("Enter")
    alert = page.get_by_role("alert")
    await alert.wait_for(timeout=15_000)
    assert "Bộ ký lệnh không trả lời" in await alert.inner_text()
    assert await page.input_value("#text") == "Mời bà con họp dân", "what was typed is kept"
    assert await page.is_checked(f'input[value="{LOA}"]')
    await page.close()


async def test_without_a_link_nothing_can_be_pressed_that_would_sound(context: Any, url: str) -> None:
    page = await context.new_page()
    await page.goto(f"{url}/announce?lang=vi")
    await page.wait_for_selector("body:not(.lost)")
    await context.set_offline(True)
    # In one look: a frame that was under way may still come and take both back.
    await page.wait_for_selector(
        'body.lost:has(#link:has-text("CHƯA PHÁT được gì")) button.primary:disabled', timeout=8000
    )
    await context.set_offline(False)
    await page.wait_for_selector("button.primary:enabled", timeout=20_000)


async def test_the_history_is_drawn_with_its_gap_and_told_as_a_table(context: Any, hub: Any, url: str) -> None:
    from contract.metrics import DataType
    from hub.storage.timeseries import Batch

    inside, batch = hub.state.hub, Batch()
    key, now = DeviceKey("g", "n-01", "probe-01"), inside.clock.now_ms()
    for minute in (*range(50, 35, -1), *range(15, 0, -1)):
        batch.numbers.series.append(inside.store.series(key, "Water/pH", DataType.DOUBLE))
        batch.numbers.at.append(now - minute * 60_000)
        batch.numbers.value.append(7.0 + minute / 100)
        batch.numbers.marks.append(192 << 8)
    inside.store.commit(batch, now)
    page = await context.new_page()
    await page.goto(f"{url}/devices/{PROBE}?lang=vi")
    await page.wait_for_selector(".uplot canvas", timeout=8000)
    await page.click("summary")
    rows = await page.locator("#history tbody tr").count()
    assert 60 <= rows < 200, "minutes without measurement are not filled in"
    assert "7," in await page.locator("#history tbody tr").first.inner_text()
    await page.close()
