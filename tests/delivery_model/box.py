"""One edge node as a process: the real log, accounts, sender, session and uplink on a simulated card and line."""

import contextlib
import random
import sqlite3
from collections.abc import Callable, Mapping, Sequence

from contract.catalog import CATALOG, Kind
from contract.metrics import DataType, Metric, Sample, Value
from contract.positions import NODE_STREAM
from edge.broker import BrokerLost, Server
from edge.delivery_log import BUDGET
from edge.sender import DeviceBirth
from edge.uplink import Settings, Uplink
from tests.delivery_model.disk import Card, PowerCut
from tests.delivery_model.loop import ProcessClock, ProcessLoop
from tests.delivery_model.promises import GROUP
from tests.delivery_model.truth import Truth, WatchedLog
from tests.delivery_model.wire import Line

HOST = "hub"


def _some(kind: Kind, *names: str) -> tuple[Metric, ...]:
    return tuple(one for one in CATALOG[kind].metrics if one.name in names)


PROBE = DeviceBirth(kind=Kind.WATER_PROBE, metrics=_some(Kind.WATER_PROBE, "Water/pH", "Water/Temperature"))
CHANGED_PROBE = DeviceBirth(kind=Kind.WATER_PROBE, metrics=_some(Kind.WATER_PROBE, "Water/pH", "Water/Salinity"))
HORN = DeviceBirth(kind=Kind.LOUDSPEAKER, metrics=_some(Kind.LOUDSPEAKER, "Playback/State", "Audio/Level"))
GAUGE = DeviceBirth(kind=Kind.HYDRO_STATION, metrics=_some(Kind.HYDRO_STATION, "Water/Level", "Device/State"))

CONFIGURATIONS: Sequence[Mapping[str, DeviceBirth]] = (
    {"probe": PROBE, "horn": HORN},
    {"probe": PROBE},
    {"horn": HORN, "gauge": GAUGE},
    {"gauge": GAUGE, "horn": HORN, "probe": CHANGED_PROBE},
    {},
)
"""What a box may be told to look after; every change is a restart."""


async def _deaf(name: str, value: str) -> None:
    """Take an order to speak, which is nobody's business here."""


async def _idle(value: str) -> None:
    """Take a command, likewise."""


class Box:
    """A box with its card and its line. It is off until `start`."""

    def __init__(
        self, name: str, node: str, *, card: Card, line: Line, truth: Truth, world_ms: Callable[[], int], seed: int
    ) -> None:
        self.name = name
        self.node = node
        self.card = card
        self.line = line
        self.configuration = 0
        self.budget = BUDGET
        self.wrong_ms = 0
        self.loop: ProcessLoop | None = None
        self.uplink: Uplink | None = None
        self.log: WatchedLog | None = None
        self.starts = 0
        self._truth = truth
        self._world_ms = world_ms
        self._seed = seed
        self._booted = 0.0
        self.back_at: float | None = None
        """When it is started again after a power cut, or after its card did not let it."""

    @property
    def on(self) -> bool:
        return self.loop is not None

    @property
    def devices(self) -> Mapping[str, DeviceBirth]:
        return CONFIGURATIONS[self.configuration]

    def start(self, now: float) -> bool:
        """Start the agent; return whether its card let it."""
        loop = ProcessLoop(now - self._booted)
        loop.off = lambda: self.card.dead
        clock = ProcessClock(loop, self._world_ms)
        clock.wrong_ms = self.wrong_ms
        log = WatchedLog(self.card.folder, clock, budget=self.budget)
        log.box, log.node, log.truth, log.card = self.name, self.node, self._truth, self.card
        try:
            log.__enter__()
        except (sqlite3.Error, PowerCut):
            self.card.off()
            self.back_at = now + 5
            return False
        self.back_at = None
        self.starts += 1
        self.loop, self.clock, self.log = loop, clock, log
        self.line.clock = clock
        self.uplink = Uplink(
            Settings(
                group=GROUP,
                node=self.node,
                brokers=[Server(host=self.line.name)],
                primary_host=HOST,
                birth_jitter=0.5,
            ),
            delivery_log=log,
            devices=self.devices,
            clock=clock,
            hello=lambda: "",
            on_broadcast=_deaf,
            on_command=_idle,
            chance=random.Random(self._seed + self.starts),
        )
        loop.create_task(self.uplink.run(), name=f"{self.name}: uplink")
        return True

    def failures(self) -> list[BaseException]:
        """Return what ended any task of the agent by surprise; that a broker is lost surprises nobody."""
        ended = self.loop.ended() if self.loop is not None else []
        return [one for one in ended if not isinstance(one, (BrokerLost, PowerCut))]

    def turn(self, now: float) -> bool:
        assert self.loop is not None
        return self.loop.turn(now - self._booted)

    def kill(self) -> None:
        """The process is gone, with everything it had in memory."""
        self.card.off()
        if self.loop is not None:
            loop, self.loop = self.loop, None
            loop.kill()
        self.uplink, self.log = None, None

    def leave(self) -> None:
        """Close the log in order, after the uplink ended."""
        if self.log is not None:
            with contextlib.suppress(PowerCut):
                self.log.__exit__(None, None, None)
        self.kill()

    def power_off(self, now: float) -> None:
        self.kill()
        self._booted = now

    def record(self, stream: str, values: Mapping[str, Value], at: int | None = None) -> None:
        """Let a device be read: all its values at one instant."""
        if self.loop is None or self.uplink is None:
            return
        instant = self.clock.now_ms() if at is None else at
        samples = [Sample(metric=name, at=instant, value=value) for name, value in values.items()]
        self.loop.create_task(self.uplink.record(stream, samples), name=f"{self.name}: record")

    def mend(self) -> None:
        """Put card, line and clock right."""
        self.card.full = self.card.read_only = False
        self.card.cut_at = 0
        line = self.line
        line.up, line.silent, line.seconds_a_message, line.cut_at = True, False, 0.0, 0
        line.lose_up = line.twice_up = line.lose_down = line.twice_down = 0
        line.late_down = 0.0
        self.jump(-self.wrong_ms)

    def jump(self, milliseconds: int) -> None:
        """Set the box's wall clock."""
        self.wrong_ms += milliseconds
        if self.loop is not None:
            self.clock.wrong_ms = self.wrong_ms

    def read(self, stream: str, chance: random.Random, at: int | None = None) -> None:
        """Read one device, or what the box says of itself: every value is a serial number."""
        if stream == NODE_STREAM:
            if not self.devices or chance.random() < 0.5:
                values: dict[str, Value] = {"Box/CPU": float(self._truth.next_serial())}
            else:
                device = chance.choice(list(self.devices))
                values = {f"Presence/{device}": f"s{self._truth.next_serial()}"}
        else:
            metrics = self.devices[stream].metrics
            chosen = [one for one in metrics if chance.random() < 0.7] or [metrics[0]]
            if chance.random() < 0.7:  # telemetry alone: an event would make everything durable at once
                chosen = [one for one in chosen if not one.event] or chosen
            values = {one.name: self._serial(one.datatype) for one in chosen}
        self.record(stream, values, at)

    def _serial(self, datatype: DataType) -> Value:
        number = self._truth.next_serial()
        return f"s{number}" if datatype is DataType.STRING else float(number)
