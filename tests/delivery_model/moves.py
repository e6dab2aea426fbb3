"""What can happen to a world: a name and what it does with small numbers, which say to whom and how much.

A move that makes no sense in the state it meets (a box that is off cannot be killed) does nothing, so that moves can
be left out of a schedule and the rest still stands.
"""

import random
from collections.abc import Callable, Mapping, Sequence

from contract.positions import NODE_STREAM
from tests.delivery_model.box import CONFIGURATIONS, Box
from tests.delivery_model.world import Move, World

HOUR = 3600.0
MOST_BOXES = 4


def _box(world: World, number: int) -> Box:
    return world.boxes[number % len(world.boxes)]


def beats(world: World, count: int, seconds: int) -> None:
    """Let ordinary time pass, with readings."""
    for _ in range(count):
        world.read_all(0.5)
        world.beat(seconds)


def leap(world: World, hours: int, steps: int) -> None:
    """Let hours pass in a few steps, with a reading here and there."""
    for _ in range(steps):
        world.read_all(0.6)
        world.beat(hours * HOUR / steps)
        world.beat(2)
        world.beat(6)


def weeks(world: World, days: int, steps: int) -> None:
    """Let days pass in a few steps, with a reading at each."""
    leap(world, 24 * days, steps)


def small_card(world: World, number: int, kilobytes: int) -> None:
    """The log may take less room from now on, and the agent is restarted."""
    box = _box(world, number)
    box.budget = kilobytes * 1000
    world.small_cards.append(box.card)
    box.kill()
    world.broken_line(box.line)
    box.start(world.now)


def kill(world: World, number: int, down: int) -> None:
    """The agent is killed; what it had in memory is gone. The broker notices at once."""
    box = _box(world, number)
    if box.on:
        box.kill()
        world.broken_line(box.line)
        _down(world, box, down)


def restarts(world: World, number: int, count: int) -> None:
    """The agent starts again and again while nobody can be reached."""
    box = _box(world, number)
    world.broken_line(box.line)
    box.line.up = False
    for _ in range(count):
        world.beat(1)
        world.read_all(0.7)
        world.beat(12)
        if box.on:
            box.kill()
        box.start(world.now)
    box.line.up = True


def stop(world: World, number: int) -> None:
    """The agent is told to end, and ends in order."""
    box = _box(world, number)
    if box.on and box.uplink is not None and box.loop is not None:
        ending = box.loop.create_task(box.uplink.end(5.0))
        for _ in range(8):
            if not ending.done():
                world.beat(1)
        if box.on and box.log is not None:
            world.beat(1)
        if box.on and box.log is not None:
            box.leave()
            _down(world, box, 1)


def power(world: World, number: int, down: int, commit: int, after: int) -> None:
    """The power fails, now or in the middle of a commit that is to come; the broker notices much later."""
    box = _box(world, number)
    if not box.on:
        return
    if commit:
        box.card.cut_at, box.card.cut_after = commit, bool(after)
        return
    box.power_off(world.now)
    _down(world, box, down)
    world.broken_line(box.line)


def wipe(world: World, number: int) -> None:
    """Somebody deletes the log; the box starts with none."""
    box = _box(world, number)
    box.power_off(world.now)
    world.broken_line(box.line)
    box.card.wipe()
    box.start(world.now)


def image(world: World, number: int) -> None:
    """Somebody copies the card."""
    box = _box(world, number)
    if len(world.images) < 6 and box.card.folder.exists():
        if box.log is not None:
            world.shared_epochs.add(box.log.epoch)
        world.images.append((box.node, box.card.image(world.folder / f"image-{len(world.images)}")))


def restore(world: World, number: int, which: int) -> None:
    """A box's card is overwritten with an image of its own earlier life."""
    box = _box(world, number)
    mine = [one for node, one in world.images if node == box.node]
    if mine:
        box.power_off(world.now)
        world.broken_line(box.line)
        box.card.become(mine[which % len(mine)])
        world.copied.add(box.node)
        box.start(world.now)


def clone(world: World, which: int, ahead: int) -> None:
    """An image is written to the card of a second box, which starts with the id of the first."""
    if world.images and len(world.boxes) < MOST_BOXES:
        node, found = world.images[which % len(world.images)]
        box = world.clone_box(node, found)
        world.copied.add(node)
        box.wrong_ms = ahead
        box.start(world.now)


def retire(world: World, number: int) -> None:
    """A box is taken out of service for good; only one of those with a double."""
    box = _box(world, number)
    if sum(one.node == box.node for one in world.boxes) > 1:
        box.power_off(world.now)
        world.broken_line(box.line)
        world.remove(box)


def disk_full(world: World, number: int, count: int) -> None:
    """A card takes nothing for a while."""
    _refusing(world, number, count, full=True)


