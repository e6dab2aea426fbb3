"""The caller's own sessions and tokens, for programs."""

from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field

from hub.api.problems import RESPONSES, ProblemRaised
from hub.doors import Asked, may
from hub.given import Given
from hub.people.own import OwnRefused
from hub.rights.permissions import Key, Noun, Verb
from hub.rights.scopes import Scope
from hub.storage.sessions import Token

router = APIRouter(prefix="/api/me", tags=["own account"], responses=RESPONSES)

SEES = Annotated[Asked, Depends(may(Noun.OWN_ACCOUNT, Verb.SEE))]
CHANGES = Annotated[Asked, Depends(may(Noun.OWN_ACCOUNT, Verb.CHANGE))]
REVOKES = Annotated[Asked, Depends(may(Noun.OWN_ACCOUNT, Verb.REVOKE))]


class OpenOut(BaseModel):
    """A browser that is signed in; instants in ms."""

    id: str
    created_at: int
    seen_at: int
    address: str
    agent: str
    this: bool


class TokenOut(BaseModel):
    """A program's token; `token` itself is told once, when it is made."""

    id: str
    label: str
    rights: list[str]
    group: str
    node: str
    created_at: int
    expires_at: int
    used_at: int | None
    token: str | None = None


class TokenIn(BaseModel):
    """What a token shall be able to do: rights as "noun verb", in a commune or hamlet (both empty: the province)."""

    label: Annotated[str, Field(min_length=1, max_length=60)]
    rights: Annotated[list[str], Field(min_length=1, max_length=100)]
    group: Annotated[str, Field(max_length=40)] = ""
    node: Annotated[str, Field(max_length=40)] = ""
    expires_at: int


@router.get("/sessions")
async def sessions(hub: Given, asked: SEES) -> list[OpenOut]:
    """List the browsers in which the caller is signed in."""
    own = asked.caller.session.digest if asked.caller.session else None
    return [
        OpenOut(
            id=one.id,
            created_at=one.created_at,
            seen_at=one.seen_at,
            address=one.address,
            agent=one.agent,
            this=one.digest == own,
        )
        for one in hub.reception.sessions.sessions(asked.caller.account.id)
    ]


@router.delete("/sessions/{id}", status_code=204)
async def end_session(id: str, hub: Given, asked: REVOKES) -> None:  # noqa: A002  # the path's word
    """Sign the caller out in one browser."""
    try:
        hub.reception.own.end_session(asked.caller, id)
    except OwnRefused as exc:
        raise ProblemRaised(404, str(exc), code=exc.code) from exc


@router.get("/tokens")
async def tokens(hub: Given, asked: SEES) -> list[TokenOut]:
    """List the caller's tokens."""
    return [_token(one) for one in hub.reception.sessions.tokens(asked.caller.account.id)]


@router.post("/tokens", status_code=201)
async def make_token(body: TokenIn, hub: Given, asked: CHANGES) -> TokenOut:
    """Make a token; the answer is the only place where it can be read."""
    try:
        handed = hub.reception.own.make_token(
            asked.caller,
            label=body.label,
            rights=frozenset(map(_right, body.rights)),
            scope=Scope(body.group, body.node),
            expires_at=body.expires_at,
        )
    except (OwnRefused, ValueError) as exc:
        raise ProblemRaised(422, str(exc), code=getattr(exc, "code", None)) from exc
    return _token(handed.token).model_copy(update={"token": handed.text})


@router.delete("/tokens/{id}", status_code=204)
async def revoke_token(id: str, hub: Given, asked: REVOKES) -> None:  # noqa: A002  # the path's word
    """Revoke one of the caller's tokens."""
    try:
        hub.reception.own.revoke_token(asked.caller, id)
    except OwnRefused as exc:
        raise ProblemRaised(404, str(exc), code=exc.code) from exc


def _right(text: str) -> Key:
    noun, _, verb = text.partition(" ")
    try:
        return Noun(noun), Verb(verb)
    except ValueError as exc:
        raise ValueError(f'{text[:60]!r} is no right; write one as "history see"') from exc


def _token(one: Token) -> TokenOut:
    return TokenOut(
        id=one.id,
        label=one.label,
        rights=sorted(f"{noun} {verb}" for noun, verb in one.rights),
        group=one.scope.group,
        node=one.scope.node,
        created_at=one.created_at,
        expires_at=one.expires_at,
        used_at=one.used_at,
    )
