"""What the signer agrees to sign, decided over frozen data. Pure.

The web process asks; it may be broken into. So the signer does not sign what it is given: it makes the order itself,
within limits of its own, and wraps only orders it made.
"""

import secrets
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from contract.broadcast import Class, Hex128, Name, Order, Step

MOST_EXPIRY = 600
"""Seconds: what was not played ten minutes after the press is not played."""


MINUTE = 60_000
"""Milliseconds, on either side of now: a clock that was ahead for a while must not count against what comes after."""


class SigningRefused(ValueError):
    """What the signer does not sign, and why."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class OrderRequest(_Strict):
    """`make`: what shall be played or stopped, for whom, and why."""

    do: Literal["make"]
    action: Literal["play", "stop"]
    stops: tuple[Hex128, ...] = ()
    kind: Literal["real", "exercise", "test"] = "real"
    issuer: Name
    why: Annotated[str, Field(max_length=300)] = ""
    program: tuple[Step, ...] = ()
    text: Annotated[str, Field(max_length=10_000)] = ""
    targets: Annotated[tuple[str, ...], Field(max_length=1000)] = ()
    volume: Annotated[int, Field(ge=0, le=100)]
    expires_in_s: Annotated[int, Field(ge=1)]
    start_within_s: Annotated[int, Field(ge=1)]


class WrapRequest(_Strict):
    """`wrap`: an envelope for one edge node around an order that this signer made."""

    do: Literal["wrap"]
    order: Hex128
    node: Name
    speakers: Annotated[tuple[str, ...], Field(min_length=1, max_length=64)]
    challenge: Hex128 | None
    min_bundle: int


class Limits(_Strict):
    """The signer's own limits, from its own file."""

    duration_seconds: Annotated[int, Field(ge=1, le=3600)] = 600
    volume: Annotated[int, Field(ge=1, le=100)] = 80
    orders_a_minute: Annotated[int, Field(ge=1, le=600)] = 20


def make_order(request: OrderRequest, *, deployment: str, limits: Limits, recent: Sequence[int], now: int) -> Order:
    """Return the order; raise SigningRefused over a limit. `recent`: when those to play were made (ms), `now` in ms."""
    # A stop is never too many: whoever presses play too often must still be able to end it.
    if request.action == "play" and sum(1 for at in recent if abs(now - at) < MINUTE) >= limits.orders_a_minute:
        raise SigningRefused(f"{limits.orders_a_minute} orders were made within a minute; wait a minute")
    if request.expires_in_s > MOST_EXPIRY:
        raise SigningRefused(f"expires_in_s {request.expires_in_s} is over {MOST_EXPIRY}")
    if request.volume > limits.volume:
        raise SigningRefused(f"volume {request.volume} is over {limits.volume}")
    duration = sum(step.duration_ms for step in request.program)
    if duration > limits.duration_seconds * 1000:
        raise SigningRefused(f"{duration / 1000:.0f} s of sound are over {limits.duration_seconds} s")
    if (request.action == "play") is not bool(request.program) or (request.action == "stop") is not bool(request.stops):
        raise SigningRefused(
            f"{request.action} needs {'a programme' if request.action == 'play' else 'orders to stop'}"
        )
    return Order(
        deployment=deployment,
        id=secrets.token_hex(16),
        action=request.action,
        stops=request.stops,
        class_=Class.NORMAL,
        kind=request.kind,
        issuer=request.issuer,
        issued_at=now,
        expires_at=now + request.expires_in_s * 1000,
        start_within_s=request.start_within_s,
        targets=request.targets,
        program=request.program,
        text=request.text,
        volume=request.volume,
    )
