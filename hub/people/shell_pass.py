"""A pass, good for a minute, by which a command on the hub's own machine speaks to the hub that runs."""

import binascii
import secrets

from hub.people.lifetimes import MINUTE
from hub.people.sealing import Seal
from hub.rights.permissions import Noun, Verb

RIGHTS = frozenset({(Noun.QUARANTINE, Verb.SEE), (Noun.QUARANTINE, Verb.RETRY)})
"""What such commands do through the hub; the rest they do to its files."""


def pass_of(seal: Seal, who: str, now: int) -> str:
    """Return a pass. It needs the key file: whoever can read that could do all of it without asking."""
    told = f"{now + MINUTE}.{who.encode().hex()}"
    return f"{told}.{seal.mark('shell', told)}"


def bearer(seal: Seal, text: str, now: int) -> str | None:
    """Return who a pass says brings it, None if it is forged, over, or too long good."""
    told, _, mark = text.rpartition(".")
    if not secrets.compare_digest(seal.mark("shell", told).encode(), mark.encode()):
        return None
    until, _, who = told.partition(".")
    try:
        return bytes.fromhex(who).decode() if now < int(until) <= now + MINUTE else None
    except (ValueError, binascii.Error):
        return None
