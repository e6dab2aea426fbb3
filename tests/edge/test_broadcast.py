"""Which envelopes a box obeys: every rule that this version has, each with the envelope that breaks it."""

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.broadcast import Bundle, BundleKey, Class, Envelope, Limits, Order, Step, as_key, signed, to_bytes
from contract.dsse import public_bytes
from edge.broadcast import CHALLENGE_VALID, Accepted, Again, Refused, Situation, Verdict, examine

SIGNER, STANDBY, STRANGER = (Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in (1, 2, 3))
NOW = 1_790_000_000_000
DAY = 86_400_000
TEN_YEARS = 3650 * DAY
CHALLENGE = "c" * 32


def entry(key: Ed25519PrivateKey, **change: Any) -> BundleKey:
    told: dict[str, Any] = {
        **as_key(public_bytes(key)).model_dump(),
        "role": "signer",
        "classes": (Class.NORMAL,),
        "scope": ("n-01",),
        "limits": Limits(duration=600, volume=80, rate=5),
        **change,
    }
    return BundleKey(**told)


BUNDLE = Bundle(
    deployment="d",
    group="g",
    environment="demo",
    version=3,
    root_version=1,
    signed_at=NOW - DAY,
    renew_by=NOW + DAY,
    keys=(entry(SIGNER), entry(STANDBY)),
)


def order(**change: Any) -> Order:
    told: dict[str, Any] = {
        "deployment": "d",
        "id": "a" * 32,
        "action": "play",
        "class_": Class.NORMAL,
        "kind": "real",
        "issuer": "local",
        "issued_at": NOW,
        "expires_at": NOW + 600_000,
        "start_within_s": 600,
        "program": (Step(step="speech", sha256="0" * 64, bytes=9, media_type="audio/flac", duration_ms=4000),),
        "volume": 60,
        **change,
    }
    return Order(**told)


def envelope(made: Order | bytes | None = None, **change: Any) -> Envelope:
    raw = made if isinstance(made, bytes) else to_bytes(made or order())
    told: dict[str, Any] = {
        "node": "n-01",
        "speakers": ("loa-1",),
        "challenge": CHALLENGE,
        "sequence": 7,
        "issued_at": NOW,
        "expires_at": NOW + 600_000,
        "min_bundle": 3,
        "order": base64.b64encode(raw).decode(),
        **change,
    }
    return Envelope(**told)


SITUATION = Situation(
    node="n-01",
    deployment="d",
    bundle=BUNDLE,
    speakers=frozenset({"loa-1", "loa-2"}),
    monotonic=5000.0,
    wall=NOW + 1000,
    clock_trusted=True,
    challenges={CHALLENGE: 4900.0},
)


def verdict(one: Envelope | None = None, *, key: Ed25519PrivateKey = SIGNER, **change: Any) -> Verdict:
    return examine(signed(one or envelope(), [key]), replace(SITUATION, **change))


def test_a_good_envelope_is_obeyed_and_known_again() -> None:
    accepted = verdict()
    assert isinstance(accepted, Accepted)
    assert accepted.speakers == ("loa-1",)
    again = verdict(envelope(sequence=8), known={accepted.order.id: accepted.digest})
    assert isinstance(again, Again)


def test_the_standby_key_is_as_good_and_a_stranger_is_an_alarm() -> None:
    assert isinstance(verdict(key=STANDBY), Accepted)
    refused = verdict(key=STRANGER)
    assert isinstance(refused, Refused)
    assert refused.alarm
    assert "no signature by a signer" in refused.reason


def test_a_signer_rotated_out_while_the_box_was_off_is_not_believed_with_the_new_bundle() -> None:
    rotated = BUNDLE.model_copy(update={"keys": (entry(STANDBY),), "version": 4})
    assert isinstance(verdict(bundle=rotated), Refused)
    assert isinstance(verdict(key=STANDBY, bundle=rotated), Accepted)


