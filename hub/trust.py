"""What the hub passes on to boxes and checks of them; it can sign none of it."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from contract.broadcast import Bundle
from hub.devices import NodeKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """The signed bundle and root chain for the boxes, and the boxes' own public keys."""

    bundle_raw: str
    bundle: Bundle
    roots: Sequence[str]
    identities: Mapping[NodeKey, bytes]


def identity(text: str) -> bytes:
    """Return a box's public key from its base64; raise ValueError if it is none."""
    raw = base64.b64decode(text, validate=True)
    if len(raw) != 32:
        raise ValueError(f"{len(raw)} bytes, an Ed25519 public key has 32")
    return raw
