"""The status file: what a technician, a test or the demo reads without asking the network."""

import json
from collections.abc import Mapping
from pathlib import Path


def write(path: Path, status: Mapping[str, object]) -> None:
    """Write it in one piece; a reader never sees half of it."""
    aside = path.with_name(f".{path.name}")
    aside.write_text(json.dumps(status, ensure_ascii=False, indent=1), encoding="utf-8")
    aside.replace(path)
