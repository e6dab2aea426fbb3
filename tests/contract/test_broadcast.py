"""Roots, bundles and signatures: who is believed, and by how many keys."""

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from securesystemslib.dsse import Envelope
from securesystemslib.signer import SSlibKey  # type: ignore[attr-defined]  # not re-exported for type checkers

from contract import dsse
from contract.broadcast import (
    TYPES,
    BroadcastRefused,
    Bundle,
    BundleKey,
    Class,
    Hello,
    Limits,
    Root,
    accepted_bundle,
    as_key,
    next_root,
    pinned_root,
    read,
    signed,
    to_bytes,
    verified,
)
from contract.dsse import public_bytes

KEYS = [Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in range(1, 6)]
NAMED = [as_key(public_bytes(key)) for key in KEYS]


def root(version: int = 1, keys: int = 1, threshold: int = 1, start: int = 0) -> Root:
    return Root(version=version, keys=tuple(NAMED[start : start + keys]), threshold=threshold)


def bundle(**change: Any) -> Bundle:
    key = BundleKey(
        **NAMED[4].model_dump(),
        role="signer",
        classes=(Class.NORMAL,),
        scope=("*",),
        limits=Limits(duration=600, volume=80, rate=60),
    )
    told: dict[str, Any] = {
        "deployment": "d",
        "group": "g",
        "environment": "demo",
        "version": 3,
        "root_version": 1,
        "signed_at": 1000,
        "renew_by": 2000,
        "keys": (key,),
        **change,
    }
    return Bundle(**told)


def accept(raw: str, *, current: Bundle | None = None) -> Bundle:
    return accepted_bundle(raw, root=root(), deployment="d", group="g", environment="demo", current=current)


def test_our_envelopes_are_those_of_an_independent_implementation() -> None:
    envelope = Envelope.from_dict(json.loads(signed(bundle(), [KEYS[0]])))
    key = SSlibKey(NAMED[0].keyid, "ed25519", "ed25519", {"public": public_bytes(KEYS[0]).hex()})
    assert set(envelope.verify([key], 1)) == {NAMED[0].keyid}
    assert envelope.payload == to_bytes(bundle())


def test_a_bundle_signed_by_root_is_accepted() -> None:
    assert accept(signed(bundle(), [KEYS[0]])) == bundle()


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (lambda: signed(bundle(), [KEYS[1]]), "0 of 1 signatures"),
        (lambda: signed(bundle(deployment="x"), [KEYS[0]]), "deployment 'x' is not 'd'"),
        (lambda: signed(bundle(group="x"), [KEYS[0]]), "group"),
        (lambda: signed(bundle(environment="production"), [KEYS[0]]), "environment"),
        (lambda: signed(root(), [KEYS[0]]), "payload type"),
        (lambda: signed(bundle(crit=("quorum",)), [KEYS[0]]), "critical field 'quorum' is not known"),
        (lambda: "{", "not JSON"),
        (lambda: "[]", "not a signed envelope"),
    ],
    ids=["stranger", "deployment", "group", "environment", "type", "crit", "garbage", "list"],
)
def test_a_bundle_that_is_not_for_here_is_refused_with_a_reason(raw: Any, reason: str) -> None:
    with pytest.raises(BroadcastRefused, match=reason):
        accept(raw())


def test_a_bundle_never_falls_back_to_an_older_version() -> None:
    with pytest.raises(BroadcastRefused, match="version 2 is older than 3"):
        accept(signed(bundle(version=2), [KEYS[0]]), current=bundle())


def test_an_overdue_bundle_warns_and_never_silences() -> None:
    assert accept(signed(bundle(renew_by=0), [KEYS[0]])).renew_by == 0


def test_a_key_under_a_false_name_is_not_believed() -> None:
    false = NAMED[1].model_copy(update={"keyid": NAMED[0].keyid})
    with pytest.raises(BroadcastRefused, match="does not belong to its key"):
        verified(Bundle, signed(bundle(), [KEYS[1]]), [false])


