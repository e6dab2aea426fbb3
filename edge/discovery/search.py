"""The whole search: network and serial ports together, each part by itself; what fails costs only its own finds."""

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.discovery import mdns, onvif, serial_ports, ubus
from edge.discovery.found import Found

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """Where to look: for how long on the network, from which local address, at which hosts and ports besides."""

    seconds: float = 4.0
    interface: str | None = None
    hosts: Sequence[str] = ()
    ports: Sequence[Path] = ()
    baud: int = 9600
    slaves: int = 16


async def search(where: Where) -> list[Found]:
    """Return everything that was found, cameras first; a device that two ways found stands once."""
    origins = [one if "://" in one else f"http://{one}" for one in (*where.hosts, *ubus.neighbours())]
    ports = list(where.ports) or serial_ports.present()
    parts: list[tuple[str, Coroutine[Any, Any, list[Found]]]] = [
        ("WS-Discovery", onvif.cameras(seconds=where.seconds, interface=where.interface)),
        ("mDNS", mdns.announced(seconds=where.seconds, interface=where.interface)),
        ("ubus", ubus.routers(dict.fromkeys(origins), seconds=where.seconds)),
        ("serial ports", serial_ports.scan(ports, baud=where.baud, slaves=where.slaves)),
    ]
    answers = await asyncio.gather(*(part for _, part in parts), return_exceptions=True)
    found: dict[object, Found] = {}
    for (what, _), answer in zip(parts, answers, strict=True):
        if isinstance(answer, BaseException):
            if not isinstance(answer, OSError):
                raise answer
            log.warning("%s: %s", what, answer)
            continue
        for one in answer:
            found.setdefault(one.table["id"], one)
    return list(found.values())
