"""The table of permissions as a page: who may do what, over how wide a place, and what wants a fresh sign-in."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse

from hub.doors import Asked, may
from hub.given import Given
from hub.rights.permissions import LEVELS, PERSONAL, TABLE, Noun, Role, Verb
from hub.rights.scopes import Level
from hub.web import account_words
from hub.web.render import of_our_form, page, said_to

router = APIRouter(include_in_schema=False, tags=["pages"], dependencies=[Depends(of_our_form)])


@router.get("/permissions")
async def permissions(
    request: Request, hub: Given, asked: Annotated[Asked, Depends(may(Noun.PERMISSIONS, Verb.SEE))]
) -> HTMLResponse:
    """Show the whole table, the caller's own roles marked."""
    gettext = said_to(request, hub)._
    own = {one.role for one in asked.caller.holder.grants if one.holds(asked.caller.now)}
    roles = [
        {
            "word": gettext(account_words.ROLES[role]),
            "levels": ", ".join(gettext(account_words.LEVELS[one]) for one in Level if one in LEVELS[role]),
            "own": role in own,
        }
        for role in Role
    ]
    rows = [
        {
            "noun": gettext(account_words.NOUNS[noun]),
            "verb": gettext(account_words.VERBS[verb]),
            "step_up": right.step_up,
            "cells": [noun in PERSONAL or role in right.roles for role in Role],
        }
        for (noun, verb), right in TABLE.items()
    ]
    return page(request, hub, "permissions.html", roles=roles, rows=rows)
