"""What a box does with what it is sent: once, in time, on disk before it sounds, and every word about it signed."""

import asyncio
import base64
import hashlib
import io
import sqlite3
import sys
import wave
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from contract.broadcast import (
    Bundle,
    BundleKey,
    Class,
    Envelope,
    Hello,
    Limits,
    Order,
    Outcome,
    Root,
    Step,
    as_key,
    signed,
    to_bytes,
    verified,
)
from contract.catalog import BUNDLE, ENVELOPE, OUTCOME, REFUSAL, ROOT, Cause
from contract.commands import Stage
from contract.dsse import public_bytes
from contract.metrics import Sample
from contract.payload import WireMetric
from edge import playout
from edge.announcer import Announcer, Settings
from edge.audio import Encoding, Form
from edge.audio_cache import AudioCache
from edge.command_journal import CommandJournal
from edge.poller import DeviceUnavailable
from edge.trust import Anchor

ROOT_KEY, SIGNER, NEXT_ROOT, NEXT_SIGNER, BOX = (
    Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in range(1, 6)
)
RATE = 8000
FORM = Form(encoding=Encoding.L16, rate=RATE)
HOUR = 3_600_000


def named(key: Ed25519PrivateKey) -> Any:
    return as_key(public_bytes(key))


def tone(seconds: float = 0.5) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(RATE)
        out.writeframes((9000 * np.sin(np.arange(int(RATE * seconds)))).astype("<i2").tobytes())
    return file.getvalue()


@dataclass
class Horn:
    """A loudspeaker that counts the samples it is given; `gate` shut means that it is still sounding."""

    form: Form = FORM
    first_at: int | None = 77
    volumes: list[int] = field(default_factory=list)
    heard: int = 0
    fails: list[Exception] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    @asynccontextmanager
    async def sounding(self, *, volume: int) -> AsyncIterator["Horn"]:
        if self.fails:
            raise self.fails.pop(0)
        self.volumes.append(volume)
        yield self

    async def write(self, sound: bytes) -> None:
        self.heard += len(sound) // self.form.sample_bytes
        await self.gate.wait()


@dataclass
class Shelf:
    """The hub's audio: what it answers, and how often it was asked."""

    files: dict[str, bytes] = field(default_factory=dict)
    faults: list[Callable[[bytes], web.StreamResponse]] = field(default_factory=list)
    ranges: list[str | None] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.ranges.append(request.headers.get("Range"))
        raw = self.files.get(request.match_info["digest"])
        if raw is None:
            raise web.HTTPNotFound
        if self.faults:
            return self.faults.pop(0)(raw)
        wanted = request.headers.get("Range")
        if wanted is not None:
            return web.Response(status=206, body=raw[int(wanted.removeprefix("bytes=").rstrip("-")) :])
        return web.Response(body=raw)


