"""The record of acts: searching it, handing it over signed, and erasing what speaks of a person."""

import asyncio
from collections.abc import Generator
from contextlib import closing
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from contract.dsse import key_id, public_bytes
from hub.api.problems import RESPONSES, ProblemRaised
from hub.api.span import From, To, instant
from hub.api.streamed import Streamed
from hub.audit import Act
from hub.audit_export import audit_key, export
from hub.doors import Asked, Where, may
from hub.exports import TooManyExports
from hub.given import Given
from hub.rights.permissions import Noun, Verb
from hub.storage.audit import Search, Told

router = APIRouter(prefix="/api/audit", tags=["audit"], responses=RESPONSES)

MOST = 200
LAST = (1 << 53) - 1
JSONL = "application/jsonl"


class ActOut(BaseModel):
    """One act. `details` are name, address, why, before and after, those of them there are; `erased` names the gone."""

    number: int
    at: int
    account: str
    what: str
    subject: str
    details: dict[str, Any]
    erased: list[str]
    hash: str


class ActsOut(BaseModel):
    """Newest first; ask again with `before` = `next` until that is null."""

    acts: list[ActOut]
    next: int | None


class EraseIn(BaseModel):
    """Whose name and address are to be erased, and why."""

    account: Annotated[str, Field(min_length=1, max_length=100)]
    why: Annotated[str, Field(min_length=1, max_length=500)]


class ErasedOut(BaseModel):
    """How many details are gone."""

    erased: int


@router.get("", dependencies=[Depends(may(Noun.AUDIT, Verb.SEE, Where.WHOLE))])
async def acts(
    hub: Given,
    from_: From = None,
    to: To = None,
    account: Annotated[str, Query(max_length=100)] = "",
    what: Annotated[str, Query(max_length=100)] = "",
    subject: Annotated[str, Query(max_length=200)] = "",
    text: Annotated[str, Query(max_length=200, description="looked for in every detail")] = "",
    before: Annotated[int, Query(ge=1, le=LAST)] = LAST,
    limit: Annotated[int, Query(ge=1, le=MOST)] = 50,
) -> ActsOut:
    """List acts that match every condition given."""
    wanted = Search(
        start=instant(from_, "from") if from_ is not None else 0,
        end=instant(to, "to") if to is not None else LAST,
        account=account,
        what=what,
        subject=subject,
        text=text,
    )
    found = await asyncio.to_thread(hub.audit.search_aside, wanted, before=before, most=limit)
    return ActsOut(acts=[_act(one) for one in found], next=found[-1].number if len(found) == limit else None)


@router.get(
    "/export",
    response_class=StreamingResponse,
    responses={200: {"description": "JSON lines, the last a signature", "content": {JSONL: {"schema": {}}}}},
)
async def exported(
    hub: Given,
    asked: Annotated[Asked, Depends(may(Noun.AUDIT, Verb.EXPORT, Where.WHOLE))],
    first: Annotated[int, Query(ge=1, le=LAST)] = 1,
    last: Annotated[int, Query(ge=1, le=LAST)] = LAST,
) -> StreamingResponse:
    """Hand over acts numbered first to last, signed with this hub's audit key; `hamlet-hub verify-audit` checks it."""
    if first > last:
        raise ProblemRaised(422, f"first ({first}) must not be after last ({last})")
    # What is handed over includes that it was.
    told = {"first": first, "last": last}
    hub.audit.record(Act(at=asked.caller.now, by=asked.caller.by, what="audit.export", after=told))
    key = audit_key(hub.config.hub.state_dir)

    def lines() -> Generator[bytes, None, None]:
        with closing(hub.audit.reader()) as database:
            yield from export(database, first, last, key)

    try:
        under_way = hub.exports.begin(lines())
    except TooManyExports as exc:
        raise ProblemRaised(503, str(exc), code="too_many_exports") from exc
    try:
        head = await under_way.read()
    except BaseException:
        under_way.end()
        raise
    return Streamed(under_way, head, f"audit_{key_id(public_bytes(key))[:8]}_{first}.jsonl", JSONL)


@router.post("/erase")
async def erase(
    hub: Given, body: EraseIn, asked: Annotated[Asked, Depends(may(Noun.AUDIT, Verb.ERASE, Where.WHOLE))]
) -> ErasedOut:
    """Erase name and address from everything an account did; the acts, and this one, stay in the record."""
    act = Act(at=asked.caller.now, by=asked.caller.by, what="", why=body.why)
    return ErasedOut(erased=hub.audit.erase_person(body.account, act))


def _act(one: Told) -> ActOut:
    return ActOut(
        number=one.number,
        at=one.at,
        account=one.account,
        what=one.what,
        subject=one.subject,
        details=dict(one.details),
        erased=list(one.erased),
        hash=one.hash.hex(),
    )
