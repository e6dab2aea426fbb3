"""From play to the last verified outcome, with the real signer process and a box that answers or lies."""

import asyncio
import base64
import io
import json
import sqlite3
import sys
import wave
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from contract.broadcast import Hello, Order, Outcome, read, signed
from contract.clock import SystemClock
from contract.commands import Stage
from contract.payload import decode
from edge.broadcast import Accepted, Again, Situation, examine
from hub.announcements import AnnouncementRefused, Announcements, Request
from hub.app import trust_of
from hub.audio import AudioRefused, AudioStore
from hub.audit import Person
from hub.backup import back_up
from hub.config import BroadcastConfig, EdgeNodeConfig
from hub.devices import DeviceKey, NodeKey
from hub.restore import restore
from hub.signer import ceremony
from hub.signer.client import SignerClient
from hub.storage.announcements import UNKNOWN_ORDER, AnnouncementStore
from hub.storage.audit import Audit, Search
from hub.storage.database import open_database
from hub.storage.embedded import EmbeddedStore
from hub.storage.timeseries import Batch, EventRow
from hub.trust import Trust

NODE = NodeKey("g", "n-01")
SPEAKERS = (DeviceKey("g", "n-01", "loa-1"), DeviceKey("g", "n-01", "loa-2"))
BOOT, CHALLENGE = "b" * 32, "c" * 32
SOMEBODY = Person(account="lan")


def tone(seconds: float = 0.5) -> bytes:
    sound = (9000 * np.sin(np.arange(int(16_000 * seconds)) / 5)).astype("<i2")
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(16_000)
        out.writeframes(sound.tobytes())
    return file.getvalue()


@dataclass
class Station:
    announcements: Announcements
    store: AnnouncementStore
    readings: EmbeddedStore
    sent: list[tuple[str, str, str]]
    box: Ed25519PrivateKey
    folder: Path
    trust: Trust
    signer: asyncio.subprocess.Process

    def greet(self, key: Ed25519PrivateKey | None = None, *, challenge: str = CHALLENGE, bundle: int = 1) -> None:
        hello = Hello(node="n-01", boot=BOOT, challenge=challenge, root_version=1, bundle_version=bundle)
        self.announcements.hello(NODE, signed(hello, [key or self.box]))

    def report(
        self,
        order: str,
        stage: Stage,
        speaker: str | None = None,
        key: Ed25519PrivateKey | None = None,
        node: str = "n-01",
    ) -> None:
        outcome = Outcome(node=node, order=order, stage=stage, at=5, speaker=speaker)
        event = EventRow(
            key=DeviceKey("g", "n-01", ""),
            metric="Announcement/Outcome",
            at=5,
            received_at=6,
            value=signed(outcome, [key or self.box]),
        )
        self.readings.commit(Batch(events=[event]), 6)
        self.announcements.outcomes_came()

    def stages(self, order: str) -> list[Stage]:
        found = self.announcements.get(order)
        assert found is not None
        return [part.stage for part in found.parts]

    def envelopes(self) -> list[str]:
        return [value for _, name, value in self.sent if name == "Broadcast/Envelope"]

    def orders(self) -> list[Order]:
        """Return the order in each envelope that was sent."""
        inside = [json.loads(base64.b64decode(json.loads(one)["payload"])) for one in self.envelopes()]
        return [read(Order, base64.b64decode(one["order"])) for one in inside]

    def reasons(self, order: str) -> list[str]:
        found = self.announcements.get(order)
        assert found is not None
        return [part.reason for part in found.parts]


@asynccontextmanager
async def signer_at(folder: Path, limits: str = "") -> AsyncIterator[asyncio.subprocess.Process]:
    ceremony.demo(folder / "keys", deployment="d", group="g", nodes=["n-01"], clock=SystemClock())
    config = folder / "signer.toml"
    config.write_text(
        f'deployment = "d"\nkey = "keys/signer.pem"\nsocket = "s.sock"\nlog = "s.log"\n{limits}', encoding="utf-8"
    )
    signer = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "hub", "signer", config, stderr=asyncio.subprocess.PIPE
    )
    assert signer.stderr is not None
    try:
        async with asyncio.timeout(20):
            while b"answers on" not in await signer.stderr.readline():
                assert signer.returncode is None
        yield signer
    finally:
        if signer.returncode is None:
            signer.terminate()
        await signer.wait()
        signer.stderr.feed_eof()


