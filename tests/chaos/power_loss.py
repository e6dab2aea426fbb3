"""Cuts the power of the embedded store at every sync: what was not synced by then is gone.

Writes, renames, unlinks and syncs of a run are recorded by strace. For each moment at which something was synced, and
for each acknowledgement, the folder is made anew of what was durable then: of a file what it held when it was last
synced, of a folder the names it had when it was last synced. The store opened there must have all that was
acknowledged. With `--without-sync` the kernel is told to skip every fsync and fdatasync: then it must not.
Prints one line of JSON; exits with 1 if anything was lost, doubled or altered.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos import store_workload

CALLS = "openat,creat,write,pwrite64,rename,unlink,unlinkat,mkdir,ftruncate,fsync,fdatasync,link,rmdir"
PROGRAM = [sys.executable, "-m", "tests.chaos.store_workload"]

_LINE = re.compile(r"^(\d+) +(?:(\w+)\((.*)\) += (-?\d+)(.*)|(.*))$")
_UNFINISHED = re.compile(r"^(\d+) +(.*) <unfinished \.\.\.>$")
_RESUMED = re.compile(r"^(\d+) +<\.\.\. \w+ resumed>(.*)$")
_FILE = re.compile(r"^(\d+)<((?:\\x..)*)(?:\(deleted\))?>")
_TEXT = re.compile(r'"((?:\\x..)*)"')


@dataclass(slots=True)
class Inode:
    """A file: its bytes as the program sees them, and as the disk has them."""

    seen: bytearray = field(default_factory=bytearray)
    durable: bytes = b""


@dataclass(slots=True)
class Disk:
    """The files below one folder, as the program sees them and as they would be after a power cut."""

    root: str
    names: dict[str, Inode] = field(default_factory=dict)
    durable: dict[str, Inode] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    told: str = ""
    open: dict[tuple[str, str], Inode] = field(default_factory=dict)

    def here(self, path: str) -> bool:
        return path.startswith(self.root + "/")

    def apply(self, call: str, arguments: str, result: int, *, skipped: bool) -> bool:
        """Take one call; return whether it is a moment to cut the power after."""
        texts = [bytes.fromhex(one.replace("\\x", "")) for one in _TEXT.findall(arguments)]
        file = _FILE.match(arguments)
        path = bytes.fromhex(file.group(2).replace("\\x", "")).decode() if file else ""
        if call == "write" and file and file.group(1) == "1":
            self.told += texts[0][:result].decode()
            return self.told.endswith("\n")
        match call:
            case "openat" | "creat":
                name = texts[0].decode()
                if self.here(name) and "O_DIRECTORY" not in arguments:
                    if "O_CREAT" in arguments or call == "creat":
                        self.names.setdefault(name, Inode())
                    if "O_TRUNC" in arguments or call == "creat":
                        self.names[name].seen.clear()
            case "mkdir":
                self.folders.add(texts[0].decode())
            case "rename":
                old, new = (one.decode() for one in texts)
                if self.here(old):
                    self.names[new] = self.names.pop(old)
            case "link":
                old, new = (one.decode() for one in texts)
                self.names[new] = self.names[old]
            case "unlink" | "unlinkat":
                self.names.pop(texts[0].decode(), None)
            case "write" | "pwrite64" | "ftruncate" if self.here(path):
                self._write(call, path, arguments, texts, result)
            case "fsync" | "fdatasync" if not skipped and (self.here(path) or path == self.root):
                if path in self.names:
                    self.names[path].durable = bytes(self.names[path].seen)
                else:
                    self._sync_folder(path)
                return True
        return False

    def _write(self, call: str, path: str, arguments: str, texts: list[bytes], result: int) -> None:
        inode = self.names.get(path)
        if inode is None:  # unlinked and still open: nobody finds it again
            return
        if call == "ftruncate":
            size = int(arguments.rpartition(",")[2])
            del inode.seen[size:]
            inode.seen.extend(bytes(size - len(inode.seen)))
            return
        data = texts[0][:result]
        place = int(arguments.rpartition(",")[2]) if call == "pwrite64" else len(inode.seen)
        inode.seen.extend(bytes(max(place - len(inode.seen), 0)))
        inode.seen[place : place + len(data)] = data

    def _sync_folder(self, path: str) -> None:
        inside = re.compile(re.escape(path) + "/[^/]+")
        self.durable = {name: one for name, one in self.durable.items() if not inside.fullmatch(name)}
        self.durable |= {name: one for name, one in self.names.items() if inside.fullmatch(name)}

    def after_power_loss(self, place: Path) -> None:
        """Make the folder anew of what was durable; shared memory of SQLite is no file that outlives its users."""
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        for name, inode in self.durable.items():
            if name.endswith("-shm"):
                continue
            path = place / name.removeprefix(self.root + "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(inode.durable)


def calls(log: Path) -> Iterator[tuple[str, str, int, bool]]:
    """Return the calls of a recording: name, arguments, result, whether the kernel was told to skip it."""
    begun: dict[str, str] = {}
    with log.open(encoding="ascii") as lines:
        for line in lines:
            text = line.rstrip("\n")
            if (unfinished := _UNFINISHED.match(text)) is not None:
                begun[unfinished.group(1)] = unfinished.group(2)
                continue
            if (resumed := _RESUMED.match(text)) is not None:
                text = f"{resumed.group(1)} {begun.pop(resumed.group(1))}{resumed.group(2)}"
            found = _LINE.match(text)
            if found is not None and found.group(2) and int(found.group(4)) >= 0:
                yield found.group(2), found.group(3), int(found.group(4)), "INJECTED" in found.group(5)


def main() -> int:
    """Record one run and cut the power at each of its moments; return the exit code."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--every", type=int, default=1, help="of all moments, each so-manieth")
    asked.add_argument("--without-sync", action="store_true", help="skip fsync and fdatasync: the store must lose")
    arguments = asked.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        state, log = folder / "state", folder / "log"
        state.mkdir()
        inject = ["-e", "inject=fsync,fdatasync:retval=0"] if arguments.without_sync else []
        command: list[str | Path] = [
            "strace",
            "-f",
            "-qq",
            "-y",
            "-xx",
            "-s",
            "100000000",
            "-o",
            log,
            "-e",
            f"trace={CALLS}",
            *inject,
        ]
        subprocess.run([*command, *PROGRAM, "run", state], check=True, capture_output=True, timeout=60)
        disk, moments, wrong = Disk(root=str(state)), 0, []
        for call, told, result, skipped in calls(log):
            if disk.apply(call, told, result, skipped=skipped):
                moments += 1
                if moments % arguments.every == 0:
                    disk.after_power_loss(folder / "after")
                    fault = _judged(folder / "after", disk.told)
                    wrong += [f"moment {moments}, after {disk.told.splitlines()[-1:]}: {fault}"] if fault else []
    print(json.dumps({"moments": moments, "wrong": len(wrong), "first": wrong[:3]}))
    return 1 if wrong or not moments else 0


def _judged(place: Path, told: str) -> str:
    try:
        return store_workload.judge(place, told.splitlines())
    except Exception as exc:  # noqa: BLE001  # a store that does not open has lost everything
        return f"it does not open: {exc}"


if __name__ == "__main__":
    sys.exit(main())
