"""The last sample of every series that is in the store, page by page."""

from typing import Annotated, Any
from urllib.parse import urlencode

import msgspec
from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel

from hub.api.problems import RESPONSES, ProblemRaised
from hub.devices import NodeKey
from hub.doors import Asked, may
from hub.given import Given
from hub.rights.permissions import Noun, Verb
from hub.rights.scopes import Reach
from hub.storage.timeseries import INSTRUMENT_BITS, TIME_BITS, TIME_SHIFT

router = APIRouter(prefix="/api/last", tags=["samples"], responses=RESPONSES)


class LastOut(BaseModel):
    """The last sample of one series, by its instant `at` (ms); `time` 0 synchronised, 1 holdover, 2 unknown."""

    group: str
    node: str
    device: str
    metric: str
    at: int
    value: int | float | str | None
    quality: int
    instrument: int
    time: int


class LastsOut(BaseModel):
    """One page, ordered by group, node, device and metric; `next` leads on, null at the end."""

    series: list[LastOut]
    next: str | None


@router.get("", response_model=LastsOut)
async def last(
    hub: Given,
    asked: Annotated[Asked, Depends(may(Noun.HISTORY, Verb.SEE))],
    group: str | None = None,
    limit: Annotated[int, Query(ge=1, le=5000)] = 1000,
    after: Annotated[str | None, Query(max_length=500, description="of `next`: group/node/device/metric")] = None,
) -> Response:
    """Show what was last stored of every series; what is true now is in /api/devices."""
    cursor = None if after is None else tuple(after.split("/", 3))
    if cursor is not None and len(cursor) != 4:
        raise ProblemRaised(422, f"after: {(after or '')[:60]!r} is not group/node/device/metric; take it from `next`")
    page, more = await hub.ask(_page, hub, asked.reach, group, cursor, limit)
    follow = None
    if more:
        end = page[-1]
        name = "/".join((end["group"], end["node"], end["device"], end["metric"]))
        onward = {"limit": limit, **({"group": group} if group is not None else {}), "after": name}
        follow = f"/api/last?{urlencode(onward)}"
    return Response(msgspec.json.encode({"series": page, "next": follow}), media_type="application/json")


def _page(
    hub: Given, reach: Reach, group: str | None, after: tuple[str, ...] | None, limit: int
) -> tuple[list[dict[str, Any]], bool]:
    rows = hub.store.last(group)
    names = zip(*(rows.column(name).to_pylist() for name in ("group", "node", "device", "metric")), strict=True)
    ordered = sorted(
        (name, place)
        for place, name in enumerate(names)
        if (after is None or name > after) and reach.sees(NodeKey(*name[:2]))
    )
    if not ordered:
        return [], False
    page = rows.take([place for _, place in ordered[:limit]]).to_pylist()
    return [_out(one) for one in page], len(ordered) > limit


def _out(row: dict[str, Any]) -> dict[str, Any]:
    value = next((row[one] for one in ("number", "integer", "text") if row[one] is not None), None)
    flags = row["flags"]
    return {
        **{name: row[name] for name in ("group", "node", "device", "metric", "at")},
        "value": value,
        "quality": row["quality"],
        "instrument": flags & INSTRUMENT_BITS,
        "time": (flags & TIME_BITS) >> TIME_SHIFT,
    }
