"""Passkeys (WebAuthn): asking a browser for one, and checking what it answers."""

import json
import secrets
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

import webauthn
from webauthn.helpers.exceptions import WebAuthnException
from webauthn.helpers.structs import (
    AuthenticatorSelectionCriteria,
    PublicKeyCredentialDescriptor,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

NAME = "Smart Hamlet"
CHALLENGE_MS = 5 * 60_000
MOST_CHALLENGES = 10_000
MOST_ANSWER = 16_384


class PasskeyRefused(ValueError):
    """An answer that proves nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """The name people typed, which a passkey is made for, and the whole origin."""

    name: str
    origin: str


def site_of(*, scheme: str, host: str) -> Site | None:
    """Return the site of a request's Host; None for a bare address, for which no browser makes a passkey."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    try:
        ip_address(name.strip("[]"))
    except ValueError:
        return Site(name=name, origin=f"{scheme}://{host}")
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A new passkey, ready to be kept."""

    id: bytes
    public_key: bytes
    uses: int


class Challenges:
    """Challenges that wait for an answer: each serves once, for five minutes, for what it was made for."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[bytes, tuple[str, int]] = OrderedDict()

    def new(self, purpose: str, now: int) -> bytes:
        """Return a challenge; `purpose` says what for, and for whom."""
        challenge = secrets.token_bytes(32)
        self._waiting[challenge] = (purpose, now + CHALLENGE_MS)
        if len(self._waiting) > MOST_CHALLENGES:
            self._waiting.popitem(last=False)
        return challenge

    def take(self, answer: dict[str, Any], purpose: str, now: int) -> bytes:
        """Return the challenge an answer speaks of, and forget it; raise PasskeyRefused if it is not one of ours."""
        try:
            told = json.loads(webauthn.base64url_to_bytes(answer["response"]["clientDataJSON"]))
            challenge = webauthn.base64url_to_bytes(told["challenge"])
        except (KeyError, TypeError, ValueError) as exc:
            raise PasskeyRefused("the answer is no WebAuthn answer") from exc
        wanted, until = self._waiting.pop(challenge, ("", 0))
        if wanted != purpose or now >= until:
            raise PasskeyRefused("the question is too old, or was another; try again")
        return challenge


def question_to_make(
    site: Site, challenge: bytes, *, account: str, name: str, full_name: str, known: Sequence[bytes]
) -> str:
    """Return what the browser is asked (JSON): a passkey it finds by itself, that asks for finger, face or PIN."""
    return webauthn.options_to_json(
        webauthn.generate_registration_options(
            rp_id=site.name,
            rp_name=NAME,
            user_id=account.encode(),
            user_name=name,
            user_display_name=full_name,
            challenge=challenge,
            authenticator_selection=AuthenticatorSelectionCriteria(
                resident_key=ResidentKeyRequirement.REQUIRED,
                user_verification=UserVerificationRequirement.REQUIRED,
            ),
            exclude_credentials=[PublicKeyCredentialDescriptor(id=one) for one in known],
        )
    )


def made(site: Site, challenge: bytes, answer: dict[str, Any]) -> Made:
    """Return the new passkey; raise PasskeyRefused if the answer is not for this site and question."""
    try:
        found = webauthn.verify_registration_response(
            credential=answer,
            expected_challenge=challenge,
            expected_rp_id=site.name,
            expected_origin=site.origin,
            require_user_verification=True,
        )
    except (WebAuthnException, ValueError, KeyError, TypeError) as exc:
        raise PasskeyRefused(str(exc)) from exc
    return Made(id=found.credential_id, public_key=found.credential_public_key, uses=found.sign_count)


def question_to_prove(site: Site, challenge: bytes, *, known: Sequence[bytes] = ()) -> str:
    """Return what the browser is asked (JSON); without `known` it offers whatever it has for this site."""
    return webauthn.options_to_json(
        webauthn.generate_authentication_options(
            rp_id=site.name,
            challenge=challenge,
            allow_credentials=[PublicKeyCredentialDescriptor(id=one) for one in known] or None,
            user_verification=UserVerificationRequirement.REQUIRED,
        )
    )


def passkey_of(answer: dict[str, Any]) -> bytes:
    """Return the id of the passkey that an answer was made with; raise PasskeyRefused if it names none."""
    try:
        return webauthn.base64url_to_bytes(answer["rawId"])
    except (KeyError, TypeError, ValueError) as exc:
        raise PasskeyRefused("the answer names no passkey") from exc


def proven(site: Site, challenge: bytes, answer: dict[str, Any], *, public_key: bytes, uses: int) -> int:
    """Return the authenticator's new counter; raise PasskeyRefused if the answer does not prove the passkey.

    A counter that does not grow is a copied key: refused.
    """
    try:
        found = webauthn.verify_authentication_response(
            credential=answer,
            expected_challenge=challenge,
            expected_rp_id=site.name,
            expected_origin=site.origin,
            credential_public_key=public_key,
            credential_current_sign_count=uses,
            require_user_verification=True,
        )
    except (WebAuthnException, ValueError, KeyError, TypeError) as exc:
        raise PasskeyRefused(str(exc)) from exc
    return found.new_sign_count
