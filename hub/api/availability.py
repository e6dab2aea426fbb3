"""Availability: when devices were up, down or unknown, each interval with its cause, and the sums of them."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel

from hub.api.devices import found
from hub.api.problems import RESPONSES, ProblemRaised
from hub.api.span import DAY, From, To, span
from hub.availability import sums
from hub.doors import Asked, may
from hub.given import Given
from hub.rights.permissions import Noun, Verb

router = APIRouter(prefix="/api/availability", tags=["availability"], responses=RESPONSES)

MOST_DAYS = 400
MOST_DEVICES = 200


class IntervalOut(BaseModel):
    """One stretch of time, [start, end) in ms; `state` is up, down or unknown, `cause` why it is not up."""

    start: int
    end: int
    state: str
    cause: str


class DeviceAvailabilityOut(BaseModel):
    """One device. Unknown time counts neither for it nor against it: `up_percent` is up / (up + down), null if none.

    `known_percent` says of how much of the span anything is known; a high `up_percent` of little is worth little.
    """

    device: str
    name: str
    up_ms: int
    down_ms: int
    unknown_ms: int
    down_ms_by_cause: dict[str, int]
    up_percent: float | None
    known_percent: float
    intervals: list[IntervalOut]


class AvailabilityOut(BaseModel):
    """Devices over [start, end); the intervals of each fill it without gap or overlap."""

    start: int
    end: int
    devices: list[DeviceAvailabilityOut]


@router.get("")
async def availability(
    hub: Given,
    asked: Annotated[Asked, Depends(may(Noun.HISTORY, Verb.SEE))],
    device: Annotated[list[str], Query(max_length=MOST_DEVICES, description="device ids; may be given more than once")],
    from_: From = None,
    to: To = None,
) -> AvailabilityOut:
    """Show when devices were up, from what their edge node said of them; the last 24 hours unless asked otherwise."""
    now = hub.clock.now_ms()
    start, end = span(from_, to, now=now, default=DAY, most_days=MOST_DAYS)
    chosen = [found(hub, one, asked.reach) for one in dict.fromkeys(device)]
    nodes = [one.id for one in chosen if not one.key.device]
    if nodes:
        raise ProblemRaised(422, f"{nodes[0]!r} is an edge node; availability is told of the devices behind it")
    told = await hub.ask(hub.store.availability, [one.key for one in chosen], start, end)
    return AvailabilityOut(
        start=start,
        end=end,
        devices=[
            DeviceAvailabilityOut(
                device=one.id,
                name=one.key.device,
                up_ms=of.up,
                down_ms=of.down,
                unknown_ms=of.unknown,
                down_ms_by_cause=of.down_by_cause,
                up_percent=None if of.up_share is None else of.up_share * 100,
                known_percent=of.known_share * 100,
                intervals=[
                    IntervalOut(start=each.start, end=each.end, state=each.state, cause=each.cause)
                    for each in told[one.key]
                ],
            )
            for one in chosen
            for of in [sums(told[one.key])]
        ],
    )
