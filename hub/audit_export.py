"""Acts to hand over: lines of JSON, the last of them a signature over the others, and the check of such a file.

Whoever receives the file needs this hub's public audit key and nothing else of it to see that no line was changed,
added or left out. Details that were erased are missing, their salted hashes stay.
"""

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from contract.dsse import SignatureRefused, key_id, opened, sign, signers
from hub.audit import Detail, Entry, Verified, verified
from hub.state_folder import secret_file
from hub.storage.audit import chain

PAYLOAD_TYPE = "application/vnd.smart-hamlet.audit-export+json"


class ExportRefused(ValueError):
    """A file that is no export of this hub, or not as it was signed."""


def audit_key(folder: Path) -> Ed25519PrivateKey:
    """Return the key that signs this hub's exports, made at first use; it can make nothing sound."""
    file = folder / "audit-key.pem"
    key = load_pem_private_key(secret_file(file, _made), password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise ExportRefused(f"{file} is no Ed25519 key; set it aside and a new one is made")
    return key


def export(database: sqlite3.Connection, first: int, last: int, key: Ed25519PrivateKey) -> Iterator[bytes]:
    """Yield the lines of an export of the acts numbered first to last, the signature last."""
    digest, count = hashlib.sha256(), 0
    for one, details in chain(database, first, last):
        line = json.dumps(_line(one, details), ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        digest.update(line)
        count += 1
        yield line
    told = json.dumps({"sha256": digest.hexdigest(), "acts": count, "first": first, "last": first + count - 1})
    yield sign(PAYLOAD_TYPE, told.encode(), [key]).encode() + b"\n"


def verify_export(file: Path, public_key: bytes) -> Verified:
    """Return what a walk along an export finds; raise ExportRefused where it is not what was signed."""
    digest, count, kept = hashlib.sha256(), 0, b""
    with file.open("rb") as lines:
        for line in lines:
            if kept:
                digest.update(kept)
                count += 1
            kept = line
    try:
        signature = opened(kept, PAYLOAD_TYPE)
    except SignatureRefused as exc:
        raise ExportRefused(f"{file}: its last line is no signature ({exc}); the file was cut") from exc
    if not signers(signature, {key_id(public_key): public_key}):
        raise ExportRefused(f"{file}: not signed by key {key_id(public_key)[:16]}")
    told = json.loads(signature.payload)
    if (told["sha256"], told["acts"]) != (digest.hexdigest(), count):
        raise ExportRefused(f"{file}: its lines are not those that were signed")
    with file.open("rb") as lines:
        return verified((_entry(line) for _, line in zip(range(count), lines, strict=False)), whole=False)


def _line(one: Entry, details: Mapping[str, Detail]) -> dict[str, Any]:
    return {
        "number": one.number,
        "at": one.at,
        "account": one.account,
        "what": one.what,
        "subject": one.subject,
        "sealed": dict(one.sealed),
        "details": {name: [detail.salt.hex(), detail.value] for name, detail in details.items()},
        "previous": one.previous.hex(),
        "hash": one.hash.hex(),
    }


def _entry(line: bytes) -> tuple[Entry, dict[str, Detail]]:
    told = json.loads(line)
    details = {name: Detail(bytes.fromhex(salt), value) for name, (salt, value) in told.pop("details").items()}
    previous, own = bytes.fromhex(told.pop("previous")), bytes.fromhex(told.pop("hash"))
    return Entry(**told, previous=previous, hash=own), details


def _made() -> bytes:
    return Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
