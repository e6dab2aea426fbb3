"""Backup and restore: whole or refused, taken while the hub runs, and cut off anywhere without harm."""

import hashlib
import json
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from contract.catalog import Kind
from contract.metrics import DataType
from contract.positions import Lineage
from hub import backup, state_folder
from hub.audit import Act, Person
from hub.backup import BackupRefused, back_up
from hub.devices import DeviceKey, NodeKey
from hub.restore import finish, restore
from hub.storage.audit import Audit
from hub.storage.database import open_database
from hub.storage.embedded import EmbeddedStore
from hub.storage.influxdb import InfluxStore, Settings
from hub.storage.timeseries import Batch, EventRow

KEY = DeviceKey("g", "n-01", "probe")
NOW = 1_790_000_000_000
SOUND = b"sound of a bulletin"
FLAC = f"audio/{hashlib.sha256(SOUND).hexdigest()}.flac"


def measure(store: EmbeddedStore, *values: float) -> None:
    batch = Batch()
    for value in values:
        batch.numbers.put(store.series(KEY, "Water/pH", DataType.DOUBLE), NOW + int(value), value, 192 << 8)
    store.commit(batch, NOW)


def stored(state: Path) -> list[object]:
    with EmbeddedStore(state) as store:
        return list(store.raw(KEY, "Water/pH", NOW - 1000, NOW + 1000, 1000).value)


def audited(state: Path) -> list[tuple[str, str, str]]:
    with closing(sqlite3.connect(state / "hub.db")) as database:
        return list(database.execute("SELECT account, what, subject FROM acts ORDER BY number"))


def fill(state: Path, *values: float, word: str, timestamp: int) -> None:
    """Let a hub have been here: readings, a line in the audit, a bulletin's sound, a STATE."""
    with EmbeddedStore(state) as store, closing(open_database(state / "hub.db", "hub")) as people:
        measure(store, *values)
        Audit(people).record(Act(at=NOW, by=Person(account=word), what="announcement.make"))
    (state / "audio").mkdir(exist_ok=True)
    (state / FLAC).write_bytes(SOUND)
    (state / "host-state").write_text(str(timestamp))


@pytest.fixture
def state(tmp_path: Path) -> Path:
    fill(tmp_path / "state", 1, 2, word="yesterday", timestamp=NOW)
    return tmp_path / "state"


def backed_up(state: Path) -> Path:
    folder = state.parent / "backup"
    back_up(state, folder, host_id="hub", store="embedded", made_at=NOW, made_by="lan")
    return folder


def restored(state: Path, folder: Path, now: int = NOW + 86_400_000) -> Path | None:
    return restore(state, folder, host_id="hub", store="embedded", now=now, who="minh").aside


def test_a_backup_put_back_is_what_was_backed_up(state: Path, tmp_path: Path) -> None:
    folder = backed_up(state)
    assert restored(tmp_path / "elsewhere", folder) is None
    assert stored(tmp_path / "elsewhere") == [1.0, 2.0]
    assert (tmp_path / "elsewhere" / FLAC).read_bytes() == SOUND
    assert (tmp_path / "elsewhere" / "host-state").read_text() == str(NOW)


def test_a_backup_is_taken_while_readings_are_committed(state: Path, tmp_path: Path) -> None:
    with EmbeddedStore(state) as store, state_folder.hub_alone(state):
        measure(store, 3)
        folder = backed_up(state)
        measure(store, 4)
    restored(tmp_path / "elsewhere", folder)
    assert stored(tmp_path / "elsewhere") == [1.0, 2.0, 3.0]
    assert stored(state) == [1.0, 2.0, 3.0, 4.0]
    assert not (state / "pinned").exists()


def test_sealed_segments_are_in_a_backup(state: Path, tmp_path: Path) -> None:
    with EmbeddedStore(state) as store:
        store.tend(NOW + 3_600_000)
        measure(store, 3)
        assert (store.stats().segments, store.stats().unsealed) != (0, 0)
        folder = backed_up(state)
    restored(tmp_path / "elsewhere", folder)
    assert stored(tmp_path / "elsewhere") == [1.0, 2.0, 3.0]
    (next((folder / "segments").iterdir())).write_bytes(b"PAR1")
    with pytest.raises(BackupRefused, match="was cut off"):
        restored(tmp_path / "elsewhere", folder)


