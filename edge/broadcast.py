"""Whether this box obeys an envelope: signature, scope, freshness and limits, decided over frozen data. Pure.

The rules and their numbers are those of docs/security.md; each refusal names the one it failed.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from contract import dsse
from contract.broadcast import TYPES, BroadcastRefused, Bundle, BundleKey, Class, Envelope, Order, read
from contract.dsse import SignatureRefused

CHALLENGE_VALID = 900.0
"""Seconds on the boot clock, and in this boot only."""

CHALLENGE_EVERY = 300.0
EARLY = 120_000
"""Milliseconds that a trusted clock may be behind the signer's."""

ORDER_BEFORE_BUNDLE = 86_400_000
RATE_WINDOW = 3_600_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """All that the decision depends on. `challenges` by the boot-clock second they were drawn; times in ms else."""

    node: str
    deployment: str
    bundle: Bundle | None
    speakers: frozenset[str]
    monotonic: float
    wall: int
    clock_trusted: bool
    challenges: Mapping[str, float] = field(default_factory=dict)
    known: Mapping[str, str] = field(default_factory=dict)
    """Orders that the journal has, and the digest of their bytes."""
    stopped: frozenset[str] = frozenset()
    recent: Mapping[str, int] = field(default_factory=dict)
    """Orders accepted within RATE_WINDOW, by key id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """To be obeyed: play or stop; `start_by` on the boot clock. Speakers this box does not have are named apart."""

    order: Order
    digest: str
    keyid: str
    speakers: tuple[str, ...]
    unknown: tuple[str, ...]
    start_by: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """The very order that the journal already has: its outcome is repeated, its sound is not."""

    order: Order


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Not to be obeyed; `order` is its id where this is a verdict on it, `alarm` means that somebody tampers."""

    reason: str
    order: str | None = None
    alarm: bool = False


Verdict = Accepted | Again | Refused


def examine(raw: str, situation: Situation) -> Verdict:
    """Return what becomes of an envelope."""
    bundle = situation.bundle
    if bundle is None:
        return Refused(reason="bundle: this box has none yet")
    try:
        key, envelope = _signed_envelope(raw, bundle)
        order_bytes = envelope.order_bytes()
        order = read(Order, order_bytes)
    except BroadcastRefused as exc:
        return Refused(reason=str(exc), alarm=True)
    if envelope.node != situation.node:
        # No word on the order: it may be on its way here too, in an envelope of ours.
        return Refused(reason=f"node: the envelope is for {envelope.node!r}", alarm=True)
    digest = hashlib.sha256(order_bytes).hexdigest()
    known = situation.known.get(order.id)
    if known is not None and known != digest:
        return Refused(reason="order: its id is known with other bytes", order=order.id, alarm=True)
    if known is not None:
        return Again(order=order)
    fault = _not_for_here(envelope, order, key, bundle, situation)
    if fault is not None:
        return Refused(reason=fault, order=order.id)
    if order.id in situation.stopped:
        return Refused(reason="order: it was stopped", order=order.id)
    fault = _over_a_limit(order, key, situation)
    if fault is not None:
        return Refused(reason=fault, order=order.id)
    start_by = _fresh_until(envelope, order, bundle, situation)
    if start_by is None:
        return Refused(reason="freshness: neither a challenge of this boot nor a trusted clock vouches", order=order.id)
    named = tuple(dict.fromkeys(envelope.speakers))
    here = tuple(name for name in named if name in situation.speakers)
    unknown = tuple(name for name in named if name not in situation.speakers)
    if not here and order.action == "play":
        return Refused(reason=f"speakers: this box has none of {', '.join(unknown)[:120]}", order=order.id)
    return Accepted(order=order, digest=digest, keyid=key.keyid, speakers=here, unknown=unknown, start_by=start_by)


def _signed_envelope(raw: str, bundle: Bundle) -> tuple[BundleKey, Envelope]:
    try:
        signed = dsse.opened(raw, TYPES[Envelope])
    except SignatureRefused as exc:
        raise BroadcastRefused(str(exc)) from exc
    signers = {key.keyid: key for key in bundle.keys if key.role == "signer"}
    right = dsse.signers(signed, {name: key.raw() for name, key in signers.items()})
    if not right:
        raise BroadcastRefused("envelope: no signature by a signer of the bundle")
    key = next(key for key in signers.values() if key.raw() in right)
    return key, read(Envelope, signed.payload)


def _not_for_here(envelope: Envelope, order: Order, key: BundleKey, bundle: Bundle, situation: Situation) -> str | None:
    if order.deployment != situation.deployment:
        return f"deployment: it is for {order.deployment!r}"
    if envelope.min_bundle > bundle.version:
        return f"bundle: version {envelope.min_bundle} is needed, this box has {bundle.version}"
    if order.class_ not in key.classes:
        return f"class: the signer may not order {order.class_}"
    if order.class_ is not Class.NORMAL:
        return f"class: {order.class_} needs persons' approvals, which this version cannot check"
    if "*" not in key.scope and situation.node not in key.scope:
        return "scope: the signer may not order here"
    if order.due is not None:
        return "due: scheduled orders come with a schedule"
    if order.issued_at < bundle.signed_at - ORDER_BEFORE_BUNDLE:
        return "order: it is more than a day older than the bundle"
    if order.expires_at <= order.issued_at:
        return "order: it expires before it was issued"
    if order.action == "play" and not order.program:
        return "program: it is empty"
    if order.action == "stop" and not order.stops:
        return "stops: it names no order"
    return None


def _over_a_limit(order: Order, key: BundleKey, situation: Situation) -> str | None:
    if order.action == "stop":
        return None
    limits = key.limits
    if order.duration_ms > limits.duration * 1000:
        return f"duration: {order.duration_ms / 1000:g} s is over the limit of {limits.duration} s"
    if order.volume > limits.volume:
        return f"volume: {order.volume} is over the limit of {limits.volume}"
    if situation.recent.get(key.keyid, 0) >= limits.rate:
        return f"rate: {limits.rate} orders an hour were accepted already"
    return None


def _fresh_until(envelope: Envelope, order: Order, bundle: Bundle, situation: Situation) -> float | None:
    """Return until when it may start, on the boot clock; None where nothing vouches for its freshness."""
    now = situation.monotonic
    drawn = situation.challenges.get(envelope.challenge) if envelope.challenge else None
    if drawn is not None and now - drawn <= CHALLENGE_VALID:
        return min(drawn + CHALLENGE_VALID, now + order.start_within_s)
    expires = min(envelope.expires_at, order.expires_at)
    # A clock that stands before what root signed is wrong, whoever keeps it.
    trusted = situation.clock_trusted and situation.wall >= bundle.signed_at - EARLY
    if trusted and envelope.issued_at - EARLY <= situation.wall <= expires:
        return now + min(order.start_within_s, (expires - situation.wall) / 1000)
    return None
