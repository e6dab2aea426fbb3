"""Communes: one metric over time, as the mean of all devices of a commune."""

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Query, Response

from contract.catalog import CATALOG, metric
from hub.api.devices import HistoryOut, hold_ms
from hub.api.problems import RESPONSES, ProblemRaised
from hub.api.span import DAY, From, To, span
from hub.doors import may, of_commune
from hub.given import Given
from hub.rights.permissions import Noun, Verb

router = APIRouter(prefix="/api/communes", tags=["communes"], responses=RESPONSES)

MOST_DAYS = 400


@router.get(
    "/{group}/history",
    response_model=HistoryOut,
    response_model_exclude_none=True,
    dependencies=[Depends(may(Noun.HISTORY, Verb.SEE, of_commune))],
)
async def history(
    group: str,
    hub: Given,
    metric: Annotated[str, Query(max_length=200)],
    from_: From = None,
    to: To = None,
    buckets: Annotated[int, Query(ge=1, le=2000)] = 288,
) -> Response:
    """Show the mean over a commune's devices in equal spans of time, each device counting once; 24 hours by default."""
    start, end = span(from_, to, now=hub.clock.now_ms(), default=DAY, most_days=MOST_DAYS)
    unit = _unit(hub, group, metric)
    found = await hub.ask(hub.store.by_group, metric, start, end, buckets, _hold_ms(metric))
    told: dict[str, Any] = {"metric": metric, "unit": unit, "start": start, "end": end}
    if group in found:
        told |= {name: getattr(found[group], name) for name in found[group].__slots__}
    else:
        told |= {"at": [], "count": []}
    return Response(msgspec.json.encode(told), media_type="application/json")


def _unit(hub: Given, group: str, wanted: str) -> str:
    """Return a metric's unit in a commune; raise a problem where nobody there reports it."""
    there = [one for one in hub.live.devices() if one.key.group == group]
    if not there:
        raise ProblemRaised(404, f"there is no commune {group[:40]!r}; /api/devices names the groups of all")
    units = [one.values[wanted].unit for one in there if wanted in one.values]
    if not units:
        known = ", ".join(sorted({name for one in there for name in one.values})) or "none yet"
        raise ProblemRaised(404, f"metric {wanted[:80]!r} is not one of this commune's: {known[:2000]}")
    return units[0]


def _hold_ms(wanted: str) -> int:
    """Return for how long a value counts as current: the longest that any kind of device may take to repeat it."""
    return max(hold_ms(kind, wanted) for kind in [None, *CATALOG] if kind is None or metric(kind, wanted) is not None)
