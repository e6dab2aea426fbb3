"""What each failpoint does to a run, and how it is seen to have done it.

Every one writes down what it did, from when to when, and `hit`: whether its effect showed, in what a process wrote or
answered, in bytes that went nowhere, in a file that was there. A failpoint that strikes nothing has not happened.
"""

import asyncio
import shutil
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

from tests.chaos import configs, private
from tests.chaos.announcing import at_rest
from tests.chaos.plan import Step
from tests.chaos.stores import InfluxStore, Store
from tests.chaos.world import (
    BALLAST,
    BOX_MEGABYTES,
    Box,
    Hamlet,
    World,
    configure_box,
    new_box,
    now_ms,
    reached,
    small_disk,
)

FORWARD_MS = 8 * 60_000
"""Beyond the five minutes that the hub believes: such readings go to quarantine until their time has come."""

BACK_MS = (-3_600_000, -20_000)
"""An hour; and so little that instants come again that the log has."""

NARROW_BITS = 128_000
DELAY_SECONDS = 1.5
BORN_WITHIN = 20.0
HIT_WITHIN = 40.0
DRAIN_WITHIN = 150.0
HUB_WITHIN = 60.0
REST_WITHIN = 60.0
SEALS_WITHIN = 100.0


def failpoints(world: World) -> dict[str, Callable[[Step], Awaitable[None]]]:
    """Return what every kind of fault does in this world."""

    def at_box(act: Callable[[World, Hamlet, float], Awaitable[None]]) -> Callable[[Step], Awaitable[None]]:
        async def do(step: Step) -> None:
            assert step.node is not None
            hamlet = world.hamlets[step.node]
            async with hamlet.turn:
                await act(world, hamlet, step.lasts)

        return do

    def at(turn: asyncio.Lock, act: Callable[[World, float], Awaitable[None]]) -> Callable[[Step], Awaitable[None]]:
        async def do(step: Step) -> None:
            async with turn:
                await act(world, step.lasts)

        return do

    at_hub, at_broker = partial(at, world.hub_turn), partial(at, world.broker_turn)
    return {
        "edge_kill": at_box(_edge_kill),
        "edge_disk_full": at_box(_edge_disk_full),
        "edge_clock_forward": at_box(_edge_clock_forward),
        "edge_clock_back": at_box(_edge_clock_back),
        "edge_disk_image": at_box(_edge_disk_image),
        "edge_disk_clone": at_box(_edge_disk_clone),
        "link_cut": at_box(_link_cut),
        "link_delay": at_box(_link_delay),
        "link_128k_tbf": at_box(_link_narrow_by_tbf),
        "link_128k_proxy": at_box(_link_narrow_by_proxy),
        "broker_kill": at_broker(_broker_kill),
        "broker_forgets": at_broker(_broker_forgets),
        "hub_kill": at_hub(_hub_kill),
        "hub_disk_full": at_hub(_hub_disk_full),
        "hub_clock_back": at_hub(_hub_clock_back),
        "hub_restore": at_hub(_hub_restore),
        "store_kill": at_hub(_store_kill),
        "store_kill_sealing": at_hub(_store_kill_sealing),
    }


async def kill_box(world: World, box: Box) -> bool:
    """Cut a box's power and write that down; return whether it lived until then."""
    begin = now_ms()
    lived = await box.process.kill()
    world.note("edge_kill", box.node, begin, hit=lived, box=box.name)
    return lived


async def take_backup(world: World) -> None:
    """Back the hub up while it runs; an older backup is thrown away."""
    if world.backup is not None:
        shutil.rmtree(world.backup, ignore_errors=True)
    world.backup, world.backup_at = world.folder / f"backup-{now_ms()}", now_ms()
    await world.hub_command("backup", world.folder / "hub.toml", world.backup)


async def _edge_kill(world: World, hamlet: Hamlet, lasts: float) -> None:
    await kill_box(world, hamlet.box)
    await asyncio.sleep(lasts)
    await hamlet.box.process.start()


