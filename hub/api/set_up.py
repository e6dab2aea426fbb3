"""Setting up sign-in by a one-time link, for programs."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field

from hub.api.problems import RESPONSES, ProblemRaised
from hub.border import address_of
from hub.doors import open_to_all
from hub.given import Given
from hub.people.set_up import SetUpRefused

router = APIRouter(prefix="/api/set-up", tags=["session"], responses=RESPONSES)

HAS_LINK = open_to_all("the one-time link in the path is the right: 256 bits, used once, over in a day")


class SetUpOut(BaseModel):
    """Whom a link is for, and the secret for the authenticator app (base 32)."""

    name: str
    full_name: str
    secret: str


class SetUpIn(BaseModel):
    """The password chosen, and a first code made from the secret."""

    password: Annotated[str, Field(max_length=1000)]
    code: Annotated[str, Field(max_length=20)]


@router.get("/{link}", dependencies=[Depends(HAS_LINK)])
async def look(link: str, hub: Given) -> SetUpOut:
    """Say whom a link is for; it stays unused."""
    opened = hub.reception.set_up.opened(link)
    if opened is None or opened.account is None:
        raise ProblemRaised(404, "this link was used, has expired, or never was", code="link_over")
    return SetUpOut(name=opened.account.name, full_name=opened.account.full_name, secret=opened.secret)


@router.post("/{link}", status_code=204, dependencies=[Depends(HAS_LINK)])
async def set_up(link: str, body: SetUpIn, request: Request, hub: Given) -> None:
    """Set password and codes; the link is used up, and every earlier way to sign in with it."""
    opened = hub.reception.set_up.opened(link)
    if opened is None or opened.account is None:
        raise ProblemRaised(404, "this link was used, has expired, or never was", code="link_over")
    try:
        await hub.reception.set_up.done(
            link, name="", full_name="", password=body.password, code=body.code, address=address_of(request.scope)
        )
    except SetUpRefused as exc:
        raise ProblemRaised(422, str(exc), code=exc.code) from exc