@dataclass
class Box:
    """An announcer with all that it needs, as it is between two starts."""

    folder: Path
    clock: Any
    url: str
    shelf: Shelf
    horns: dict[str, Horn] = field(default_factory=lambda: {"loa-1": Horn(), "loa-2": Horn()})
    samples: list[Sample] = field(default_factory=list)
    hellos: list[Hello] = field(default_factory=list)
    root: str = field(default_factory=lambda: signed(root(), [ROOT_KEY]))
    disk_full: bool = False

    @asynccontextmanager
    async def started(self) -> AsyncIterator[Announcer]:
        with CommandJournal(self.folder / "journal.db") as journal:
            announcer = Announcer(
                Settings(
                    node="n-01",
                    anchor=Anchor(group="g", deployment="d", environment="demo", root=self.root),
                    identity=BOX,
                    max_volume=70,
                    trust_clock=False,
                ),
                journal=journal,
                cache=AudioCache(self.folder / "audio", self.url),
                speakers=self.horns,
                record=self.record,
                clock=self.clock,
            )
            announcer.say = self.say
            running = asyncio.create_task(announcer.run())
            await asyncio.sleep(0)
            try:
                yield announcer
            finally:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)

    async def record(self, stream: str, samples: Sequence[Sample]) -> None:
        assert stream == ""
        if self.disk_full:
            raise sqlite3.OperationalError("database or disk is full")
        self.samples += samples

    async def say(self, metrics: Sequence[WireMetric]) -> None:
        self.hellos += [verified(Hello, str(one.value), [named(BOX)]) for one in metrics]

    def outcomes(self) -> list[tuple[str | None, Stage]]:
        return [(one.speaker, one.stage) for one in self.told()]

    def told(self) -> list[Outcome]:
        return [verified(Outcome, str(one.value), [named(BOX)]) for one in self.samples if one.metric == OUTCOME]

    def alarms(self) -> list[str]:
        return [str(one.value) for one in self.samples if one.metric == REFUSAL]

    def order(self, raw: bytes | None = None, **change: Any) -> Order:
        raw = tone() if raw is None else raw
        digest = hashlib.sha256(raw).hexdigest()
        self.shelf.files.setdefault(digest, raw)
        step = Step(step="speech", sha256=digest, bytes=len(raw), media_type="audio/wav", duration_ms=500)
        now = self.clock.now_ms()
        told: dict[str, Any] = {
            "deployment": "d",
            "id": "a" * 32,
            "action": "play",
            "class_": Class.NORMAL,
            "kind": "test",
            "issuer": "local",
            "issued_at": now,
            "expires_at": now + 600_000,
            "start_within_s": 600,
            "program": (step,),
            "volume": 80,
            **change,
        }
        return Order(**told)

    def wrapped(self, announcer: Announcer, order: Order, *, key: Ed25519PrivateKey = SIGNER, **change: Any) -> str:
        hello = verified(Hello, announcer.hello(), [named(BOX)])
        told: dict[str, Any] = {
            "node": "n-01",
            "speakers": ("loa-1", "loa-2"),
            "challenge": hello.challenge,
            "sequence": 1,
            "issued_at": order.issued_at,
            "expires_at": order.expires_at,
            "min_bundle": 1,
            "order": base64.b64encode(to_bytes(order)).decode(),
            **change,
        }
        return signed(Envelope(**told), [key])

    def stop(self, *orders: str) -> Order:
        return self.order(id="5" * 32, action="stop", program=(), stops=orders, volume=0)


def root(version: int = 1, key: Ed25519PrivateKey = ROOT_KEY) -> Root:
    return Root(version=version, keys=(named(key),), threshold=1)


def bundle(version: int = 1, key: Ed25519PrivateKey = SIGNER, *, signed_at: int = 0, rate: int = 5) -> Bundle:
    entry = BundleKey(
        **named(key).model_dump(),
        role="signer",
        classes=(Class.NORMAL,),
        scope=("*",),
        limits=Limits(duration=600, volume=80, rate=rate),
    )
    return Bundle(
        deployment="d",
        group="g",
        environment="demo",
        version=version,
        root_version=1,
        signed_at=signed_at,
        renew_by=2**52,
        keys=(entry,),
    )


@pytest.fixture
async def box(tmp_path: Path, clock: Any, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Box]:
    monkeypatch.setattr("edge.audio_cache.RETRY_SECONDS", 0.01)
    monkeypatch.setattr(playout, "OPEN_AGAIN_AFTER", (0.01, 0.01))
    shelf = Shelf()
    application = web.Application()
    application.router.add_get("/audio/{digest}", shelf.answer)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    with CommandJournal(tmp_path / "journal.db") as journal:
        journal.keep_trust("bundle", signed(bundle(), [ROOT_KEY]))
    yield Box(tmp_path, clock, f"http://127.0.0.1:{runner.addresses[0][1]}", shelf)
    await runner.cleanup()


DONE = [(None, Stage.ACCEPTED), ("loa-1", Stage.STARTED), ("loa-2", Stage.STARTED)]


