"""Asking the signer, from the process that has no key."""

import asyncio
import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contract.broadcast import Step

DEADLINE = 5.0
MOST_ANSWER = 512 * 1024


class SignerUnavailable(Exception):
    """The signer does not answer; nothing can be announced."""


class SignerRefused(Exception):
    """The signer does not sign this; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """An order as the signer made it: its id, exact bytes, and when it expires (ms)."""

    id: str
    raw: bytes
    expires_at: int


class SignerClient:
    """One question at a time over the Unix socket."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    async def play(
        self,
        *,
        issuer: str,
        why: str,
        program: Sequence[Step],
        text: str,
        targets: Sequence[str],
        volume: int,
        expires_in_s: int,
    ) -> Made:
        """Return an order to play."""
        return await self._make(
            {
                "action": "play",
                "issuer": issuer,
                "why": why,
                "program": [step.model_dump() for step in program],
                "text": text,
                "targets": list(targets),
                "volume": volume,
                "expires_in_s": expires_in_s,
                "start_within_s": expires_in_s,
            }
        )

    async def stop(
        self, *, issuer: str, why: str, stops: Sequence[str], targets: Sequence[str], expires_in_s: int
    ) -> Made:
        """Return an order to stop others, named by id."""
        return await self._make(
            {
                "action": "stop",
                "issuer": issuer,
                "why": why,
                "stops": list(stops),
                "targets": list(targets),
                "volume": 0,
                "expires_in_s": expires_in_s,
                "start_within_s": expires_in_s,
            }
        )

    async def wrap(
        self, order: str, *, node: str, speakers: Sequence[str], challenge: str | None, min_bundle: int
    ) -> str:
        """Return an envelope around an order for one edge node."""
        request = {
            "do": "wrap",
            "order": order,
            "node": node,
            "speakers": list(speakers),
            "challenge": challenge,
            "min_bundle": min_bundle,
        }
        return str((await self._ask(request))["envelope"])

    async def _make(self, request: dict[str, Any]) -> Made:
        answer = await self._ask({"do": "make", **request})
        return Made(id=answer["id"], raw=base64.b64decode(answer["order"]), expires_at=answer["expires_at"])

    async def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            async with asyncio.timeout(DEADLINE):
                reader, writer = await asyncio.open_unix_connection(self._socket, limit=MOST_ANSWER)
                try:
                    writer.write(json.dumps(request).encode() + b"\n")
                    await writer.drain()
                    answer = json.loads(await reader.readline())
                finally:
                    writer.close()
        except (OSError, TimeoutError, ValueError) as exc:
            raise SignerUnavailable(
                f"the signer at {self._socket} does not answer: {exc or type(exc).__name__}"
            ) from exc
        if "error" in answer:
            raise SignerRefused(str(answer["error"]))
        return dict(answer)