async def _edge_disk_full(world: World, hamlet: Hamlet, lasts: float) -> None:
    # An agent counts its starts on disk: on a full one it does not start.
    started = now_ms()
    await reached(lambda: hamlet.box.status().get("at", 0) > started, BORN_WITHIN)
    process, begin = hamlet.box.process, now_ms()
    since = process.written()
    await asyncio.to_thread(_fill, hamlet.box.state / BALLAST)
    hit = await reached(lambda: "cannot be written" in process.said(since), HIT_WITHIN)
    await asyncio.sleep(lasts)
    (hamlet.box.state / BALLAST).unlink()
    world.note("edge_disk_full", hamlet.node, begin, hit=hit)


async def _edge_clock_forward(world: World, hamlet: Hamlet, lasts: float) -> None:
    await _clock_off(world, hamlet, "edge_clock_forward", FORWARD_MS, lasts)
    world.ahead_until = now_ms() + FORWARD_MS


async def _edge_clock_back(world: World, hamlet: Hamlet, lasts: float) -> None:
    for off in BACK_MS:
        await _clock_off(world, hamlet, "edge_clock_back", off, lasts)


async def _clock_off(world: World, hamlet: Hamlet, kind: str, off_ms: int, lasts: float) -> None:
    box, begin = hamlet.box, now_ms()
    box.clock_file.write_text(str(off_ms), encoding="ascii")
    hit = await reached(lambda: abs(box.status().get("at", 0) - now_ms() - off_ms) < 5000, HIT_WITHIN)
    await asyncio.sleep(lasts)
    box.clock_file.unlink()
    world.note(kind, hamlet.node, begin, hit=hit, off_ms=off_ms)


async def _edge_disk_image(world: World, hamlet: Hamlet, lasts: float) -> None:
    """Put the box's disk back to what it was; what the box had measured and played since, the hub has by then."""
    async with hamlet.voice:
        if await reached(partial(at_rest, world, hamlet), REST_WITHIN):
            await _put_back(world, hamlet, lasts)


async def _put_back(world: World, hamlet: Hamlet, lasts: float) -> None:
    box = hamlet.box
    if hamlet.image is None:
        await _copy_disk(world, hamlet, lasts)
        await box.until_born(BORN_WITHIN)
        await asyncio.sleep(lasts)
    hamlet.quiet.touch()
    asked = now_ms() + 2000
    drained = await reached(lambda: is_drained(box, asked), DRAIN_WITHIN)
    if drained:
        begin = now_ms()
        await kill_box(world, box)
        await asyncio.to_thread(shutil.rmtree, box.state / "state")
        assert hamlet.image is not None
        await asyncio.to_thread(shutil.copytree, hamlet.image, box.state / "state")
        await box.process.start()
        world.backup = None  # from now on only the hub has what the disk has lost
        world.note("edge_disk_image", hamlet.node, begin, hit=True)
    hamlet.quiet.unlink()


def is_drained(box: Box, since: int) -> bool:
    """Return whether a box said after an instant that the hub has everything."""
    told = box.status()
    return bool(told.get("born")) and told["uncommitted"] == 0 and told["at"] > since


async def _copy_disk(world: World, hamlet: Hamlet, lasts: float) -> None:
    """Keep a copy of the box's disk, made while the box has no power."""
    await kill_box(world, hamlet.box)
    hamlet.image = world.folder / "images" / f"{hamlet.node}-{now_ms()}"
    await asyncio.to_thread(shutil.copytree, hamlet.box.state / "state", hamlet.image)
    await asyncio.sleep(lasts)
    await hamlet.box.process.start()


