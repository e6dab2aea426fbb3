"""What a device answered, on disk before the answer leaves: whoever judges later need not believe the one who asked."""

import json
import os
from pathlib import Path


class AnswerFile:
    """Appends one JSON line per answer, fsynced; a file that exists is gone on with."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def tell(self, **facts: object) -> None:
        """Return once the line is on disk."""
        os.write(self._file, json.dumps(facts).encode() + b"\n")
        os.fdatasync(self._file)


def newest_serial(path: Path) -> int | None:
    """Return the serial number of the last answer in a file, None if there is none."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return int(json.loads(lines[-1])["serial"]) if lines else None
