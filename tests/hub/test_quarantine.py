"""A second look at what was put aside: what is good by now is stored and leaves, the rest stays, whole."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from contract.catalog import Kind
from contract.delivery import Held
from contract.metrics import DataType
from contract.payload import Payload
from contract.positions import Lineage, RangeSet
from contract.topics import MessageType
from hub.devices import DeviceKey, NodeKey
from hub.quarantine import WORDS, Quarantine
from hub.storage.embedded import EmbeddedStore
from hub.storage.timeseries import Batch, Quarantined

NODE = NodeKey("g", "n-01")
PROBE = DeviceKey("g", "n-01", "probe")
HORN = DeviceKey("g", "n-01", "horn")
PH, TEMPERATURE = 20, 21
LINEAGE = Lineage("log", 1, "probe")


async def second_look(intake: Any, node: NodeKey | None = None) -> Any:
    quarantine = Quarantine(
        store=intake.store, live=intake.live, committing=intake.ingest.committing, clock=intake.clock
    )
    looking = asyncio.create_task(quarantine.retry(node))
    while not looking.done():  # the intake's own loop, by hand
        await intake.clock.advance(1)
        intake.ingest.committing.commit_if_due()
    return looking.result()


async def test_what_was_ahead_of_its_time_is_stored_once_its_time_has_come(intake: Any, make: Any) -> None:
    now = intake.clock.now_ms()
    intake.births()
    ahead = make.by_alias(PH, DataType.DOUBLE, 7.0, now + 3_600_000)
    intake.give(MessageType.DDATA, make.data(ahead, at=now), "probe")
    await intake.commit()
    done = await second_look(intake)
    assert (done.looked, done.released, done.still) == (1, 0, {"impossible_time": 1})
    await intake.clock.advance(3_600)
    done = await second_look(intake)
    assert (done.looked, done.released, done.samples, done.still) == (1, 1, 1, {})
    raw = intake.store.raw(PROBE, "Water/pH", now, now + 4_000_000, 9)
    assert (raw.at, raw.value) == ([now + 3_600_000], [7.0])
    assert raw.flags[0] & 0b100, "it is history by now"
    assert intake.store.quarantined(0, 9) == []
    assert intake.store.ledger(NODE) == {LINEAGE: RangeSet([(0, 0)])}, "it was accounted for before"


async def test_live_state_is_not_touched_by_a_second_look(intake: Any, make: Any) -> None:
    now = intake.clock.now_ms()
    intake.births()
    intake.give(MessageType.DDATA, make.data(make.by_alias(PH, DataType.DOUBLE, 7.0, now + 400_000), at=now), "probe")
    await intake.commit()
    await intake.clock.advance(400)
    await second_look(intake)
    probe = next(one for one in intake.live.devices() if one.key == PROBE)
    assert "Water/pH" not in probe.values


async def test_what_can_never_be_good_stays_whole_with_its_reason(intake: Any, make: Any) -> None:
    now = intake.clock.now_ms()
    intake.births()
    intake.give(MessageType.DDATA, make.data(make.by_alias(PH, DataType.DOUBLE, float("nan"), now), at=now), "probe")
    twice = make.data(make.by_alias(PH, DataType.DOUBLE, 7.0, now), at=now, first=1, last=5)
    intake.give(MessageType.DDATA, twice, "probe")
    huge = make.data(make.by_alias(PH, DataType.DOUBLE, 7.0, now), at=now, first=2, last=2**63)
    intake.give(MessageType.DDATA, huge, "probe")
    await intake.commit()
    before = intake.store.quarantined(0, 9)
    done = await second_look(intake)
    assert done.still == {"not_a_number": 1, "record_count": 1, "position_too_large": 1}
    assert intake.store.quarantined(0, 9) == before
    assert intake.store.stats().samples == 0
    assert set(done.still) <= set(WORDS), "each has words for people"


async def test_an_event_keeps_its_position_and_is_acted_on_when_it_passes(intake: Any, make: Any) -> None:
    now = intake.clock.now_ms()
    intake.births(device="horn", kind=Kind.LOUDSPEAKER)
    ahead = make.by_alias(20, DataType.STRING, "playing", now + 400_000)
    intake.give(MessageType.DDATA, make.data(ahead, at=now), "horn")
    await intake.commit()
    assert intake.store.events(0, "Playback/State", 9) == []
    await intake.clock.advance(400)
    await second_look(intake)
    (event,) = intake.store.events(0, "Playback/State", 9)
    assert (event.value, event.lineage, event.offset) == ("playing", Lineage("log", 1, "horn"), 0)


async def test_it_needs_no_birth_and_can_be_limited_to_one_edge_node(intake: Any, make: Any, another: Any) -> None:
    now = intake.clock.now_ms()
    for node, log in (("n-01", "log"), ("n-02", "log2")):
        intake.births(node=node, log=log, held=Held(log=log, epoch=1, positions={}))
        ahead = make.by_alias(TEMPERATURE, DataType.DOUBLE, 28.5, now + 400_000)
        intake.give(MessageType.DDATA, make.data(ahead, at=now), "probe", node=node)
    await intake.commit()
    hub = another()
    await hub.clock.advance(400)
    done = await second_look(hub, NODE)
    assert (done.looked, done.released) == (1, 1)
    assert [one.key.node for one in hub.store.quarantined(0, 9)] == ["n-02"]


async def test_rows_that_cannot_be_read_stay(intake: Any) -> None:
    rows = [
        Quarantined(key=PROBE, reason="record_count", payload=payload, received_at=1, samples=1)
        for payload in (b"\xff", b"", Payload.__name__.encode())
    ]
    intake.store.commit(Batch(quarantined=rows), 1)
    done = await second_look(intake)
    assert (done.looked, done.released) == (3, 0)
    assert len(intake.store.quarantined(0, 9)) == 3


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hub", *arguments], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "hub.toml"
    file.write_text(
        '[hub]\nhost_id = "hub"\nstate_dir = "state"\nport = 0\nclock = "trusted"\nstatus_file = "status.json"\n'
        "[broker]\nport = 1\n",
        encoding="utf-8",
    )
    return file


def test_the_command_asks_the_hub_that_runs_and_says_so_when_none_does(config: Path, tmp_path: Path) -> None:
    with EmbeddedStore(tmp_path / "state") as store:
        row = Quarantined(key=HORN, reason="impossible_time", payload=b"", received_at=5, samples=1, metric="A", at=4)
        store.commit(Batch(quarantined=[row]), 5)
    (tmp_path / "status.json").write_text('{"url": "http://127.0.0.1:9"}', encoding="utf-8")
    silent = run("quarantine", "list", str(config))
    assert silent.returncode == 1
    assert "hamlet-hub serve" in silent.stderr
    (tmp_path / "status.json").unlink()
    with subprocess.Popen([sys.executable, "-m", "hub", "serve", str(config)], stderr=subprocess.PIPE) as server:
        try:
            assert server.stderr is not None
            while b"hub: http" not in server.stderr.readline():
                assert server.poll() is None
            listed = run("quarantine", "list", str(config))
            assert "g/n-01/horn A at 4: the instant lies more than 400 days back" in listed.stdout, listed.stderr
            tried = run("quarantine", "retry", str(config), "--node", "g/n-01")
            assert tried.stdout.splitlines() == ["looked at 1, stored 0 (0 samples)", "1 stay: impossible_time"]
            assert "GROUP/NODE" in run("quarantine", "list", str(config), "--node", "n-01").stderr
        finally:
            os.kill(server.pid, signal.SIGTERM)
