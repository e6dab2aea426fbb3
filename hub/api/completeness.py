"""Completeness: how much of each edge node's day is in the store, as JSON and as a table for a spreadsheet."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel

from contract.catalog import PRESENCE
from hub.api.problems import RESPONSES
from hub.api.span import Day, day
from hub.audit import Act
from hub.completeness import Days, NodeDay, Verdict, day_report, silence
from hub.devices import DeviceKey, NodeKey
from hub.doors import Asked, may
from hub.given import Given, Hub
from hub.node_delivery import NodeDelivery
from hub.rights.permissions import Noun, Verb
from hub.rights.scopes import Reach
from hub.samples_csv import word

router = APIRouter(prefix="/api", tags=["completeness"], responses=RESPONSES)

WITNESSES = 3
"""Devices whose availability says when their edge node was silent; all of one edge node tell nearly the same."""

BYTE_ORDER_MARK = "\ufeff"
"""Without it, spreadsheets take Vietnamese for another script."""


class NodeDayOut(BaseModel):
    """One edge node's day; counts as docs/operating.md explains them. Null is what cannot be known."""

    group: str
    node: str
    commune: str | None
    hamlet: str | None
    verdict: Verdict
    complete_percent: float | None
    records: int
    samples: int
    late_percent: float | None
    void_records: int
    quarantined_samples: int
    conflicts: int
    unknown_seconds: int
    expected_records: int | None


class CompletenessOut(BaseModel):
    """All edge nodes' day, [start, end) in ms, as far as was known at `at`."""

    day: str
    start: int
    end: int
    at: int
    edge_nodes: list[NodeDayOut]


@router.get("/completeness")
async def completeness(
    hub: Given, day: Day, asked: Annotated[Asked, Depends(may(Noun.REPORT, Verb.SEE))]
) -> CompletenessOut:
    """Show how complete each edge node's day is."""
    found = await look(hub, day, asked.reach)
    return CompletenessOut(
        day=found.day,
        start=found.start,
        end=found.end,
        at=found.at,
        edge_nodes=[_out(hub, one) for one in found.nodes],
    )


@router.get(
    "/completeness.csv",
    response_class=Response,
    responses={200: {"description": "CSV (RFC 4180, UTF-8)", "content": {"text/csv": {"schema": {"type": "string"}}}}},
)
async def completeness_csv(
    hub: Given, day: Day, asked: Annotated[Asked, Depends(may(Noun.REPORT, Verb.EXPORT))]
) -> Response:
    """The same as a table for a spreadsheet: UTF-8 with a byte order mark, texts made harmless as in samples.csv."""
    found = await look(hub, day, asked.reach)
    hub.audit.record(Act(at=found.at, by=asked.caller.by, what="report.export", subject=found.day))
    rows = [_out(hub, one) for one in found.nodes]
    text = "".join(f"{line}\r\n" for line in _lines(found.day, rows))
    name = f'attachment; filename="completeness_{found.day}.csv"'
    return Response(
        (BYTE_ORDER_MARK + text).encode(),
        media_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": name, "Cache-Control": "no-store"},
    )


async def look(hub: Hub, wanted: str, reach: Reach) -> Days:
    """Return the reports of a day within a reach; raise a problem where it is none, or StoreUnavailable."""
    at = hub.clock.now_ms()
    date, start, end = day(wanted, at)

    async def work() -> Days:
        standings = {one.key.of_node: hub.ingest.delivery(one.key.of_node) for one in hub.live.devices()}
        nodes = await hub.ask(_nodes, hub, standings, start, end, at)
        return Days(day=date.isoformat(), start=start, end=end, at=at, nodes=nodes)

    # Worked out once for all who ask, whatever of it each may see.
    found = await hub.days.get(date.isoformat(), work)
    return replace(found, nodes=[one for one in found.nodes if reach.sees(one.node)])


def _nodes(
    hub: Hub, standings: dict[NodeKey, NodeDelivery | None], start: int, end: int, now: int
) -> Sequence[NodeDay]:
    witnesses = _witnesses(hub)
    elapsed_end = min(end, now)
    found = []
    for node in sorted({*standings, *witnesses}):
        standing = standings.get(node)
        foreign = standing.foreign if standing is not None else hub.places.of(node) is None
        told = hub.store.availability(witnesses.get(node, []), start, elapsed_end)
        report = day_report(
            hub.store.completeness(node, start, end),
            start=start,
            end=end,
            now=now,
            silent_ms=silence(list(told.values()), start, elapsed_end),
            owes=_owes(standing, end),
            foreign=foreign,
        )
        found.append(NodeDay(node=node, foreign=foreign, report=report))
    return found


def _witnesses(hub: Hub) -> dict[NodeKey, list[DeviceKey]]:
    """Return some devices of each edge node that the store was ever told of; a restarted hub has heard nobody yet."""
    rows = hub.store.last()
    names = (rows.column(name).to_pylist() for name in ("group", "node", "device", "metric"))
    found: dict[NodeKey, list[DeviceKey]] = {}
    for group, node, device, metric in sorted(zip(*names, strict=True)):
        of_node = found.setdefault(NodeKey(group, node), [])
        if not device and metric.startswith(PRESENCE) and len(of_node) < WITNESSES:
            of_node.append(DeviceKey(group, node, metric.removeprefix(PRESENCE)))
    return found


def _owes(standing: NodeDelivery | None, end: int) -> bool:
    """Return whether an edge node still holds records from before `end`, or did not say since that it has none."""
    depth = standing.depth if standing is not None else None
    if depth is None or depth.records is None or depth.told_at is None:
        return True
    if not depth.records:
        return depth.told_at < end
    return depth.oldest is None or depth.oldest < end


def _out(hub: Hub, one: NodeDay) -> NodeDayOut:
    place, report = hub.places.of(one.node), one.report
    return NodeDayOut(
        group=one.node.group,
        node=one.node.node,
        commune=place.commune if place else None,
        hamlet=place.hamlet if place else None,
        verdict=report.verdict,
        complete_percent=_percent(report.complete_share),
        records=report.records,
        samples=report.samples,
        late_percent=_percent(report.late_share),
        void_records=report.void,
        quarantined_samples=report.quarantined,
        conflicts=report.conflicts,
        unknown_seconds=report.unknown_ms // 1000,
        expected_records=report.expected,
    )


def _percent(share: float | None) -> float | None:
    return None if share is None else share * 100


def _lines(day_: str, rows: Sequence[NodeDayOut]) -> Iterator[str]:
    yield ",".join(("day", *NodeDayOut.model_fields))
    for row in rows:
        cells = row.model_dump().values()
        yield ",".join(
            (day_, *("" if one is None else word(one) if isinstance(one, str) else str(one) for one in cells))
        )
