"""Child processes that do what must not happen in the agent: a hang or a crash there costs one question, not the box.

They are spoken to in JSON, one object a line, over pipes; they end when the pipe does, so none outlives the agent.
"""

import asyncio
import itertools
import json
import logging
import resource
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from contract.catalog import Cause
from edge.poller import DeviceUnavailable

log = logging.getLogger(__name__)

MOST_LINE = 256 * 1024
IDLE_SECONDS = 300.0
"""A worker that was not asked for so long gives its memory back."""

HUNG_SECONDS = 60.0
"""A worker that is late and has not said a word for so long hangs, though it should do many things at a time."""

Answer = dict[str, Any]


class Worker:
    """One child process, `python -m module`, started when it is first asked.

    An `exclusive` one is busy with one question: if that misses its deadline, the process is killed. Another one is
    killed only if nothing at all came from it for HUNG_SECONDS.
    """

    def __init__(self, module: str, *, exclusive: bool) -> None:
        self._module = module
        self._exclusive = exclusive
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()
        self._idle: asyncio.TimerHandle | None = None
        self._condemned = False
        self._heard_at = 0.0

    @property
    def pid(self) -> int | None:
        """Return the process that runs now."""
        return self._process.pid if self._process is not None else None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.end()

    async def ask(self, question: Mapping[str, object], deadline: float) -> Answer:
        """Return the answer; raise DeviceUnavailable with the worker's cause, SILENT if late, NONSENSE if it died."""
        process = await self._running()
        number, waiting = next(self._numbers), self._waiting
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        waiting[number] = answer
        try:
            async with asyncio.timeout(deadline):
                assert process.stdin is not None  # noqa: S101  # it was made with a pipe
                process.stdin.write(json.dumps({"number": number, **question}).encode() + b"\n")
                await process.stdin.drain()
                return await answer
        except TimeoutError:
            self._kill_if_exclusive()
            if asyncio.get_running_loop().time() - self._heard_at > HUNG_SECONDS:
                self._condemn()
            raise DeviceUnavailable(Cause.SILENT, f"no result within {deadline:g} s") from None
        except asyncio.CancelledError:
            self._kill_if_exclusive()
            raise
        except (BrokenPipeError, ConnectionResetError) as exc:
            raise DeviceUnavailable(Cause.NONSENSE, f"{self._module} ended") from exc
        finally:
            waiting.pop(number, None)
            self._rest()

    async def end(self) -> None:
        """End the process, by force if it does not go."""
        if self._idle is not None:
            self._idle.cancel()
        process, reading = self._process, self._reading
        self._process = self._reading = None
        if process is None:
            return
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        if reading is not None:
            await asyncio.gather(reading, return_exceptions=True)

    async def _running(self) -> asyncio.subprocess.Process:
        async with self._starting:
            if self._process is not None and self._process.returncode is None and not self._condemned:
                return self._process
            await self.end()
            self._condemned = False
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                self._module,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=MOST_LINE,
            )
            self._heard_at = asyncio.get_running_loop().time()
            self._waiting = {}
            reading = self._read(self._process, self._waiting)
            self._reading = asyncio.create_task(reading, name=f"answers of {self._module}")
            return self._process

    async def _read(self, process: asyncio.subprocess.Process, waiting: Mapping[int, asyncio.Future[Answer]]) -> None:
        assert process.stdout is not None  # noqa: S101  # it was made with a pipe
        try:
            async for line in process.stdout:
                self._heard_at = asyncio.get_running_loop().time()
                told = json.loads(line)
                answer = waiting.get(told["number"])
                if answer is None or answer.done():
                    continue
                if "cause" in told:
                    answer.set_exception(DeviceUnavailable(Cause(told["cause"]), told["why"]))
                else:
                    answer.set_result(told["answer"])
        except (ValueError, KeyError, TypeError):
            log.exception("%s answered what no worker of ours answers", self._module)
            with suppress(ProcessLookupError):
                process.kill()
        status = await process.wait()
        for answer in waiting.values():
            if not answer.done():
                answer.set_exception(DeviceUnavailable(Cause.NONSENSE, f"{self._module} died (status {status})"))

    def _kill_if_exclusive(self) -> None:
        if self._exclusive:
            self._condemn()

    def _condemn(self) -> None:
        if self._process is not None:
            self._condemned = True  # it may take a moment to go, and must not be asked any more
            with suppress(ProcessLookupError):
                self._process.kill()

    def _rest(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        loop = asyncio.get_running_loop()
        self._idle = loop.call_later(IDLE_SECONDS, self._end_if_idle)

    def _end_if_idle(self) -> None:
        if not self._waiting:
            self._condemn()


class Pool:
    """Some exclusive workers of one kind: a question waits for a free one, and its deadline begins when it has it."""

    def __init__(self, module: str, size: int) -> None:
        self._workers = [Worker(module, exclusive=True) for _ in range(size)]
        # The last one used goes first, so that a quiet box keeps one warm and lets the others go.
        self._free: asyncio.LifoQueue[Worker] = asyncio.LifoQueue()
        for one in self._workers:
            self._free.put_nowait(one)

    async def ask(self, question: Mapping[str, object], deadline: float) -> Answer:
        """Return the answer of the first free worker; see Worker.ask."""
        worker = await self._free.get()
        try:
            return await worker.ask(question, deadline)
        finally:
            self._free.put_nowait(worker)

    async def end(self) -> None:
        """End all of them."""
        for one in self._workers:
            await one.end()


def serve_blocking(handle: Callable[[Answer], Answer], *, memory_mib: int) -> None:
    """Answer questions from standard input, one after the other, until it ends; in the child."""
    _limit_memory(memory_mib)
    for line in sys.stdin.buffer:
        question = json.loads(line)
        number = question.pop("number")
        try:
            told: Answer = {"answer": handle(question)}
        except DeviceUnavailable as exc:
            told = {"cause": exc.cause.value, "why": str(exc)}
        except MemoryError:
            told = {"cause": Cause.NONSENSE.value, "why": f"needs more than {memory_mib} MiB"}
        _say({"number": number, **told})


async def serve(handle: Callable[[Answer], Awaitable[Answer]], *, memory_mib: int) -> None:
    """Answer questions from standard input, many at a time, until it ends; in the child."""
    _limit_memory(memory_mib)
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=MOST_LINE)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    asked: set[asyncio.Task[None]] = set()

    async def one(question: Answer) -> None:
        number = question.pop("number")
        try:
            told: Answer = {"answer": await handle(question)}
        except DeviceUnavailable as exc:
            told = {"cause": exc.cause.value, "why": str(exc)}
        except Exception as exc:
            log.exception("a question failed")
            told = {"cause": Cause.NONSENSE.value, "why": f"{type(exc).__name__}"}
        _say({"number": number, **told})

    async for line in reader:
        task = asyncio.create_task(one(json.loads(line)))
        asked.add(task)
        task.add_done_callback(asked.discard)
    for task in asked:
        task.cancel()


def _say(told: Mapping[str, object]) -> None:
    sys.stdout.buffer.write(json.dumps(told).encode() + b"\n")
    sys.stdout.buffer.flush()


def _limit_memory(memory_mib: int) -> None:
    size = memory_mib * 1024 * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (size, size))
