"""The box that is itself the loudspeaker: its sound card, reached through a process, and its amplifier's relay."""

import asyncio
import contextlib
import errno
import logging
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from contract.catalog import CATALOG, STATE, Cause, Condition, Kind
from contract.clock import Clock
from contract.metrics import Metric, Sample, Value
from edge.audio import WORKER, Encoding, Form
from edge.poller import DeviceUnavailable

log = logging.getLogger(__name__)

FORM = Form(encoding=Encoding.S16LE, rate=48_000)
"""What every sound card takes; ALSA's `plug` and `default` devices make whatever else a card wants of it."""

PIECE_SECONDS = 0.1
AHEAD_SECONDS = 0.2
"""What the card is given ahead of time: its clock may run faster than the box's, and a busy box may be late."""

CHECK_EVERY = 600.0
"""Seconds after which a card that nobody used is opened, to see that it is still there."""

REPORTED = (STATE, "Playback/State", "Audio/Volume")
_CAUSES = {"not_found": Cause.NOT_FOUND, "busy": Cause.REFUSED, "failed": Cause.REFUSED}


class LocalOutput:
    """A Driver, and a loudspeaker that can be made to sound.

    `relay` is a file that is written 1 while it sounds and 0 otherwise; the amplifier behind it needs `warm_up` seconds
    before it can be heard.
    """

    def __init__(self, *, alsa_device: str, relay: Path | None, warm_up: float, timeout: float, clock: Clock) -> None:
        self._device = alsa_device
        self._relay = relay
        self._warm_up = warm_up
        self._timeout = timeout
        self._clock = clock
        self._turn = asyncio.Lock()
        self._sounding = False
        self._volume: int | None = None
        self._opened_at = float("-inf")
        self.form = FORM
        self.metrics: Sequence[Metric] = tuple(one for one in CATALOG[Kind.LOUDSPEAKER].metrics if one.name in REPORTED)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def read(self) -> Sequence[Sample]:
        """Return what is known of it; opens the card where that was long ago, and sees to the relay."""
        if not self._sounding:
            async with self._turn:
                # A box that lost its power while it sounded finds its amplifier on.
                self._switch(on=False)
                if self._clock.monotonic() - self._opened_at >= CHECK_EVERY:
                    async with self._player(volume=0):
                        pass
        at = self._clock.now_ms()
        values: dict[str, Value] = {
            STATE: Condition.OK.value,
            "Playback/State": "playing" if self._sounding else "idle",
        }
        if self._volume is not None:
            values["Audio/Volume"] = self._volume
        return [Sample(metric=name, at=at, value=value) for name, value in values.items()]

    @asynccontextmanager
    async def sounding(self, *, volume: int) -> AsyncIterator["_Player"]:
        """Open the card, switch the amplifier on, and both off on leaving, however that comes about.

        Raises DeviceUnavailable where the card cannot be opened, or did not take all that it was given.
        """
        if self._sounding:
            raise DeviceUnavailable(Cause.REFUSED, f"{self._device}: is already sounding")
        self._sounding = True
        try:
            async with self._turn, self._player(volume) as player:
                with self._amplified():
                    await self._clock.sleep(self._warm_up)
                    self._volume = volume
                    yield player
                    await player.finish()
        finally:
            self._sounding = False

    @contextlib.contextmanager
    def _amplified(self) -> Iterator[None]:
        try:
            self._switch(on=True)
            yield
        except BaseException:
            # The first failure is the news; that the amplifier stayed on is found at the next read.
            with contextlib.suppress(DeviceUnavailable):
                self._switch(on=False)
            raise
        self._switch(on=False)

    def _switch(self, *, on: bool) -> None:
        if self._relay is None:
            return
        wanted = b"1" if on else b"0"
        try:
            # Never made anew: what is no relay must not be taken for one.
            file = os.open(self._relay, os.O_RDWR)
            try:
                os.pwrite(file, wanted, 0)
                found = os.pread(file, 16, 0).strip()
            finally:
                os.close(file)
        except OSError as exc:
            cause = Cause.NOT_FOUND if exc.errno in {errno.ENOENT, errno.ENODEV} else Cause.REFUSED
            raise DeviceUnavailable(cause, f"relay {self._relay}: {exc.strerror}") from exc
        if found != wanted:
            raise DeviceUnavailable(
                Cause.REFUSED, f"relay {self._relay}: was written {wanted.decode()} and reads {found!r}"
            )

    @asynccontextmanager
    async def _player(self, volume: int) -> AsyncIterator["_Player"]:
        process = await asyncio.create_subprocess_exec(
            *WORKER, "play", self._device, str(FORM.rate), str(volume),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        player = _Player(process, self._device, timeout=self._timeout, clock=self._clock)
        try:
            await player.heard("ready")
            self._opened_at = self._clock.monotonic()
            yield player
        except BaseException:
            self._opened_at = float("-inf")
            raise
        finally:
            await asyncio.shield(player.end())


class _Player:
    """The process that holds the card."""

    def __init__(self, process: asyncio.subprocess.Process, device: str, *, timeout: float, clock: Clock) -> None:
        assert process.stdin is not None  # noqa: S101  # both were asked for
        assert process.stdout is not None  # noqa: S101
        self.first_at: int | None = None
        self._process = process
        self._stdin, self._stdout = process.stdin, process.stdout
        self._stdin.transport.set_write_buffer_limits(high=0)
        self._device = device
        self._timeout = timeout
        self._clock = clock
        self._start = 0.0
        self._sent = 0

    async def write(self, sound: bytes) -> None:
        """Give the card sound at real-time pace; return when it is given."""
        size = FORM.length(PIECE_SECONDS)
        for start in range(0, len(sound), size):
            await self._give(sound[start : start + size])

    async def finish(self) -> None:
        """Return when the card has let everything be heard."""
        try:
            async with asyncio.timeout(self._timeout + AHEAD_SECONDS):
                self._stdin.close()
                status = await self._process.wait()
        except TimeoutError as exc:
            raise DeviceUnavailable(Cause.SILENT, f"{self._device}: the sound output hangs at the end") from exc
        if status != 0:
            raise await self._failure()

    async def end(self) -> None:
        """Silence it now, whatever it is doing."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        self._stdin.close()

    async def heard(self, word: str) -> None:
        """Return when the process has said this; raise DeviceUnavailable for anything else."""
        try:
            async with asyncio.timeout(self._timeout):
                line = await self._line()
        except TimeoutError as exc:
            raise DeviceUnavailable(
                Cause.SILENT, f"{self._device}: the sound output says nothing within {self._timeout:g} s"
            ) from exc
        if line != word:
            raise self._told(line)

    async def _give(self, piece: bytes) -> None:
        if self._sent == 0:
            self._start = self._clock.monotonic()
        wait = self._start + self._sent / FORM.length(1.0) - AHEAD_SECONDS - self._clock.monotonic()
        if wait > 0:
            await self._clock.sleep(wait)
        try:
            async with asyncio.timeout(self._timeout):
                self._stdin.write(piece)
                await self._stdin.drain()
        except TimeoutError as exc:
            raise DeviceUnavailable(
                Cause.SILENT, f"{self._device}: the sound output took nothing for {self._timeout:g} s"
            ) from exc
        except ConnectionError as exc:
            raise await self._failure() from exc
        if self._sent == 0:
            await self.heard("playing")
            self.first_at = self._clock.now_ms()
        self._sent += len(piece)

    async def _failure(self) -> DeviceUnavailable:
        """Return why the process ended."""
        try:
            async with asyncio.timeout(self._timeout):
                return self._told(await self._line())
        except TimeoutError:
            return DeviceUnavailable(Cause.SILENT, f"{self._device}: the sound output ended without a word")

    async def _line(self) -> str:
        try:
            line = await self._stdout.readline()
        except ValueError:  # longer than any line of ours
            line = b""
        return "".join(one if one.isprintable() else "?" for one in line.decode(errors="replace").strip()[:300])

    def _told(self, line: str) -> DeviceUnavailable:
        word, _, reason = line.partition(" ")
        if word in _CAUSES:
            return DeviceUnavailable(_CAUSES[word], f"{self._device}: {reason}")
        return DeviceUnavailable(Cause.SILENT, f"{self._device}: the sound output broke off")