def test_a_threshold_counts_keys_and_not_signatures_or_names() -> None:
    two = root(keys=2, threshold=2)
    raw = json.loads(signed(two, [KEYS[0]]))
    raw["signatures"] *= 2
    with pytest.raises(BroadcastRefused, match="1 of 2 signatures"):
        pinned_root(json.dumps(raw))
    assert pinned_root(signed(two, KEYS[:2])) == two


def test_a_root_follows_by_both_thresholds_and_by_one_version() -> None:
    second = root(version=2, keys=2, threshold=2, start=1)
    assert next_root(root(), signed(second, KEYS[:3])) == second
    for keys, reason in ((KEYS[1:3], "0 of 1"), (KEYS[:2], "1 of 2")):
        with pytest.raises(BroadcastRefused, match=reason):
            next_root(root(), signed(second, keys))
    third = root(version=3, keys=2, threshold=2, start=1)
    with pytest.raises(BroadcastRefused, match="does not follow 1"):
        next_root(root(), signed(third, KEYS[:3]))
    assert next_root(next_root(root(), signed(second, KEYS[:3])), signed(third, KEYS[1:3])) == third


def altered(**change: Any) -> bytes:
    return json.dumps({**json.loads(to_bytes(bundle())), **change}).encode()


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (to_bytes(bundle()).replace(b'"version":3', b'"version":3,"version":4'), "'version' stands twice"),
        (altered(version="3"), "version"),
        (altered(version=True), "version"),
        (altered(version=-1), "version"),
        (altered(version=2**32), "version"),
        (to_bytes(bundle()).replace(b'"version":3', b'"version":NaN'), "NaN is not a number"),
        (to_bytes(bundle()).replace(b'"version":3', b'"version":3.0'), "version"),
        (b"[" * 100_000, "not JSON"),
        (b'{"a":"' + b"x" * 300_000 + b'"}', "more than"),
    ],
    ids=["duplicate", "text", "boolean", "negative", "too large", "NaN", "float", "nesting", "size"],
)
def test_json_that_could_be_read_in_two_ways_is_refused(raw: bytes, reason: str) -> None:
    with pytest.raises(BroadcastRefused, match=reason):
        read(Bundle, raw)


def test_an_unknown_field_is_ignored_unless_it_is_critical() -> None:
    assert read(Bundle, altered(later="x")) == bundle()
    with pytest.raises(BroadcastRefused, match="'later'"):
        read(Bundle, altered(later="x", crit=["later"]))


@settings(max_examples=300)
@given(st.integers(0, 10**6), st.integers(1, 255))
def test_a_flipped_byte_never_passes(place: int, flip: int) -> None:
    hello = Hello(node="n", boot="0" * 32, challenge="1" * 32, root_version=1, bundle_version=1)
    raw = bytearray(signed(hello, [KEYS[0]]).encode())
    raw[place % len(raw)] ^= flip
    try:
        found = verified(Hello, bytes(raw), [NAMED[0]])
    except BroadcastRefused:
        return
    assert found == hello, "what still verifies must mean the same"


@given(st.binary(max_size=200))
def test_any_bytes_are_an_envelope_or_refused(raw: bytes) -> None:
    with pytest.raises(BroadcastRefused):
        verified(Hello, raw, [NAMED[0]])


def test_the_type_is_signed_with_the_payload() -> None:
    """A hello can never pose as an outcome, although both are signed by one key."""
    hello = Hello(node="n", boot="0" * 32, challenge="1" * 32, root_version=1, bundle_version=1)
    raw = json.loads(signed(hello, [KEYS[0]]))
    raw["payloadType"] = TYPES[Root]
    envelope = dsse.opened(json.dumps(raw), TYPES[Root])
    assert dsse.signers(envelope, {NAMED[0].keyid: public_bytes(KEYS[0])}) == frozenset()