@asynccontextmanager
async def opened(folder: Path, clock: Any, signer: asyncio.subprocess.Process) -> AsyncIterator[Station]:
    """Open what a hub opens between two starts."""
    sent: list[tuple[str, str, str]] = []

    def publish(topic: str, payload: bytes) -> bool:
        metric = decode(payload).metrics[0]
        sent.append((topic, str(metric.name), str(metric.value)))
        return True

    keys = folder / "keys"
    known = json.loads((keys / "identities.json").read_text())["n-01"]
    nodes = [EdgeNodeConfig(group="g", id="n-01", commune="Xã", hamlet="Ấp", identity=known)]
    config = BroadcastConfig(signer_socket=folder / "s.sock", roots=[keys / "root.json"], bundle=keys / "bundle.json")
    trust = trust_of(config, nodes)
    box = load_pem_private_key((keys / "n-01.pem").read_bytes(), None)
    assert isinstance(box, Ed25519PrivateKey)
    with closing(open_database(folder / "hub.db", "hub")) as database, EmbeddedStore(folder) as readings:
        store = AnnouncementStore(database, Audit(database))
        announcements = Announcements(
            store=store,
            readings=readings,
            audio=AudioStore(folder / "audio"),
            signer=SignerClient(folder / "s.sock"),
            trust=trust,
            publish=publish,
            clock=clock,
        )
        running = asyncio.create_task(announcements.run())
        try:
            yield Station(announcements, store, readings, sent, box, folder, trust, signer)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


@asynccontextmanager
async def station_at(folder: Path, clock: Any, *, limits: str = "") -> AsyncIterator[Station]:
    async with signer_at(folder, limits) as signer, opened(folder, clock, signer) as station:
        yield station


@pytest.fixture
async def station(tmp_path: Path) -> AsyncIterator[Station]:
    async with station_at(tmp_path, SystemClock()) as one:
        yield one


def request(**change: Any) -> Request:
    told: dict[str, Any] = {"speakers": SPEAKERS, "by": SOMEBODY, "audio": tone(), "filename": "còi.wav", **change}
    return Request(**told)


async def test_what_leaves_is_an_envelope_that_the_box_would_obey(station: Station, eventually: Any) -> None:
    station.greet()
    made = await station.announcements.announce(request())
    await eventually(station.envelopes)
    assert station.sent[0][0] == "spBv1.0/g/NCMD/n-01"
    verdict = examine(
        station.envelopes()[0],
        Situation(
            node="n-01",
            deployment="d",
            bundle=station.trust.bundle,
            speakers=frozenset({"loa-1", "loa-2"}),
            monotonic=10.0,
            wall=0,
            clock_trusted=False,
            challenges={CHALLENGE: 5.0},
        ),
    )
    assert isinstance(verdict, Accepted)
    assert verdict.order.id == made.id
    assert verdict.order.program[0].sha256 == made.sha256
    path = AudioStore(station.folder / "audio").path(made.sha256)
    assert path is not None
    assert path.stat().st_size == verdict.order.program[0].bytes


async def test_stages_come_from_the_boxs_own_signed_word(station: Station, eventually: Any) -> None:
    station.greet()
    made = await station.announcements.announce(request())
    await eventually(lambda: station.stages(made.id) == [Stage.SENT] * 2)
    station.report(made.id, Stage.ACCEPTED)
    await eventually(lambda: station.stages(made.id) == [Stage.ACCEPTED] * 2)
    station.report(made.id, Stage.STARTED, "loa-1")
    station.report(made.id, Stage.FINISHED, "loa-1")
    station.report(made.id, Stage.FAILED, "loa-2")
    await eventually(lambda: station.stages(made.id) == [Stage.FINISHED, Stage.FAILED])
    station.report(made.id, Stage.STARTED, "loa-1")
    station.report(made.id, Stage.STARTED, "loa-2")
    await eventually(lambda: station.store.cursor() == 6)
    assert station.stages(made.id) == [Stage.FINISHED, Stage.FAILED], "a stage never goes back"


async def test_forged_words_neither_start_nor_end_anything(station: Station, eventually: Any) -> None:
    stranger = Ed25519PrivateKey.generate()
    station.greet(stranger)
    made = await station.announcements.announce(request())
    station.report(made.id, Stage.FINISHED, key=stranger)
    station.report(made.id, Stage.FINISHED, node="n-02")
    await eventually(lambda: station.announcements.forged == 3)
    assert station.envelopes() == []
    assert station.stages(made.id) == [Stage.PENDING] * 2
    station.greet()
    await eventually(lambda: len(station.envelopes()) >= 3, what="resending until a verified outcome")
    station.report(made.id, Stage.ACCEPTED)
    await eventually(lambda: station.stages(made.id) == [Stage.ACCEPTED] * 2)
    count = len(station.envelopes())
    station.greet(challenge="d" * 32)
    assert len(station.envelopes()) == count


