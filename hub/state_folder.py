"""The hub's state folder: one hub in it at a time, and what of it is the hub's memory."""

import fcntl
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

STORE, PEOPLE, SEGMENTS, AUDIO, HOST_STATE = "store.db", "hub.db", "segments", "audio", "host-state"
DATABASES = (STORE, PEOPLE)

EVERYTHING = (*(f"{one}{end}" for one in DATABASES for end in ("", "-wal", "-shm")), SEGMENTS, HOST_STATE)
"""What belongs together and is replaced together. Audio is not in it: its files are named by their digest."""


class FolderInUse(Exception):
    """Somebody else works in the folder; the text says what to do."""


@contextmanager
def alone(folder: Path, lock: str, otherwise: str) -> Iterator[None]:
    """Hold a lock of the folder, which the kernel gives back however the process ends; raise FolderInUse."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise FolderInUse(
            f"{folder / lock} cannot be opened ({exc.strerror}): run as the hub's own user, and give it what is its own"
        ) from exc
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise FolderInUse(f"{folder}: {otherwise}") from exc
        yield
    finally:
        os.close(descriptor)


@contextmanager
def hub_alone(folder: Path) -> Iterator[None]:
    """Be the only hub, or the only restore, in the folder."""
    with alone(folder, "lock", "a hub runs on this state; stop it first"):
        yield


@contextmanager
def backup_alone(folder: Path) -> Iterator[None]:
    """Be the only backup of the folder; no restore comes between."""
    with alone(folder, "backup.lock", "another backup or restore of this state is under way; wait for it"):
        yield


def sync(path: Path) -> None:
    """Return once a file's bytes, or a folder's names, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def secret_file(file: Path, make: Callable[[], bytes]) -> bytes:
    """Return the bytes of a file that only its owner may read, made at first use and whole or not there at all."""
    if not file.exists():
        made, aside = make(), file.with_name(f".{file.name}.{secrets.token_hex(4)}")
        with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
            out.write(made)
            out.flush()
            os.fsync(out.fileno())
        with suppress(FileExistsError):  # somebody else was quicker: its key is the key
            os.link(aside, file)
        aside.unlink()
        sync(file.parent)
    return file.read_bytes()
