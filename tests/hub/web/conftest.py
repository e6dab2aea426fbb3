"""A whole hub application without broker, with devices put in by hand."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from contract.catalog import Kind
from contract.catalog import metric as known
from contract.clock import SystemClock
from hub.alias_tables import GOOD_MARK
from hub.app import create
from hub.config import BroadcastConfig, BrokerConfig, Config, EdgeNodeConfig, HubConfig
from hub.devices import DeviceKey, NodeKey
from hub.presence import DeviceFacts, NodeFacts
from hub.rights.permissions import Role
from hub.rights.scopes import PROVINCE, Scope
from hub.signer import ceremony
from tests.hub.signed_in import account, session

BASE = "http://127.0.0.1:8080"


def fill(hub: Any) -> None:
    """Put a hamlet into live state: a probe and a loudspeaker that work, one of each that does not."""
    now = hub.clock.now_ms()
    node = NodeKey("g", "n-01")
    hub.live.set_node(node, NodeFacts(born=True, since=now - 60_000, heard=now))
    for name, kind, claim in (
        ("probe-01", Kind.WATER_PROBE, "online"),
        ("probe-02", Kind.WATER_PROBE, "silent"),
        ("loa-01", Kind.LOUDSPEAKER, "online"),
        ("loa-02", Kind.LOUDSPEAKER, "unreachable"),
    ):
        state = hub.live.state(DeviceKey("g", "n-01", name))
        state.kind, state.last_seen = kind, now - 5000
        state.facts = DeviceFacts(born=True, since=now - 60_000, claim=claim, claimed=now - 720_000)
        values = (
            {"Water/pH": 7.21, "Water/Temperature": 28.5, "Water/Conductivity": 1410.0}
            if kind is Kind.WATER_PROBE
            else {"Audio/Volume": 60, "Amp/OK": True, "Line/OK": True, "Playback/State": "idle", "Audio/Muted": False}
        )
        for metric, value in values.items():
            declared = known(kind, metric)
            assert declared is not None
            slot = state.slot(metric, declared.datatype, declared.unit)
            slot.at, slot.value, slot.mark = now - 4000, value, GOOD_MARK
    hub.live.touch()


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Any]:
    kept = ceremony.demo(tmp_path / "keys", deployment="d", group="g", nodes=["n-01"], clock=SystemClock())
    config = Config(
        hub=HubConfig(host_id="hub", state_dir=tmp_path, clock="trusted"),
        broker=BrokerConfig(port=1),
        broadcast=BroadcastConfig(signer_socket=tmp_path / "s.sock", roots=[kept.root], bundle=kept.bundle),
        edge_nodes=[
            EdgeNodeConfig(
                group="g",
                id="n-01",
                commune="Xã An Thạnh",
                hamlet="Ấp Bình Hòa",
                identity=kept.identities["n-01"],
            )
        ],
    )
    application = create(config, SystemClock())
    async with application.router.lifespan_context(application):
        fill(application.state.hub)
        yield application


SignIn = Callable[..., httpx.AsyncClient]


@pytest.fixture
async def sign_in(hub: Any) -> AsyncIterator[SignIn]:
    """Return a maker of clients: each is signed in as somebody new who holds the given roles over a place."""
    async with AsyncExitStack() as stack:

        def make(*roles: Role, scope: Scope = PROVINCE, who: Any = None) -> httpx.AsyncClient:
            secret, token = session(hub, who or account(hub, *roles, scope=scope))
            client = httpx.AsyncClient(
                transport=httpx.ASGITransport(hub),
                base_url=BASE,
                cookies={"session": secret},
                headers={"X-Form-Token": token},
            )
            stack.push_async_callback(client.aclose)
            return client

        yield make


@pytest.fixture
def accounts(hub: Any) -> Callable[..., Any]:
    """Return a maker of accounts that hold roles over a place."""

    def make(*roles: Role, scope: Scope = PROVINCE, name: str = "") -> Any:
        return account(hub, *roles, scope=scope, name=name)

    return make


@pytest.fixture
async def cookie(client: httpx.AsyncClient) -> str:
    """Return the header of who is signed in as `client`, for what is sent by hand."""
    return f"session={client.cookies['session']}"


@pytest.fixture
async def client(sign_in: SignIn) -> httpx.AsyncClient:
    """Return a client of somebody who may do everything that has to do with equipment and loudspeakers."""
    return sign_in(Role.OPERATOR, Role.TECHNICIAN, Role.PROVINCE_SUPERVISOR)


@pytest.fixture
async def stranger(hub: Any) -> AsyncIterator[httpx.AsyncClient]:
    """Return a client of nobody."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(hub), base_url=BASE) as one:
        yield one
