"""`hamlet-hub verify-audit`: whether the record of acts, or an export of it, is as it was written; changes nothing."""

import base64
import binascii
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

from contract.dsse import public_bytes
from hub.audit import Head, Verified, verified
from hub.audit_export import ExportRefused, audit_key, verify_export
from hub.audit_heads import HeadsUnreadable, read
from hub.config import Config, load
from hub.storage.audit import chain


def main(file: Path, *, heads: Path | None, export: Path | None, key: str | None) -> int:
    """Say what was found; return 0 only if nothing differs. Raises ConfigRefused for a bad configuration."""
    config = load(file)
    try:
        found = _own(config, heads) if export is None else verify_export(export, _public(config, key))
    except (ExportRefused, HeadsUnreadable, OSError, sqlite3.Error) as exc:
        print(exc, file=sys.stderr)  # noqa: T201  # a command's answer
        return 1
    if found.difference is not None:
        print(f"after {found.entries} right entries: {found.difference}", file=sys.stderr)  # noqa: T201
        return 1
    print(  # noqa: T201
        f"{found.entries} acts, each as it was written; details of {found.erased} were erased; head {found.head.hex()}"
    )
    return 0


def _own(config: Config, heads: Path | None) -> Verified:
    path = config.hub.state_dir / "hub.db"
    kept: list[Head] = []
    if heads is not None:
        kept = read(heads)
    elif config.audit.heads_file is not None and config.audit.heads_file.exists():
        kept = read(config.audit.heads_file)
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=10)) as database:
        database.execute("BEGIN")  # one snapshot: a hub that runs may go on adding
        return verified(chain(database), kept)


def _public(config: Config, key: str | None) -> bytes:
    if key is None:
        return public_bytes(audit_key(config.hub.state_dir))
    try:
        raw = base64.b64decode(key, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise ExportRefused(f"--key {key[:60]!r} is not base64") from exc
    if len(raw) != 32:
        raise ExportRefused(f"--key has {len(raw)} bytes, an Ed25519 key has 32")
    return raw
