"""Signing in, confirming that it is still you, signing out, and setting up by a one-time link."""

import json
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from hub.api.problems import ProblemRaised
from hub.api.session import SIGNS_IN, count_refused, forget, keep, refused, session_secret, visitor
from hub.api.set_up import HAS_LINK
from hub.border import address_of, from_this_machine
from hub.doors import Asked, Missing, may
from hub.given import Given, Hub
from hub.people import totp
from hub.people.entrance import SignedIn, SignInRefused, TooOften
from hub.people.passkeys import MOST_ANSWER, Site, site_of
from hub.people.set_up import Opened, SetUpRefused
from hub.rights.permissions import Noun, Verb
from hub.web import account_words
from hub.web.refusals import way_back
from hub.web.render import of_our_form, page, said_to

router = APIRouter(include_in_schema=False, tags=["pages"])
OUR_FORM = Depends(of_our_form)
"""Only where a session acts: signing in and setting up act by what is typed, whoever was signed in before."""

STEPS_UP = Annotated[Asked, Depends(may(Noun.OWN_ACCOUNT, Verb.SEE))]


@router.get("/sign-in", dependencies=[Depends(SIGNS_IN)])
async def sign_in(request: Request, hub: Given, next: str = "/") -> HTMLResponse:  # noqa: A002  # the query's word
    """Ask who somebody is."""
    return _ask(request, hub, next)


@router.post("/sign-in", dependencies=[Depends(SIGNS_IN)])
async def come_in(
    request: Request,
    hub: Given,
    name: Annotated[str, Form()] = "",
    password: Annotated[str, Form()] = "",
    code: Annotated[str, Form()] = "",
    next: Annotated[str, Form()] = "/",  # noqa: A002  # the form's word
) -> Response:
    """Sign in with password and code, and go on."""
    return await _by_password(request, hub, name, password, code, next, known="")


@router.post("/sign-in/passkey/question", dependencies=[Depends(SIGNS_IN)])
async def passkey_question(request: Request, hub: Given) -> Response:
    """Tell the browser what to have signed by a passkey."""
    return Response(hub.reception.entrance.passkey_question(_site(request)), media_type="application/json")


@router.post("/sign-in/passkey", dependencies=[Depends(SIGNS_IN)])
async def passkey(request: Request, hub: Given) -> Response:
    """Sign in with what the passkey signed."""
    answer = await answer_of(request)
    try:
        came = hub.reception.entrance.by_passkey(
            _site(request), answer, visitor(request), instead_of=session_secret(request)
        )
    except SignInRefused as exc:
        raise refused(hub, exc) from exc
    response = JSONResponse({"signed_in": True})
    keep(hub, response, request, came)
    return response


@router.get("/step-up")
async def step_up(request: Request, hub: Given, asked: STEPS_UP, next: str = "/") -> HTMLResponse:  # noqa: A002  # the query's word
    """Ask somebody who is signed in to confirm that it is still them."""
    return _ask(request, hub, next, known=asked.caller.account.name)


@router.post("/step-up", dependencies=[OUR_FORM])
async def confirm(
    request: Request,
    hub: Given,
    asked: STEPS_UP,
    password: Annotated[str, Form()] = "",
    code: Annotated[str, Form()] = "",
    next: Annotated[str, Form()] = "/",  # noqa: A002  # the form's word
) -> Response:
    """Confirm it with password and code, under a new session."""
    known = asked.caller.account.name
    return await _by_password(request, hub, known, password, code, next, known=known)


@router.post("/sign-out", dependencies=[OUR_FORM])
async def sign_out(
    request: Request, hub: Given, asked: Annotated[Asked, Depends(may(Noun.OWN_ACCOUNT, Verb.REVOKE))]
) -> Response:
    """Sign out."""
    hub.reception.entrance.sign_out(asked.caller)
    response = RedirectResponse("/sign-in", status_code=303)
    forget(response, request)
    return response


