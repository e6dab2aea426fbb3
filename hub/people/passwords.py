"""Passwords: which are good enough, and how they are kept (argon2id)."""

import unicodedata
from collections.abc import Sequence
from functools import cache
from secrets import token_urlsafe

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from zxcvbn import zxcvbn

SHORTEST, LONGEST = 12, 128
GUESSES = 8.0
"""Decimal logarithm of how many guesses a password must be worth (zxcvbn; its lists hold what breaches made known)."""

_MOST_JUDGED = 72
_LOCAL_WORDS = ("matkhau", "hamlet", "smarthamlet", "loaphuong", "vietnam", "xinchao")
_HASHER = PasswordHasher()
"""RFC 9106's second choice: 3 passes over 64 MiB, 4 lanes."""


class PasswordRefused(ValueError):
    """A password that is not good enough; `code` says why in a word."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


def check(password: str, *, about: Sequence[str]) -> None:
    """Raise PasswordRefused unless a new password is good enough; `about` are words its owner is known by."""
    text = _normal(password)
    if len(text) < SHORTEST:
        raise PasswordRefused("password_short", f"a password needs at least {SHORTEST} characters")
    if len(text) > LONGEST:
        raise PasswordRefused("password_long", f"a password has at most {LONGEST} characters")
    known = [word.lower() for one in (*about, *_LOCAL_WORDS) for word in (one, *one.split()) if word]
    judged = zxcvbn(text[:_MOST_JUDGED], user_inputs=known)
    if float(judged["guesses_log10"]) < GUESSES:
        raise PasswordRefused("password_known", "this password is known from breaches or easily guessed; take another")


def hashed(password: str) -> str:
    """Return what is kept of a password; takes tens of milliseconds on purpose."""
    return _HASHER.hash(_normal(password))


def matches(kept: str | None, password: str) -> bool:
    """Return whether a password is the kept one; takes as long where nothing is kept."""
    try:
        return _HASHER.verify(kept or _nobodys(), _normal(password)[: LONGEST + 1]) and kept is not None
    except (VerificationError, InvalidHashError):
        return False


def outdated(kept: str) -> bool:
    """Return whether a password was kept with less effort than new ones are."""
    return _HASHER.check_needs_rehash(kept)


@cache
def _nobodys() -> str:
    return hashed(token_urlsafe())


def _normal(password: str) -> str:
    # Keyboards write the same Vietnamese letter in one code point or in three.
    return unicodedata.normalize("NFC", password)
