"""Serial ports, and the Modbus slaves that answer on them; each question only reads."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from contract.catalog import Cause
from contract.clock import SystemClock
from edge.discovery.found import Found, name
from edge.drivers.modbus_bus import serial_bus
from edge.poller import DeviceUnavailable

ANSWER_SECONDS = 0.2
"""A slave that has nothing to convert answers within a fifth of a second at 9,600 baud."""

PATTERNS = ("serial/by-id/*", "ttyUSB*", "ttyACM*", "ttyAMA*", "ttyS[0-3]")
DEAF = frozenset({Cause.UNREACHABLE, Cause.SILENT})


def present(dev: Path = Path("/dev")) -> list[Path]:
    """Return the serial ports of this machine, each once, by the name that survives replugging where it has one."""
    found: dict[Path, Path] = {}
    for pattern in PATTERNS:
        for one in sorted(dev.glob(pattern)):
            found.setdefault(one.resolve(), one)
    return list(found.values())


async def scan(ports: Sequence[Path], *, baud: int, slaves: int) -> list[Found]:
    """Return the slaves from 1 to `slaves` that answer on each port, all ports at once."""
    parts = await asyncio.gather(*(_slaves(one, baud, slaves) for one in ports))
    return [one for part in parts for one in part]


async def _slaves(port: Path, baud: int, slaves: int) -> list[Found]:
    bus = serial_bus(str(port), baud, SystemClock())
    found = []
    try:
        for slave in range(1, slaves + 1):
            try:
                await bus.ask(slave, 3, 0, 1, ANSWER_SECONDS)
            except DeviceUnavailable as exc:
                if exc.cause is Cause.UNREACHABLE:
                    break
                if exc.cause in DEAF:
                    continue
            # Whoever refuses the question is there too.
            found.append(_told(port, baud, slave))
    finally:
        bus.close()
    return found


def _told(port: Path, baud: int, slave: int) -> Found:
    return Found(
        seen=f"Modbus RTU: slave {slave} on {port}; which probe it is, its label tells",
        table={
            "id": name("probe", f"{port.name}-{slave}"),
            "kind": "water_probe",
            "driver": "modbus_sensor",
            "port": str(port),
            "baud": baud,
            "slave": slave,
            "register_map": "generic-water-probe.yaml",
        },
    )
