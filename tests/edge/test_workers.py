"""Workers that hang, crash, babble or eat memory cost one question, and the next one is answered."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from contract.catalog import Cause
from edge.poller import DeviceUnavailable
from edge.workers import Pool, Worker

ROOT = Path(__file__).resolve().parents[2]

BLOCKING = """
import os, sys, time
from contract.catalog import Cause
from edge.poller import DeviceUnavailable
from edge.workers import serve_blocking

def handle(question):
    match question["do"]:
        case "hang": time.sleep(3600)
        case "die": os._exit(7)
        case "refuse": raise DeviceUnavailable(Cause.NOT_FOUND, "no such thing")
        case "eat": return {"length": len(bytearray(2 * 1024**3))}
        case "babble": print("nonsense", flush=True); time.sleep(3600)
    return {"pid": os.getpid(), "said": question["do"]}

serve_blocking(handle, memory_mib=256)
"""

MANY = """
import asyncio
from edge.workers import serve

async def handle(question):
    await asyncio.sleep(question["seconds"])
    if question["seconds"] == 0.01:
        raise ZeroDivisionError
    return {"seconds": question["seconds"]}

asyncio.run(serve(handle, memory_mib=256))
"""


@pytest.fixture
async def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Callable[[str, bool], Worker]]:
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
    made: list[Worker] = []

    def make(script: str, exclusive: bool) -> Worker:
        name = f"a_worker_{len(made)}"
        (tmp_path / f"{name}.py").write_text(script, encoding="utf-8")
        made.append(Worker(name, exclusive=exclusive))
        return made[-1]

    yield make
    for one in made:
        await one.end()


async def failed(asking: Any) -> DeviceUnavailable:
    with pytest.raises(DeviceUnavailable) as caught:
        await asking
    return caught.value


async def test_a_worker_starts_when_it_is_first_asked_and_stays(worker: Any) -> None:
    one = worker(BLOCKING, True)
    assert one.pid is None
    first, second = [await one.ask({"do": "work"}, 10) for _ in range(2)]
    assert first["pid"] == second["pid"] == one.pid


@pytest.mark.parametrize(
    ("do", "cause", "says"),
    [
        ("hang", Cause.SILENT, "within"),
        ("die", Cause.NONSENSE, "status 7"),
        ("babble", Cause.NONSENSE, "died"),
        ("refuse", Cause.NOT_FOUND, "no such thing"),
        ("eat", Cause.NONSENSE, "more than 256 MiB"),
    ],
)
async def test_what_goes_wrong_has_a_cause_and_the_next_question_is_answered(
    worker: Any, do: str, cause: Cause, says: str
) -> None:
    one = worker(BLOCKING, True)
    await one.ask({"do": "work"}, 10)
    found = await failed(one.ask({"do": do}, 1.0))
    assert found.cause is cause
    assert says in str(found)
    assert (await one.ask({"do": "work"}, 10))["said"] == "work"


async def test_who_gives_up_on_a_busy_worker_has_it_killed(worker: Any) -> None:
    one = worker(BLOCKING, True)
    busy = (await one.ask({"do": "work"}, 10))["pid"]
    asking = asyncio.create_task(one.ask({"do": "hang"}, 60))
    await asyncio.sleep(0.1)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert (await one.ask({"do": "work"}, 10))["pid"] != busy


async def test_many_questions_are_under_way_at_once_and_a_late_one_harms_none(worker: Any) -> None:
    one = worker(MANY, False)
    await one.ask({"seconds": 0}, 10)
    begun = time.monotonic()
    late, broken, *good = await asyncio.gather(
        failed(one.ask({"seconds": 30}, 0.5)),
        failed(one.ask({"seconds": 0.01}, 5)),
        *(one.ask({"seconds": 0.3}, 5) for _ in range(20)),
    )
    assert time.monotonic() - begun < 3
    assert late.cause is Cause.SILENT
    assert "ZeroDivisionError" in str(broken)
    assert good == [{"seconds": 0.3}] * 20


async def test_a_question_waits_for_a_free_worker_and_its_deadline_begins_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
    (tmp_path / "a_pool.py").write_text(BLOCKING, encoding="utf-8")
    pool = Pool("a_pool", 1)
    try:
        await pool.ask({"do": "work"}, 10)
        late, found = await asyncio.gather(
            failed(pool.ask({"do": "hang"}, 0.8)), pool.ask({"do": "work"}, 5), return_exceptions=False
        )
        assert late.cause is Cause.SILENT
        assert found["said"] == "work"
    finally:
        await pool.end()


def test_no_worker_outlives_its_agent(tmp_path: Path) -> None:
    (tmp_path / "a_worker.py").write_text(BLOCKING, encoding="utf-8")
    script = (
        "import asyncio\nfrom edge.workers import Worker\n"
        "async def main():\n    one = Worker('a_worker', exclusive=True)\n"
        "    print((await one.ask({'do': 'work'}, 20))['pid'], flush=True)\n    await asyncio.sleep(3600)\n"
        "asyncio.run(main())\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    agent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment)
    assert agent.stdout is not None
    child = int(agent.stdout.readline())
    agent.send_signal(signal.SIGKILL)
    agent.wait(10)
    agent.stdout.close()

    def gone() -> bool:
        try:
            state = Path(f"/proc/{child}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0]
        except OSError:
            return True
        return state == "Z"

    deadline = time.monotonic() + 10
    while not gone():
        assert time.monotonic() < deadline
        time.sleep(0.02)


async def test_a_worker_that_hangs_though_it_should_do_many_things_is_replaced(
    worker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = worker(MANY, False)
    await one.ask({"seconds": 0}, 10)
    hung = one.pid
    os.kill(hung, signal.SIGSTOP)
    assert (await failed(one.ask({"seconds": 0}, 0.3))).cause is Cause.SILENT
    assert one.pid == hung, "lateness alone is no reason"
    monkeypatch.setattr("edge.workers.HUNG_SECONDS", 0.2)
    assert (await failed(one.ask({"seconds": 0}, 0.3))).cause is Cause.SILENT
    assert await one.ask({"seconds": 0}, 10) == {"seconds": 0}
    assert one.pid != hung