def test_a_key_of_another_role_makes_nothing_sound() -> None:
    wrong = BUNDLE.model_copy(update={"keys": (entry(SIGNER, role="person"),)})
    assert isinstance(verdict(bundle=wrong), Refused)


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        (lambda: envelope(order(deployment="x")), "deployment"),
        (lambda: envelope(min_bundle=4), "bundle: version 4 is needed"),
        (lambda: envelope(order(class_=Class.EMERGENCY)), "class: the signer may not order emergency"),
        (lambda: envelope(order(due=NOW)), "due"),
        (lambda: envelope(order(issued_at=NOW - 3 * DAY)), "a day older than the bundle"),
        (lambda: envelope(order(expires_at=NOW)), "expires before"),
        (lambda: envelope(order(program=())), "program"),
        (lambda: envelope(order(action="stop", program=())), "stops"),
        (lambda: envelope(order(volume=81)), "volume: 81 is over the limit of 80"),
        (lambda: envelope(order(repeats=200)), "duration: 800 s is over the limit of 600 s"),
        (lambda: envelope(speakers=("loa-9",)), "speakers: this box has none of loa-9"),
    ],
)
def test_each_rule_refuses_by_name_and_without_alarm(one: Callable[[], Envelope], reason: str) -> None:
    refused = verdict(one())
    assert isinstance(refused, Refused)
    assert reason in refused.reason
    assert not refused.alarm
    assert refused.order == order().id


def test_an_envelope_for_another_box_is_an_alarm_and_no_verdict_on_the_order() -> None:
    """Its order may be on its way here too: whoever sends it here first must not make this box refuse it."""
    refused = verdict(envelope(node="n-02"))
    assert isinstance(refused, Refused)
    assert refused.reason.startswith("node")
    assert refused.order is None
    assert refused.alarm
    assert isinstance(verdict(), Accepted)


def test_a_known_order_stays_known_whatever_changed_since() -> None:
    """It may be sounding: neither a newer bundle nor a full rate turns it into a refused one."""
    accepted = verdict()
    assert isinstance(accepted, Accepted)
    newer = BUNDLE.model_copy(update={"signed_at": NOW + 3 * DAY, "version": 4})
    known = {accepted.order.id: accepted.digest}
    again = verdict(bundle=newer, known=known, recent={entry(SIGNER).keyid: 5}, stopped=frozenset({accepted.order.id}))
    assert isinstance(again, Again)


def test_emergency_is_refused_even_where_a_bundle_allows_it_until_approvals_can_be_checked() -> None:
    generous = BUNDLE.model_copy(update={"keys": (entry(SIGNER, classes=(Class.NORMAL, Class.EMERGENCY)),)})
    refused = verdict(envelope(order(class_=Class.EMERGENCY)), bundle=generous)
    assert isinstance(refused, Refused)
    assert "approvals" in refused.reason


def test_scope_and_rate_of_the_key_hold_on_the_box() -> None:
    elsewhere = BUNDLE.model_copy(update={"keys": (entry(SIGNER, scope=("n-02",)),)})
    everywhere = BUNDLE.model_copy(update={"keys": (entry(SIGNER, scope=("*",)),)})
    keyid = entry(SIGNER).keyid
    assert isinstance(verdict(bundle=elsewhere), Refused)
    assert isinstance(verdict(bundle=everywhere), Accepted)
    assert isinstance(verdict(recent={keyid: 4}), Accepted)
    assert isinstance(verdict(recent={keyid: 5}), Refused)


def test_the_same_id_with_other_bytes_is_refused_and_alarmed() -> None:
    refused = verdict(known={order().id: "another digest"})
    assert isinstance(refused, Refused)
    assert refused.alarm


def test_a_stop_that_came_first_keeps_the_order_silent() -> None:
    refused = verdict(stopped=frozenset({order().id}))
    assert isinstance(refused, Refused)
    assert "stopped" in refused.reason


def test_a_stop_names_exact_orders() -> None:
    accepted = verdict(envelope(order(action="stop", program=(), stops=("b" * 32,))))
    assert isinstance(accepted, Accepted)
    assert accepted.order.stops == ("b" * 32,)


def test_unknown_speakers_are_skipped_and_named_and_the_rest_sound() -> None:
    accepted = verdict(envelope(speakers=("loa-1", "loa-9", "loa-2", "loa-1", "loa-9")))
    assert isinstance(accepted, Accepted)
    assert (accepted.speakers, accepted.unknown) == (("loa-1", "loa-2"), ("loa-9",))


