"""Boxes, a hub, a broker and strangers in one world whose time is turned by hand; moves happen between two beats."""

import random
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Self

from contract.positions import NODE_STREAM
from hub.devices import NodeKey
from tests.delivery_model.box import HOST, Box
from tests.delivery_model.centre import Centre
from tests.delivery_model.disk import CARDS, Card, Image
from tests.delivery_model.outside import most_held, simulated
from tests.delivery_model.promises import GROUP, START, PromiseBroken, Watch
from tests.delivery_model.shelf import Backup, Shelf
from tests.delivery_model.strangers import ForeignHost, ForeignNode
from tests.delivery_model.truth import Truth
from tests.delivery_model.wire import BROKERS, Broker, Line

MOST_SETTLING = 5400.0
"""Seconds after the last fault by which everything is committed: patience and back-off are at their longest then."""

RAM_FOLDER = Path("/dev/shm")

Move = tuple[str, *tuple[int, ...]]
"""What happens, with small numbers that say to whom and how much."""


class World:
    """Use it with `with`; everything in it follows from the seed and the moves."""

    def __init__(self, seed: int, *, nodes: int = 2) -> None:
        self.chance = random.Random(seed)
        self.seed = seed
        self.most_held = most_held(seed)
        self.now = float(START)
        self.truth = Truth()
        self.happened: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self._names = [f"n-{number + 1:02}" for number in range(nodes)]

    def __enter__(self) -> Self:
        self._outside = simulated(self.seed)
        self._outside.__enter__()
        self.folder = Path(tempfile.mkdtemp(prefix="delivery-", dir=RAM_FOLDER if RAM_FOLDER.is_dir() else None))
        self.broker = Broker(self.chance, lambda: self.now)
        self.broker.happened = self.happened
        self.broker.disturbed = self.disturbed
        self.centre = Centre(self.broker, HOST, [NodeKey(GROUP, one) for one in self._names], self.now_ms)
        self.centre.shelf = Shelf(self.folder / "shelf")
        self.centre.shelf.now = lambda: self.now
        self.boxes = [self._new_box(name) for name in self._names]
        self.backups: list[Backup] = []
        self.images: list[tuple[str, Image]] = []
        self.stranger = ForeignHost(self.broker, HOST, self.now_ms)
        self.foreigner = ForeignNode(self.broker, GROUP, self.now_ms, self.truth.next_serial)
        self.copied: set[str] = set()
        """Nodes of which a card was ever restored or copied."""
        self.shared_epochs: set[int] = set()
        """Epochs that ran when their card was copied: what the hub has of them beyond a copy may be its twin's."""
        self.small_cards: list[Card] = []
        self.hub_restores = 0
        self.disturbed_at = self.now
        self.stale_until = 0.0
        self.watch = Watch(self)
        self.centre.start(self.now)
        for box in self.boxes:
            box.start(self.now)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.centre.kill()
        for box in self.boxes:
            box.kill()
            BROKERS.pop(box.line.name, None)
            CARDS.pop(str(box.card.folder), None)
        self.centre.shelf.close()
        self._outside.__exit__(None, None, None)
        shutil.rmtree(self.folder, ignore_errors=True)

    def now_ms(self) -> int:
        return int(self.now * 1000)

    def _new_box(self, node: str) -> Box:
        number = len(getattr(self, "boxes", ()))
        name = f"{node}@{self.happened['boxes']}"
        self.happened["boxes"] += 1
        card = Card(self.folder / f"card-{self.happened['boxes']}")
        line = Line(name)
        BROKERS[name] = self.broker
        self.broker.lines[name] = line
        CARDS[str(card.folder)] = card
        seed = self.seed * 100 + number
        return Box(name, node, card=card, line=line, truth=self.truth, world_ms=self.now_ms, seed=seed)

    def clone_box(self, node: str, image: Image) -> Box:
        """Bring a second box of a node's id into the world, with a copied card."""
        box = self._new_box(node)
        box.card.become(image)
        self.boxes.append(box)
        return box

    def remove(self, box: Box) -> None:
        """Take a box out of the world; what only its card had is nobody's any more."""
        self.boxes.remove(box)

    def restore_hub(self, which: int) -> None:
        """Put a backup in place of the hub's store: one of those there are, the last number is none at all."""
        chosen = which % (len(self.backups) + 1)
        self.centre.shelf.close()
        backup = self.backups[chosen] if chosen < len(self.backups) else None
        self.happened["shelves"] += 1
        self.centre.shelf = Shelf(self.folder / f"shelf-{self.happened['shelves']}", backup)
        self.centre.shelf.now = lambda: self.now
        self.hub_restores += 1
        self.watch.hub_restored()

    def disturbed(self) -> None:
        """Note that something was wrong until now."""
        self.disturbed_at = self.now

    def beat(self, seconds: float) -> None:
        """Let time pass, and look whether everything is as it must be at any time."""
        self.pass_time(seconds)
        self.stranger.listen()
        self.watch.beat()

    def settle(self) -> None:
        """Let faults stop, and give everybody the time it may take until all is where it belongs."""
        self.stranger.leave()
        self.centre.shelf.down = False
        for box in self.boxes:
            box.mend()
            if not box.on:
                box.start(self.now)
        self.centre.jump(-self.centre.wrong_ms)
        if not self.centre.on:
            self.centre.start(self.now)
        self.disturbed()
        self._drain()
        for box in self.boxes:  # what a running epoch lost is told once it is closed
            box.kill()
            self.broken_line(box.line)
            box.start(self.now)
        self._drain()
        for _ in range(8):  # more than a ledger interval
            self.beat(10)

    def _drain(self) -> None:
        end = self.now + MOST_SETTLING
        steps = 0
        while self.now < end:
            holding = self.centre.ingest.holding
            self.beat(300 if holding else 5 if steps < 30 else 20)
            end += 300 if holding else 0
            steps += 1
            if steps >= 6 and all(one.uplink is not None and not one.uplink.uncommitted() for one in self.boxes):
                return
        late = {one.name: one.uplink.uncommitted() for one in self.boxes if one.uplink is not None}
        raise PromiseBroken(f"records are not committed {MOST_SETTLING:.0f} s after all faults stopped: {late}")

    def pass_time(self, seconds: float) -> None:
        """Let time pass at once, then let everybody do what there is to do."""
        self.now += seconds
        for box in self.boxes:
            if not box.on and box.back_at is not None and self.now >= box.back_at:
                box.start(self.now)  # where the card does not let it, it is tried again
        self.broker.pass_late()
        for _ in range(12):
            moved = False
            for box in self.boxes:
                if not box.on:
                    continue
                moved |= box.turn(self.now)
                if box.card.dead:
                    self.happened["power_cut_in_commit"] += 1
                    box.power_off(self.now)
                    box.back_at = self.now + 10
                    self.broken_line(box.line)
                else:
                    self._alive(box)
            if self.centre.on:
                moved |= self.centre.turn(self.now)
                for error in self.centre.failures():
                    raise PromiseBroken(f"the hub failed: {error!r}") from error
            if not moved:
                break

    def broken_line(self, line: Line) -> None:
        """Let the broker notice that a box is gone."""
        if line.port is not None:
            self.broker.close(line.port)

    @staticmethod
    def _alive(box: Box) -> None:
        for error in box.failures():
            raise PromiseBroken(f"{box.name}: the agent failed: {error!r}") from error

    def read_all(self, share: float) -> None:
        """Let some devices of every running box be read."""
        for box in self.boxes:
            if box.on:
                for stream in (NODE_STREAM, *box.devices):
                    if self.chance.random() < share * (0.3 if stream == NODE_STREAM else 1.0):
                        box.read(stream, self.chance)
