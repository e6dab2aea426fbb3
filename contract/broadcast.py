"""Who may speak, and what is to be said: root, trust bundle, order, envelope, hello, outcome, and their bytes.

Each is strict JSON inside a signed envelope with a payload type of its own. Unknown fields are ignored, so that later
versions can add some, unless `crit` names them: then whoever does not know them must refuse.
"""

import base64
from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Literal, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from contract import dsse
from contract.commands import Stage
from contract.dsse import SignatureRefused, key_id
from contract.strict_json import JsonRefused, loads

MOST_BYTES = 192 * 1024

U8 = Annotated[int, Field(ge=0, le=0xFF)]
U32 = Annotated[int, Field(ge=0, le=0xFFFF_FFFF)]
U64 = Annotated[int, Field(ge=0, le=0xFFFF_FFFF_FFFF_FFFF)]
Millis = Annotated[int, Field(ge=0, lt=1 << 53)]
Hex128 = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, Field(min_length=1, max_length=100)]


class BroadcastRefused(ValueError):
    """An object of the broadcast path that must not be obeyed; the text says why."""


class Class(StrEnum):
    """Priority classes of Circular 39/2020/TT-BTTTT."""

    EMERGENCY = "emergency"
    PRIORITY = "priority"
    NORMAL = "normal"


