"""The pages on which administrators look after people: who there is, what roles they hold, how they sign in."""

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from hub.doors import Asked, Located, Missing, may
from hub.given import Given, Hub
from hub.people.administration import PeopleRefused
from hub.rights.permissions import Grant, Noun, Role, Verb
from hub.rights.scopes import Scope
from hub.storage.accounts import Account, ChangedMeanwhile, NameTaken
from hub.web import account_words
from hub.web.account_words import scope_name, scope_of, scope_value, scopes
from hub.web.own_account import browser, day, grant_view
from hub.web.render import of_our_form, page, said_to

router = APIRouter(prefix="/people", include_in_schema=False, tags=["pages"], dependencies=[Depends(of_our_form)])


async def of_account(id: str, hub: Given) -> Located:  # noqa: A002  # the path's word
    """Return the home of the account of the path."""
    found = hub.reception.accounts.get(id)
    return Located(places=None if found is None else [found.home], missing=f"there is no account {id[:40]!r}")


SEES = Annotated[Asked, Depends(may(Noun.ACCOUNT, Verb.SEE))]
SEES_THIS = Annotated[Asked, Depends(may(Noun.ACCOUNT, Verb.SEE, of_account))]
MAKES = Annotated[Asked, Depends(may(Noun.ACCOUNT, Verb.CHANGE))]
CHANGES = Annotated[Asked, Depends(may(Noun.ACCOUNT, Verb.CHANGE, of_account))]
GRANTS = Annotated[Asked, Depends(may(Noun.GRANT, Verb.CHANGE, of_account))]
REVOKES = Annotated[Asked, Depends(may(Noun.SESSION, Verb.REVOKE, of_account))]


@router.get("")
async def people(request: Request, hub: Given, asked: SEES) -> HTMLResponse:
    """List the people somebody looks after."""
    return _people(request, hub, asked)


@router.post("")
async def make(
    request: Request,
    hub: Given,
    asked: MAKES,
    name: Annotated[str, Form()] = "",
    full_name: Annotated[str, Form()] = "",
    home: Annotated[str, Form()] = "/",
) -> Response:
    """Make an account, and go on to its page, where it is given roles and a link to set up sign-in."""
    try:
        place = scope_of(home)
        if not asked.reach.covers(place):
            raise PeopleRefused("beyond", "that place is not yours to look after")
        made = hub.reception.administration.make(asked.caller, name=name, full_name=full_name, home=place)
    except (PeopleRefused, NameTaken) as exc:
        code = exc.code if isinstance(exc, PeopleRefused) else "name_taken"
        return _people(request, hub, asked, refused=code, name=name, full_name=full_name, home=home)
    except ValueError:
        return _people(request, hub, asked, refused="beyond", name=name, full_name=full_name)
    return RedirectResponse(f"/people/{made.id}", status_code=303)


@router.get("/{id}")
async def person(request: Request, id: str, hub: Given, asked: SEES_THIS) -> HTMLResponse:  # noqa: A002  # the path's word
    """Show one account."""
    return _person(request, hub, asked, id)


@router.post("/{id}")
async def change(
    request: Request,
    id: str,  # noqa: A002  # the path's word
    hub: Given,
    asked: CHANGES,
    revision: Annotated[int, Form()],
    full_name: Annotated[str, Form()] = "",
    disabled: Annotated[bool, Form()] = False,
) -> Response:
    """Rename an account, or let it sign in no more."""
    try:
        hub.reception.administration.change(
            asked.caller, _found(hub, id), revision=revision, full_name=full_name, disabled=disabled
        )
    except (PeopleRefused, ChangedMeanwhile) as exc:
        return _person(request, hub, asked, id, refused=exc)
    return RedirectResponse(f"/people/{id}", status_code=303)


@router.post("/{id}/grants")
async def give(
    request: Request,
    id: str,  # noqa: A002  # the path's word
    hub: Given,
    asked: GRANTS,
    revision: Annotated[int, Form()],
    role: Annotated[Role, Form()],
    scope: Annotated[str, Form()] = "/",
    starts: Annotated[str, Form()] = "",
    ends: Annotated[str, Form()] = "",
) -> Response:
    """Give somebody a role over a place, for as long as it says."""
    try:
        grant = Grant(
            role=role,
            scope=scope_of(scope),
            starts=day(starts) if starts else None,
            ends=day(ends, end=True) if ends else None,
        )
        hub.reception.administration.give(asked.caller, _found(hub, id), grant, revision=revision)
    except (PeopleRefused, ChangedMeanwhile) as exc:
        return _person(request, hub, asked, id, refused=exc)
    except ValueError:
        return _person(request, hub, asked, id, refused=PeopleRefused("dates", "these are no days"))
    return RedirectResponse(f"/people/{id}", status_code=303)


