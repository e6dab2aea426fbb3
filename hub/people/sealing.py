"""Secrets the hub must read again, sealed with a key that stands beside the database and in no backup of it."""

import hashlib
import hmac
import os
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from hub.state_folder import secret_file

_NONCE = 12


class SealBroken(ValueError):
    """What was sealed with another key, or for another account."""


class Seal:
    """Seals and opens (AES-256-GCM); the key file is made, for its owner's eyes only, where there is none."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._key = _key(file)
        self._cipher = AESGCM(self._key)

    def seal(self, text: str, *, about: str) -> bytes:
        """Return a text sealed for one account (or link): it opens for no other."""
        nonce = os.urandom(_NONCE)
        return nonce + self._cipher.encrypt(nonce, text.encode(), about.encode())

    def open(self, sealed: bytes, *, about: str) -> str:
        """Return the text; raise SealBroken naming the key file."""
        try:
            return self._cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], about.encode()).decode()
        except InvalidTag as exc:
            raise SealBroken(f"{self._file} is not the key that sealed this; bring back the right file") from exc

    def mark(self, purpose: str, text: str) -> str:
        """Return a mark that only this hub can put under a text, for one purpose."""
        return hmac.new(self._key, f"{purpose}\x1f{text}".encode(), hashlib.sha256).hexdigest()


def _key(file: Path) -> bytes:
    key = secret_file(file, lambda: os.urandom(32))
    if len(key) != 32:
        raise SealBroken(f"{file} is no key of 32 bytes; bring back the right file")
    return key