async def _edge_disk_clone(world: World, hamlet: Hamlet, lasts: float) -> None:
    """Let a second box run with a copy of this one's disk; then it loses its power, and has it back at the end."""
    await _copy_disk(world, hamlet, 0)
    double = new_box(world, hamlet.node, f"{hamlet.node}-double", hamlet.network)
    await small_disk(double.state, BOX_MEGABYTES)
    assert hamlet.image is not None
    await asyncio.to_thread(shutil.copytree, hamlet.image, double.state / "state")
    configure_box(world, hamlet, double)
    begin, since = now_ms(), {one.process: one.process.written() for one in (hamlet.box, double)}
    await double.process.start()
    hamlet.double = double
    born = await double.until_born(HIT_WITHIN)
    back = await hamlet.box.until_born(HIT_WITHIN)
    lost = ["is lost" in process.said(mark) for process, mark in since.items()]
    await asyncio.sleep(lasts)
    await kill_box(world, double)
    world.note("edge_disk_clone", hamlet.node, begin, hit=born and back and any(lost))


async def _link_cut(world: World, hamlet: Hamlet, lasts: float) -> None:
    await hamlet.box.until_born(BORN_WITHIN)
    link, begin = hamlet.link, now_ms()
    before = link.swallowed + link.refused
    link.cut()
    await asyncio.sleep(lasts + configs.KEEP_ALIVE)
    link.mend()
    world.note("link_cut", hamlet.node, begin, hit=link.swallowed + link.refused > before)


async def _link_delay(world: World, hamlet: Hamlet, lasts: float) -> None:
    await hamlet.box.until_born(BORN_WITHIN)
    link, begin = hamlet.link, now_ms()
    before = link.passed
    link.delay = DELAY_SECONDS
    await asyncio.sleep(lasts + DELAY_SECONDS)
    link.delay = 0.0
    world.note("link_delay", hamlet.node, begin, hit=link.passed > before)


async def _link_narrow_by_tbf(world: World, hamlet: Hamlet, lasts: float) -> None:
    begin = now_ms()
    await hamlet.network.narrow(NARROW_BITS)
    await _owing(hamlet, lasts)
    waited = await hamlet.network.widen()
    world.note("link_128k_tbf", hamlet.node, begin, hit=waited > 0)


async def _link_narrow_by_proxy(world: World, hamlet: Hamlet, lasts: float) -> None:
    link, begin = hamlet.link, now_ms()
    before = link.passed
    link.bits_a_second = NARROW_BITS
    await _owing(hamlet, lasts)
    link.bits_a_second = 0
    world.note("link_128k_proxy", hamlet.node, begin, hit=link.passed > before)


async def _owing(hamlet: Hamlet, lasts: float) -> None:
    """Let a box fall behind, so that it has much to send at once."""
    hamlet.link.cut()
    await asyncio.sleep(2 * lasts)
    hamlet.link.mend()
    back = now_ms() + 4000
    await reached(lambda: hamlet.box.status().get("born") and hamlet.box.status()["at"] > back, BORN_WITHIN)
    await asyncio.sleep(lasts)


async def _broker_kill(world: World, lasts: float) -> None:
    begin = now_ms()
    lived = await world.broker.kill()
    await asyncio.sleep(lasts / 2)
    await world.broker.start()
    world.note("broker_kill", None, begin, hit=lived)


async def _broker_forgets(world: World, lasts: float) -> None:
    begin = now_ms()
    memory = world.folder / "broker" / "mosquitto.db"
    await world.broker.kill()
    knew = memory.exists()
    memory.unlink(missing_ok=True)
    await asyncio.sleep(lasts / 2)
    await world.broker.start()
    world.note("broker_forgets", None, begin, hit=knew)


async def _hub_kill(world: World, lasts: float) -> None:
    begin = now_ms()
    lived = await world.hub.kill()
    await asyncio.sleep(lasts / 2)
    await world.hub.start()
    world.note("hub_kill", None, begin, hit=lived)
    await reached(world.hub_answers, HUB_WITHIN)


async def _hub_disk_full(world: World, lasts: float) -> None:
    async def held() -> bool:
        told = await world.get("/readyz")
        return told is not None and str(told.get("acknowledgements")).startswith("held")

    begin = now_ms()
    await asyncio.to_thread(_fill, world.hub_state / BALLAST)
    hit = await reached(held, HIT_WITHIN)
    await asyncio.sleep(lasts)
    (world.hub_state / BALLAST).unlink()
    world.note("hub_disk_full", None, begin, hit=hit)


