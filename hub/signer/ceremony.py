"""Making keys: the root, the signer's key, a trust bundle, and identity keys of boxes."""

import base64
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from contract.broadcast import Bundle, BundleKey, Class, Limits, Root, as_key, signed
from contract.clock import Clock
from contract.dsse import public_bytes

RENEW_AFTER = 365 * 86_400_000
DEMO_LIMITS = Limits(duration=600, volume=80, rate=600)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """Where a ceremony left its things; `identities` are public keys of boxes, base64, by node id."""

    root: Path
    bundle: Path
    signer_key: Path
    identities: dict[str, str]


def demo(folder: Path, *, deployment: str, group: str, nodes: Sequence[str], clock: Clock) -> Kept:
    """Make everything a demonstration needs in one folder: keys that only boxes set to `demo` believe.

    The root's private key is used here and not kept: nobody can renew a demonstration, and nobody needs to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    root_key, signer_key = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    root = Root(version=1, keys=(as_key(public_bytes(root_key)),), threshold=1)
    now = clock.now_ms()
    bundle = Bundle(
        deployment=deployment,
        group=group,
        environment="demo",
        version=1,
        root_version=1,
        signed_at=now,
        renew_by=now + RENEW_AFTER,
        keys=(signer_entry(signer_key, nodes=nodes, limits=DEMO_LIMITS),),
    )
    kept = Kept(
        root=folder / "root.json",
        bundle=folder / "bundle.json",
        signer_key=folder / "signer.pem",
        identities={node: _identity(folder / f"{node}.pem") for node in nodes},
    )
    kept.root.write_text(signed(root, [root_key]), encoding="utf-8")
    kept.bundle.write_text(signed(bundle, [root_key]), encoding="utf-8")
    write_key(kept.signer_key, signer_key)
    (folder / "identities.json").write_text(json.dumps(kept.identities), encoding="utf-8")
    return kept


def signer_entry(key: Ed25519PrivateKey, *, nodes: Sequence[str], limits: Limits) -> BundleKey:
    """Return how a bundle names a signer's key: for the normal class, on these nodes."""
    named = as_key(public_bytes(key))
    return BundleKey(
        keyid=named.keyid,
        algorithm=named.algorithm,
        public_key=named.public_key,
        role="signer",
        classes=(Class.NORMAL,),
        scope=tuple(nodes),
        limits=limits,
    )


def write_key(path: Path, key: Ed25519PrivateKey) -> None:
    """Write a private key as PEM that only its owner may read."""
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        out.write(pem)


def _identity(path: Path) -> str:
    key = Ed25519PrivateKey.generate()
    write_key(path, key)
    return base64.b64encode(public_bytes(key)).decode()