async def test_a_new_challenge_is_wrapped_at_once(station: Station, eventually: Any) -> None:
    station.greet()
    await station.announcements.announce(request())
    await eventually(lambda: len(station.envelopes()) >= 1)
    station.greet(challenge="d" * 32)
    await eventually(lambda: "d" * 32 in _challenges(station.envelopes()))


def _challenges(envelopes: list[str]) -> set[str]:
    return {json.loads(base64.b64decode(json.loads(one)["payload"]))["challenge"] for one in envelopes}


async def test_a_box_with_an_older_bundle_gets_ours_first(station: Station, eventually: Any) -> None:
    await station.announcements.announce(request())
    station.greet(bundle=0)
    await eventually(station.envelopes)
    names = [name for _, name, _ in station.sent]
    assert names[0] == "Broadcast/Bundle"


async def test_a_stop_is_an_order_of_its_own(station: Station, eventually: Any) -> None:
    station.greet()
    made = await station.announcements.announce(request())
    await station.announcements.stop(made.id, SOMEBODY)
    station.report(made.id, Stage.STOPPED)
    await eventually(lambda: station.stages(made.id) == [Stage.STOPPED] * 2)
    log = [json.loads(line) for line in (station.folder / "s.log").read_text().splitlines()]
    assert [one["do"] for one in log if one["do"] == "make"] == ["make", "make"]
    rows = station.store._database.execute("SELECT account, what, subject FROM acts").fetchall()
    assert rows == [("lan", "announcement.make", made.id), ("lan", "announcement.stop", made.id)]


async def test_what_nobody_confirmed_in_time_is_recorded_as_expired(
    tmp_path: Path, clock: Any, eventually: Any
) -> None:
    clock.wall = float(SystemClock().now_ms())
    async with station_at(tmp_path, clock) as station:
        made = await station.announcements.announce(request())
        await clock.advance(599)
        assert station.stages(made.id) == [Stage.PENDING] * 2
        await clock.advance(5)
        assert station.stages(made.id) == [Stage.EXPIRED] * 2
        found = station.announcements.get(made.id)
        assert found is not None
        assert found.parts[0].reason == "never_reached"


async def test_the_boxs_late_word_counts_more_than_the_hubs_giving_up(
    tmp_path: Path, clock: Any, eventually: Any
) -> None:
    """It played, and then the line went down for an hour: the record must not say that it never sounded."""
    clock.wall = float(SystemClock().now_ms())
    async with station_at(tmp_path, clock) as station:
        station.greet()
        made = await station.announcements.announce(request())
        await clock.advance(1)
        await eventually(station.envelopes)
        clock.wall += 601_000
        await clock.advance(6)
        await eventually(lambda: station.stages(made.id) == [Stage.EXPIRED] * 2)
        assert station.reasons(made.id) == ["never_answered"] * 2
        for stage in (Stage.ACCEPTED, Stage.STARTED, Stage.FINISHED):
            station.report(made.id, stage, None if stage is Stage.ACCEPTED else "loa-1")
        await eventually(lambda: station.stages(made.id) == [Stage.FINISHED, Stage.ACCEPTED])
        assert station.reasons(made.id) == ["", ""]
        station.report(made.id, Stage.EXPIRED, "loa-2")
        station.report(made.id, Stage.FINISHED, "loa-2")
        await eventually(lambda: station.store.cursor() == 5)
        assert station.stages(made.id)[1] is Stage.EXPIRED, "the box's own word is final"


async def test_an_order_under_way_is_taken_up_after_a_restart(tmp_path: Path, eventually: Any) -> None:
    async with signer_at(tmp_path) as signer:
        async with opened(tmp_path, SystemClock(), signer) as station:
            made = await station.announcements.announce(request())
            assert station.reasons(made.id) == ["node_gone"] * 2
        async with opened(tmp_path, SystemClock(), signer) as station:
            station.greet()
            await eventually(lambda: station.stages(made.id) == [Stage.SENT] * 2)
            assert station.reasons(made.id) == ["", ""]
            station.report(made.id, Stage.ACCEPTED)
            await eventually(lambda: station.stages(made.id) == [Stage.ACCEPTED] * 2)
        async with opened(tmp_path, SystemClock(), signer) as station:
            station.greet()
            other = await station.announcements.announce(request())
            await eventually(station.envelopes)
            assert {one.id for one in station.orders()} == {other.id}, "what a box has is not sent again"