async def test_an_order_sounds_once_however_often_it_comes(box: Box, eventually: Any) -> None:
    async with box.started() as announcer:
        order = box.order()
        for _ in range(3):
            await announcer.take(ENVELOPE, box.wrapped(announcer, order))
        await eventually(lambda: len(box.outcomes()) >= 6)
        assert set(box.outcomes()) == {*DONE, ("loa-1", Stage.FINISHED), ("loa-2", Stage.FINISHED)}
        for _ in range(3):
            await box.clock.advance(60)
            await announcer.take(ENVELOPE, box.wrapped(announcer, order))
    assert box.horns["loa-1"].heard == RATE // 2
    assert box.horns["loa-1"].volumes == [70], "the box's own limit holds"
    assert next(one.at for one in box.told() if one.stage is Stage.STARTED) == 77
    assert box.outcomes().count(("loa-1", Stage.FINISHED)) >= 3, "the hub asks since it missed the outcome"
    assert box.outcomes().count(("loa-1", Stage.STARTED)) == 1


async def test_repeated_outcomes_grow_rare_so_that_a_replay_cannot_fill_the_disk(box: Box, eventually: Any) -> None:
    async with box.started() as announcer:
        raw = box.wrapped(announcer, box.order())
        await announcer.take(ENVELOPE, raw)
        await eventually(lambda: box.outcomes().count(("loa-2", Stage.FINISHED)) == 1)
        for _ in range(600):
            await announcer.take(ENVELOPE, raw)
            box.clock._move(box.clock.monotonic() + 1)
    assert box.outcomes().count(("loa-1", Stage.FINISHED)) <= 10


async def test_what_a_power_cut_ended_is_reported_and_never_sounds_again(box: Box, eventually: Any) -> None:
    order = box.order()
    with CommandJournal(box.folder / "journal.db") as journal:
        journal.accept(order.id, hashlib.sha256(to_bytes(order)).hexdigest(), "key", box.clock.now_ms())
    async with box.started() as announcer:
        await eventually(lambda: box.outcomes() == [(None, Stage.FAILED)])
        assert "power" in box.told()[0].reason
        await announcer.take(ENVELOPE, box.wrapped(announcer, order))
        assert box.outcomes() == [(None, Stage.FAILED)] * 2
    async with box.started():
        await box.clock.settle()
    assert len(box.outcomes()) == 2, "said once, not at every start"
    assert box.horns["loa-1"].heard == 0


async def test_switching_the_box_off_ends_the_sound_and_says_so(box: Box, eventually: Any) -> None:
    box.horns["loa-1"].gate.clear()
    async with box.started() as announcer:
        await announcer.take(ENVELOPE, box.wrapped(announcer, box.order(), speakers=("loa-1",)))
        await eventually(lambda: box.horns["loa-1"].heard)
    assert box.outcomes()[-1] == (None, Stage.FAILED)
    assert "switched off" in box.told()[-1].reason


async def test_a_stop_ends_the_sound_at_once(box: Box, eventually: Any) -> None:
    box.horns["loa-1"].gate.clear()
    async with box.started() as announcer:
        await announcer.take(ENVELOPE, box.wrapped(announcer, box.order(), speakers=("loa-1",)))
        await eventually(lambda: box.horns["loa-1"].heard)
        await announcer.take(ENVELOPE, box.wrapped(announcer, box.stop("a" * 32)))
        assert box.outcomes()[-3:] == [(None, Stage.ACCEPTED), (None, Stage.STOPPED), (None, Stage.FINISHED)]
        assert box.told()[-2].order == "a" * 32
        assert "local" in box.told()[-2].reason
    assert box.horns["loa-1"].heard < RATE // 2


async def test_a_stop_that_comes_first_is_remembered_also_after_a_power_cut(box: Box) -> None:
    async with box.started() as announcer:
        await announcer.take(ENVELOPE, box.wrapped(announcer, box.stop("a" * 32)))
    async with box.started() as announcer:
        await announcer.take(ENVELOPE, box.wrapped(announcer, box.order()))
        assert box.outcomes()[-1] == (None, Stage.REFUSED)
        assert "stopped" in box.told()[-1].reason
    assert box.horns["loa-1"].heard == 0


