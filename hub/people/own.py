"""What somebody changes of their own account: password, codes, passkeys, tokens, sessions."""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from contract.clock import Clock
from hub.audit import Act
from hub.people import passkeys, passwords, totp
from hub.people.caller import Caller
from hub.people.lifetimes import LONGEST_TOKEN_MS
from hub.people.passkeys import Challenges, PasskeyRefused, Site
from hub.people.sealing import Seal
from hub.people.secrets import MOST, TOKEN_PREFIX, digest, new_secret
from hub.rights.permissions import TABLE, Key
from hub.rights.scopes import Scope
from hub.storage.credentials import CredentialStore, Passkey
from hub.storage.sessions import SessionStore, Token

MOST_PASSKEYS = 20
MOST_TOKENS = 50
MOST_LABEL = 60
MOST_NEW_SECRETS = 1000


class OwnRefused(ValueError):
    """A change that must not be; `code` says why in a word."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class Handed:
    """A new token: its text, shown once, and what is kept."""

    text: str
    token: Token


class Own:
    """Changes of the caller's own account; step-up was asked before."""

    def __init__(
        self,
        *,
        credentials: CredentialStore,
        sessions: SessionStore,
        seal: Seal,
        challenges: Challenges,
        clock: Clock,
    ) -> None:
        self._credentials = credentials
        self._sessions = sessions
        self._seal = seal
        self._challenges = challenges
        self._clock = clock
        self._new_secrets: OrderedDict[str, str] = OrderedDict()

    async def change_password(self, caller: Caller, password: str) -> None:
        """Keep a new password and sign the account out everywhere else; raise OwnRefused."""
        try:
            passwords.check(password, about=(caller.account.name, caller.account.full_name))
        except passwords.PasswordRefused as exc:
            raise OwnRefused(exc.code, str(exc)) from exc
        kept = await asyncio.to_thread(passwords.hashed, password)
        self._credentials.set_password(caller.account.id, kept, self._act(caller, "account.change_password"))
        self._sessions.end_all(caller.account.id, but=caller.session.digest if caller.session else None)

    def new_codes(self, caller: Caller) -> str:
        """Return a new code secret, which counts once a code of it was typed."""
        secret = totp.new_secret()
        self._new_secrets[caller.account.id] = secret
        self._new_secrets.move_to_end(caller.account.id)
        if len(self._new_secrets) > MOST_NEW_SECRETS:
            self._new_secrets.popitem(last=False)
        return secret

    def pending_codes(self, caller: Caller) -> str:
        """Return the code secret that waits for its first code, a new one if none does."""
        return self._new_secrets.get(caller.account.id) or self.new_codes(caller)

    def confirm_codes(self, caller: Caller, code: str) -> None:
        """Make the new code secret count; raise OwnRefused if the code is not of it."""
        secret = self.pending_codes(caller)
        step = totp.matched_step(secret, code[:MOST], self._clock.now_ms())
        if step is None:
            raise OwnRefused("wrong_code", "the code is wrong; wait for the next one and type that")
        sealed = self._seal.seal(secret, about=caller.account.id)
        self._credentials.set_totp(caller.account.id, sealed, step, self._act(caller, "account.change_codes"))
        del self._new_secrets[caller.account.id]

    def passkey_question(self, caller: Caller, site: Site) -> str:
        """Return what the browser is asked to make a passkey (JSON)."""
        mine = [one.id for one in self._credentials.passkeys(caller.account.id)]
        if len(mine) >= MOST_PASSKEYS:
            raise OwnRefused("too_many", f"an account has at most {MOST_PASSKEYS} passkeys; remove one first")
        challenge = self._challenges.new(f"passkey for {caller.account.id}", self._clock.now_ms())
        account = caller.account
        return passkeys.question_to_make(
            site, challenge, account=account.id, name=account.name, full_name=account.full_name, known=mine
        )

    def add_passkey(self, caller: Caller, site: Site, answer: dict[str, Any], label: str) -> None:
        """Keep the passkey that the browser made; raise OwnRefused."""
        now = self._clock.now_ms()
        try:
            challenge = self._challenges.take(answer, f"passkey for {caller.account.id}", now)
            made = passkeys.made(site, challenge, answer)
        except PasskeyRefused as exc:
            raise OwnRefused("passkey", str(exc)) from exc
        if self._credentials.passkey(made.id) is not None:
            raise OwnRefused("passkey", "this passkey is known already")
        one = Passkey(
            id=made.id,
            account=caller.account.id,
            site=site.name,
            public_key=made.public_key,
            uses=made.uses,
            label=_label(label) or site.name,
            created_at=now,
            used_at=None,
        )
        self._credentials.add_passkey(one, self._act(caller, "passkey.make", after={"label": one.label}))

    def remove_passkey(self, caller: Caller, wanted: str) -> None:
        """Forget one of the caller's passkeys, named by the hex of its id; raise OwnRefused."""
        for one in self._credentials.passkeys(caller.account.id):
            if one.id.hex() == wanted:
                self._credentials.remove_passkey(one.id, self._act(caller, "passkey.end", before={"label": one.label}))
                return
        raise OwnRefused("unknown_one", "there is no such passkey")

    def make_token(
        self, caller: Caller, *, label: str, rights: frozenset[Key], scope: Scope, expires_at: int
    ) -> Handed:
        """Make a token that can do at most some of what its owner can, in one place; raise OwnRefused."""
        now = self._clock.now_ms()
        if not _label(label):
            raise OwnRefused("label", "say what the token is for")
        if not rights or any(key not in TABLE or TABLE[key].step_up for key in rights):
            raise OwnRefused("token_rights", "choose rights; those that want a fresh sign-in no token can have")
        if any(not caller.reach(*key) for key in rights):
            raise OwnRefused("token_rights", "a token cannot do more than you")
        if not now < expires_at <= now + LONGEST_TOKEN_MS:
            raise OwnRefused("token_expiry", "a token lasts at least a moment and at most 366 days")
        if len(self._sessions.tokens(caller.account.id)) >= MOST_TOKENS:
            raise OwnRefused("too_many", f"an account has at most {MOST_TOKENS} tokens; revoke one first")
        text = TOKEN_PREFIX + new_secret()
        token = Token(
            digest=digest(text),
            account=caller.account.id,
            label=_label(label),
            rights=rights,
            scope=scope,
            created_at=now,
            expires_at=expires_at,
            used_at=None,
        )
        told = {
            "label": token.label,
            "rights": sorted(f"{noun} {verb}" for noun, verb in rights),
            "group": scope.group,
            "node": scope.node,
            "expires_at": expires_at,
        }
        self._sessions.add_token(token, self._act(caller, "token.make", after=told))
        return Handed(text=text, token=token)

    def revoke_token(self, caller: Caller, wanted: str) -> None:
        """Forget one of the caller's tokens; raise OwnRefused."""
        for one in self._sessions.tokens(caller.account.id):
            if one.id == wanted:
                self._sessions.revoke_token(one.digest, self._act(caller, "token.end", before={"label": one.label}))
                return
        raise OwnRefused("unknown_one", "there is no such token")

    def end_session(self, caller: Caller, wanted: str) -> None:
        """End one of the caller's sessions; raise OwnRefused."""
        for one in self._sessions.sessions(caller.account.id):
            if one.id == wanted:
                act = Act(at=self._clock.now_ms(), by=caller.by, what="session.revoke", subject=one.id)
                self._sessions.end(one.digest, act)
                return
        raise OwnRefused("unknown_one", "there is no such session")

    def _act(self, caller: Caller, what: str, *, before: object = None, after: object = None) -> Act:
        return Act(
            at=self._clock.now_ms(), by=caller.by, what=what, subject=caller.account.id, before=before, after=after
        )


def _label(text: str) -> str:
    return " ".join(text.split())[:MOST_LABEL]
