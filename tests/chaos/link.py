"""The link between a box and the broker, which can be cut, delayed and narrowed: a small TCP proxy."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

PIECE = 4096


class Link:
    """Forwards connections to one address; open it with `async with`. Its faults are plain fields.

    `cut`: nobody new is let in, and what is sent on open connections goes nowhere, as where a router lost its memory;
    `mend` then closes those. `delay` and `bits_a_second` hold each direction up by itself, in order.
    """

    def __init__(self, host: str, port: int) -> None:
        self._to = (host, port)
        self.host = "127.0.0.1"
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.is_cut = False
        self.delay = 0.0
        self.bits_a_second = 0
        self.swallowed = 0
        """Bytes that went nowhere."""
        self.refused = 0
        """Connections that were not let in."""
        self.passed = 0
        """Bytes that arrived."""

    @asynccontextmanager
    async def running(self, listening: socket.socket | None = None) -> AsyncIterator["Link"]:
        """Accept on a socket that listens, otherwise on a free port of 127.0.0.1."""
        server = await asyncio.start_server(self._client, sock=listening or socket.create_server(("127.0.0.1", 0)))
        self.host, self.port = server.sockets[0].getsockname()
        try:
            yield self
        finally:
            server.close()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Let nothing pass from now on."""
        self.is_cut = True

    def mend(self) -> None:
        """Let connections be made again; those that stood are gone."""
        self.is_cut = False
        self.reset()

    def reset(self) -> None:
        """Close every connection at once, whatever is still under way on it."""
        for writer in self._writers:
            writer.transport.abort()

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        writers = {writer}
        self._writers.add(writer)
        try:
            if self.is_cut:
                self.refused += 1
                return
            there, away = await asyncio.open_connection(*self._to)
            writers.add(away)
            self._writers.add(away)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pass(reader, away))
                both.create_task(self._pass(there, writer))
        except* (OSError, asyncio.CancelledError):
            pass  # either end went, and the other one follows; or the run is over
        finally:
            for one in writers:
                self._writers.discard(one)
                one.transport.abort()
            self._tasks.discard(task)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one direction until it ends; bytes are read on while earlier ones are held up."""
        waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(maxsize=64)
        leaving = asyncio.create_task(self._leave(waiting, writer))
        try:
            while piece := await reader.read(PIECE):
                await waiting.put((asyncio.get_running_loop().time() + self.delay, piece))
            raise ConnectionResetError
        finally:
            leaving.cancel()
            with suppress(asyncio.CancelledError, OSError):
                await leaving

    async def _leave(self, waiting: "asyncio.Queue[tuple[float, bytes]]", writer: asyncio.StreamWriter) -> None:
        while True:
            due, piece = await waiting.get()
            await asyncio.sleep(due - asyncio.get_running_loop().time())
            if self.bits_a_second:
                await asyncio.sleep(len(piece) * 8 / self.bits_a_second)
            if self.is_cut:
                self.swallowed += len(piece)
                continue
            writer.write(piece)
            self.passed += len(piece)
            await writer.drain()