async def _hub_clock_back(world: World, lasts: float) -> None:
    """Start the hub anew with a clock that is an hour behind, and after a while with the right one."""

    async def held() -> bool:
        told = await world.get("/readyz")
        return told is not None and "clock" in str(told.get("acknowledgements"))

    begin, clock = now_ms(), world.folder / "hub.clock"
    await world.hub.kill()
    clock.write_text(str(BACK_MS[0]), encoding="ascii")
    await world.hub.start()
    hit = await reached(held, HUB_WITHIN)
    await asyncio.sleep(lasts)
    await world.hub.kill()
    clock.unlink()
    await world.hub.start()
    world.note("hub_clock_back", None, begin, hit=hit)
    await reached(world.hub_answers, HUB_WITHIN)


async def _hub_restore(world: World, lasts: float) -> None:
    """Lose the hub's disk while boxes send; put the newest backup in its place."""
    if world.backup is None:
        await take_backup(world)
        await asyncio.sleep(lasts)
    assert world.backup is not None
    begin = now_ms()
    await world.hub.kill()
    await asyncio.to_thread(shutil.rmtree, world.hub_state / "state")
    await asyncio.sleep(lasts / 2)
    await world.hub_command("restore", world.folder / "hub.toml", world.backup)
    await world.hub.start()
    hit = await reached(world.hub_answers, HUB_WITHIN)
    world.restored_at = now_ms()
    world.note("hub_restore", None, begin, hit=hit, backup_age_ms=begin - world.backup_at)


async def _store_kill(world: World, lasts: float) -> None:
    """Kill the store: a server of its own, or the hub in the midst of a commit."""
    begin = now_ms()
    if world.store.processes:
        (server,) = world.store.processes
        hit = await server.kill()
        await asyncio.sleep(lasts)
        await server.start()
    else:
        wal = world.hub_state / "state" / "store.db-wal"
        hit = await _changes(wal, HIT_WITHIN)
        await world.hub.kill()
        await world.hub.start()
    world.note("store_kill", None, begin, hit=hit)
    await reached(world.hub_answers, HUB_WITHIN)


async def _store_kill_sealing(world: World, lasts: float) -> None:
    """Kill the hub while it seals: what it took in is made an hour older while it is dead, so that sealing is due."""
    begin = now_ms()
    await world.hub.kill()
    state = world.hub_state / "state"
    with closing(sqlite3.connect(state / "store.db")) as database, database:
        database.execute("UPDATE inbox SET received_at = received_at - 3600000")
    await asyncio.sleep(lasts / 2)
    await world.hub.start()
    await reached(world.hub_answers, HUB_WITHIN)
    hit = await _changes(state / "segments", SEALS_WITHIN)
    await world.hub.kill()
    world.note("store_kill_sealing", None, begin, hit=hit)
    await world.hub.start()
    await reached(world.hub_answers, HUB_WITHIN)


async def _changes(file: Path, within: float) -> bool:
    """Wait until a file is written to, looking every millisecond or so."""

    def mark() -> tuple[int, int] | None:
        with suppress(FileNotFoundError):
            told = file.stat()
            return told.st_mtime_ns, told.st_size
        return None

    before, until = mark(), asyncio.get_running_loop().time() + within
    while mark() == before:
        if asyncio.get_running_loop().time() > until:
            return False
        await asyncio.sleep(0.001)
    return True


def _fill(file: Path) -> None:
    """Write until nothing more fits."""
    with file.open("wb", buffering=0) as out:
        for size in (65_536, 512):
            with suppress(OSError):
                while True:
                    out.write(bytes(size))


def impossible(store: Store) -> dict[str, str]:
    """Return which failpoints cannot be had in this run, and why."""
    own = "needs a file system and a network of its own: root, or a kernel that gives users namespaces"
    without = {} if private.inside() else dict.fromkeys(("edge_disk_full", "hub_disk_full", "link_128k_tbf"), own)
    sealing = (
        {"store_kill_sealing": "is of the embedded store: only that seals"} if isinstance(store, InfluxStore) else {}
    )
    return {**without, **sealing}
