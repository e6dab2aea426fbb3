"""A whole hamlet, or several, of simulated devices, running together."""

import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from simulators.config import Config
from simulators.faults import Faults
from simulators.ip_speaker import Speaker, serving
from simulators.modbus_probe import Probe, bus


@asynccontextmanager
async def running(config: Config) -> AsyncIterator[dict[str, object]]:
    """Run everything that a file describes; yield where each thing is to be found."""
    speakers: dict[str, object] = {}
    buses: dict[str, str] = {}
    async with AsyncExitStack() as stack:
        for hamlet in config.hamlets:
            for line in hamlet.buses:
                probes = [
                    Probe(
                        id=one.id,
                        slave=one.slave,
                        seed=config.seed,
                        faults=Faults(one.faults, time.monotonic),
                        now=time.time,
                    )
                    for one in line.probes
                ]
                await stack.enter_async_context(bus(probes, link=line.link, baud=line.baud, paced=line.paced))
                buses[str(line.link)] = hamlet.name
            for one in hamlet.speakers:
                speaker = Speaker(
                    id=one.id,
                    user=one.user,
                    password=one.password,
                    recordings=config.recordings,
                    faults=Faults(one.faults, time.monotonic),
                    volume=one.volume,
                    host=one.host,
                )
                url = await stack.enter_async_context(serving(speaker, port=one.port))
                speakers[one.id] = {"url": url, "hamlet": hamlet.name}
        yield {"ready": True, "speakers": speakers, "buses": buses, "recordings": str(config.recordings)}


def write_status(path: Path, status: dict[str, object]) -> None:
    """Write the status file in one piece."""
    aside = path.with_name(f".{path.name}")
    aside.write_text(json.dumps(status, ensure_ascii=False), encoding="utf-8")
    aside.replace(path)
