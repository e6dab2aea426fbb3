"""Orders to speak during a run: keys, a signer, and announcements whose volume tells each from all others."""

import asyncio
import io
import json
import math
import random
import sys
import wave
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp

from tests.chaos import configs
from tests.chaos.processes import Process

if TYPE_CHECKING:
    from tests.chaos.world import Hamlet, World

RATE = 16_000
SECONDS = 1.5
ATTEMPTS = 8
ENDS = {"finished", "stopped", "refused", "failed", "expired"}
QUIETEST, LOUDEST = 5, 79
"""The loudest is what a demonstration's keys allow at most."""


async def make_keys(folder: Path) -> dict[str, str]:
    """Make keys in a folder `keys`; return the boxes' public ones."""
    nodes = [word for node in configs.NODES for word in ("--node", node)]
    command = (sys.executable, "-m", "hub", "trust", "--dir", folder / "keys", "--deployment", configs.DEPLOYMENT)
    making = await asyncio.create_subprocess_exec(
        *command, "--group", configs.GROUP, *nodes, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await making.communicate()
    if making.returncode:
        raise OSError("keys could not be made")
    found: dict[str, str] = json.loads(out)["identities"]
    return found


def signer(folder: Path) -> Process:
    """Return the signer's process, its configuration written."""
    (folder / "signer.toml").write_text(configs.SIGNER, encoding="utf-8")
    return Process("signer", (sys.executable, "-m", "hub", "signer", folder / "signer.toml"), log=folder / "signer.log")


class Announcer:
    """Announces now and then; writes each order that the hub took into `orders.jsonl`."""

    def __init__(self, world: "World", seed: int) -> None:
        self._world = world
        self._chance = random.Random(seed)
        self._volumes = dict.fromkeys(configs.NODES, QUIETEST)
        self._tone = _tone()

    async def announce(self, hamlet: "Hamlet", after: float) -> None:
        """Announce in a hamlet, so many seconds from now or when the hub takes it; what it never takes is no order."""
        await asyncio.sleep(after)
        async with hamlet.voice:
            await self._announce(hamlet)

    async def _announce(self, hamlet: "Hamlet") -> None:
        for _ in range(ATTEMPTS):
            devices = await self._world.get("/api/devices") or {"devices": []}
            wanted = configs.speaker(hamlet.node)
            speaker = next((one["id"] for one in devices["devices"] if one["device"] == wanted), None)
            if speaker is not None and await self._ask(hamlet, speaker):
                return
            await asyncio.sleep(1)

    async def _ask(self, hamlet: "Hamlet", speaker: str) -> bool:
        volume = self._volumes[hamlet.node]
        if volume > LOUDEST:
            return False
        # Never used again: a hub that was killed may have taken the order without saying so.
        self._volumes[hamlet.node] = volume + 1
        form = aiohttp.FormData({"speakers": speaker, "volume": str(volume), "why": "chaos"})
        form.add_field("file", self._tone, filename="tone.wav", content_type="audio/wav")
        url = f"http://127.0.0.1:{self._world.hub_port}"
        with suppress(aiohttp.ClientError, TimeoutError):
            headers = {"Origin": url, **self._world.signed_in.headers}
            async with self._world.http.post(f"{url}/api/announcements", data=form, headers=headers) as answer:
                if answer.status == 201:
                    self._note(hamlet, (await answer.json())["id"], volume)
                    return True
        return False

    def _note(self, hamlet: "Hamlet", order: str, volume: int) -> None:
        told = {"order": order, "node": hamlet.node, "speaker": configs.speaker(hamlet.node), "volume": volume}
        hamlet.orders.append(order)
        with (self._world.folder / "orders.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(told) + "\n")

    def whom(self) -> list[tuple[str, float]]:
        """Return in which hamlets to announce in the next cycle, and when."""
        return [(node, self._chance.uniform(0, 4)) for node in configs.NODES if self._chance.random() < 0.7]


async def at_rest(world: "World", hamlet: "Hamlet") -> bool:
    """Return whether every order of a hamlet has come to an end, as far as the hub knows it."""
    for order in list(hamlet.orders):
        told = await world.get(f"/api/announcements/{order}")
        if told is None:
            return False
        if not all(part["stage"] in ENDS for part in told.get("parts", ())):
            return False
        hamlet.orders.remove(order)
    return True


def _tone() -> bytes:
    samples = bytearray()
    for number in range(int(RATE * SECONDS)):
        samples += int(8000 * math.sin(2 * math.pi * 440 * number / RATE)).to_bytes(2, "little", signed=True)
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(bytes(samples))
    return out.getvalue()