async def test_a_loudspeaker_that_fails_does_not_silence_the_others(box: Box, eventually: Any) -> None:
    gone = DeviceUnavailable(Cause.UNREACHABLE, "nobody there")
    box.horns["loa-1"].fails = [gone] * 9
    box.horns["loa-3"] = Horn(fails=[RuntimeError("a mistake of ours")])
    async with box.started() as announcer:
        speakers = ("loa-1", "loa-2", "loa-3", "loa-9")
        await announcer.take(ENVELOPE, box.wrapped(announcer, box.order(), speakers=speakers))
        await eventually(lambda: len(box.outcomes()) == 6)
    assert set(box.outcomes()) == {
        (None, Stage.ACCEPTED),
        ("loa-1", Stage.FAILED),
        ("loa-2", Stage.STARTED),
        ("loa-2", Stage.FINISHED),
        ("loa-3", Stage.FAILED),
        ("loa-9", Stage.REFUSED),
    }
    assert box.horns["loa-2"].heard == RATE // 2


async def test_a_loudspeaker_that_does_not_open_at_once_is_tried_again(box: Box, eventually: Any) -> None:
    box.horns["loa-1"].fails = [DeviceUnavailable(Cause.SILENT, "no answer")] * 2
    async with box.started() as announcer:
        await announcer.take(ENVELOPE, box.wrapped(announcer, box.order(), speakers=("loa-1",)))
        await eventually(lambda: ("loa-1", Stage.FINISHED) in box.outcomes())
    assert box.horns["loa-1"].heard == RATE // 2


async def test_a_second_announcement_waits_until_the_first_has_sounded(box: Box, eventually: Any) -> None:
    horn = box.horns["loa-1"]
    horn.gate.clear()
    async with box.started() as announcer:
        for one in ("a", "b"):
            order = box.order(id=one * 32)
            await announcer.take(ENVELOPE, box.wrapped(announcer, order, speakers=("loa-1",)))
        await eventually(lambda: horn.heard)
        assert len(horn.volumes) == 1
        horn.gate.set()
        await eventually(lambda: box.outcomes().count(("loa-1", Stage.FINISHED)) == 2)
    assert horn.heard == RATE


async def test_one_whose_turn_does_not_come_in_time_expires(box: Box, eventually: Any) -> None:
    horn = box.horns["loa-1"]
    horn.gate.clear()
    async with box.started() as announcer:
        await announcer.take(ENVELOPE, box.wrapped(announcer, box.order(), speakers=("loa-1",)))
        await eventually(lambda: horn.heard)
        late = box.order(id="b" * 32, start_within_s=0)
        await announcer.take(ENVELOPE, box.wrapped(announcer, late, speakers=("loa-1",)))
        await eventually(lambda: ("loa-1", Stage.EXPIRED) in box.outcomes())
        horn.gate.set()
        await eventually(lambda: ("loa-1", Stage.FINISHED) in box.outcomes())
    assert horn.heard == RATE // 2


@pytest.mark.parametrize(
    ("served", "reason"),
    [
        (lambda raw: web.Response(body=raw[:-1]), "bytes came"),
        (lambda raw: web.Response(body=raw + b"!"), "bytes came"),
        (lambda raw: web.Response(body=bytes(len(raw))), "another digest"),
        (lambda raw: web.Response(status=404), "HTTP 404"),
    ],
    ids=["short", "long", "altered", "missing"],
)
async def test_audio_that_is_not_what_was_ordered_is_silence_and_a_reason(
    box: Box, eventually: Any, served: Callable[[bytes], web.Response], reason: str
) -> None:
    box.shelf.faults = [served] * 9
    async with box.started() as announcer:
        await announcer.take(ENVELOPE, box.wrapped(announcer, box.order()))
        await eventually(lambda: (None, Stage.FAILED) in box.outcomes())
    assert reason in box.told()[-1].reason
    assert box.horns["loa-1"].heard == 0


