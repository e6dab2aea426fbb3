"""Samples as a file: every reading of a span of time, streamed however long it is."""

from collections.abc import Collection, Generator
from contextlib import closing
from datetime import UTC, datetime
from typing import Annotated, Any, cast

from fastapi import APIRouter, Depends, Query
from fastapi.responses import StreamingResponse

from contract.topics import valid_id
from hub import samples_csv
from hub.api.problems import RESPONSES, ProblemRaised
from hub.api.span import To, span
from hub.api.streamed import Streamed
from hub.audit import Act
from hub.doors import Asked, may
from hub.exports import TooManyExports
from hub.given import Given
from hub.rights.permissions import Noun, Verb
from hub.rights.scopes import PROVINCE, Reach
from hub.storage.timeseries import TimeSeries

router = APIRouter(prefix="/api", tags=["samples"], responses=RESPONSES)

MOST_DAYS = 400
MOST_NAMES = 200
Names = Annotated[list[str] | None, Query(max_length=MOST_NAMES)]


@router.get(
    "/samples.csv",
    response_class=StreamingResponse,
    responses={200: {"description": "CSV (RFC 4180, UTF-8)", "content": {"text/csv": {"schema": {"type": "string"}}}}},
)
async def samples(
    hub: Given,
    asked: Annotated[Asked, Depends(may(Noun.HISTORY, Verb.EXPORT))],
    from_: Annotated[str, Query(alias="from", description="ISO 8601 or ms since 1970, included")],
    to: To = None,
    group: Names = None,
    node: Names = None,
    device: Names = None,
    metric: Names = None,
) -> StreamingResponse:
    """Stream every sample within the caller's reach, a line each, ordered by its first five columns.

    Columns: `group,node,device,metric,at,value,quality,instrument,time`. At most 400 days at a time; each filter may be
    given more than once. `device` "" is the edge node itself. `at` is in ms since 1970 UTC, `time` 0 synchronised,
    1 holdover, 2 unknown. A null is an empty cell. A text that starts with `=`, `+`, `-`, `@`, a tab, a line end or an
    apostrophe has an apostrophe put before it, so that no spreadsheet takes it for a formula; numbers stay as they are.
    An answer that cannot be finished is broken off, never ended as if it were whole.
    """
    start, end = span(from_, to, now=hub.clock.now_ms(), default=0, most_days=MOST_DAYS)
    for name, given in (("group", group), ("node", node), ("device", device)):
        wrong = [one for one in given or () if one and not valid_id(one)]
        if wrong:
            raise ProblemRaised(422, f"{name}: {wrong[0][:40]!r} can be nobody's id")
    try:
        export = hub.exports.begin(_pieces(hub.store, asked.reach, start, end, group, node, device, metric))
    except TooManyExports as exc:
        raise ProblemRaised(503, str(exc), code="too_many_exports") from exc
    told = {"start": start, "end": end, "group": group, "node": node, "device": device, "metric": metric}
    hub.audit.record(Act(at=asked.caller.now, by=asked.caller.by, what="history.export", after=told))
    try:
        first = await export.read()
    except BaseException:
        export.end()
        raise
    return Streamed(export, first, f"samples_{_day(start)}_{_day(end)}.csv", "text/csv; charset=utf-8")


def _pieces(
    store: TimeSeries,
    reach: Reach,
    start: int,
    end: int,
    groups: Collection[str] | None,
    nodes: Collection[str] | None,
    devices: Collection[str] | None,
    metrics: Collection[str] | None,
) -> Generator[bytes, None, None]:
    if not reach.covers(PROVINCE):
        within = {one.group for one in reach.scopes}
        groups = within if groups is None else within.intersection(groups)
    found = cast("Generator[Any, None, None]", store.export(start, end, groups, metrics))
    with closing(found):
        head = samples_csv.HEADER
        for rows in found:
            for piece in samples_csv.pieces(rows, reach=reach, nodes=nodes, devices=devices):
                yield head + piece
                head = b""
        if head:
            yield head


def _day(at: int) -> str:
    return f"{datetime.fromtimestamp(at / 1000, UTC):%Y-%m-%dT%H%MZ}"
