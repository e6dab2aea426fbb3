"""A backup put in the place of what is there: all of it or nothing, and what was there is kept aside.

First everything is copied beside the state, checked against the manifest, and brought to the present. Then a note says
that it is ready, and names change. Whoever finds the note finishes the change, so a power cut leaves either the old
state or the new one. What edge nodes have of the time in between they send again by themselves.
"""

import json
import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from hub import state_folder
from hub.audit import Act, Person
from hub.backup import BackupRefused, File, Manifest, StoreKind, digest, pieces, read_manifest
from hub.state_folder import AUDIO, DATABASES, EVERYTHING, HOST_STATE, sync
from hub.storage.audit import Audit
from hub.storage.database import newest_schema, open_database
from hub.storage.sessions import SessionStore

STAGED = "restoring"
READY = "ready.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What was put in place, and where what was there is now; None where nothing was."""

    manifest: Manifest
    aside: Path | None


def restore(state: Path, folder: Path, *, host_id: str, store: StoreKind, now: int, who: str) -> Restored:
    """Put a backup in the place of a hub's state; the hub must not run.

    Raises BackupRefused, FolderInUse, OSError or sqlite3.Error; the state is then as it was.
    """
    manifest = read_manifest(folder)
    if manifest.host_id != host_id:
        raise BackupRefused(
            f"{folder} is of the hub {manifest.host_id!r}, the file is of {host_id!r}; take the right one of both"
        )
    if manifest.store != store:
        raise BackupRefused(
            f"{folder} is of a hub whose store kind is {manifest.store!r}, the file says {store!r}; change the file"
        )
    with state_folder.hub_alone(state), state_folder.backup_alone(state):
        finish(state)
        staged = state / STAGED
        try:
            _stage(folder, staged, manifest, free=shutil.disk_usage(state).free)
            _bring_to_the_present(staged, state, manifest, now=now, who=who)
            aside = _aside(state, now)
            _note_ready(staged, aside, manifest)
        except BaseException:
            _clear(staged)
            raise
        finish(state)
    return Restored(manifest=manifest, aside=state / aside if (state / aside).is_dir() else None)


def finish(state: Path) -> None:
    """Finish a restore that was ready and cut off, and clear away one that was not ready; for whoever is alone there.

    May be cut off itself, at any point, and called again.
    """
    staged = state / STAGED
    if not staged.is_dir():
        return
    try:
        told = json.loads((staged / READY).read_bytes())
    except FileNotFoundError:
        _clear(staged)
        return
    aside, restored = state / told["aside"], frozenset(told["restored"])
    for name in EVERYTHING:
        # What stands here under a name that is still staged, or was never to come, is what was there before.
        before = (staged / name).exists() or name not in restored
        if before and (state / name).exists():
            aside.mkdir(exist_ok=True)
            (state / name).replace(aside / name)
        if (staged / name).exists():
            (staged / name).replace(state / name)
    if (staged / AUDIO).is_dir():
        (state / AUDIO).mkdir(exist_ok=True)
        for one in (staged / AUDIO).iterdir():
            one.replace(state / AUDIO / one.name)
        sync(state / AUDIO)
    if aside.is_dir():
        sync(aside)
    sync(state)
    _clear(staged)


def _clear(staged: Path) -> None:
    if staged.is_dir():
        # The note goes first: with it, what is missing here would be taken for what is in place already.
        (staged / READY).unlink(missing_ok=True)
        sync(staged)
        shutil.rmtree(staged)


def _stage(folder: Path, staged: Path, manifest: Manifest, *, free: int) -> None:
    if free < manifest.bytes:
        raise BackupRefused(
            f"{staged.parent} has {free} bytes free, the backup needs {manifest.bytes} beside what is there; make room"
        )
    staged.mkdir()
    for one in manifest.files:
        _copy(folder / one.name, staged / one.name, one)
    for name in DATABASES:
        if (staged / name).is_file():
            _refuse_a_newer_schema(staged / name, folder / name)


def _copy(source: Path, target: Path, told: File) -> None:
    target.parent.mkdir(exist_ok=True)
    shutil.copyfile(source, target)
    sync(target)
    # What was copied is compared, not what lies in the backup: a disk may lie on either side.
    if digest(pieces(target)) != told.sha256:
        raise BackupRefused(f"{source} is damaged: its SHA-256 is not the manifest's; take another backup")


def _refuse_a_newer_schema(copy: Path, told: Path) -> None:
    with closing(sqlite3.connect(f"{copy.absolute().as_uri()}?immutable=1", uri=True)) as database:
        version = int(database.execute("PRAGMA user_version").fetchone()[0])
    known = newest_schema(copy.stem)
    if version > known:
        raise BackupRefused(f"{told} has schema version {version}, this program knows {known}; use the newer program")


def _bring_to_the_present(staged: Path, state: Path, manifest: Manifest, *, now: int, who: str) -> None:
    """Make yesterday's memory fit for today: the one place for all that a restore must change in what it restores.

    The audit gets the gap: from when to when this hub remembers nothing of what people did, and who chose so. STATE
    must not go back, or edge nodes take a living hub for a ghost of itself. Orders and commands need nothing: they
    expire by their own time, a box knows each by its id and does none twice, and its outcomes come again with its log.
    """
    gap = f"{_iso(manifest.made_at)}/{_iso(now)}"
    act = Act(at=now, by=Person(account=who), what="hub.restore", subject=gap, why=f"backup made by {manifest.made_by}")
    with closing(open_database(staged / "hub.db", "hub")) as database:
        audit = Audit(database)
        SessionStore(database, audit).end_everybodys()
        audit.record(act)
    newest = max(_last_state(staged / HOST_STATE), _last_state(state / HOST_STATE))
    if newest:
        (staged / HOST_STATE).write_text(str(newest), encoding="ascii")


def _last_state(path: Path) -> int:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0


def _aside(state: Path, now: int) -> str:
    wanted = f"before-restore-{datetime.fromtimestamp(now / 1000, UTC):%Y%m%dT%H%M%SZ}"
    names = [wanted, *(f"{wanted}-{number}" for number in range(2, 100))]
    return next(one for one in names if not (state / one).exists())


def _note_ready(staged: Path, aside: str, manifest: Manifest) -> None:
    """Write the note that makes the change of names certain, once everything it speaks of is on disk."""
    for path in [*staged.rglob("*"), staged]:
        sync(path)
    restored: Sequence[str] = [one.name for one in staged.iterdir()]
    (staged / f".{READY}").write_text(json.dumps({"aside": aside, "restored": restored}), encoding="utf-8")
    sync(staged / f".{READY}")
    (staged / f".{READY}").replace(staged / READY)
    sync(staged)
    sync(staged.parent)


def _iso(at: int) -> str:
    return datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