def test_segments_merged_while_they_are_copied_are_copied_as_they_are_now(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy of store.db names files that a merge has unlinked since: it is taken again."""
    copied: list[Path] = []

    with EmbeddedStore(state) as store:
        store.tend(NOW + 3_600_000)
        measure(store, 3)
        store.tend(NOW + 2 * 3_600_000)
        before = set((state / "segments").iterdir())

        def copy(source: Path, target: Path) -> None:
            as_it_is(source, target)
            copied.append(target)
            if [one.name for one in copied].count("store.db") == 1:
                store.tend(NOW + 3 * 86_400_000)
                assert not before <= set((state / "segments").iterdir()), "the merge has dropped some"

        as_it_is = backup._copy_database
        monkeypatch.setattr(backup, "_copy_database", copy)
        folder = backed_up(state)
    assert [one.name for one in copied] == ["hub.db", "store.db", "store.db"]
    restored(tmp_path / "elsewhere", folder)
    assert stored(tmp_path / "elsewhere") == [1.0, 2.0, 3.0]


def test_each_of_many_backups_beside_sealing_and_merging_holds_what_came_before_it(state: Path, tmp_path: Path) -> None:
    committed, enough = [1.0, 2.0], threading.Event()

    def go_on() -> None:
        day = 2
        while not enough.is_set():
            value = float(len(committed) + 1)
            measure(store, value)
            committed.append(value)
            day += 1
            store.tend(NOW + day * 86_400_000)

    with EmbeddedStore(state) as store:
        going = threading.Thread(target=go_on)
        going.start()
        try:
            for number in range(5):
                before = len(committed)
                folder, place = tmp_path / f"backup-{number}", tmp_path / f"place-{number}"
                back_up(state, folder, host_id="hub", store="embedded", made_at=NOW, made_by="lan")
                restored(place, folder)
                found = stored(place)
                assert found == [float(value) for value in range(1, len(found) + 1)]
                assert len(found) >= before
        finally:
            enough.set()
            going.join()


def test_with_influxdb_the_server_knows_more_than_the_backup_and_is_believed(influx: Any, tmp_path: Path) -> None:
    node, lineage = NodeKey("g", "n-01"), Lineage("log", 1 << 32, "probe")
    settings = Settings(
        url=influx.url, org=influx.org, token=influx.token, bucket="readings-backup", delivery_bucket="delivery-backup"
    )

    def said(first: int) -> Batch:
        event = EventRow(key=KEY, metric="Announcement/Outcome", at=first, received_at=first, value=f"outcome {first}")
        return Batch(committed=[(node, lineage, first, first)], events=[event])

    state = tmp_path / "state"
    with InfluxStore(state, settings, lambda key: Kind.WATER_PROBE) as store:
        store.commit(said(0), 5)
        back_up(state, tmp_path / "backup", host_id="hub", store="influxdb", made_at=NOW, made_by="lan")
        store.commit(said(1), 6)
    restore(state, tmp_path / "backup", host_id="hub", store="influxdb", now=NOW, who="minh")
    with InfluxStore(state, settings, lambda key: Kind.WATER_PROBE) as store:
        assert list(store.ledger(node)[lineage]) == [(0, 1)], "what was acknowledged is not asked for again"
        told = store.events(0, "Announcement/Outcome", 10)
        assert [one.value for one in told] == ["outcome 0", "outcome 1"]
        assert store.events(told[0].id, "Announcement/Outcome", 10)[0].value == "outcome 1", "as the cursor stands"


def test_a_restore_keeps_what_was_there_and_records_the_gap(state: Path) -> None:
    folder = backed_up(state)
    fill(state, 3, word="today", timestamp=NOW + 5000)
    aside = restored(state, folder)
    assert stored(state) == [1.0, 2.0]
    assert audited(state) == [
        ("yesterday", "announcement.make", ""),
        ("minh", "hub.restore", "2026-09-21T14:13:20Z/2026-09-22T14:13:20Z"),
    ]
    assert aside is not None
    assert stored(aside) == [1.0, 2.0, 3.0]
    assert [who for who, *_ in audited(aside)] == ["yesterday", "today"]


def test_the_timestamp_of_state_never_goes_back(state: Path) -> None:
    folder = backed_up(state)
    (state / "host-state").write_text(str(NOW + 5000))
    restored(state, folder)
    assert (state / "host-state").read_text() == str(NOW + 5000)


def test_two_restores_in_one_second_keep_two_folders_aside(state: Path) -> None:
    folder = backed_up(state)
    first, second = restored(state, folder), restored(state, folder)
    assert None not in {first, second}
    assert first != second


def test_a_running_hub_is_not_restored_over(state: Path) -> None:
    folder = backed_up(state)
    with state_folder.hub_alone(state), pytest.raises(state_folder.FolderInUse, match="a hub runs on this state"):
        restored(state, folder)


def test_a_folder_of_another_user_is_named_with_the_way_out(state: Path, tmp_path: Path) -> None:
    folder = backed_up(state)
    (state / "lock").mkdir()  # stands for a file that may not be opened: root may open any
    with pytest.raises(state_folder.FolderInUse, match="run as the hub's own user"):
        restored(state, folder)


def test_a_backup_goes_into_an_empty_folder_only(state: Path, tmp_path: Path) -> None:
    folder = backed_up(state)
    before = sorted(folder.rglob("*"))
    with pytest.raises(BackupRefused, match="is not empty; name one"):
        backed_up(state)
    assert sorted(folder.rglob("*")) == before
    (folder / "manifest.json").unlink()
    with pytest.raises(BackupRefused, match="no whole backup"):
        backed_up(state)
    with pytest.raises(BackupRefused, match="is a file"):
        back_up(state, folder / "store.db", host_id="hub", store="embedded", made_at=NOW, made_by="lan")
    with pytest.raises(BackupRefused, match=r"holds no store\.db"):
        back_up(tmp_path / "nothing", tmp_path / "new", host_id="hub", store="embedded", made_at=NOW, made_by="lan")


def contents(state: Path) -> dict[Path, bytes]:
    return {one: one.read_bytes() for one in state.rglob("*") if one.is_file() and not one.name.endswith("lock")}


def cut(folder: Path) -> None:
    file = folder / "store.db"
    file.write_bytes(file.read_bytes()[:-1])


def flip(folder: Path) -> None:
    file = folder / "store.db"
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 1
    file.write_bytes(raw)


def lose(folder: Path) -> None:
    (folder / FLAC).unlink()


def forget(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def tear(folder: Path) -> None:
    file = folder / "manifest.json"
    file.write_bytes(file.read_bytes()[:-20])


def change(folder: Path, key: str, value: object) -> None:
    file = folder / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), key: value}))


def be_newer(folder: Path) -> None:
    change(folder, "format", 2)


def reach_out(folder: Path) -> None:
    (folder / "x").write_bytes(b"x")
    change(folder, "files", [{"name": "../x", "bytes": 1, "sha256": hashlib.sha256(b"x").hexdigest()}])


def belong_to_another(folder: Path) -> None:
    change(folder, "host_id", "hub-of-the-neighbours")


def have_another_store(folder: Path) -> None:
    change(folder, "store", "influxdb")


def come_from_the_future(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "store.db")) as database:
        database.execute("PRAGMA user_version = 99")
    raw = (folder / "store.db").read_bytes()
    files = json.loads((folder / "manifest.json").read_text())["files"]
    for one in files:
        if one["name"] == "store.db":
            one.update(bytes=len(raw), sha256=hashlib.sha256(raw).hexdigest())
    change(folder, "files", files)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (cut, "was cut off"),
        (flip, "is damaged"),
        (lose, "is missing"),
        (forget, "was cut off; take another"),
        (tear, "cannot be read"),
        (be_newer, "written by a newer hub"),
        (reach_out, "cannot be read"),
        (belong_to_another, "hub-of-the-neighbours"),
        (have_another_store, "store kind is 'influxdb'"),
        (come_from_the_future, "schema version 99"),
    ],
)
def test_a_backup_that_is_not_whole_changes_nothing(state: Path, harm: Callable[[Path], None], words: str) -> None:
    folder = backed_up(state)
    harm(folder)
    fill(state, 3, word="today", timestamp=NOW)
    before = contents(state)
    with pytest.raises(BackupRefused, match=words):
        restored(state, folder)
    assert contents(state) == before


def test_a_damaged_store_is_not_called_a_backup(state: Path, tmp_path: Path) -> None:
    raw = bytearray((state / "store.db").read_bytes())
    raw[4096:8192] = b"\xff" * 4096  # a page of a table
    (state / "store.db").write_bytes(raw)
    with pytest.raises((BackupRefused, sqlite3.DatabaseError)):
        backed_up(state)
    assert list((tmp_path / "backup").iterdir()) == []


CALLS = ("fsync", "replace", "link", "unlink", "mkdir", "rename", "rmdir")


def die_at(number: int, work: Callable[[], object]) -> bool:
    """Do something in a process that is killed at its n-th call that changes a name or waits for a disk."""
    child = os.fork()
    if child == 0:
        left = number

        def watched(call: Callable[..., object]) -> Callable[..., object]:
            def count(*args: object, **named: object) -> object:
                nonlocal left
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return call(*args, **named)

            return count

        for name in CALLS:
            setattr(os, name, watched(getattr(os, name)))
        try:
            work()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def points(work: Callable[[], object], prepare: Callable[[], None]) -> Iterator[int]:
    """Yield after each death, until the work is done before the next."""
    for number in range(200):
        prepare()
        if not die_at(number, work):
            return
        yield number
    raise AssertionError("it never ends")


def test_a_restore_killed_anywhere_leaves_the_old_state_or_the_new_one(state: Path, tmp_path: Path) -> None:
    folder = backed_up(state)
    fill(state, 3, word="today", timestamp=NOW + 5000)
    place, seen = tmp_path / "place", set[bool]()

    def prepare() -> None:
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(state, place)

    deaths = 0
    for number in points(lambda: restored(place, folder), prepare):
        deaths += 1
        finish(place)
        new = stored(place) == [1.0, 2.0]
        assert new or stored(place) == [1.0, 2.0, 3.0], number
        assert (len(audited(place)), audited(place)[-1][1]) == (2, "hub.restore" if new else "announcement.make"), (
            number
        )
        assert (place / "host-state").read_text() == str(NOW + 5000)
        assert not (place / "restoring").exists()
        asides = list(place.glob("before-restore-*"))
        assert [stored(one) for one in asides] == ([[1.0, 2.0, 3.0]] if new else []), number
        seen.add(new)
    assert deaths > 30
    assert seen == {True, False}


def test_what_finishes_a_restore_may_be_killed_anywhere_too(state: Path, tmp_path: Path) -> None:
    folder = backed_up(state)
    fill(state, 3, word="today", timestamp=NOW + 5000)
    half = tmp_path / "half"

    def fresh() -> None:
        shutil.rmtree(half, ignore_errors=True)
        shutil.copytree(state, half)

    for _ in points(lambda: restored(half, folder), fresh):
        if (half / "restoring" / "ready.json").exists():
            break
    place, deaths = tmp_path / "place", 0

    def prepare() -> None:
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(half, place)

    for number in points(lambda: finish(place), prepare):
        deaths += 1
        finish(place)
        assert stored(place) == [1.0, 2.0], number
        assert [stored(one) for one in place.glob("before-restore-*")] == [[1.0, 2.0, 3.0]], number
    assert deaths > 10


def test_a_backup_killed_anywhere_is_refused_and_harms_nothing(state: Path, tmp_path: Path) -> None:
    folder, place = tmp_path / "backup", tmp_path / "place"
    whole = 0

    def prepare() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(place, ignore_errors=True)

    for number in points(lambda: backed_up(state), prepare):
        try:
            restored(place, folder)
        except BackupRefused:
            assert not (place / "store.db").exists()
        else:
            whole += 1
            assert stored(place) == [1.0, 2.0], number
        assert stored(state) == [1.0, 2.0]
    assert whole <= 2, "only after the manifest has its name"


@pytest.mark.parametrize("room", [100, 5_000, 60_000])
def test_a_full_disk_leaves_no_half_backup_and_no_half_restore(state: Path, tmp_path: Path, room: int) -> None:
    config = tmp_path / "hub.toml"
    config.write_text('[hub]\nhost_id = "hub"\nstate_dir = "state"\n')
    (state / FLAC).write_bytes(os.urandom(100_000))

    def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
        def little_room() -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))

        return subprocess.run(
            [sys.executable, "-m", "hub", command, config, folder],
            preexec_fn=little_room,
            check=False,
            capture_output=True,
            text=True,
            timeout=30,
        )

    full = run("backup", tmp_path / "cut")
    assert (full.returncode, "no backup was made" in full.stderr) == (1, True), full.stderr
    assert list((tmp_path / "cut").iterdir()) == []
    folder = backed_up(state)
    fill(state, 3, word="today", timestamp=NOW)
    full = run("restore", folder)
    assert (full.returncode, "nothing was restored" in full.stderr) == (1, True), full.stderr
    assert stored(state) == [1.0, 2.0, 3.0]
    assert not (state / "restoring").exists()


def test_the_commands_say_what_they_did(state: Path, tmp_path: Path) -> None:
    config = tmp_path / "hub.toml"
    config.write_text('[hub]\nhost_id = "hub"\nstate_dir = "state"\n')

    def run(*asked: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "hub", *map(str, asked)]
        return subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)

    made = run("backup", config, tmp_path / "backup")
    assert (made.returncode, "4 files" in made.stdout) == (0, True), made
    again = run("backup", config, tmp_path / "backup")
    assert (again.returncode, "is not empty" in again.stderr) == (1, True), again
    done = run("restore", config, tmp_path / "backup")
    assert (done.returncode, "before-restore-" in done.stdout) == (0, True), done
    with state_folder.hub_alone(state):
        refused = run("serve", config)
    assert (refused.returncode, "a hub runs on this state" in refused.stderr) == (1, True), refused


def test_a_state_folder_may_have_a_name_that_means_something_in_an_address(tmp_path: Path) -> None:
    state = tmp_path / "trạng thái 100%?mode=rw#1"
    fill(state, 1, 2, word="yesterday", timestamp=NOW)
    restored(tmp_path / "else?where", backed_up(state))
    assert stored(tmp_path / "else?where") == [1.0, 2.0]
