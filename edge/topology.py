"""Says each device's presence once, as presence.py decides, and has others asked at once where that needs it."""

from collections.abc import Callable, Mapping

from contract.catalog import PRESENCE
from contract.clock import Clock
from contract.metrics import Sample
from contract.positions import NODE_STREAM
from edge.health import Health
from edge.poller import Record
from edge.presence import Known, Place, Told, heard, mains


class Topology:
    """Stands between the pollers and what is recorded of presence; `ask` is set once the pollers exist."""

    def __init__(
        self, places: Mapping[str, Place], *, sees_mains: Callable[[], bool | None], record: Record, clock: Clock
    ) -> None:
        self._known = Known(places=places)
        self._sees_mains = sees_mains
        self._record = record
        self._clock = clock
        self.ask: Mapping[str, Callable[[], None]] = {}
        """How to have a device asked at once, by its id; the box itself as BOX."""
        self.said_at: dict[str, int] = {}

    @property
    def said(self) -> Mapping[str, str]:
        """Return the presence last said of each device."""
        return self._known.said

    async def attempted(self, device: str, health: Health) -> None:
        """Take in how an attempt at a device, or at the box itself, ended; record what is news."""
        now = self._clock.monotonic()
        if device != NODE_STREAM:
            await self._tell(heard(self._known, device, health, now))
            return
        present = self._sees_mains()
        if present is not None:
            await self._tell(mains(self._known, present, now))

    async def _tell(self, told: Told) -> None:
        self._known = told.known
        at = self._clock.now_ms()
        self.said_at |= dict.fromkeys(told.say, at)
        for device, presence in told.say.items():
            sample = Sample(metric=f"{PRESENCE}{device}", at=at, value=presence)
            await self._record(NODE_STREAM, [sample])
        for one in told.ask:
            if one in self.ask:
                self.ask[one]()
