"""Secrets that are handed out and come back: sessions, tokens, links; only their digest is kept."""

import hashlib
import secrets

TOKEN_PREFIX = "hamlet_"  # noqa: S105  # so that one that leaked is recognised
MOST = 200
"""Characters: nothing longer is looked at."""


def new_secret() -> str:
    """Return 256 random bits, fit for a URL, a cookie or a header."""
    return secrets.token_urlsafe(32)


def digest(secret: str) -> bytes:
    """Return what is kept. Of 256 random bits nothing can be guessed, so no slow hash is needed."""
    return hashlib.sha256(secret.encode()).digest()
