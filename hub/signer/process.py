"""The process that holds the signing key: answers on a Unix socket, signs what policy allows, writes all of it down."""

import asyncio
import base64
import contextlib
import errno
import json
import logging
import os
import signal
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from pydantic import ValidationError

from contract.broadcast import BroadcastRefused, Envelope, Order, read, signed, to_bytes
from contract.clock import Clock, SystemClock
from contract.strict_json import JsonRefused, loads
from hub.signer.config import SignerConfig, SignerConfigRefused
from hub.signer.policy import MINUTE, OrderRequest, SigningRefused, WrapRequest, make_order

log = logging.getLogger(__name__)

MOST_REQUEST = 256 * 1024
IDLE_SECONDS = 60.0


class Signer:
    """Makes orders and wraps them; knows the orders it made by its own log, also after a restart."""

    def __init__(self, config: SignerConfig, key: Ed25519PrivateKey, clock: Clock) -> None:
        self._config = config
        self._key = key
        self._clock = clock
        self._orders: dict[str, bytes] = {}
        self._made: list[int] = []
        self._sequence = 0
        self._remember()
        self._log = os.open(config.log, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        self._end_torn_line()

    def answer(self, raw: bytes) -> dict[str, Any]:
        """Return the answer to one request: the order or envelope, or `error` with a sentence."""
        try:
            return self._answer(raw)
        except OSError as exc:
            log.exception("the log %s cannot be written: nothing is signed", self._config.log)
            return {"error": f"the signer cannot write its log: {exc.strerror}; make room on its disk"}

    def _answer(self, raw: bytes) -> dict[str, Any]:
        try:
            request = loads(raw, most_bytes=MOST_REQUEST)
            if isinstance(request, dict) and request.get("do") == "make":
                return self._make(OrderRequest.model_validate_json(raw))
            return self._wrap(WrapRequest.model_validate_json(raw))
        except ValidationError as exc:
            first = exc.errors()[0]
            return {"error": f"{'.'.join(map(str, first['loc']))}: {first['msg']}"}
        except (JsonRefused, SigningRefused) as exc:
            self._write({"do": "refused", "why": str(exc)})
            return {"error": str(exc)}

    def _make(self, request: OrderRequest) -> dict[str, Any]:
        now = self._clock.now_ms()
        self._made = [at for at in self._made if abs(now - at) < MINUTE]
        order = make_order(
            request, deployment=self._config.deployment, limits=self._config.limits, recent=self._made, now=now
        )
        raw = to_bytes(order)
        self._write(
            {
                "do": "make",
                "order": base64.b64encode(raw).decode(),
                "issuer": request.issuer,
                "why": request.why,
                "text": request.text[:500],
                "targets": list(request.targets),
            }
        )
        self._orders[order.id] = raw
        if order.action == "play":
            self._made.append(now)
        return {"order": base64.b64encode(raw).decode(), "id": order.id, "expires_at": order.expires_at}

    def _wrap(self, request: WrapRequest) -> dict[str, Any]:
        raw = self._orders.get(request.order)
        if raw is None:
            raise SigningRefused(f"order {request.order[:8]} was not made here")
        now = self._clock.now_ms()
        order = read(Order, raw)
        if now > order.expires_at:
            raise SigningRefused(f"order {request.order[:8]} has expired")
        if request.node not in order.targets:
            raise SigningRefused(f"order {request.order[:8]} is not for {request.node!r}")
        self._sequence = max(self._sequence + 1, now)
        envelope = Envelope(
            node=request.node,
            speakers=request.speakers,
            challenge=request.challenge,
            sequence=self._sequence,
            issued_at=now,
            expires_at=order.expires_at,
            min_bundle=request.min_bundle,
            order=base64.b64encode(raw).decode(),
        )
        self._write({"do": "wrap", "id": order.id, "node": request.node, "sequence": self._sequence})
        return {"envelope": signed(envelope, [self._key])}

    def _write(self, entry: dict[str, Any]) -> None:
        """Append to the log; on disk before anything leaves, since an unrecorded order must not sound."""
        line = json.dumps({"at": self._clock.now_ms(), **entry}, ensure_ascii=False)
        whole = line.encode() + b"\n"
        written = os.write(self._log, whole)
        if written != len(whole):
            os.ftruncate(self._log, os.fstat(self._log).st_size - written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._config.log))
        os.fsync(self._log)

    def _end_torn_line(self) -> None:
        """Let what a power cut left half-written be a line of its own, so that the next one can be read."""
        size = os.fstat(self._log).st_size
        if size and os.pread(self._log, 1, size - 1) != b"\n":
            os.write(self._log, b"\n")

    def _remember(self) -> None:
        now = self._clock.now_ms()
        try:
            lines = self._config.log.read_bytes().split(b"\n")
        except OSError:
            return
        for line in lines:
            with contextlib.suppress(ValueError, KeyError, TypeError, BroadcastRefused):
                entry = json.loads(line)
                self._sequence = max(self._sequence, int(entry.get("sequence", 0)))
                if entry["do"] == "make":
                    raw = base64.b64decode(entry["order"])
                    order = read(Order, raw)
                    if order.expires_at > now:
                        self._orders[order.id] = raw
                        if order.action == "play":
                            self._made.append(order.issued_at)


def load_key(path: Path) -> Ed25519PrivateKey:
    """Return the signing key; raise SignerConfigRefused if it is none or if others may read it."""
    try:
        if path.stat().st_mode & 0o077:
            raise SignerConfigRefused(f"key {path} may be read by others; chmod 600 {path}")
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError) as exc:
        if isinstance(exc, SignerConfigRefused):
            raise
        raise SignerConfigRefused(f"key {path}: {exc}") from exc
    if not isinstance(key, Ed25519PrivateKey):
        raise SignerConfigRefused(f"key {path} is no Ed25519 key")
    return key


async def serve(config: SignerConfig) -> None:
    """Answer requests, a JSON line each, until SIGTERM or SIGINT."""
    signer = Signer(config, load_key(config.key), SystemClock())
    stopped = asyncio.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(name, stopped.set)

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(TimeoutError, ConnectionError, ValueError):
            while True:
                async with asyncio.timeout(IDLE_SECONDS):
                    line = await reader.readline()
                if not line:
                    break
                writer.write(json.dumps(signer.answer(line)).encode() + b"\n")
                await writer.drain()
        writer.close()

    config.socket.unlink(missing_ok=True)
    before = os.umask(0o177)
    try:
        server = await asyncio.start_unix_server(converse, path=config.socket, limit=MOST_REQUEST)
    finally:
        os.umask(before)
    async with server:
        log.info("the signer answers on %s", config.socket)
        await stopped.wait()
    config.socket.unlink(missing_ok=True)