@router.post("/{id}/grants/{grant}/end")
async def end(
    request: Request,
    id: str,  # noqa: A002  # the path's word
    grant: int,
    hub: Given,
    asked: GRANTS,
    revision: Annotated[int, Form()],
) -> Response:
    """End a role now."""
    given = hub.reception.accounts.grant(grant)
    if given is None or given.account != id:
        raise Missing(f"account {id[:40]!r} has no grant {grant}")
    try:
        hub.reception.administration.end(asked.caller, _found(hub, id), given, revision=revision)
    except (PeopleRefused, ChangedMeanwhile) as exc:
        return _person(request, hub, asked, id, refused=exc)
    return RedirectResponse(f"/people/{id}", status_code=303)


@router.post("/{id}/recover")
async def recover(
    request: Request,
    id: str,  # noqa: A002  # the path's word
    hub: Given,
    asked: CHANGES,
    why: Annotated[str, Form(max_length=300)] = "",
) -> Response:
    """Show a one-time link with which somebody sets up how they sign in; it is handed over in person."""
    try:
        found = _found(hub, id)
        hub.reception.administration.may_touch(asked.caller, found)
    except PeopleRefused as exc:
        return _person(request, hub, asked, id, refused=exc)
    secret = hub.reception.set_up.link_for(found, asked.caller.by, why)
    return _person(request, hub, asked, id, link=f"{request.url.scheme}://{request.headers['host']}/set-up/{secret}")


@router.post("/{id}/sign-out")
async def sign_out(request: Request, id: str, hub: Given, asked: REVOKES) -> Response:  # noqa: A002  # the path's word
    """Sign somebody out everywhere, and revoke their tokens."""
    hub.reception.administration.sign_out(asked.caller, _found(hub, id))
    return RedirectResponse(f"/people/{id}", status_code=303)


def _found(hub: Hub, wanted: str) -> Account:
    found = hub.reception.accounts.get(wanted)
    if found is None:
        raise Missing(f"there is no account {wanted[:40]!r}")
    return found


def _people(
    request: Request,
    hub: Hub,
    asked: Asked,
    *,
    refused: str = "",
    name: str = "",
    full_name: str = "",
    home: str = "",
) -> HTMLResponse:
    said, now = said_to(request, hub), hub.clock.now_ms()
    gettext, kept = said._, hub.reception
    rows = [
        {
            "id": one.id,
            "name": one.name,
            "full_name": one.full_name,
            "home": scope_name(one.home, hub.places, said),
            "roles": [grant_view(given, hub, said) for given in kept.accounts.grants(one.id, now=now)],
            "disabled": one.disabled_at is not None,
            "set_up": one.has_password or bool(kept.credentials.passkeys(one.id)),
        }
        for one in kept.administration.seen_by(asked.caller)
    ]
    return page(
        request,
        hub,
        "people.html",
        status=422 if refused else 200,
        people=rows,
        error=gettext(account_words.REFUSALS[refused]) if refused else "",
        fresh=asked.caller.fresh,
        name=name[:100],
        full_name=full_name[:100],
        home=home,
        scopes=_choices(hub, asked.to(Noun.ACCOUNT, Verb.CHANGE).covers, request),
    )


def _person(
    request: Request,
    hub: Hub,
    asked: Asked,
    wanted: str,
    *,
    refused: PeopleRefused | ChangedMeanwhile | None = None,
    link: str = "",
) -> HTMLResponse:
    said, now = said_to(request, hub), hub.clock.now_ms()
    gettext, kept = said._, hub.reception
    one = _found(hub, wanted)
    code = refused.code if isinstance(refused, PeopleRefused) else "changed_meanwhile"
    touchable = True
    try:
        kept.administration.may_touch(asked.caller, one)
    except PeopleRefused:
        touchable = False
    response = page(
        request,
        hub,
        "person.html",
        status=200 if refused is None else 422 if isinstance(refused, PeopleRefused) else 412,
        person=one,
        home=scope_name(one.home, hub.places, said),
        grants=[grant_view(given, hub, said) for given in kept.accounts.grants(one.id, now=now)],
        sessions=[
            {"address": open_.address, "agent": browser(open_.agent), "seen": said.ago(open_.seen_at, now)}
            for open_ in kept.sessions.sessions(one.id)
        ],
        error=gettext(account_words.REFUSALS[code]) if refused is not None else "",
        link=link,
        fresh=asked.caller.fresh,
        touchable=touchable,
        roles=[{"value": role.value, "word": gettext(account_words.ROLES[role])} for role in Role],
        scopes=_choices(hub, asked.to(Noun.GRANT, Verb.CHANGE).covers, request),
    )
    response.headers["ETag"] = f'"{one.revision}"'
    return response


def _choices(hub: Hub, covered: Any, request: Request) -> Sequence[dict[str, str]]:
    said = said_to(request, hub)
    wanted: list[Scope] = [one for one in scopes(hub.places) if covered(one)]
    return [{"value": scope_value(one), "word": scope_name(one, hub.places, said)} for one in wanted]