def disk_read_only(world: World, number: int, count: int) -> None:
    """A card turns read-only for a while."""
    _refusing(world, number, count, full=False)


def _refusing(world: World, number: int, count: int, *, full: bool) -> None:
    card = _box(world, number).card
    card.full, card.read_only = full, not full
    beats(world, count, 5)
    card.full = card.read_only = False


def devices(world: World, number: int, which: int) -> None:
    """The configuration is changed, and the agent restarted."""
    box = _box(world, number)
    box.configuration = which % len(CONFIGURATIONS)
    box.kill()
    world.broken_line(box.line)
    box.start(world.now)


def clock(world: World, number: int, seconds: int, back: int) -> None:
    """A box's clock is set forward or back while it runs."""
    _box(world, number).jump(seconds * (-1000 if back else 1000))


def collide(world: World, number: int, count: int) -> None:
    """Several reads of one device happen at one instant, and at one long gone."""
    box = _box(world, number)
    if box.on:
        for stream in (*box.devices, NODE_STREAM)[:2]:
            at = box.clock.now_ms()
            for step in range(count):
                box.read(stream, world.chance, at if step % 3 else at - 5000)
        world.beat(1)


def burst(world: World, number: int, count: int) -> None:
    """A device talks a lot."""
    box = _box(world, number)
    if box.on:
        for stream in list(box.devices)[:1]:
            at = box.clock.now_ms()
            for step in range(count):
                box.read(stream, world.chance, at - 10 * step)
        world.beat(1)


def cut(world: World, number: int, silent: int, count: int) -> None:
    """The line is cut; silently, nobody notices at first."""
    line = _box(world, number).line
    if silent:
        line.silent = True
        beats(world, silent, 5)
        line.silent = False
    world.broken_line(line)
    line.up = False
    beats(world, count, 5)
    line.up = True


def cut_in_message(world: World, number: int, at: int, delivered: int) -> None:
    """The line is cut while the box sends the n-th message from now."""
    line = _box(world, number).line
    line.cut_at, line.cut_delivers = at + 1, bool(delivered)


def lose_answers(world: World, number: int, count: int) -> None:
    """The next answers get lost."""
    _box(world, number).line.lose_down += count


def twice_answers(world: World, number: int, count: int) -> None:
    """The next answers come twice."""
    _box(world, number).line.twice_down += count


def late_answers(world: World, number: int, seconds: int, count: int) -> None:
    """Answers come late for a while."""
    line = _box(world, number).line
    line.late_down = float(seconds)
    beats(world, count, 5)
    line.late_down = 0.0


def stale_answer(world: World, number: int, which: int) -> None:
    """An answer from long ago comes again."""
    if world.broker.again(_box(world, number).line, which):
        world.stale_until = world.now + 130
        world.beat(1)


def lose_data(world: World, number: int, count: int) -> None:
    """The next messages to the hub get lost."""
    _box(world, number).line.lose_up += count


def twice_data(world: World, number: int, count: int) -> None:
    """The next messages to the hub come twice."""
    _box(world, number).line.twice_up += count


def slow(world: World, number: int, tenths: int, count: int) -> None:
    """The line is slow: a message takes its time."""
    line = _box(world, number).line
    line.seconds_a_message = tenths / 10
    beats(world, count, 2)
    line.seconds_a_message = 0.0


def broker_restart(world: World, keeps: int) -> None:
    """The broker is restarted, with or without what it kept."""
    world.broker.restart(keeps=bool(keeps))


def hub_kill(world: World, count: int) -> None:
    """The hub is killed and started again later."""
    world.centre.kill()
    beats(world, count, 5)
    world.centre.start(world.now)


def backup(world: World) -> None:
    """The hub's store is backed up."""
    if len(world.backups) < 4:
        world.backups.append(world.centre.shelf.backup(world.folder / f"backup-{len(world.backups)}"))


def hub_restore(world: World, which: int, count: int) -> None:
    """The hub's store is lost and restored from a backup, or begun anew."""
    world.centre.kill()
    beats(world, count, 5)
    world.restore_hub(which)
    world.centre.start(world.now)


def store_down(world: World, count: int) -> None:
    """The store commits nothing for a while."""
    world.centre.shelf.down = True
    beats(world, count, 5)
    world.centre.shelf.down = False


def hub_clock(world: World, seconds: int, back: int, restart: int) -> None:
    """The hub's clock is set, perhaps with a restart; later it is set right."""
    centre = world.centre
    jump = seconds * (-1000 if back else 1000)
    if restart:
        centre.kill()
    centre.jump(jump)
    if restart:
        centre.start(world.now)
    beats(world, 6, 5)
    centre.jump(-jump)