async def test_a_bad_line_and_a_hub_that_starts_again_delay_an_announcement_and_do_not_silence_it(
    box: Box, eventually: Any
) -> None:
    box.shelf.faults = [
        lambda raw: web.Response(status=503),
        lambda raw: web.Response(body=bytes(len(raw))),
        lambda raw: web.Response(status=502),
    ]
    async with box.started() as announcer:
        await announcer.take(ENVELOPE, box.wrapped(announcer, box.order()))
        await eventually(lambda: ("loa-1", Stage.FINISHED) in box.outcomes())
    assert len(box.shelf.ranges) == 4


async def test_a_download_that_broke_off_goes_on_where_it_was(tmp_path: Path) -> None:
    raw = tone()
    asked: list[bytes] = []

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        if b"Range: bytes=1000-\r\n" in asked[-1]:
            head, body = b"HTTP/1.1 206 Partial Content", raw[1000:]
            writer.write(head + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(raw) + raw[:1000])
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(converse, "127.0.0.1", 0)
    async with server:
        cache = AudioCache(tmp_path, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        digest = hashlib.sha256(raw).hexdigest()
        step = Step(step="s", sha256=digest, bytes=len(raw), media_type="audio/wav", duration_ms=500)
        found = await asyncio.gather(cache.get(step, 20), cache.get(step, 20))
    assert {one.read_bytes() for one in found} == {raw}
    assert [one.name for one in tmp_path.iterdir()] == [digest], "nothing half-written is left"


async def test_audio_is_fetched_once_and_a_damaged_file_is_fetched_again(box: Box, eventually: Any) -> None:
    async with box.started() as announcer:
        for number, one in enumerate("abc"):
            if one == "c":
                next((box.folder / "audio").iterdir()).write_bytes(b"a damaged card")
            await announcer.take(ENVELOPE, box.wrapped(announcer, box.order(id=one * 32), speakers=("loa-1",)))
            await eventually(lambda: box.outcomes().count(("loa-1", Stage.FINISHED)) == number + 1)  # noqa: B023
    assert len(box.shelf.ranges) == 2


async def test_a_file_longer_than_its_order_says_does_not_sound(box: Box, eventually: Any) -> None:
    """The limit on duration would be worth nothing if the order's word for it were believed."""
    async with box.started() as announcer:
        await announcer.take(ENVELOPE, box.wrapped(announcer, box.order(tone(30))))
        await eventually(lambda: (None, Stage.FAILED) in box.outcomes())
    assert "longer than" in box.told()[-1].reason
    assert box.horns["loa-1"].heard == 0


async def test_a_playlist_cannot_make_other_files_of_the_box_sound(box: Box, eventually: Any) -> None:
    (box.folder / "audio").mkdir()
    (box.folder / "audio" / "secret").write_bytes(tone())
    async with box.started() as announcer:
        await announcer.take(ENVELOPE, box.wrapped(announcer, box.order(b"ffconcat version 1.0\nfile secret\n")))
        await eventually(lambda: (None, Stage.FAILED) in box.outcomes())
    assert box.horns["loa-1"].heard == 0


@pytest.mark.parametrize(
    ("program", "reason"),
    [("while True: pass", "did not finish within"), ("import os; os.kill(os.getpid(), 9)", "ended by signal 9")],
    ids=["hangs", "dies"],
)
async def test_a_decoder_that_does_not_end_well_is_silence_and_a_reason(
    box: Box, eventually: Any, monkeypatch: pytest.MonkeyPatch, program: str, reason: str
) -> None:
    monkeypatch.setattr("edge.audio.WORKER", (sys.executable, "-c", program))
    monkeypatch.setattr("edge.audio.DECODE_SECONDS", 1.0)
    async with box.started() as announcer:
        await announcer.take(ENVELOPE, box.wrapped(announcer, box.order()))
        await eventually(lambda: (None, Stage.FAILED) in box.outcomes())
    assert reason in box.told()[-1].reason
    assert box.horns["loa-1"].heard == 0


async def test_a_programme_of_several_steps_sounds_as_often_as_ordered_in_each_loudspeakers_form(
    box: Box, eventually: Any
) -> None:
    box.horns["loa-2"].form = Form(encoding=Encoding.PCMU, rate=16_000)
    async with box.started() as announcer:
        (step,) = box.order().program
        order = box.order(program=(step, step.model_copy(update={"step": "again"})), repeats=2)
        await announcer.take(ENVELOPE, box.wrapped(announcer, order))
        await eventually(lambda: box.outcomes().count((None, Stage.ACCEPTED)) == 1 and len(box.outcomes()) == 5)
    assert box.horns["loa-1"].heard == RATE * 2
    assert box.horns["loa-2"].heard == pytest.approx(16_000 * 2, abs=200)


async def test_nothing_of_a_programme_is_left_on_disk_but_the_audio_that_was_fetched(box: Box, eventually: Any) -> None:
    async with box.started() as announcer:
        order = box.order()
        await announcer.take(ENVELOPE, box.wrapped(announcer, order))
        await eventually(lambda: ("loa-1", Stage.FINISHED) in box.outcomes())
    assert [one.name for one in (box.folder / "audio").iterdir()] == [order.program[0].sha256]


async def test_a_full_disk_costs_the_words_about_an_announcement_and_not_the_announcement(
    box: Box, eventually: Any
) -> None:
    box.disk_full = True
    async with box.started() as announcer:
        await announcer.take(ENVELOPE, box.wrapped(announcer, box.order()))
        await eventually(lambda: box.horns["loa-1"].heard == box.horns["loa-2"].heard == RATE // 2)
    assert box.outcomes() == []


async def test_what_cannot_be_remembered_does_not_sound_and_does_not_stop_the_box(
    box: Box, eventually: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with box.started() as announcer:
        journal = announcer._journal._database
        journal.execute("PRAGMA query_only = 1")
        await announcer.take(ENVELOPE, box.wrapped(announcer, box.order()))
        assert "could not be acted on" in caplog.text
        assert box.horns["loa-1"].heard == 0
        journal.execute("PRAGMA query_only = 0")
        await announcer.take(ENVELOPE, box.wrapped(announcer, box.order()))
        await eventually(lambda: ("loa-1", Stage.FINISHED) in box.outcomes())


async def test_a_refused_order_is_reported_once_and_every_refusal_brings_a_hello(box: Box) -> None:
    async with box.started() as announcer:
        for _ in range(3):
            await announcer.take(ENVELOPE, box.wrapped(announcer, box.order(volume=99)))
            await box.clock.advance(2)
    assert box.outcomes() == [(None, Stage.REFUSED)]
    assert len(box.hellos) == 3
    assert box.alarms() == []


async def test_an_envelope_that_is_not_fresh_is_no_verdict_and_brings_a_hello_with_a_challenge(
    box: Box, eventually: Any
) -> None:
    async with box.started() as announcer:
        stale = box.wrapped(announcer, box.order(), challenge="e" * 32)
        await announcer.take(ENVELOPE, stale)
        assert box.outcomes() == []
        fresh = box.wrapped(announcer, box.order(), challenge=box.hellos[-1].challenge)
        await announcer.take(ENVELOPE, fresh)
        await eventually(lambda: ("loa-1", Stage.FINISHED) in box.outcomes())


async def test_a_challenge_of_before_a_reboot_or_a_quarter_of_an_hour_is_worth_nothing(box: Box) -> None:
    async with box.started() as announcer:
        held_back = box.wrapped(announcer, box.order())
        await box.clock.advance(901)
        await announcer.take(ENVELOPE, held_back)
        before = box.wrapped(announcer, box.order())
    async with box.started() as announcer:
        await announcer.take(ENVELOPE, before)
    assert box.outcomes() == []
    assert box.horns["loa-1"].heard == 0


async def test_a_stranger_is_silence_an_alarm_at_most_every_ten_seconds_and_a_hello(box: Box) -> None:
    async with box.started() as announcer:
        for _ in range(21):
            await announcer.take(ENVELOPE, box.wrapped(announcer, box.order(), key=NEXT_SIGNER))
            await box.clock.advance(1)
    assert len(box.alarms()) == 3
    assert "no signature by a signer" in box.alarms()[0]
    assert len(box.hellos) == 21, "a box whose bundle is too old must be able to say so"
    assert box.horns["loa-1"].heard == 0


async def test_a_clock_that_was_years_ahead_silences_nobody(box: Box, eventually: Any) -> None:
    """Accepted orders count against the rate of their hour, not until the false year comes."""
    box.clock.wall += 10 * 365 * 24 * HOUR
    async with box.started() as announcer:
        for number in range(5):
            await announcer.take(ENVELOPE, box.wrapped(announcer, box.order(id=f"{number:032x}"), speakers=("loa-1",)))
        await announcer.take(ENVELOPE, box.wrapped(announcer, box.order()))
        assert "rate" in box.told()[-1].reason
    box.clock.wall -= 10 * 365 * 24 * HOUR
    async with box.started() as announcer:
        await announcer.take(ENVELOPE, box.wrapped(announcer, box.order(id="b" * 32), speakers=("loa-2",)))
        await eventually(lambda: ("loa-2", Stage.FINISHED) in box.outcomes())


async def test_a_rotated_signer_is_believed_with_the_bundle_that_names_it_also_after_a_restart(
    box: Box, eventually: Any
) -> None:
    async with box.started() as announcer:
        order = box.order()
        await announcer.take(ENVELOPE, box.wrapped(announcer, order, key=NEXT_SIGNER))
        await announcer.take(BUNDLE, signed(bundle(2, NEXT_SIGNER), [ROOT_KEY]))
    async with box.started() as announcer:
        assert verified(Hello, announcer.hello(), [named(BOX)]).bundle_version == 2
        await announcer.take(BUNDLE, signed(bundle(1), [ROOT_KEY]))
        assert "older" in box.alarms()[-1]
        await announcer.take(ENVELOPE, box.wrapped(announcer, order, key=NEXT_SIGNER))
        await eventually(lambda: ("loa-1", Stage.FINISHED) in box.outcomes())


async def test_a_bundle_by_anybody_but_root_is_an_alarm(box: Box) -> None:
    async with box.started() as announcer:
        await announcer.take(BUNDLE, signed(bundle(2, NEXT_SIGNER), [SIGNER]))
        assert verified(Hello, announcer.hello(), [named(BOX)]).bundle_version == 1
    assert len(box.alarms()) == 1


async def test_roots_follow_one_another_and_are_verified_from_the_pin_at_each_start(box: Box) -> None:
    second = signed(root(2, NEXT_ROOT), [ROOT_KEY, NEXT_ROOT])
    third = signed(root(3, NEXT_ROOT), [NEXT_ROOT])
    async with box.started() as announcer:
        await announcer.take(ROOT, third)
        assert len(box.alarms()) == 1
        for one in (second, second, third):
            await announcer.take(ROOT, one)
        assert len(box.alarms()) == 1, "a root that comes twice is no news"
    async with box.started() as announcer:
        assert verified(Hello, announcer.hello(), [named(BOX)]).root_version == 3
        await announcer.take(BUNDLE, signed(bundle(2), [NEXT_ROOT]))
        assert verified(Hello, announcer.hello(), [named(BOX)]).bundle_version == 2
    box.root = signed(root(1, SIGNER), [SIGNER])
    async with box.started() as announcer:
        told = verified(Hello, announcer.hello(), [named(BOX)])
        assert (told.root_version, told.bundle_version) == (1, 0), "another pin ends what the old one brought"


async def test_challenges_are_drawn_every_five_minutes_and_said(box: Box) -> None:
    async with box.started() as announcer:
        first = verified(Hello, announcer.hello(), [named(BOX)])
        await box.clock.advance(301)
        assert len(box.hellos) == 1
        assert box.hellos[0].challenge != first.challenge
        assert box.hellos[0].boot == first.boot
        await box.clock.advance(1200)
        assert len(announcer._challenges) <= 4
