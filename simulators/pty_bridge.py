"""Two pseudo-terminals and the wire between: bytes take as long as their baud rate says, and faults happen here."""

import asyncio
import os
import tty
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

Piece = tuple[float, bytes]
"""Seconds to wait, then bytes to put on the wire."""

Distort = Callable[[bytes], list[Piece]]

BITS_A_BYTE = 10
"""One start bit, eight data bits, one stop bit."""


class PtyBridge:
    """A serial line: the device opens `device_path`, the master opens `link` (or `master_path`).

    `distort` sees every frame that the device sends and says what arrives, and when. Open it with `async with`.
    """

    def __init__(self, *, link: Path | None, baud: int, paced: bool, distort: Distort) -> None:
        self._link = link
        self._byte_seconds = BITS_A_BYTE / baud if paced else 0.0
        self._distort = distort
        self._free_at = 0.0

    async def __aenter__(self) -> Self:
        self._device, device_end = os.openpty()
        self._master, master_end = os.openpty()
        self._ends = (device_end, master_end)  # held open, so that a master may come and go
        for end in (self._device, device_end, self._master, master_end):
            tty.setraw(end)
        for side in (self._device, self._master):
            os.set_blocking(side, False)
        self.device_path = os.ttyname(device_end)
        self.master_path = os.ttyname(master_end)
        if self._link is not None:
            self._link.parent.mkdir(parents=True, exist_ok=True)
            self._link.unlink(missing_ok=True)
            self._link.symlink_to(self.master_path)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._device, self._from_device)
        self._loop.add_reader(self._master, self._from_master)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for side in (self._device, self._master):
            self._loop.remove_reader(side)
        for end in (self._device, self._master, *self._ends):
            os.close(end)
        self._device = self._master = -1
        if self._link is not None:
            self._link.unlink(missing_ok=True)

    def _from_device(self) -> None:
        for wait, piece in self._distort(_read(self._device)):
            self._send(self._master, piece, wait)

    def _from_master(self) -> None:
        self._send(self._device, _read(self._master), 0.0)

    def _send(self, side: int, piece: bytes, wait: float) -> None:
        if not piece:
            return
        if wait:
            # Who thinks for long does not hold the wire meanwhile.
            self._loop.call_later(wait, self._send, side, piece, 0.0)
            return
        # Half duplex: one wire, so whatever is sent waits for what is still on it.
        now = self._loop.time()
        self._free_at = max(self._free_at, now) + len(piece) * self._byte_seconds
        self._loop.call_at(self._free_at, _write, self, side, piece)

    def is_open(self, side: int) -> bool:
        """Return whether that side still exists."""
        return side in {self._device, self._master} and side >= 0


def _read(side: int) -> bytes:
    try:
        return os.read(side, 4096)
    except (BlockingIOError, OSError):
        return b""


def _write(bridge: PtyBridge, side: int, piece: bytes) -> None:
    if bridge.is_open(side):
        try:
            os.write(side, piece)
        except (BlockingIOError, OSError):
            return  # a full or closed line loses bytes, as a real one does
