"""The page of one's own account: roles, sign-ins, passkeys, codes, password, tokens, deputies."""

from datetime import date, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from hub.api.problems import ProblemRaised
from hub.calendar_day import day_of, day_start
from hub.doors import Asked, may
from hub.given import Given, Hub
from hub.people import totp
from hub.people.administration import PeopleRefused
from hub.people.lifetimes import DAY
from hub.people.own import OwnRefused
from hub.rights.permissions import TABLE, Key, Noun, Verb
from hub.storage.accounts import Given as Grant
from hub.web import account_words
from hub.web.account_words import scope_name, scope_of, scope_value, scopes
from hub.web.i18n import Words
from hub.web.render import of_our_form, page, said_to
from hub.web.sign_in import answer_of, site

router = APIRouter(prefix="/account", include_in_schema=False, tags=["pages"], dependencies=[Depends(of_our_form)])

SEES = Annotated[Asked, Depends(may(Noun.OWN_ACCOUNT, Verb.SEE))]
CHANGES = Annotated[Asked, Depends(may(Noun.OWN_ACCOUNT, Verb.CHANGE))]
REVOKES = Annotated[Asked, Depends(may(Noun.OWN_ACCOUNT, Verb.REVOKE))]
DELEGATES = Annotated[Asked, Depends(may(Noun.GRANT, Verb.DELEGATE))]


@router.get("")
async def account(request: Request, hub: Given, asked: SEES) -> HTMLResponse:
    """Show one's own account."""
    return _account(request, hub, asked)


@router.post("/password")
async def change_password(
    request: Request, hub: Given, asked: CHANGES, password: Annotated[str, Form()] = ""
) -> Response:
    """Change the password; every other browser is signed out."""
    try:
        await hub.reception.own.change_password(asked.caller, password)
    except OwnRefused as exc:
        return _account(request, hub, asked, refused=exc.code)
    return _account(request, hub, asked, done=_done(request, hub, "password"))


@router.get("/codes")
async def codes(request: Request, hub: Given, asked: CHANGES) -> HTMLResponse:
    """Show a new secret for an authenticator app."""
    hub.reception.own.new_codes(asked.caller)
    return _codes(request, hub, asked)


@router.post("/codes")
async def confirm_codes(request: Request, hub: Given, asked: CHANGES, code: Annotated[str, Form()] = "") -> Response:
    """Make the new secret count, once a code of it was typed."""
    try:
        hub.reception.own.confirm_codes(asked.caller, code)
    except OwnRefused as exc:
        gettext = said_to(request, hub)._
        return _codes(request, hub, asked, error=gettext(account_words.REFUSALS[exc.code]))
    return _account(request, hub, asked, done=_done(request, hub, "codes"))


@router.post("/passkeys/question")
async def passkey_question(request: Request, hub: Given, asked: CHANGES) -> Response:
    """Tell the browser what passkey to make."""
    found = site(request)
    if found is None:
        raise ProblemRaised(
            422, "a passkey needs a name: open this hub as localhost or by its own name", code="passkey"
        )
    try:
        return Response(hub.reception.own.passkey_question(asked.caller, found), media_type="application/json")
    except OwnRefused as exc:
        raise ProblemRaised(422, str(exc), code=exc.code) from exc


@router.post("/passkeys")
async def add_passkey(request: Request, hub: Given, asked: CHANGES, label: str = "") -> Response:
    """Keep the passkey that the browser made."""
    found, answer = site(request), await answer_of(request)
    try:
        if found is None:
            raise OwnRefused("passkey", "a passkey needs a name")
        hub.reception.own.add_passkey(asked.caller, found, answer, label)
    except OwnRefused as exc:
        raise ProblemRaised(422, str(exc), code=exc.code) from exc
    return JSONResponse({"made": True}, status_code=201)


@router.post("/passkeys/{id}/remove")
async def remove_passkey(request: Request, id: str, hub: Given, asked: CHANGES) -> Response:  # noqa: A002  # the path's word
    """Forget a passkey."""
    try:
        hub.reception.own.remove_passkey(asked.caller, id)
    except OwnRefused as exc:
        return _account(request, hub, asked, refused=exc.code)
    return RedirectResponse("/account", status_code=303)