async def test_what_expired_while_the_hub_was_away_is_recorded(tmp_path: Path, clock: Any, eventually: Any) -> None:
    async with signer_at(tmp_path) as signer:
        async with opened(tmp_path, SystemClock(), signer) as station:
            made = await station.announcements.announce(request())
        clock.wall = float(SystemClock().now_ms() + 3_600_000)
        async with opened(tmp_path, clock, signer) as station:
            await eventually(lambda: station.stages(made.id) == [Stage.EXPIRED] * 2)


async def test_what_never_left_is_stopped_at_once_and_never_leaves(station: Station, eventually: Any) -> None:
    made = await station.announcements.announce(request())
    await station.announcements.stop(made.id, SOMEBODY)
    assert station.stages(made.id) == [Stage.STOPPED] * 2
    station.greet()
    await eventually(lambda: len(station.envelopes()) >= 2)
    assert {one.action for one in station.orders()} == {"stop"}


async def test_a_stop_holds_across_a_restart(tmp_path: Path, eventually: Any) -> None:
    async with signer_at(tmp_path) as signer:
        async with opened(tmp_path, SystemClock(), signer) as station:
            station.greet()
            made = await station.announcements.announce(request())
            await eventually(station.envelopes)
            await station.announcements.stop(made.id, SOMEBODY)
        async with opened(tmp_path, SystemClock(), signer) as station:
            station.greet()
            await eventually(lambda: len(station.envelopes()) >= 2)
            assert {one.action for one in station.orders()} == {"stop"}
            stop = station.orders()[0]
            assert stop.stops == (made.id,)
            station.report(stop.id, Stage.ACCEPTED)
            station.report(stop.id, Stage.FINISHED)
            await eventually(lambda: station.stages(made.id) == [Stage.STOPPED] * 2)


async def test_what_has_ended_needs_no_stop(station: Station, eventually: Any) -> None:
    station.greet()
    made = await station.announcements.announce(request())
    station.report(made.id, Stage.FINISHED)
    await eventually(lambda: station.stages(made.id) == [Stage.FINISHED] * 2)
    assert (await station.announcements.stop(made.id, SOMEBODY)).id == made.id
    assert (station.folder / "s.log").read_text().count('"do": "make"') == 1


async def test_a_bundle_that_was_lost_on_its_way_is_sent_again(station: Station, eventually: Any) -> None:
    station.greet(bundle=0)
    await station.announcements.announce(request())
    await eventually(lambda: [name for _, name, _ in station.sent].count("Broadcast/Bundle") >= 2)


async def test_a_store_restored_from_a_backup_does_not_hide_outcomes(tmp_path: Path, eventually: Any) -> None:
    async with signer_at(tmp_path) as signer:
        async with opened(tmp_path, SystemClock(), signer) as station:
            station.greet()
            made = await station.announcements.announce(request())
            for stage in (Stage.ACCEPTED, Stage.STARTED):
                station.report(made.id, stage)
            await eventually(lambda: station.store.cursor() == 2)
        for file in tmp_path.glob("store.db*"):
            file.unlink()
        async with opened(tmp_path, SystemClock(), signer) as station:
            station.report(made.id, Stage.FINISHED)
            await eventually(lambda: station.stages(made.id) == [Stage.FINISHED] * 2)
            assert station.store.cursor() == 1