class _Wire(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", populate_by_name=True)

    crit: tuple[str, ...] = ()


class Key(BaseModel):
    """A public key by its own name."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    keyid: Sha256
    algorithm: Literal["ed25519"]
    public_key: str

    def raw(self) -> bytes:
        """Return the 32 bytes; raise BroadcastRefused where the name is not the key's."""
        try:
            raw = dsse.unbase64(self.public_key, "public_key")
        except SignatureRefused as exc:
            raise BroadcastRefused(str(exc)) from exc
        if len(raw) != 32 or key_id(raw) != self.keyid:
            raise BroadcastRefused(f"keyid {self.keyid[:16]} does not belong to its key")
        return raw


class Root(_Wire):
    """The province's root, kept offline: it signs trust bundles and its own successor, nothing else."""

    version: U32
    keys: tuple[Key, ...]
    threshold: Annotated[int, Field(ge=1, le=16)]


class Limits(BaseModel):
    """What a key may ask for: seconds of one announcement, volume 0-100, orders an hour."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    duration: U32
    volume: Annotated[int, Field(ge=0, le=100)]
    rate: U32


class BundleKey(Key):
    """A key with its role; `scope` lists node ids, or "*" for every node of the bundle's group."""

    role: Name
    classes: tuple[Class, ...]
    scope: tuple[str, ...]
    limits: Limits


class Bundle(_Wire):
    """Whom the boxes of a group believe; its version rises only."""

    deployment: Name
    group: Name
    environment: Literal["production", "demo"]
    version: U32
    root_version: U32
    signed_at: Millis
    renew_by: Millis
    keys: tuple[BundleKey, ...]
    zones: tuple[object, ...] = ()
    templates: tuple[object, ...] = ()
    rp_ids: tuple[str, ...] = ()


class Step(BaseModel):
    """One piece of audio of a programme, known by digest and length wherever it comes from."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    step: Name
    sha256: Sha256
    bytes: Annotated[int, Field(ge=1, le=64 * 1024 * 1024)]
    media_type: Name
    duration_ms: Annotated[int, Field(ge=1, le=24 * 3600 * 1000)]


class Order(_Wire):
    """What shall be played, or stopped; made once."""

    deployment: Name
    id: Hex128
    action: Literal["play", "stop"]
    stops: Annotated[tuple[Hex128, ...], Field(max_length=64)] = ()
    class_: Class = Field(alias="class")
    kind: Literal["real", "exercise", "test"]
    issuer: Name
    issued_at: Millis
    expires_at: Millis
    start_within_s: U32
    due: Millis | None = None
    targets: tuple[str, ...] = ()
    zone_map: U32 | None = None
    program: tuple[Step, ...] = ()
    text: Annotated[str, Field(max_length=10_000)] = ""
    volume: Annotated[int, Field(ge=0, le=100)]
    repeats: Annotated[int, Field(ge=1, le=255)] = 1

    @property
    def duration_ms(self) -> int:
        """Return how long it sounds, repeats included."""
        return sum(step.duration_ms for step in self.program) * self.repeats


class Envelope(_Wire):
    """An order wrapped for one edge node, made again as often as needed."""

    node: Name
    speakers: Annotated[tuple[str, ...], Field(min_length=1, max_length=64)]
    challenge: Hex128 | None = None
    sequence: U64
    issued_at: Millis
    expires_at: Millis
    min_bundle: U32
    order: str
    approvals: tuple[object, ...] = ()

    def order_bytes(self) -> bytes:
        """Return the order's exact bytes; raise BroadcastRefused if they are no base64."""
        try:
            return dsse.unbase64(self.order, "order")
        except SignatureRefused as exc:
            raise BroadcastRefused(str(exc)) from exc


class Hello(_Wire):
    """What a box says of itself, so that an envelope can be made fresh for it."""

    node: Name
    boot: Hex128
    challenge: Hex128
    root_version: U32
    bundle_version: U32
    schedule_version: U32 = 0
    formats: tuple[str, ...] = ("v1",)


class Outcome(_Wire):
    """What became of an order on one box; `speaker` None where the whole order is meant."""

    node: Name
    order: Hex128
    stage: Stage
    reason: Annotated[str, Field(max_length=300)] = ""
    at: Millis
    speaker: str | None = None


Wire = TypeVar("Wire", bound=_Wire)

NOT_ACTED_ON: dict[type[_Wire], frozenset[str]] = {
    Bundle: frozenset({"zones", "templates", "rp_ids"}),
    Order: frozenset({"targets", "zone_map"}),
    Envelope: frozenset({"approvals"}),
}
"""Fields that are carried for later and decide nothing yet: who calls one critical must be refused."""

TYPES: dict[type[_Wire], str] = {
    Root: "application/vnd.smart-hamlet.root.v1+json",
    Bundle: "application/vnd.smart-hamlet.bundle.v1+json",
    Envelope: "application/vnd.smart-hamlet.envelope.v1+json",
    Hello: "application/vnd.smart-hamlet.hello.v1+json",
    Outcome: "application/vnd.smart-hamlet.outcome.v1+json",
}


def to_bytes(thing: _Wire) -> bytes:
    """Return the bytes that are signed, and whose digest an order is known by."""
    return thing.model_dump_json(by_alias=True).encode()


def read(shape: type[Wire], raw: bytes) -> Wire:
    """Return the object of these bytes; raise BroadcastRefused for anything that could be read in two ways."""
    try:
        loads(raw, most_bytes=MOST_BYTES)
        thing = shape.model_validate_json(raw)
    except JsonRefused as exc:
        raise BroadcastRefused(f"{shape.__name__.lower()}: {exc}") from exc
    except ValidationError as exc:
        first = exc.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise BroadcastRefused(f"{shape.__name__.lower()} {where}: {first['msg']}") from exc
    known = {field.alias or name for name, field in shape.model_fields.items()} - NOT_ACTED_ON.get(shape, frozenset())
    for name in thing.crit:
        if name not in known:
            raise BroadcastRefused(f"{shape.__name__.lower()}: critical field {name[:40]!r} is not known here")
    return thing


def signed(thing: _Wire, keys: Iterable[Ed25519PrivateKey]) -> str:
    """Return the object as a signed envelope."""
    return dsse.sign(TYPES[type(thing)], to_bytes(thing), keys)


def verified(shape: type[Wire], raw: str | bytes, keys: Iterable[Key], *, threshold: int = 1) -> Wire:
    """Return the object if enough different keys signed it; raise BroadcastRefused otherwise."""
    try:
        envelope = dsse.opened(raw, TYPES[shape])
    except SignatureRefused as exc:
        raise BroadcastRefused(str(exc)) from exc
    right = dsse.signers(envelope, {key.keyid: key.raw() for key in keys})
    if len(right) < threshold:
        raise BroadcastRefused(f"{shape.__name__.lower()}: {len(right)} of {threshold} signatures are right")
    return read(shape, envelope.payload)


def as_key(public_key: bytes) -> Key:
    """Return a public key by its own name."""
    return Key(keyid=key_id(public_key), algorithm="ed25519", public_key=base64.b64encode(public_key).decode())


def pinned_root(raw: str | bytes) -> Root:
    """Return the root that a configuration pins: it must at least be signed by its own keys."""
    try:
        root = read(Root, dsse.opened(raw, TYPES[Root]).payload)
    except SignatureRefused as exc:
        raise BroadcastRefused(str(exc)) from exc
    return verified(Root, raw, root.keys, threshold=root.threshold)


def next_root(current: Root, raw: str | bytes) -> Root:
    """Return the successor of a root: the next version, signed by enough keys of the old one and of its own."""
    successor = verified(Root, raw, current.keys, threshold=current.threshold)
    if successor.version != current.version + 1:
        raise BroadcastRefused(f"root version {successor.version} does not follow {current.version}")
    return verified(Root, raw, successor.keys, threshold=successor.threshold)


def accepted_bundle(
    raw: str | bytes, *, root: Root, deployment: str, group: str, environment: str, current: Bundle | None
) -> Bundle:
    """Return a bundle that root signed for here and whose version does not fall; an overdue one is not refused."""
    bundle = verified(Bundle, raw, root.keys, threshold=root.threshold)
    for what, told, ours in (
        ("deployment", bundle.deployment, deployment),
        ("group", bundle.group, group),
        ("environment", bundle.environment, environment),
    ):
        if told != ours:
            raise BroadcastRefused(f"bundle: {what} {told!r} is not {ours!r}")
    if current is not None and bundle.version < current.version:
        raise BroadcastRefused(f"bundle version {bundle.version} is older than {current.version}")
    for key in bundle.keys:
        key.raw()
    return bundle
