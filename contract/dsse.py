"""Signed bytes: Dead Simple Signing Envelope 1.0 with Ed25519 (RFC 8032), and nothing else of it.

A key counts once, however many names it is given: a threshold of two must mean two keys.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from contract.strict_json import JsonRefused, loads

ALGORITHM = "ed25519"
MOST_BYTES = 256 * 1024
MOST_SIGNATURES = 16


class SignatureRefused(ValueError):
    """An envelope that cannot be read, or is not signed as it must be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """What was signed, and by whom it claims to be signed; nothing of it is verified yet."""

    payload_type: str
    payload: bytes
    signatures: tuple[tuple[str, bytes], ...]


def key_id(public_key: bytes) -> str:
    """Return the name of a key: SHA-256 over algorithm and key, in hex."""
    return hashlib.sha256(ALGORITHM.encode() + b"\x00" + public_key).hexdigest()


def public_bytes(key: Ed25519PrivateKey) -> bytes:
    """Return the 32 bytes of a private key's public half."""
    return key.public_key().public_bytes_raw()


def sign(payload_type: str, payload: bytes, keys: Iterable[Ed25519PrivateKey]) -> str:
    """Return the envelope as JSON text."""
    message = _pae(payload_type, payload)
    signatures = [
        {"keyid": key_id(public_bytes(key)), "sig": base64.b64encode(key.sign(message)).decode()} for key in keys
    ]
    body = {"payloadType": payload_type, "payload": base64.b64encode(payload).decode(), "signatures": signatures}
    return json.dumps(body, separators=(",", ":"))


def opened(raw: str | bytes, payload_type: str) -> Signed:
    """Return the envelope if it is of that type; raise SignatureRefused with the reason. Verifies no signature."""
    try:
        body = loads(raw, most_bytes=MOST_BYTES)
    except JsonRefused as exc:
        raise SignatureRefused(str(exc)) from exc
    if not isinstance(body, dict) or not isinstance(body.get("signatures"), list):
        raise SignatureRefused("not a signed envelope")
    if body.get("payloadType") != payload_type:
        raise SignatureRefused(f"payload type {str(body.get('payloadType'))[:80]!r} is not {payload_type!r}")
    if len(body["signatures"]) > MOST_SIGNATURES:
        raise SignatureRefused(f"{len(body['signatures'])} signatures, more than {MOST_SIGNATURES}")
    signatures = []
    for one in body["signatures"]:
        if not isinstance(one, dict) or not isinstance(one.get("keyid"), str):
            raise SignatureRefused("a signature without keyid")
        signatures.append((one["keyid"], unbase64(one.get("sig"), "sig")))
    return Signed(
        payload_type=payload_type, payload=unbase64(body.get("payload"), "payload"), signatures=tuple(signatures)
    )


def signers(signed: Signed, keys: Mapping[str, bytes]) -> frozenset[bytes]:
    """Return the public keys, out of `keys` by key id, whose signature is on it and right."""
    message = _pae(signed.payload_type, signed.payload)
    return frozenset(
        keys[name] for name, signature in signed.signatures if name in keys and _right(keys[name], signature, message)
    )


def unbase64(text: object, what: str) -> bytes:
    """Return the bytes of strict base64 text; raise SignatureRefused otherwise."""
    try:
        if isinstance(text, str):
            return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise SignatureRefused(f"{what} is not base64") from exc
    raise SignatureRefused(f"{what} is missing")


def _right(public_key: bytes, signature: bytes, message: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _pae(payload_type: str, payload: bytes) -> bytes:
    """Return the pre-authentication encoding: type and payload, each with its length, so that neither can pose."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)
