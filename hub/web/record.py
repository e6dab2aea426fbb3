"""The page of the record of acts: who did what, when and why; searched, handed over signed, erased of persons."""

import asyncio
import base64
from datetime import date, timedelta
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Depends, Form, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from contract.dsse import public_bytes
from hub.audit import Act
from hub.audit_export import audit_key
from hub.calendar_day import day_of, day_start
from hub.doors import Asked, Where, may
from hub.given import Given
from hub.rights.permissions import Noun, Verb
from hub.storage.audit import Search
from hub.web import acts
from hub.web.render import of_our_form, page, said_to

router = APIRouter(prefix="/audit", include_in_schema=False, tags=["pages"], dependencies=[Depends(of_our_form)])

AT_ONCE = 50
FIRST_DAY = date(2020, 1, 1)
NEWEST = 1 << 53


@router.get("")
async def record(
    request: Request,
    hub: Given,
    asked_by: Annotated[Asked, Depends(may(Noun.AUDIT, Verb.SEE, Where.WHOLE))],
    from_: Annotated[str, Query(alias="from")] = "",
    to: Annotated[str, Query()] = "",
    account: Annotated[str, Query(max_length=100)] = "",
    what: Annotated[str, Query(max_length=100)] = "",
    text: Annotated[str, Query(max_length=200)] = "",
    before: Annotated[int, Query(ge=1, le=NEWEST)] = NEWEST,
    refused: Annotated[bool, Query()] = False,
) -> HTMLResponse:
    """Show the newest acts that match what is asked for."""
    said = said_to(request, hub)
    _ = said._
    wrong, start, end = "", 0, NEWEST
    try:
        start = day_start(_day(from_)) if from_ else start
        end = day_start(_day(to) + timedelta(days=1)) if to else end
    except ValueError:
        wrong = _("That is no day.")
    if refused:
        wrong = _("Say why it is erased.")
    wanted = Search(start=start, end=end, account=account, what=what, text=text)
    found = [] if start >= end else await asyncio.to_thread(hub.audit.search_aside, wanted, before=before, most=AT_ONCE)
    verbs = await asyncio.to_thread(hub.audit.verbs_aside)
    key = await asyncio.to_thread(audit_key, hub.config.hub.state_dir)
    told: dict[str, Any] = {
        "acts": [acts.act(one, said) for one in found],
        "asked": {"from": from_, "to": to, "account": account, "what": what, "text": text},
        "older": found[-1].number if len(found) == AT_ONCE else None,
        "verbs": [{"value": one, "word": acts.did(one, said)} for one in verbs],
        "error": wrong,
        "today": str(day_of(hub.clock.now_ms())),
        "time": said.time(hub.clock.now_ms()),
        "key": base64.b64encode(public_bytes(key)).decode(),
        "fresh": asked_by.caller.fresh,
    }
    return page(request, hub, "audit.html", status=422 if wrong else 200, **told)


@router.post("/erase")
async def erase(
    hub: Given,
    asked: Annotated[Asked, Depends(may(Noun.AUDIT, Verb.ERASE, Where.WHOLE))],
    account: Annotated[str, Form(min_length=1, max_length=100)],
    why: Annotated[str, Form(max_length=500)] = "",
) -> Response:
    """Erase name and address from everything an account did, and go back to what it did."""
    if not why.strip():
        return RedirectResponse(f"/audit?account={quote(account)}&refused=true", status_code=303)
    act = Act(at=asked.caller.now, by=asked.caller.by, what="", why=why.strip())
    hub.audit.erase_person(account, act)
    return RedirectResponse(f"/audit?account={quote(account)}", status_code=303)


def _day(text: str) -> date:
    day = date.fromisoformat(text)
    if day < FIRST_DAY or day.year > 9000:
        raise ValueError
    return day