def foreign_host(world: World, count: int, number: int, killed: int) -> None:
    """Another host, which knows no ledgers, is there in place of the hub; meanwhile an agent may be killed."""
    world.centre.kill()
    world.stranger.arrive()
    for step in range(count):
        world.read_all(0.3)
        world.beat(20)
        if step == killed - 1:
            kill(world, number, 0)
    world.stranger.leave()
    world.centre.start(world.now)


def foreign_node(world: World, count: int) -> None:
    """Another maker's edge node is born and talks."""
    for _ in range(count):
        world.foreigner.talk()
        world.beat(2)


def _down(world: World, box: Box, count: int) -> None:
    beats(world, count, 5)
    if not box.on and box in world.boxes:
        box.start(world.now)


FAULTS: Mapping[str, tuple[Callable[..., None], Sequence[tuple[int, int]]]] = {
    "kill": (kill, ((0, 3), (0, 4))),
    "stop": (stop, ((0, 3),)),
    "power": (power, ((0, 3), (0, 4), (0, 4), (0, 1))),
    "wipe": (wipe, ((0, 3),)),
    "image": (image, ((0, 3),)),
    "restore": (restore, ((0, 3), (0, 5))),
    "clone": (clone, ((0, 5), (-2, 2))),
    "retire": (retire, ((0, 3),)),
    "disk_full": (disk_full, ((0, 3), (1, 8))),
    "disk_read_only": (disk_read_only, ((0, 3), (1, 6))),
    "devices": (devices, ((0, 3), (0, 4))),
    "clock": (clock, ((0, 3), (1, 7200), (0, 1))),
    "collide": (collide, ((0, 3), (2, 5))),
    "burst": (burst, ((0, 3), (5, 40))),
    "cut": (cut, ((0, 3), (0, 6), (0, 8))),
    "cut_in_message": (cut_in_message, ((0, 3), (0, 12), (0, 1))),
    "lose_answers": (lose_answers, ((0, 3), (1, 4))),
    "twice_answers": (twice_answers, ((0, 3), (1, 4))),
    "late_answers": (late_answers, ((0, 3), (3, 90), (1, 8))),
    "stale_answer": (stale_answer, ((0, 3), (0, 59))),
    "lose_data": (lose_data, ((0, 3), (1, 5))),
    "twice_data": (twice_data, ((0, 3), (1, 4))),
    "slow": (slow, ((0, 3), (2, 40), (2, 8))),
    "broker_restart": (broker_restart, ((0, 1),)),
    "hub_kill": (hub_kill, ((0, 6),)),
    "backup": (backup, ()),
    "hub_restore": (hub_restore, ((0, 4), (0, 4))),
    "store_down": (store_down, ((1, 8),)),
    "hub_clock": (hub_clock, ((10, 7200), (0, 1), (0, 1))),
    "foreign_host": (foreign_host, ((1, 15), (0, 3), (0, 8))),
    "restarts": (restarts, ((0, 3), (2, 9))),
    "foreign_node": (foreign_node, ((1, 4),)),
    "weeks": (weeks, ((1, 75), (1, 4))),
    "small_card": (small_card, ((0, 3), (40, 200))),
    "leap": (leap, ((1, 30), (1, 4))),
}
"""Every kind of fault with the numbers it takes, each from and to."""

MOVES: Mapping[str, Callable[..., None]] = {"beats": beats, **{name: act for name, (act, _) in FAULTS.items()}}

OFTEN = {"kill": 3, "power": 3, "image": 2, "backup": 2, "clone": 2, "restore": 2, "hub_restore": 2, "leap": 0.7}


NEEDED = {"retire": "clone", "clone": "image", "restore": "image", "hub_restore": "backup", "small_card": "weeks"}
"""What a fault makes no sense without."""


def generate(seed: int, chosen: Sequence[str] = ()) -> list[Move]:
    """Return a schedule: a few kinds of faults, drawn by lot unless they are chosen, in any order, time between."""
    chance = random.Random(seed)
    kinds = [*chosen] or chance.sample(list(FAULTS), chance.randint(2, 10))
    for then, first in NEEDED.items():
        if then in kinds and first not in kinds:
            kinds.append(first)
    weights = [OFTEN.get(one, 1.0) for one in kinds]
    moves: list[Move] = [("beats", chance.randint(2, 8), chance.choice((1, 5, 10)))]
    for _ in range(chance.randint(3, 11)):
        kind = chance.choices(kinds, weights)[0]
        moves.append((kind, *(chance.randint(low, high) for low, high in FAULTS[kind][1])))
        moves.append(("beats", chance.randint(0, 4), chance.choice((1, 5, 5, 10, 20))))
    return moves


def perform(world: World, move: Move) -> None:
    name, *numbers = move
    if name != "beats":
        world.faults[name] += 1
        world.disturbed()
    MOVES[name](world, *numbers)
    if name != "beats":
        world.disturbed()
