"""Delivery of one edge node: what it still owes, what the hub has of it, what is lost, set aside or wrong."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Depends, Path
from pydantic import BaseModel

from contract.positions import Lineage, RangeSet
from hub.api.problems import RESPONSES, ProblemRaised
from hub.calendar_day import day_of, day_start
from hub.devices import DeviceKey, NodeKey, device_id
from hub.doors import may, of_edge_node
from hub.floor import starts
from hub.given import Given
from hub.node_delivery import NodeDelivery
from hub.rights.permissions import Noun, Verb
from hub.storage.timeseries import Completeness, PutAside, Void

router = APIRouter(prefix="/api/edge-nodes", tags=["edge nodes"], responses=RESPONSES)

MOST_VOIDS = 200
MOST_RANGES = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """All that is known of one edge node's delivery at one instant (ms); `standing` is None until it is heard."""

    at: int
    standing: NodeDelivery | None
    holding: str
    ledger: Mapping[Lineage, RangeSet]
    voids: Sequence[Void]
    aside: Sequence[PutAside]
    today: Completeness


async def account(hub: Given, key: NodeKey) -> Account:
    """Return the account of an edge node; raise StoreUnavailable."""
    at, standing, holding = hub.clock.now_ms(), hub.ingest.delivery(key), hub.ingest.holding
    store = hub.store

    def look() -> Account:
        return Account(
            at=at,
            standing=standing,
            holding=holding,
            ledger=store.ledger(key),
            voids=store.voids(key, MOST_VOIDS),
            aside=store.put_aside(key),
            today=store.completeness(key, day_start(day_of(at)), at + 1),
        )

    return await hub.ask(look)


class DepthOut(BaseModel):
    """What the edge node said of its log at `told_at`: records not known committed, the oldest one, bytes."""

    records: int | None
    oldest: int | None
    bytes_on_disk: int | None
    told_at: int | None


class AlarmOut(BaseModel):
    """Something wrong with its log or clock, since when."""

    kind: str
    since: int


class RangesOut(BaseModel):
    """Committed records of one stream in one life of one log; `epoch` is the life, `start` its number.

    An epoch is beyond what JavaScript counts exactly, so it is text. `device` "" is the edge node's own stream.
    """

    log: str
    epoch: str
    start: int
    device: str
    records: int
    ranges: list[tuple[int, int]]


class VoidOut(BaseModel):
    """Records first to last, which nobody holds any more and the hub never had; `at`: when the hub learnt it."""

    log: str
    epoch: str
    start: int
    device: str
    first: int
    last: int
    at: int


class PutAsideOut(BaseModel):
    """Samples in quarantine for one reason; `newest`: when the last of them came."""

    reason: str
    samples: int
    newest: int


class TodayOut(BaseModel):
    """Counts of today, Viet Nam's time."""

    samples: int
    records: int
    late_samples: int
    conflicts: int
    quarantined_samples: int
    void_records: int


class DeliveryOut(BaseModel):
    """One edge node's delivery; instants in ms. The rest is null or empty where the hub has not heard it yet.

    `holding` says why the hub acknowledges nothing at present, "" if it does. `floor`: up to it all is committed.
    """

    group: str
    node: str
    at: int
    heard: bool
    foreign: bool
    holding: str
    log: str | None
    epoch: str | None
    floor: str | None
    closed_epochs: int
    acknowledged_at: int | None
    depth: DepthOut
    alarms: list[AlarmOut]
    ledger: list[RangesOut]
    ledger_is_cut: bool
    voids: list[VoidOut]
    quarantine: list[PutAsideOut]
    today: TodayOut


@router.get("/{group}/{node}/delivery", dependencies=[Depends(may(Noun.EDGE_NODE, Verb.SEE, of_edge_node))])
async def delivery(
    group: Annotated[str, Path(max_length=200)], node: Annotated[str, Path(max_length=200)], hub: Given
) -> DeliveryOut:
    """Show what an edge node still owes and what the hub has of it; of void ranges the newest 200."""
    key = NodeKey(group, node)
    if hub.live.device(device_id(DeviceKey(group, node, ""))) is None:
        raise ProblemRaised(404, f"there is no edge node {group[:40]}/{node[:40]}; /api/devices lists all")
    found = await account(hub, key)
    standing = found.standing
    ledger, cut = _ledger(found.ledger)
    return DeliveryOut(
        group=group,
        node=node,
        at=found.at,
        heard=standing is not None,
        foreign=standing is not None and standing.foreign,
        holding=found.holding,
        log=standing.log if standing else None,
        epoch=_text(standing.epoch) if standing else None,
        floor=_text(standing.floor) if standing else None,
        closed_epochs=standing.closed if standing else 0,
        acknowledged_at=standing.acknowledged_at if standing else None,
        depth=_depth(standing),
        alarms=[AlarmOut(kind=one.kind, since=one.since) for one in (standing.alarms if standing else ())],
        ledger=ledger,
        ledger_is_cut=cut,
        voids=[_void(one) for one in found.voids],
        quarantine=[PutAsideOut(reason=one.reason, samples=one.samples, newest=one.newest) for one in found.aside],
        today=TodayOut(
            samples=found.today.samples,
            records=found.today.records,
            late_samples=found.today.historical,
            conflicts=found.today.conflicts,
            quarantined_samples=found.today.quarantined,
            void_records=found.today.void,
        ),
    )


def _text(epoch: int | None) -> str | None:
    return None if epoch is None else str(epoch)


def _depth(standing: NodeDelivery | None) -> DepthOut:
    if standing is None:
        return DepthOut(records=None, oldest=None, bytes_on_disk=None, told_at=None)
    depth = standing.depth
    return DepthOut(
        records=depth.records, oldest=depth.oldest, bytes_on_disk=depth.bytes_on_disk, told_at=depth.told_at
    )


def _ledger(ledger: Mapping[Lineage, RangeSet]) -> tuple[list[RangesOut], bool]:
    left, out = MOST_RANGES, list[RangesOut]()
    for lineage in sorted(ledger, key=lambda one: (one.log, one.epoch, one.stream)):
        ranges = list(ledger[lineage])
        if len(ranges) > left:
            return out, True
        left -= len(ranges)
        out.append(
            RangesOut(
                log=lineage.log,
                epoch=str(lineage.epoch),
                start=starts(lineage.epoch),
                device=lineage.stream,
                records=len(ledger[lineage]),
                ranges=ranges,
            )
        )
    return out, False


def _void(one: Void) -> VoidOut:
    return VoidOut(
        log=one.lineage.log,
        epoch=str(one.lineage.epoch),
        start=starts(one.lineage.epoch),
        device=one.lineage.stream,
        first=one.first,
        last=one.last,
        at=one.at,
    )