@router.post("/sessions/{id}/end")
async def end_session(request: Request, id: str, hub: Given, asked: REVOKES) -> Response:  # noqa: A002  # the path's word
    """Sign out in one browser."""
    try:
        hub.reception.own.end_session(asked.caller, id)
    except OwnRefused as exc:
        return _account(request, hub, asked, refused=exc.code)
    return RedirectResponse("/account", status_code=303)


@router.post("/tokens")
async def make_token(
    request: Request,
    hub: Given,
    asked: CHANGES,
    label: Annotated[str, Form()] = "",
    rights: Annotated[list[str] | None, Form()] = None,
    scope: Annotated[str, Form()] = "/",
    days: Annotated[int, Form(ge=1, le=366)] = 90,
) -> Response:
    """Make a token, and show it once."""
    try:
        handed = hub.reception.own.make_token(
            asked.caller,
            label=label,
            rights=frozenset(_right(one) for one in rights or ()),
            scope=scope_of(scope),
            expires_at=asked.caller.now + days * DAY,
        )
    except OwnRefused as exc:
        return _account(request, hub, asked, refused=exc.code)
    except ValueError:
        return _account(request, hub, asked, refused="token_rights")
    return _account(request, hub, asked, token=handed.text)


@router.post("/tokens/{id}/revoke")
async def revoke_token(request: Request, id: str, hub: Given, asked: REVOKES) -> Response:  # noqa: A002  # the path's word
    """Revoke a token."""
    try:
        hub.reception.own.revoke_token(asked.caller, id)
    except OwnRefused as exc:
        return _account(request, hub, asked, refused=exc.code)
    return RedirectResponse("/account", status_code=303)


@router.post("/deputies")
async def delegate(
    request: Request,
    hub: Given,
    asked: DELEGATES,
    grant: Annotated[int, Form()] = 0,
    name: Annotated[str, Form()] = "",
    starts: Annotated[str, Form()] = "",
    ends: Annotated[str, Form()] = "",
) -> Response:
    """Let somebody act in one's stead, from a day to a day."""
    given = hub.reception.accounts.grant(grant)
    try:
        if given is None:
            raise PeopleRefused("not_yours", "there is no such role")
        hub.reception.administration.delegate(
            asked.caller,
            given,
            hub.reception.accounts.by_name(name.strip().lower()),
            starts=day(starts),
            ends=day(ends, end=True),
        )
    except PeopleRefused as exc:
        return _account(request, hub, asked, refused=exc.code)
    except ValueError:
        return _account(request, hub, asked, refused="dates")
    return RedirectResponse("/account", status_code=303)


@router.post("/deputies/{id}/end")
async def recall(request: Request, id: int, hub: Given, asked: REVOKES) -> Response:  # noqa: A002  # the path's word
    """End a deputy's time."""
    given = hub.reception.accounts.grant(id)
    try:
        if given is None:
            raise PeopleRefused("not_yours", "there is no such deputy")
        hub.reception.administration.recall(asked.caller, given)
    except PeopleRefused as exc:
        return _account(request, hub, asked, refused=exc.code)
    return RedirectResponse("/account", status_code=303)


def day(text: str, *, end: bool = False) -> int:
    """Return the instant (ms) at which a day begins in Viet Nam, or ends; raise ValueError if it is no day."""
    try:
        return day_start(date.fromisoformat(text) + timedelta(days=1 if end else 0))
    except OverflowError as exc:
        raise ValueError(f"{text[:20]!r} is the last day there is") from exc


def day_shown(at: int | None, *, end: bool = False) -> str:
    """Return the day (dd/mm/yyyy, Viet Nam) of an instant, the last whole one before an end; "" for none."""
    if at is None:
        return ""
    return day_of(at - (1 if end else 0)).strftime("%d/%m/%Y")


def grant_view(one: Grant, hub: Hub, said: Words) -> dict[str, Any]:
    """Return a role somebody holds as a page shows it."""
    gettext = said._
    principal = hub.reception.accounts.get(one.deputy_of) if one.deputy_of else None
    return {
        "id": one.id,
        "role": gettext(account_words.ROLES[one.grant.role]),
        "place": scope_name(one.grant.scope, hub.places, said),
        "starts": day_shown(one.grant.starts),
        "ends": day_shown(one.grant.ends, end=True),
        "deputy_of": principal.full_name if principal else "",
        "later": one.grant.starts is not None and one.grant.starts > hub.clock.now_ms(),
        "can_delegate": one.deputy_of is None and one.grant.role in TABLE[Noun.GRANT, Verb.DELEGATE].roles,
    }