@router.get("/set-up/{link}", dependencies=[Depends(HAS_LINK)])
async def set_up(request: Request, link: str, hub: Given) -> HTMLResponse:
    """Show what a one-time link sets up."""
    return _set_up(request, hub, link, _opened(request, hub, link))


@router.post("/set-up/{link}", dependencies=[Depends(HAS_LINK)])
async def done(
    request: Request,
    link: str,
    hub: Given,
    name: Annotated[str, Form()] = "",
    full_name: Annotated[str, Form()] = "",
    password: Annotated[str, Form()] = "",
    code: Annotated[str, Form()] = "",
) -> Response:
    """Set it up, and sign in."""
    opened = _opened(request, hub, link)
    try:
        account = await hub.reception.set_up.done(
            link,
            name=name,
            full_name=full_name,
            password=password,
            code=code,
            address=address_of(request.scope),
        )
    except SetUpRefused as exc:
        gettext = said_to(request, hub)._
        error = gettext(account_words.REFUSALS[exc.code])
        return _set_up(request, hub, link, opened, name=name, full_name=full_name, error=error, status=422)
    return _came(request, hub, hub.reception.entrance.start(account.id, visitor(request)), "/account")


async def answer_of(request: Request) -> dict[str, Any]:
    """Return the browser's answer about a passkey; raise a problem if it is no JSON object of a decent size."""
    raw = await request.body()
    try:
        answer = json.loads(raw) if len(raw) <= MOST_ANSWER else None
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise ProblemRaised(422, "the body is no WebAuthn answer", code="passkey")
    return answer


def site(request: Request) -> Site | None:
    """Return the site that a passkey would be for, None where browsers make none: at a bare address."""
    return site_of(scheme=request.url.scheme, host=request.headers.get("host", "").lower())


def _site(request: Request) -> Site:
    found = site(request)
    if found is None:
        raise ProblemRaised(
            422,
            "a passkey needs a name: open this hub as localhost or by its own name, not by an address",
            code="passkey",
        )
    return found


async def _by_password(
    request: Request, hub: Hub, name: str, password: str, code: str, onward: str, *, known: str
) -> Response:
    try:
        came = await hub.reception.entrance.by_password(
            name, password, code, visitor(request), instead_of=session_secret(request)
        )
    except SignInRefused as exc:
        gettext = said_to(request, hub)._
        count_refused(hub, exc)
        often = isinstance(exc, TooOften)
        code_word = "too_often" if often else "wrong"
        error = gettext(account_words.REFUSALS[code_word])
        return _ask(request, hub, onward, known=known, name=name, error=error, status=429 if often else 401)
    return _came(request, hub, came, onward)


def _came(request: Request, hub: Hub, came: SignedIn, onward: str) -> Response:
    response = RedirectResponse(way_back(onward), status_code=303)
    keep(hub, response, request, came)
    return response


def _ask(
    request: Request, hub: Hub, onward: str, *, known: str = "", name: str = "", error: str = "", status: int = 200
) -> HTMLResponse:
    return page(
        request,
        hub,
        "sign_in.html",
        status=status,
        known=known,
        name=name[:100],
        onward=way_back(onward),
        error=error,
        has_passkeys=site(request) is not None,
    )


def _opened(request: Request, hub: Hub, link: str) -> Opened:
    opened = hub.reception.set_up.opened(link)
    # The first administrator is made by who sits at the machine, and nobody else.
    if opened is None or (opened.account is None and not from_this_machine(request.scope)):
        raise Missing("this link was used, has expired, or never was")
    return opened


def _set_up(
    request: Request,
    hub: Hub,
    link: str,
    opened: Opened,
    *,
    name: str = "",
    full_name: str = "",
    error: str = "",
    status: int = 200,
) -> HTMLResponse:
    account = opened.account
    called = account.name if account else name or "admin"
    address = totp.uri(opened.secret, called)
    return page(
        request,
        hub,
        "set_up.html",
        status=status,
        link=link,
        account=account,
        name=name,
        full_name=full_name,
        secret=opened.secret,
        address=address,
        picture=totp.picture(address),
        error=error,
    )
