"""A page around what a template shows: the caller's language, what they may see besides, and their forms' token."""

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from hub.api.announcements import seen
from hub.api.problems import ProblemRaised
from hub.border import SAFE
from hub.doors import caller_of
from hub.given import Given, Hub
from hub.people.caller import Caller
from hub.rights.permissions import Noun, Verb
from hub.rights.scopes import Reach, of_node
from hub.storage.announcements import Announcement
from hub.web import views
from hub.web.i18n import LANGUAGES, Words, chosen, words

_pages = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)

YEAR_SECONDS = 365 * 86_400
TOKEN_HEADER = "x-form-token"  # noqa: S105  # a header's name


NOWHERE = Reach()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What somebody sees and may press on pages that stay alive; equal sights are shown the same frames."""

    devices: Reach = NOWHERE
    history: Reach = NOWHERE
    announcements: Reach = NOWHERE
    commands: Reach = NOWHERE
    ask_now: Reach = NOWHERE
    make: Reach = NOWHERE
    stop: Reach = NOWHERE
    hear: Reach = NOWHERE


def sight(caller: Caller | None) -> Sight:
    """Return what a caller sees now; strangers see nothing."""
    if caller is None:
        return Sight()
    return Sight(
        devices=caller.reach(Noun.DEVICE, Verb.SEE),
        history=caller.reach(Noun.HISTORY, Verb.SEE),
        announcements=caller.reach(Noun.ANNOUNCEMENT, Verb.SEE),
        commands=caller.reach(Noun.COMMAND, Verb.SEE),
        ask_now=caller.reach(Noun.COMMAND, Verb.ASK_NOW),
        make=caller.reach(Noun.ANNOUNCEMENT, Verb.MAKE),
        stop=caller.reach(Noun.ANNOUNCEMENT, Verb.STOP),
        hear=caller.reach(Noun.AUDIO, Verb.HEAR),
    )


def said_to(request: Request, hub: Hub) -> Words:
    """Return the words of a request's language."""
    return words(chosen(request, hub.config.hub.language))


def page(request: Request, hub: Hub, template: str, *, status: int = 200, **told: Any) -> HTMLResponse:
    """Return a whole page in the request's language, for whoever asks."""
    said, caller = said_to(request, hub), caller_of(request)
    response = HTMLResponse(
        render(
            template,
            said,
            path=request.url.path,
            languages=LANGUAGES,
            caller=caller,
            form_token=hub.reception.entrance.form_token(caller.secret) if caller and caller.secret else "",
            may=caller.reach if caller else _nothing,
            on_air=on_air(hub, said, sight(caller)),
            **told,
        ),
        status_code=status,
    )
    if request.query_params.get("lang") in LANGUAGES:
        response.set_cookie("lang", said.language, max_age=YEAR_SECONDS, samesite="strict", httponly=True)
    response.headers["Cache-Control"] = "no-store"
    return response


def render(template: str, said: Words, **told: Any) -> str:
    """Return what a template makes of what it is told."""
    gettext = said._
    return _pages.get_template(template).render(_=gettext, lang=said.language, **told)


def on_air(hub: Hub, said: Words, sees: Sight) -> list[views.AnnouncementView]:
    """Return what sounds now within somebody's sight."""
    return [one for one in announced(hub, said, sees) if one.on_air]


def announced(hub: Hub, said: Words, sees: Sight) -> list[views.AnnouncementView]:
    """Return the newest announcements within somebody's sight, with what they may do about them."""
    recent = hub.announcements.recent(10) if hub.announcements else []
    now = hub.clock.now_ms()
    return [
        views.announcement(
            shown,
            hub.places,
            said,
            now,
            hear=any(sees.hear.sees(part.device) for part in shown.parts),
            stop=_whole(one, sees.stop),
        )
        for one in recent
        for shown in seen([one], sees.announcements)
    ]


async def of_our_form(request: Request, hub: Given) -> None:
    """Refuse a form that did not come from this session's own pages: a dependency of every page's route."""
    caller = caller_of(request)
    if request.method in SAFE or caller is None or caller.session is None:
        return
    given = request.headers.get(TOKEN_HEADER)
    if given is None:
        field = (await request.form()).get("form_token")
        given = field if isinstance(field, str) else ""
    wanted = hub.reception.entrance.form_token(caller.secret)
    if not secrets.compare_digest(wanted.encode(), given.encode()):
        raise ProblemRaised(403, "this form is not of this session; open its page again", code="form_token")


def _whole(one: Announcement, reach: Reach) -> bool:
    return all(reach.covers(of_node(part.device)) for part in one.parts)


def _nothing(noun: Noun, verb: Verb) -> Reach:
    return NOWHERE
