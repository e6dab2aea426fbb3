"""Traffic from counters of bytes: kbit/s between two counts, and nothing where a counter cannot be believed. Pure."""

from dataclasses import dataclass

from contract.metrics import Value

LEAST_SECONDS = 0.5
MOST_KBITS = 20_000_000
"""20 Gbit/s: a rate above that is a counter that was set anew, not traffic."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """Bytes through the uplink at an instant (s, monotonic); `bits` is the width of the device's counters."""

    at: float
    received: int
    sent: int
    bits: int = 64


def rates(before: Counted | None, now: Counted) -> dict[str, Value]:
    """Return `Traffic/Received` and `Traffic/Sent`; empty where a counter went back in any way but one plain wrap."""
    if before is None or now.at - before.at < LEAST_SECONDS:
        return {}
    seconds = now.at - before.at
    found: dict[str, Value] = {}
    pairs = (("Traffic/Received", before.received, now.received), ("Traffic/Sent", before.sent, now.sent))
    for name, early, late in pairs:
        # Only counters of 32 bits wrap in the field (RFC 2863, 3.1.6); one of 64 that went back was set to zero.
        moved = late - early if late >= early or now.bits == 64 else late - early + 2**now.bits
        kbits = moved * 8 / 1000 / seconds
        if not 0 <= kbits <= MOST_KBITS:
            return {}
        found[name] = round(kbits, 1)
    return found
