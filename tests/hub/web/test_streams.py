"""Streams are asked as pages are, and end within a second of the right they were opened with."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from hub.audit import Act, Person
from hub.devices import DeviceKey, device_id
from hub.people.caller import Visitor
from hub.people.lifetimes import IDLE_MS
from hub.rights.permissions import Grant, Noun, Role, Verb
from hub.rights.scopes import PROVINCE, Scope

PROBE = device_id(DeviceKey("g", "n-01", "probe-01"))
STREAMS = ["/frames/overview", "/frames/announce", f"/frames/device?id={PROBE}"]

Watch = Callable[..., Awaitable["tuple[asyncio.Task[None], list[str]]"]]


@pytest.fixture
async def watch(hub: Any) -> AsyncIterator[Watch]:
    """Return an opener of streams: the task that serves one, and what it has sent, its status first."""
    tasks: list[asyncio.Task[None]] = []

    async def open_(path: str, **headers: str) -> "tuple[asyncio.Task[None], list[str]]":
        sent: list[str] = []
        asked = False

        async def receive() -> dict[str, Any]:
            nonlocal asked
            if not asked:
                asked = True
                return {"type": "http.request", "body": b"", "more_body": False}
            await asyncio.Event().wait()
            raise AssertionError

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                sent.append(str(message["status"]))
            elif message["body"]:
                sent.append(message["body"].decode())

        where, _, query = path.partition("?")
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": "GET",
            "path": where,
            "raw_path": where.encode(),
            "query_string": query.encode(),
            "scheme": "http",
            "server": ("127.0.0.1", 8080),
            "client": ("127.0.0.1", 1),
            "headers": [
                (b"host", b"127.0.0.1:8080"),
                *((name.encode(), value.encode()) for name, value in headers.items()),
            ],
        }
        task = asyncio.create_task(hub(scope, receive, send))
        tasks.append(task)
        async with asyncio.timeout(5):
            while len(sent) < 2 and not task.done():
                await asyncio.sleep(0.01)
        return task, sent

    yield open_
    hub.state.hub.closing.set()
    await asyncio.gather(*tasks)


def signed_in(hub: Any, account: Any) -> str:
    return str(hub.state.hub.reception.entrance.start(account.id, Visitor(address="127.0.0.1")).secret)


async def ended(task: "asyncio.Task[None]", within: float = 1.0) -> float:
    """Return how long a stream took to end; fail if it takes longer than it may."""
    start = time.monotonic()
    async with asyncio.timeout(within + 1):
        await task
    took = time.monotonic() - start
    assert took < within
    return took


def act(hub: Any) -> Act:
    return Act(at=hub.state.hub.clock.now_ms(), by=Person(account="test"), what="grant.end")


def end_role(hub: Any, account: Any) -> None:
    kept, now = hub.state.hub.reception.accounts, hub.state.hub.clock.now_ms()
    for given in kept.grants(account.id, now=now):
        kept.end(given, at=now, act=act(hub))


def narrow_role(hub: Any, account: Any) -> None:
    kept, now = hub.state.hub.reception.accounts, hub.state.hub.clock.now_ms()
    end_role(hub, account)
    kept.give(account.id, Grant(role=Role.OPERATOR, scope=Scope("h")), by="test", at=now, act=act(hub))


def widen_role(hub: Any, account: Any) -> None:
    kept, now = hub.state.hub.reception.accounts, hub.state.hub.clock.now_ms()
    kept.give(account.id, Grant(role=Role.TECHNICIAN, scope=PROVINCE), by="test", at=now, act=act(hub))


def disable(hub: Any, account: Any) -> None:
    hub.state.hub.reception.accounts.change(
        account.id, revision=account.revision, full_name="x", disabled_at=1, act=act(hub)
    )


def sign_out(hub: Any, account: Any) -> None:
    hub.state.hub.reception.sessions.end_all(account.id)


def run_out(hub: Any, account: Any) -> None:
    kept = hub.state.hub.reception.sessions
    for one in kept.sessions(account.id):
        kept.seen(one.digest, one.seen_at - IDLE_MS)


@pytest.mark.parametrize("path", STREAMS)
@pytest.mark.parametrize("happens", [end_role, narrow_role, widen_role, disable, sign_out, run_out])
async def test_a_stream_ends_within_a_second_of_its_right(
    hub: Any, accounts: Any, watch: Watch, path: str, happens: Callable[[Any, Any], None]
) -> None:
    account = accounts(Role.OPERATOR, scope=Scope("g"))
    task, sent = await watch(path, cookie=f"session={signed_in(hub, account)}")
    assert sent[0] == "200"
    await asyncio.sleep(0.6)
    assert not task.done(), "as long as nothing changes it stays open"
    happens(hub, hub.state.hub.reception.accounts.get(account.id))
    await ended(task)


async def test_a_stream_of_a_device_ends_when_the_device_is_gone(hub: Any, accounts: Any, watch: Watch) -> None:
    account = accounts(Role.OPERATOR, scope=Scope("g"))
    task, sent = await watch(f"/frames/device?id={PROBE}", cookie=f"session={signed_in(hub, account)}")
    assert sent[0] == "200"
    hub.state.hub.live.forget(DeviceKey("g", "n-01", "probe-01"))
    await ended(task)


async def test_a_deputys_stream_ends_with_their_day(hub: Any, accounts: Any, watch: Watch) -> None:
    account = accounts()
    now = hub.state.hub.clock.now_ms()
    grant = Grant(role=Role.OPERATOR, scope=Scope("g"), starts=now, ends=now + 1200)
    hub.state.hub.reception.accounts.give(account.id, grant, by="test", at=now, act=act(hub))
    task, sent = await watch("/frames/overview", cookie=f"session={signed_in(hub, account)}")
    assert sent[0] == "200"
    await ended(task, within=2.2)


async def test_a_programs_stream_ends_with_its_token(hub: Any, accounts: Any, watch: Watch) -> None:
    account = accounts(Role.TECHNICIAN)
    inside = hub.state.hub
    caller = inside.reception.entrance.caller(signed_in(hub, account), "")
    rights = frozenset({(Noun.DEVICE, Verb.SEE)})
    handed = inside.reception.own.make_token(
        caller, label="x", rights=rights, scope=PROVINCE, expires_at=inside.clock.now_ms() + 60_000
    )
    task, sent = await watch("/frames/overview", authorization=f"Bearer {handed.text}")
    assert sent[0] == "200"
    inside.reception.own.revoke_token(caller, handed.token.id)
    await ended(task)


async def test_what_is_shown_is_what_its_watcher_may_see(hub: Any, accounts: Any, watch: Watch) -> None:
    here = accounts(Role.OPERATOR, scope=Scope("g"))
    there = accounts(Role.OPERATOR, scope=Scope("h"))
    _, own = await watch("/frames/overview", cookie=f"session={signed_in(hub, here)}")
    _, others = await watch("/frames/overview", cookie=f"session={signed_in(hub, there)}")
    assert "probe-01" in own[1]
    assert "probe-01" not in others[1]
    hub.state.hub.live.touch()
    await asyncio.sleep(1.2)
    assert not any("probe-01" in one for one in others)


async def test_a_stream_carries_nobodys_form_token(hub: Any, accounts: Any, watch: Watch) -> None:
    account = accounts(*Role)
    for path in STREAMS:
        _, sent = await watch(path, cookie=f"session={signed_in(hub, account)}")
        assert "form_token" not in "".join(sent)


@pytest.mark.parametrize("path", STREAMS)
async def test_nobody_and_who_has_no_right_get_no_stream(hub: Any, accounts: Any, watch: Watch, path: str) -> None:
    task, sent = await watch(path)
    assert sent[0] == "401"
    await task
    task, sent = await watch(path, cookie=f"session={signed_in(hub, accounts())}")
    assert sent[0] == "403"
    await task


async def test_a_device_of_a_neighbour_has_no_stream(hub: Any, accounts: Any, watch: Watch) -> None:
    account = accounts(Role.OPERATOR, scope=Scope("h"))
    task, sent = await watch(f"/frames/device?id={PROBE}", cookie=f"session={signed_in(hub, account)}")
    assert sent[0] == "404"
    await task
