"""One run: faults by the plan, then quiet until everything is delivered, then the judge."""

import asyncio
import json
import shutil
import sys
from collections.abc import Collection
from functools import partial
from pathlib import Path

from tests.chaos import configs
from tests.chaos.announcing import Announcer
from tests.chaos.failpoints import failpoints, is_drained, take_backup
from tests.chaos.plan import Cycle, halfway, planned
from tests.chaos.stores import Store
from tests.chaos.world import RunFailed, World, now_ms, reached, running

DRAIN_SECONDS = 420.0
LEDGER_MS = 65_000
"""So long after a hub was restored a box may still believe what the hub before it had said: until the next ledger."""

BELIEVED_AHEAD_MS = 300_000
"""The hub believes instants that are so far ahead of it."""

DAY_MS = 86_400_000
BREATH_SECONDS = 3.0
JUDGE = Path(__file__).with_name("judge.py")


def say(what: str) -> None:
    """Tell the person who waits."""
    print(f"chaos: {what}", file=sys.stderr, flush=True)  # noqa: T201


async def run(
    folder: Path, *, cycles: int, seed: int, kinds: Collection[str], store: Store, backup_age: float
) -> tuple[int, str]:
    """Do it all in a folder; return the judge's exit status and the line it printed.

    The backup that hubs are restored from is at least `backup_age` seconds old, and boxes measure on meanwhile.
    """
    plan = planned(seed, cycles, kinds, configs.NODES)
    folder.mkdir(parents=True, exist_ok=True)
    say(f"{cycles} cycles, seed {seed}, in {folder}")
    async with running(folder, seed=seed, store=store) as world:
        told = configs.run_json(cycles=cycles, kinds=sorted(kinds), store=store.name)
        (folder / "run.json").write_text(told, encoding="utf-8")
        acts, announcer = failpoints(world), Announcer(world, seed)
        for number, cycle in enumerate(plan):
            if number == halfway(cycles) and "hub_restore" in kinds:
                await take_backup(world)
                await asyncio.sleep(backup_age)
            say(f"cycle {number + 1}: {', '.join(_words(cycle))}")

            async def one(place: int, cycle: Cycle = cycle) -> None:
                await asyncio.sleep(cycle[place].after)
                await acts[cycle[place].kind](cycle[place])

            async with asyncio.TaskGroup() as steps:
                for place in range(len(cycle)):
                    steps.create_task(one(place))
                for node, after in announcer.whom():
                    steps.create_task(announcer.announce(world.hamlets[node], after))
            await asyncio.sleep(BREATH_SECONDS)
        say("no more faults; the devices fall silent")
        for hamlet in world.hamlets.values():
            hamlet.quiet.touch()
        drained = await _drained(world)
        await _judge_again(world)
        await _export(world)
        ended = [
            f"{one.name} ended by itself: {one.ended_by_itself}" for one in world.processes() if one.ended_by_itself
        ]
        await _keep_stores(world)
    for sentence in (*drained, *ended):
        say(sentence)
    status, line = await _judged(folder)
    return (status or 1 if drained or ended else status), line


def _words(cycle: Cycle) -> list[str]:
    return [f"{one.kind} of {one.node}" if one.node else one.kind for one in cycle]


async def _drained(world: World) -> list[str]:
    """Wait until every box says that the hub has everything; return a sentence for each that does not."""
    quiet = max(now_ms() + 2000, world.restored_at + LEDGER_MS)
    late = []
    for hamlet in world.hamlets.values():
        if not await reached(partial(is_drained, hamlet.box, quiet), DRAIN_SECONDS):
            told = hamlet.box.status()
            late.append(f"{hamlet.node} did not say within {DRAIN_SECONDS:.0f} s that everything is delivered: {told}")
    doubles = [one for one in world.hamlets.values() if one.double is not None]
    for hamlet in doubles:
        await hamlet.box.process.stop(40)
        assert hamlet.double is not None
        await hamlet.double.process.start()
    for hamlet in doubles:
        double = hamlet.double
        assert double is not None
        since = now_ms()
        if not await reached(partial(is_drained, double, since), DRAIN_SECONDS):
            late.append(f"{double.name} did not deliver what its disk held: {double.status()}")
    return late


async def _judge_again(world: World) -> None:
    """Have the hub look again at what it put aside because its time could not be, once that time can be."""

    async def acknowledges() -> bool:
        told = await world.get("/readyz")
        return told is not None and bool(told.get("ready"))

    await asyncio.sleep(max(0, world.ahead_until - BELIEVED_AHEAD_MS + 1000 - now_ms()) / 1000)
    if not await reached(acknowledges, DRAIN_SECONDS):
        raise RunFailed(f"the hub does not acknowledge: {await world.get('/readyz')}")
    say(f"quarantine: {await world.hub_command('quarantine', 'retry', world.folder / 'hub.toml')}")


async def _export(world: World) -> None:
    url = f"http://127.0.0.1:{world.hub_port}/api/samples.csv"
    if await world.get("/api/devices") is None:
        raise RunFailed("the hub lets nobody in; see hub.log")
    asked = {"from": str(now_ms() - DAY_MS), "to": str(now_ms() + DAY_MS), "group": configs.GROUP}
    async with world.http.get(url, params=asked, headers=world.signed_in.headers) as answer:
        answer.raise_for_status()
        with (world.folder / "samples.csv").open("wb") as out:
            async for piece in answer.content.iter_chunked(65_536):
                out.write(piece)


async def _keep_stores(world: World) -> None:
    """Copy what stood on disks that vanish, for whoever must find out why."""
    kept = world.folder / "after"
    for box in world.boxes():
        await asyncio.to_thread(shutil.copytree, box.state, kept / box.name)
    await asyncio.to_thread(shutil.copytree, world.hub_state, kept / "hub")


async def _judged(folder: Path) -> tuple[int, str]:
    # Isolated: what is not Python's own cannot be imported.
    judge = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-S", JUDGE, folder, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await judge.communicate()
    line = out.decode().strip()
    if not line:
        raise RuntimeError(f"the judge said nothing and ended with status {judge.returncode}")
    json.loads(line)
    return judge.returncode or 0, line
