"""Signing in and out for programs that act as a person: the same cookie as the pages', the same rules."""

import math
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, Field

from hub.api.problems import RESPONSES, ProblemRaised
from hub.border import address_of, cookie_name, cookies
from hub.doors import Asked, may, open_to_all
from hub.given import Given, Hub
from hub.people.caller import Visitor
from hub.people.entrance import SignedIn, SignInRefused, TooOften
from hub.rights.permissions import TABLE, Noun, Verb

router = APIRouter(prefix="/api/session", tags=["session"], responses=RESPONSES)

SIGNS_IN = open_to_all("who signs in is not signed in yet; attempts are throttled")
MARK_SECONDS = 400 * 86_400


class SignInIn(BaseModel):
    """A name with its password and the authenticator app's code."""

    name: Annotated[str, Field(max_length=100)]
    password: Annotated[str, Field(max_length=1000)]
    code: Annotated[str, Field(max_length=20)]


class RightOut(BaseModel):
    """A right, and where the caller has it: commune and edge node, both empty for the whole province."""

    noun: str
    verb: str
    places: list[tuple[str, str]]
    step_up: bool


class SessionOut(BaseModel):
    """Who is signed in, and what they may do now."""

    account: str
    name: str
    full_name: str
    rights: list[RightOut]


@router.post("", status_code=204, dependencies=[Depends(SIGNS_IN)])
async def sign_in(body: SignInIn, request: Request, hub: Given) -> Response:
    """Sign in; the session's cookie comes with the answer."""
    entrance = hub.reception.entrance
    try:
        came = await entrance.by_password(
            body.name, body.password, body.code, visitor(request), instead_of=session_secret(request)
        )
    except SignInRefused as exc:
        raise refused(hub, exc) from exc
    response = Response(status_code=204)
    keep(hub, response, request, came)
    return response


@router.get("")
async def session(asked: Annotated[Asked, Depends(may(Noun.OWN_ACCOUNT, Verb.SEE))]) -> SessionOut:
    """Say who is signed in, and what they may do."""
    account = asked.caller.account
    rights = []
    for (noun, verb), right in TABLE.items():
        over = asked.to(noun, verb)
        if over:
            places = sorted((one.group, one.node) for one in over.scopes)
            rights.append(RightOut(noun=noun, verb=verb, places=places, step_up=right.step_up))
    return SessionOut(account=account.id, name=account.name, full_name=account.full_name, rights=rights)


@router.delete("", status_code=204)
async def sign_out(
    request: Request, hub: Given, asked: Annotated[Asked, Depends(may(Noun.OWN_ACCOUNT, Verb.REVOKE))]
) -> Response:
    """Sign out."""
    hub.reception.entrance.sign_out(asked.caller)
    response = Response(status_code=204)
    forget(response, request)
    return response


def visitor(request: Request) -> Visitor:
    """Return where a request comes from."""
    mark = cookies(request.scope).get(cookie_name(request.url.scheme, "browser"), "")
    return Visitor(address=address_of(request.scope), agent=request.headers.get("user-agent", ""), mark=mark)


def session_secret(request: Request) -> str:
    """Return the session's secret that a request brings, whether it still opens anything or not."""
    return cookies(request.scope).get(cookie_name(request.url.scheme, "session"), "")


def keep(hub: Hub, response: Response, request: Request, came: SignedIn) -> None:
    """Count a sign-in; give the browser its new session, and the mark by which it is known from now on."""
    hub.counters.sign_ins.labels("done").inc()
    scheme = request.url.scheme
    secure = scheme == "https"
    response.set_cookie(
        cookie_name(scheme, "session"), came.secret, httponly=True, secure=secure, samesite="lax", path="/"
    )
    response.set_cookie(
        cookie_name(scheme, "browser"),
        came.mark,
        max_age=MARK_SECONDS,
        httponly=True,
        secure=secure,
        samesite="strict",
        path="/",
    )


def forget(response: Response, request: Request) -> None:
    """Take the session's cookie away."""
    scheme = request.url.scheme
    response.delete_cookie(
        cookie_name(scheme, "session"), path="/", secure=scheme == "https", httponly=True, samesite="lax"
    )


def refused(hub: Hub, exc: SignInRefused) -> ProblemRaised:
    """Count an attempt that failed, and return its problem; the same words for known and unknown names."""
    count_refused(hub, exc)
    if isinstance(exc, TooOften):
        return ProblemRaised(429, str(exc), code="too_often", headers={"Retry-After": str(math.ceil(exc.seconds))})
    return ProblemRaised(401, str(exc), code="wrong")


def count_refused(hub: Hub, exc: SignInRefused) -> None:
    """Count an attempt that failed."""
    hub.counters.sign_ins.labels("too_often" if isinstance(exc, TooOften) else "wrong").inc()
