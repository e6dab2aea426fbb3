"""The hub put together: opens store, broker line, ingest and announcements, and serves pages and API over them."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

from fastapi import FastAPI

from contract.broadcast import Bundle, next_root, pinned_root, verified
from contract.clock import Clock
from hub import announcements, api, broker, chosen, doors, ingest, web
from hub.api import problems
from hub.asking import Asking
from hub.audio import AudioStore
from hub.audit_heads import keep_heads
from hub.border import Border
from hub.commands import Commands
from hub.config import BroadcastConfig, Config, EdgeNodeConfig
from hub.costly_answers import CostlyAnswers
from hub.counters import Counters
from hub.devices import NodeKey
from hub.exports import Exports
from hub.given import Hub
from hub.housekeeping import keep_house
from hub.live_state import LiveState
from hub.people.reception import open_reception
from hub.places import Places
from hub.quarantine import Quarantine
from hub.signer.client import SignerClient
from hub.storage.announcements import AnnouncementStore
from hub.storage.audit import Audit
from hub.storage.commands import CommandStore
from hub.storage.database import open_database
from hub.trust import Trust, identity

log = logging.getLogger(__name__)


def create(config: Config, clock: Clock) -> FastAPI:
    """Return the application; everything it needs is opened when it starts and closed when it ends."""

    @asynccontextmanager
    async def life(application: FastAPI) -> AsyncIterator[None]:
        with ExitStack() as files:
            hub = _open(config, clock, files)
            application.state.hub = hub
            application.state.frames = web.frames_for(hub)
            running = [
                asyncio.create_task(hub.broker.run(), name="broker"),
                asyncio.create_task(hub.ingest.run(), name="ingest"),
                asyncio.create_task(hub.commands.run(), name="commands"),
                asyncio.create_task(keep_house(hub.store, clock, lambda: hub.ingest.holding), name="housekeeping"),
            ]
            if config.audit.heads_file is not None:
                keeping = keep_heads(hub.audit, config.audit.heads_file, clock)
                running.append(asyncio.create_task(keeping, name="audit heads"))
            if hub.announcements is not None:
                running.append(asyncio.create_task(hub.announcements.run(), name="announcements"))
            for task in running:
                task.add_done_callback(partial(_say_if_it_died, hub))
            try:
                yield
            finally:
                hub.closing.set()
                for task in reversed(running):
                    task.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await task

    application = FastAPI(
        title="Smart Hamlet", version="1", lifespan=life, docs_url=None, redoc_url=None, openapi_url=None
    )
    problems.install(application)
    for router in api.ROUTERS:
        application.include_router(router)
    web.install(application)
    doors.check(application)
    application.add_middleware(Border, names=config.hub.names)
    return application


def _open(config: Config, clock: Clock, files: ExitStack) -> Hub:
    folder, counters, places = config.hub.state_dir, Counters(), Places(config.edge_nodes)
    database = files.enter_context(contextlib.closing(open_database(folder / "hub.db", "hub")))
    audit = Audit(database)
    live = LiveState(clock, places.nodes)
    store = files.enter_context(chosen.store(config, lambda key: live.state(key).kind))
    line = broker.Broker(_broker_settings(config), state_file=folder / "host-state", clock=clock)
    audio = AudioStore(folder / "audio")
    spoken: announcements.Announcements | None = None
    if config.broadcast is not None:
        spoken = announcements.Announcements(
            store=AnnouncementStore(database, audit),
            readings=store,
            audio=audio,
            signer=SignerClient(config.broadcast.signer_socket),
            trust=trust_of(config.broadcast, config.edge_nodes),
            publish=line.publish,
            clock=clock,
        )
    news: list[Callable[[], None]] = [] if spoken is None else [spoken.outcomes_came]
    intake = ingest.Ingest(
        broker=line,
        store=store,
        live=live,
        clock=clock,
        counters=counters,
        settings=ingest.Settings(reorder_seconds=config.broker.reorder_seconds, ask_kernel=config.hub.clock == "ntp"),
        on_hello=spoken.hello if spoken else lambda node, raw: None,
        on_events=partial(_tell, news),
    )
    commands = Commands(
        store=CommandStore(database, audit), readings=store, publish=line.publish, online=intake.born, clock=clock
    )
    news.append(commands.outcomes_came)
    return Hub(
        config=config,
        clock=clock,
        store=store,
        live=live,
        places=places,
        broker=line,
        ingest=intake,
        counters=counters,
        audio=audio,
        ask=files.enter_context(Asking()),
        exports=files.enter_context(Exports()),
        days=CostlyAnswers(clock),
        audit=audit,
        reception=open_reception(database, audit, folder, clock),
        announcements=spoken,
        commands=commands,
        quarantine=Quarantine(store=store, live=live, committing=intake.committing, clock=clock),
    )


def trust_of(config: BroadcastConfig, nodes: list[EdgeNodeConfig]) -> Trust:
    """Return the trust that files hold, its signatures verified; raise BroadcastRefused with the reason."""
    chain = [_text(one) for one in config.roots]
    root = pinned_root(chain[0])
    for successor in chain[1:]:
        root = next_root(root, successor)
    raw = _text(config.bundle)
    bundle = verified(Bundle, raw, root.keys, threshold=root.threshold)
    identities = {NodeKey(one.group, one.id): identity(one.identity) for one in nodes if one.identity is not None}
    return Trust(bundle_raw=raw, bundle=bundle, roots=chain, identities=identities)


def _broker_settings(config: Config) -> broker.Settings:
    password = config.broker.password_file
    return broker.Settings(
        host=config.broker.host,
        port=config.broker.port,
        host_id=config.hub.host_id,
        keep_alive=config.broker.keep_alive_seconds,
        username=config.broker.username,
        password=_text(password).rstrip("\r\n") if password else None,
    )


def _tell(news: Sequence[Callable[[], None]]) -> None:
    for came in news:
        came()


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _say_if_it_died(hub: Hub, task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and task.exception() is not None:
        hub.ended.append(task.get_name())
        log.critical("%s ended: the hub does not work without it", task.get_name(), exc_info=task.exception())
