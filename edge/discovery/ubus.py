"""Routers that answer ubus over HTTP: the gateways and neighbours this box knows, asked one question without login."""

import asyncio
import json
import socket
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

import aiohttp

from edge.discovery.found import Found, name

NOBODY = "0" * 32
"""The session of who has not logged in."""

MOST_NEIGHBOURS = 254
MOST_ANSWER = 64 * 1024


def neighbours(proc: Path = Path("/proc/net")) -> list[str]:
    """Return the addresses of gateways and of neighbours this machine has spoken with lately."""
    found: list[str] = []
    for line in _lines(proc / "route")[1:]:
        fields = line.split()
        if len(fields) > 2 and fields[2] != "00000000":
            found.append(socket.inet_ntoa(struct.pack("<I", int(fields[2], 16))))
    found += [line.split()[0] for line in _lines(proc / "arp")[1:] if line.split()]
    return list(dict.fromkeys(found))[:MOST_NEIGHBOURS]


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return []


async def routers(origins: Iterable[str], *, seconds: float) -> list[Found]:
    """Return those of the origins (`http://192.168.1.1`) that speak ubus."""
    timeout = aiohttp.ClientTimeout(total=seconds)
    async with aiohttp.ClientSession(timeout=timeout, trust_env=False) as session:
        answers: Sequence[Found | None] = await asyncio.gather(*(_asked(session, one) for one in origins))
    return [one for one in answers if one is not None]


async def _asked(session: aiohttp.ClientSession, origin: str) -> Found | None:
    question = {"jsonrpc": "2.0", "id": 1, "method": "call", "params": [NOBODY, "session", "access", {}]}
    try:
        async with session.post(f"{origin}/ubus", json=question, allow_redirects=False) as response:
            raw = await response.content.read(MOST_ANSWER)
            answer = json.loads(raw)
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError, RecursionError):
        return None
    if not isinstance(answer, dict) or answer.get("jsonrpc") != "2.0" or not {"result", "error"} & answer.keys():
        return None
    return Found(
        seen=f"ubus: a router at {origin}",
        table={
            "id": name("wifi", origin.partition("://")[2]),
            "kind": "hotspot",
            "driver": "openwrt_hotspot",
            "url": origin,
        },
        todo=("username", "password_file"),
    )
