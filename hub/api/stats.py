"""How much is stored and how the devices stand, in numbers."""

from fastapi import APIRouter, Depends
from pydantic import BaseModel

from hub.api.problems import RESPONSES
from hub.doors import Where, may
from hub.given import Given
from hub.presence import State
from hub.rights.permissions import Noun, Verb

router = APIRouter(prefix="/api/stats", tags=["stats"], responses=RESPONSES)


class SamplesOut(BaseModel):
    """`stored`: distinct (series, instant), events included. `conflicts`: keys committed with differing values."""

    stored: int
    quarantined: int
    conflicts: int
    events: int
    series: int
    commits: int
    bytes_on_disk: int


class KindOut(BaseModel):
    """Field devices of one kind."""

    total: int
    online: int


class StatsOut(BaseModel):
    """Numbers of this hub; `devices` counts field devices, not edge nodes."""

    samples: SamplesOut
    devices: KindOut
    by_kind: dict[str, KindOut]


@router.get("", dependencies=[Depends(may(Noun.STATISTICS, Verb.SEE, Where.WHOLE))])
async def stats(hub: Given) -> StatsOut:
    """Count what is stored and what is there."""
    found = await hub.ask(hub.store.stats)
    by_kind: dict[str, KindOut] = {}
    for one in hub.live.devices():
        if one.key.device:
            kind = by_kind.setdefault(one.kind or "unknown", KindOut(total=0, online=0))
            kind.total += 1
            kind.online += one.presence.state is State.ONLINE
    return StatsOut(
        samples=SamplesOut(
            stored=found.samples,
            quarantined=found.quarantined,
            conflicts=found.conflicts,
            events=found.events,
            series=found.series,
            commits=found.commits,
            bytes_on_disk=found.bytes_on_disk,
        ),
        devices=KindOut(
            total=sum(one.total for one in by_kind.values()), online=sum(one.online for one in by_kind.values())
        ),
        by_kind=by_kind,
    )
