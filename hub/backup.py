"""A copy of everything the hub remembers, taken while it runs: whole and checked, or not called a backup.

Announcements are copied before readings, so that no outcome was read that the copied store does not hold. Segments are
pinned by a second name first: the nightly merge may unlink them, their bytes stay until they are copied. The manifest
is written last; without it, or with one byte amiss, nothing is restored.
"""

import hashlib
import json
import os
import shutil
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from hub import state_folder
from hub.state_folder import AUDIO, HOST_STATE, PEOPLE, SEGMENTS, STORE, sync

MANIFEST = "manifest.json"
PINNED = "pinned"
MERGED_MEANWHILE = 5
CHUNK = 1 << 20


StoreKind = Literal["embedded", "influxdb"]


class BackupRefused(Exception):
    """Why no backup was made, or why this one is not restored, and what to do."""


class File(BaseModel):
    """One file of a backup; `name` is relative, with `/`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(min_length=1, max_length=200)]
    bytes: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

    @field_validator("name")
    @classmethod
    def _stays_inside(cls, name: str) -> str:
        path = PurePosixPath(name)
        alone = len(path.parts) == 1 and name in {STORE, PEOPLE, HOST_STATE}
        if not alone and not (len(path.parts) == 2 and path.parts[0] in {SEGMENTS, AUDIO} and path.parts[1] != ".."):
            raise ValueError("is no name of a hub's file")
        return name


class Manifest(BaseModel):
    """What a backup holds; `made_at` in ms is when its copying began. With InfluxDB the readings are not in it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    host_id: str
    store: StoreKind
    made_at: int
    made_by: str
    files: tuple[File, ...]

    @property
    def bytes(self) -> int:
        """Return how many bytes the files have together."""
        return sum(one.bytes for one in self.files)


def back_up(state: Path, folder: Path, *, host_id: str, store: StoreKind, made_at: int, made_by: str) -> Manifest:
    """Copy a hub's state into an empty folder, whether the hub runs or not.

    Raises BackupRefused, FolderInUse, OSError or sqlite3.Error; the folder is then as empty as it was.
    """
    if not (state / STORE).is_file():
        raise BackupRefused(f"{state} holds no {STORE}: no hub ever ran on it; look at state_dir in its file")
    _refuse_what_is_there(folder)
    with state_folder.backup_alone(state):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            names = [*_copy_databases(state, folder), *_copy_files(state, folder)]
            files = tuple(_told(folder, one) for one in names)
            manifest = Manifest(host_id=host_id, store=store, made_at=made_at, made_by=made_by, files=files)
            _write(folder, manifest)
        except BaseException:
            _empty(folder)
            raise
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """Return what a backup says of itself; raise BackupRefused where it is none, was cut off, or is of a newer hub."""
    path = folder / MANIFEST
    try:
        told = json.loads(path.read_bytes())
        manifest = Manifest.model_validate(told)
    except FileNotFoundError as exc:
        raise BackupRefused(f"{folder} has no {MANIFEST}: it is no backup, or it was cut off; take another") from exc
    except ValueError as exc:
        raise BackupRefused(f"{path} cannot be read: damaged, or written by a newer hub ({_first_line(exc)})") from exc
    for one in manifest.files:
        try:
            size = (folder / one.name).stat().st_size
        except FileNotFoundError as exc:
            raise BackupRefused(f"{folder / one.name} is missing: the backup is not whole; take another") from exc
        if size != one.bytes:
            raise BackupRefused(f"{folder / one.name} has {size} bytes instead of {one.bytes}: it was cut off")
    return manifest


def digest(source: Iterable[bytes]) -> str:
    """Return the SHA-256 of bytes that come piece by piece."""
    sum_ = hashlib.sha256()
    for piece in source:
        sum_.update(piece)
    return sum_.hexdigest()


def pieces(path: Path) -> Iterator[bytes]:
    """Yield a file piece by piece."""
    with path.open("rb") as source:
        while piece := source.read(CHUNK):
            yield piece