async def test_a_hub_from_a_backup_lets_nothing_sound_twice_and_learns_what_became_of_it(
    tmp_path: Path, eventually: Any
) -> None:
    state, backup, now = tmp_path / "hub", tmp_path / "backup", SystemClock().now_ms()
    state.mkdir()
    (state / "keys").symlink_to(tmp_path / "keys")
    async with signer_at(tmp_path) as signer:
        (state / "s.sock").symlink_to(tmp_path / "s.sock")
        async with opened(state, SystemClock(), signer) as station:
            station.greet()
            made = await station.announcements.announce(request())
            await eventually(station.envelopes)
            await asyncio.to_thread(back_up, state, backup, host_id="hub", store="embedded", made_at=now, made_by="lan")
            station.report(made.id, Stage.FINISHED)
            await eventually(lambda: station.stages(made.id) == [Stage.FINISHED] * 2)
            first = station.envelopes()[0]
        await asyncio.to_thread(restore, state, backup, host_id="hub", store="embedded", now=now, who="minh")
        async with opened(state, SystemClock(), signer) as station:
            assert station.stages(made.id) == [Stage.SENT] * 2, "what the hub remembers now"
            station.greet(challenge="d" * 32)
            await eventually(station.envelopes)
            situation = Situation(
                node="n-01",
                deployment="d",
                bundle=station.trust.bundle,
                speakers=frozenset({"loa-1", "loa-2"}),
                monotonic=10.0,
                wall=0,
                clock_trusted=False,
                challenges={CHALLENGE: 5.0, "d" * 32: 6.0},
            )
            before = examine(first, situation)
            assert isinstance(before, Accepted)
            remembered = replace(situation, known={made.id: before.digest})
            assert all(isinstance(examine(one, remembered), Again) for one in station.envelopes())
            station.report(made.id, Stage.FINISHED)  # as its log brings it, once more
            await eventually(lambda: station.stages(made.id) == [Stage.FINISHED] * 2)
            assert station.store.undelivered() == []
            quiet = len(station.envelopes())
            station.greet(challenge="e" * 32)
            other = await station.announcements.announce(request())
            await eventually(lambda: len(station.envelopes()) > quiet)
            assert {one.id for one in station.orders()[quiet:]} == {other.id}


async def test_what_a_box_says_of_an_order_that_a_restored_hub_does_not_know_is_audited_once(
    station: Station, eventually: Any
) -> None:
    for _ in range(2):  # its log brings it, and after another restore once more
        station.report("f" * 32, Stage.FINISHED, "loa-1")
    await eventually(lambda: station.store.cursor() == 2)
    with closing(sqlite3.connect(station.folder / "hub.db")) as database:
        told = [(one.at, one.account, one.what, one.details, one.subject) for one in Audit(database).search(Search())]
    assert told == [(5, "n-01", UNKNOWN_ORDER, {"why": "finished"}, "f" * 32)]


async def test_a_disk_that_was_full_delays_outcomes_and_ends_nothing(
    station: Station, eventually: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("hub.outcomes.AGAIN_SECONDS", 0.05)
    station.greet()
    made = await station.announcements.announce(request())
    await eventually(station.envelopes)
    station.store._database.execute("PRAGMA query_only = 1")
    station.report(made.id, Stage.FINISHED)
    await eventually(lambda: "outcomes could not be read or kept" in caplog.text)
    station.store._database.execute("PRAGMA query_only = 0")
    await eventually(lambda: station.stages(made.id) == [Stage.FINISHED] * 2)


async def test_without_the_signer_nothing_is_kept_that_could_sound_later(station: Station) -> None:
    station.signer.terminate()
    await station.signer.wait()
    with pytest.raises(AnnouncementRefused, match="does not answer"):
        await station.announcements.announce(request())
    assert station.announcements.recent() == []


async def test_the_signer_keeps_its_own_limits(tmp_path: Path) -> None:
    limits = "[limits]\nvolume = 50\norders_a_minute = 2\nduration_seconds = 1\n"
    async with station_at(tmp_path, SystemClock(), limits=limits) as station:
        for change, reason in (
            ({"volume": 51}, "volume 51 is over 50"),
            ({"audio": tone(2)}, "2 s of sound are over 1"),
        ):
            with pytest.raises(AnnouncementRefused, match=reason):
                await station.announcements.announce(request(**{"volume": 50, **change}))
        for _ in range(2):
            await station.announcements.announce(request(volume=50))
        with pytest.raises(AnnouncementRefused, match="within a minute"):
            await station.announcements.announce(request(volume=50))


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda: request(speakers=()), "no_speaker"),
        (lambda: request(speakers=(DeviceKey("g", "stranger", "loa"),)), "no_identity"),
        (lambda: request(audio=b""), "unreadable"),
        (lambda: request(audio=b"RIFF" + b"\xff" * 500), "unreadable"),
        (lambda: request(audio=tone()[:44] + b"\0" * 20_000), "silent"),
        (lambda: request(audio=None, text="   "), "text_empty"),
        (lambda: request(audio=None, text="x" * 3001), "text_too_long"),
    ],
)
async def test_what_cannot_be_announced_is_refused_by_code(
    station: Station, make: Callable[[], Request], code: str
) -> None:
    with pytest.raises((AnnouncementRefused, AudioRefused)) as caught:
        await station.announcements.announce(make())
    assert getattr(caught.value, "code", None) == code
    assert station.announcements.recent() == []