@pytest.mark.parametrize("wall", [NOW - TEN_YEARS, NOW, NOW + TEN_YEARS])
@pytest.mark.parametrize("trusted", [True, False])
def test_a_challenge_of_this_boot_needs_no_clock(wall: int, trusted: bool) -> None:
    assert isinstance(verdict(wall=wall, clock_trusted=trusted), Accepted)


@pytest.mark.parametrize(
    ("wall", "trusted", "fresh"),
    [
        (NOW - 119_000, True, True),
        (NOW + 599_000, True, True),
        (NOW - 121_000, True, False),
        (NOW + 601_000, True, False),
        (NOW, False, False),
        (NOW - TEN_YEARS, True, False),
        (NOW + TEN_YEARS, True, False),
    ],
)
def test_without_a_challenge_only_a_trusted_clock_within_the_envelopes_time_vouches(
    wall: int, trusted: bool, fresh: bool
) -> None:
    for one in (envelope(challenge=None), envelope(challenge="d" * 32)):
        assert isinstance(verdict(one, wall=wall, clock_trusted=trusted), Accepted) is fresh


def test_a_clock_that_stands_before_the_bundle_was_signed_is_not_trusted() -> None:
    newer = BUNDLE.model_copy(update={"signed_at": NOW + 200_000})
    refused = verdict(envelope(challenge=None), bundle=newer)
    assert isinstance(refused, Refused)
    assert refused.reason.startswith("freshness")


def test_an_envelope_held_back_or_replayed_after_a_reboot_is_not_fresh() -> None:
    drawn = SITUATION.challenges[CHALLENGE]
    late = verdict(monotonic=drawn + CHALLENGE_VALID + 1, clock_trusted=False)
    rebooted = verdict(challenges={"e" * 32: 10.0}, monotonic=12.0, clock_trusted=False)
    for refused in (late, rebooted):
        assert isinstance(refused, Refused)
        assert refused.reason.startswith("freshness")
        assert not refused.alarm


def test_it_must_start_within_its_time() -> None:
    soon = verdict(envelope(order(start_within_s=5)))
    assert isinstance(soon, Accepted)
    assert soon.start_by == SITUATION.monotonic + 5
    drawn = verdict()
    assert isinstance(drawn, Accepted)
    assert drawn.start_by == SITUATION.monotonic + 600
    by_clock = verdict(envelope(challenge=None), wall=NOW + 500_000)
    assert isinstance(by_clock, Accepted)
    assert by_clock.start_by == SITUATION.monotonic + 100


def test_without_a_bundle_nothing_sounds() -> None:
    assert isinstance(verdict(bundle=None), Refused)


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (to_bytes(order()).replace(b'"volume":60', b'"volume":60,"volume":80'), "'volume' stands twice"),
        (to_bytes(order()).replace(b'"volume":60', b'"volume":NaN'), "NaN"),
        (json.dumps({**json.loads(to_bytes(order())), "crit": ["quorum"]}).encode(), "'quorum' is not known"),
        (json.dumps({**json.loads(to_bytes(order())), "crit": ["zone_map"]}).encode(), "'zone_map' is not known"),
        (b"{}", "order"),
    ],
)
def test_an_order_that_could_be_read_in_two_ways_is_refused_and_alarmed(made: bytes, reason: str) -> None:
    refused = verdict(envelope(made))
    assert isinstance(refused, Refused)
    assert reason in refused.reason
    assert refused.alarm


def test_approvals_that_must_be_checked_are_refused_until_they_can_be() -> None:
    refused = verdict(envelope(crit=("approvals",)))
    assert isinstance(refused, Refused)
    assert "'approvals' is not known" in refused.reason


def test_unknown_fields_are_ignored() -> None:
    made = json.dumps({**json.loads(to_bytes(order())), "colour": "red"}).encode()
    assert isinstance(verdict(envelope(made)), Accepted)


@settings(max_examples=500)
@given(st.integers(0, 10**6), st.integers(1, 255))
def test_whatever_byte_is_altered_it_is_refused_or_means_the_same(place: int, flip: int) -> None:
    raw = bytearray(signed(envelope(), [SIGNER]).encode())
    raw[place % len(raw)] ^= flip
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return
    found = examine(text, SITUATION)
    assert isinstance(found, Refused) or found == verdict()


@given(st.text(max_size=300))
def test_any_text_is_refused(text: str) -> None:
    assert isinstance(examine(text, SITUATION), Refused)
