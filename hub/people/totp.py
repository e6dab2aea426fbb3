"""Time-based one-time codes (RFC 6238), the second factor beside a password."""

import hmac
import re

import pyotp
import segno

ISSUER = "Smart Hamlet"
STEP_MS = 30_000
DRIFT = 1
"""Steps that a phone's clock may be off, either way."""


def new_secret() -> str:
    """Return a secret for an authenticator app, 160 bits in base 32."""
    return pyotp.random_base32()


def good_secret(text: str) -> bool:
    """Return whether a text can be a secret: base 32 of at least 128 bits."""
    return re.fullmatch(r"[A-Z2-7]{26,128}", text) is not None


def uri(secret: str, name: str) -> str:
    """Return the otpauth: address that authenticator apps read."""
    return pyotp.TOTP(secret).provisioning_uri(name=name, issuer_name=ISSUER)


def picture(address: str) -> str:
    """Return an address as a QR code, in SVG without style or script."""
    return segno.make(address, error="m").svg_inline(scale=5, border=4, dark="#000", light="#fff")


def matched_step(secret: str, code: str, now: int) -> int | None:
    """Return the step (since 1970) whose code was given, the newest if several, None if none; `now` in ms.

    The caller must refuse steps up to the last one taken, so that a code that was seen is worth nothing.
    """
    digits = re.sub(r"\s", "", code)
    generator, current = pyotp.TOTP(secret), now // STEP_MS
    found = None
    for step in range(current - DRIFT, current + DRIFT + 1):
        # Always all of them: how long it takes must not tell which one was near.
        if hmac.compare_digest(generator.generate_otp(step).encode(), digits.encode()):
            found = step
    return found
