"""What was put aside as never to be stored, page by page, and a second look at it."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel

from contract.topics import valid_id
from hub.api.problems import RESPONSES, ProblemRaised
from hub.audit import Act
from hub.devices import NodeKey
from hub.doors import Asked, Where, may
from hub.given import Given
from hub.quarantine import WORDS
from hub.rights.permissions import Noun, Verb
from hub.storage.timeseries import Quarantined, StoreUnavailable

router = APIRouter(prefix="/api/quarantine", tags=["quarantine"], responses=RESPONSES)


class PutAsideOut(BaseModel):
    """One sample, or one message whole (`metric` is null); `first` and `last` are its offsets, instants are in ms."""

    id: int
    group: str
    node: str
    device: str
    reason: str
    words: str
    metric: str | None
    at: int | None
    received_at: int
    samples: int
    log: str | None
    epoch: int | None
    first: int | None
    last: int | None


class PageOut(BaseModel):
    """Oldest first; ask again with `after` = `next` until that is null."""

    rows: list[PutAsideOut]
    next: int | None


class RetriedOut(BaseModel):
    """Rows looked at, rows and samples now stored, and how many rows stay for which reason."""

    looked: int
    released: int
    samples: int
    still: dict[str, int]


class WhoseIn(BaseModel):
    """Of which edge node; of all without one."""

    group: str | None = None
    node: str | None = None


@router.get("", dependencies=[Depends(may(Noun.QUARANTINE, Verb.SEE, Where.WHOLE))])
async def put_aside(
    hub: Given,
    after: Annotated[int, Query(ge=0)] = 0,
    most: Annotated[int, Query(ge=1, le=1000)] = 100,
    group: str | None = None,
    node: str | None = None,
) -> PageOut:
    """List what was put aside, of one edge node or of all."""
    try:
        found = await hub.ask(hub.store.quarantined, after, most, _whose(group, node))
    except StoreUnavailable as exc:
        raise ProblemRaised(503, f"the store cannot be asked: {exc}") from exc
    return PageOut(rows=[_row(one) for one in found], next=found[-1].id if len(found) == most else None)


@router.post("/retry")
async def retry(
    hub: Given, whose: WhoseIn, asked: Annotated[Asked, Depends(may(Noun.QUARANTINE, Verb.RETRY, Where.WHOLE))]
) -> RetriedOut:
    """Judge again what was put aside, by today's rules and clock; what passes is stored and leaves quarantine."""
    if hub.ingest.holding:
        raise ProblemRaised(503, f"nothing is judged while acknowledgements are held: {hub.ingest.holding}")
    try:
        done = await hub.quarantine.retry(_whose(whose.group, whose.node))
    except StoreUnavailable as exc:
        raise ProblemRaised(503, f"the store cannot be asked: {exc}") from exc
    told = {"looked": done.looked, "released": done.released, "samples": done.samples}
    subject = f"{whose.group}/{whose.node}" if whose.group is not None else ""
    hub.audit.record(Act(at=asked.caller.now, by=asked.caller.by, what="quarantine.retry", subject=subject, after=told))
    return RetriedOut(looked=done.looked, released=done.released, samples=done.samples, still=dict(done.still))


def _whose(group: str | None, node: str | None) -> NodeKey | None:
    if group is None and node is None:
        return None
    if group is None or node is None or not (valid_id(group) and valid_id(node)):
        raise ProblemRaised(422, "name an edge node by group and node both, or name none")
    return NodeKey(group, node)


def _row(one: Quarantined) -> PutAsideOut:
    where: dict[str, Any] = {"log": None, "epoch": None}
    if one.lineage is not None:
        where = {"log": one.lineage.log, "epoch": one.lineage.epoch}
    return PutAsideOut(
        id=one.id,
        group=one.key.group,
        node=one.key.node,
        device=one.key.device,
        reason=one.reason,
        words=WORDS.get(one.reason, one.reason),
        metric=one.metric,
        at=one.at,
        received_at=one.received_at,
        samples=one.samples,
        first=one.first,
        last=one.last,
        **where,
    )