def _account(
    request: Request, hub: Hub, asked: Asked, *, refused: str = "", done: str = "", token: str = ""
) -> HTMLResponse:
    said, caller, now = said_to(request, hub), asked.caller, hub.clock.now_ms()
    gettext, kept = said._, hub.reception
    mine = caller.account.id
    own = caller.session.digest if caller.session else None
    held = kept.accounts.grants(mine, now=now)
    names = {one.account: kept.accounts.get(one.account) for one in kept.accounts.deputies(mine, now=now)}
    grantable = [
        {
            "value": f"{noun} {verb}",
            "word": f"{gettext(account_words.VERBS[verb])}: {gettext(account_words.NOUNS[noun])}",
        }
        for (noun, verb), right in TABLE.items()
        if not right.step_up and asked.to(noun, verb)
    ]
    return page(
        request,
        hub,
        "account.html",
        status=422 if refused else 200,
        error=gettext(account_words.REFUSALS[refused]) if refused else "",
        done=done,
        token=token,
        fresh=caller.fresh,
        grants=[grant_view(one, hub, said) for one in held],
        sessions=[
            {
                "id": one.id,
                "address": one.address,
                "agent": browser(one.agent),
                "seen": said.ago(one.seen_at, now),
                "since": said.time(one.created_at),
                "this": one.digest == own,
            }
            for one in kept.sessions.sessions(mine)
        ],
        passkeys=[
            {
                "id": one.id.hex(),
                "label": one.label,
                "site": one.site,
                "since": said.time(one.created_at),
                "used": said.ago(one.used_at, now) if one.used_at is not None else "",
            }
            for one in kept.credentials.passkeys(mine)
        ],
        has_passkeys=site(request) is not None,
        tokens=[
            {
                "id": one.id,
                "label": one.label,
                "place": scope_name(one.scope, hub.places, said),
                "rights": ", ".join(
                    f"{gettext(account_words.VERBS[verb])}: {gettext(account_words.NOUNS[noun])}"
                    for noun, verb in sorted(one.rights)
                ),
                "expires": said.time(one.expires_at),
                "over": one.expires_at <= now,
                "used": said.ago(one.used_at, now) if one.used_at is not None else "",
            }
            for one in kept.sessions.tokens(mine)
        ],
        grantable=grantable,
        scopes=[{"value": scope_value(one), "word": scope_name(one, hub.places, said)} for one in scopes(hub.places)],
        deputies=[
            {**grant_view(one, hub, said), "name": found.full_name if found else one.account}
            for one in kept.accounts.deputies(mine, now=now)
            for found in (names[one.account],)
        ],
    )


def _codes(request: Request, hub: Hub, asked: Asked, *, error: str = "") -> HTMLResponse:
    secret = hub.reception.own.pending_codes(asked.caller)
    address = totp.uri(secret, asked.caller.account.name)
    return page(
        request,
        hub,
        "codes.html",
        status=422 if error else 200,
        error=error,
        secret=secret,
        address=address,
        picture=totp.picture(address),
    )


def browser(agent: str) -> str:
    """Return the part of a browser's name for itself that people recognise."""
    for mark, name in (("Edg/", "Edge"), ("Firefox/", "Firefox"), ("Chrome/", "Chrome"), ("Safari/", "Safari")):
        if mark in agent:
            system = next((one for one in ("Android", "iPhone", "Windows", "Mac OS", "Linux") if one in agent), "")
            return f"{name}, {system}" if system else name
    return agent[:40]


def _done(request: Request, hub: Hub, what: str) -> str:
    _ = said_to(request, hub)._
    return {
        "password": _("The new password holds. Other browsers were signed out."),
        "codes": _("Codes now come from the new secret."),
    }[what]


def _right(text: str) -> Key:
    noun, _, verb = text.partition(" ")
    return Noun(noun), Verb(verb)