def _refuse_what_is_there(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise BackupRefused(f"{folder} is a file; name a folder that is empty or not there yet")
    if folder.is_dir() and any(folder.iterdir()):
        cut = "" if (folder / MANIFEST).exists() else " (what is in it is no whole backup)"
        raise BackupRefused(f"{folder} is not empty{cut}; name one that is empty or not there yet")


def _copy_databases(state: Path, folder: Path) -> list[str]:
    """Copy hub.db, then store.db with the segments that very copy names."""
    names = []
    if (state / PEOPLE).is_file():
        _copy_database(state / PEOPLE, folder / PEOPLE)
        names.append(PEOPLE)
    chances = MERGED_MEANWHILE
    while True:
        chances -= 1
        _copy_database(state / STORE, folder / STORE)
        try:
            with _pinned(state, segments_of(folder / STORE)) as pins:
                return [*names, STORE, *_copy_each(pins, folder, SEGMENTS)]
        except FileNotFoundError:
            # A merge ended between copy and pin; its rows were committed before it unlinked, so look again.
            if not chances:
                raise
            (folder / STORE).unlink()


def segments_of(store: Path) -> list[str]:
    """Return the names of the segments a store's file lists; it is not written to."""
    with closing(sqlite3.connect(f"{store.absolute().as_uri()}?immutable=1", uri=True)) as database:
        if database.execute("SELECT 1 FROM sqlite_master WHERE name = 'segments'").fetchone() is None:
            return []
        return [str(file) for (file,) in database.execute("SELECT file FROM segments")]


@contextmanager
def _pinned(state: Path, segments: Iterable[str]) -> Iterator[list[Path]]:
    """Give segments a second name for as long as it takes; raise FileNotFoundError where one is gone."""
    pins = state / PINNED
    shutil.rmtree(pins, ignore_errors=True)  # of a backup that was killed
    pins.mkdir()
    try:
        for name in segments:
            os.link(state / SEGMENTS / name, pins / name)
        yield [pins / name for name in segments]
    finally:
        shutil.rmtree(pins)


def _copy_files(state: Path, folder: Path) -> list[str]:
    names = _copy_each(sorted((state / AUDIO).glob("*.flac")), folder, AUDIO)
    if (state / HOST_STATE).is_file():
        shutil.copyfile(state / HOST_STATE, folder / HOST_STATE)
        names.append(HOST_STATE)
    return names


def _copy_each(files: Iterable[Path], folder: Path, name: str) -> list[str]:
    copied = []
    for one in files:
        (folder / name).mkdir(exist_ok=True)
        shutil.copyfile(one, folder / name / one.name)
        copied.append(f"{name}/{one.name}")
    return copied


def _copy_database(source: Path, target: Path) -> None:
    """Copy a database as it stands at one instant; raise BackupRefused where it is damaged."""
    with (
        closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True, timeout=10)) as one,
        closing(sqlite3.connect(target)) as other,
    ):
        one.backup(other)
        # The copy shall be one file, not three.
        other.execute("PRAGMA journal_mode = DELETE")
        fault = other.execute("PRAGMA quick_check(1)").fetchone()[0]
    if fault != "ok":
        raise BackupRefused(f"{source} is damaged ({fault}): a copy of it is no backup; restore an older one")


def _told(folder: Path, name: str) -> File:
    path = folder / name
    sync(path)
    return File(name=name, bytes=path.stat().st_size, sha256=digest(pieces(path)))


def _write(folder: Path, manifest: Manifest) -> None:
    for one in (SEGMENTS, AUDIO):
        if (folder / one).is_dir():
            sync(folder / one)
    aside = folder / f".{MANIFEST}"
    aside.write_text(manifest.model_dump_json(indent=1), encoding="utf-8")
    sync(aside)
    sync(folder)
    aside.replace(folder / MANIFEST)
    sync(folder)


def _empty(folder: Path) -> None:
    for one in folder.iterdir():
        if one.is_dir():
            shutil.rmtree(one)
        else:
            one.unlink()


def _first_line(exc: Exception) -> str:
    return str(exc).splitlines()[0][:120]
