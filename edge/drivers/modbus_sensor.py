"""Probes that speak Modbus, on a serial line or behind a gateway."""

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from contract.catalog import STATE
from contract.clock import Clock
from contract.metrics import Metric, Sample
from edge.drivers.modbus_bus import Bus
from edge.drivers.register_map import RegisterMap, condition, samples


class ModbusSensor:
    """A Driver for one slave on a bus."""

    def __init__(self, bus: Bus, *, slave: int, mapping: RegisterMap, timeout: float, clock: Clock) -> None:
        self._bus = bus
        self._slave = slave
        self._mapping = mapping
        self._timeout = timeout
        self._clock = clock
        self._words: dict[int, int] = {}
        self._equal_reads = 0
        self.metrics: Sequence[Metric] = mapping.metrics

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def read(self) -> Sequence[Sample]:
        words: dict[int, int] = {}
        for first, count in self._mapping.questions:
            answer = await self._bus.ask(self._slave, self._mapping.function, first, count, self._timeout)
            words.update(enumerate(answer, first))
        at = self._clock.now_ms()
        values = {address: words[address] for value in self._mapping.values for address in value.addresses}
        self._equal_reads = self._equal_reads + 1 if values == self._words else 1
        self._words = values
        found = samples(words, self._mapping, at)
        state = condition(found, self._mapping, self._equal_reads)
        return [*found, Sample(metric=STATE, at=at, value=state.value)]
