"""Devices: what is there now, and what it reported over time."""

from typing import Annotated, Any
from urllib.parse import quote, urlencode

import msgspec
from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel

from contract.catalog import Kind, metric
from hub.api.problems import RESPONSES, ProblemRaised
from hub.api.span import From, To, span
from hub.doors import Asked, may, of_device
from hub.given import Given
from hub.live_state import UNTOLD_SECONDS, LiveDevice
from hub.places import Places
from hub.rights.permissions import Noun, Verb
from hub.rights.scopes import Reach
from hub.storage.timeseries import INSTRUMENT_BITS, TIME_BITS, TIME_SHIFT

router = APIRouter(prefix="/api/devices", tags=["devices"], responses=RESPONSES)

MOST_RAW = 50_000
MOST_DEVICES = 5_000
MOST_DAYS = 3_660
HOUR = 3_600_000


class ValueOut(BaseModel):
    """The newest value of a metric; `at` in ms since 1970 UTC, `fresh_until` likewise."""

    value: bool | int | float | str | None
    unit: str
    at: int
    quality: int
    instrument: int
    time: int
    fresh_until: int


class PresenceOut(BaseModel):
    """Whether a device is there, why not, and since when (ms)."""

    state: str
    cause: str
    since: int | None


class DeviceOut(BaseModel):
    """A field device, or an edge node (`device` is "")."""

    id: str
    group: str
    node: str
    device: str
    kind: str | None
    commune: str | None
    hamlet: str | None
    foreign: bool
    last_seen: int | None
    presence: PresenceOut
    values: dict[str, ValueOut]


class DevicesOut(BaseModel):
    """Devices, and when this was true (ms); `next` leads to those after them, null at the end."""

    at: int
    devices: list[DeviceOut]
    next: str | None


class HistoryOut(BaseModel):
    """A series over [from, to): samples as they are, page by page, or `buckets` of equal length where asked for.

    `mean` is weighted by time; nothing measured is null, never bridged. `next` leads to the samples after these and is
    absent with the last ones.
    """

    metric: str
    unit: str
    start: int
    end: int
    at: list[int]
    value: list[bool | int | float | str | None] | None = None
    quality: list[int] | None = None
    instrument: list[int] | None = None
    time: list[int] | None = None
    count: list[int] | None = None
    minimum: list[float | None] | None = None
    maximum: list[float | None] | None = None
    mean: list[float | None] | None = None
    first: list[float | None] | None = None
    last: list[float | None] | None = None
    covered_seconds: list[float] | None = None
    next: str | None = None


@router.get("", response_model=DevicesOut)
async def devices(
    hub: Given,
    asked: Annotated[Asked, Depends(may(Noun.DEVICE, Verb.SEE))],
    limit: Annotated[int, Query(ge=1, le=MOST_DEVICES)] = MOST_DEVICES,
    after: Annotated[str | None, Query(max_length=40, description="of `next`: the id of the last one")] = None,
) -> Response:
    """List every device and edge node that the caller may see, with presence and newest values."""
    everything = [one for one in hub.live.devices() if asked.reach.sees(one.key)]
    if after is not None:
        last = found(hub, after, asked.reach).key
        everything = [one for one in everything if one.key > last]
    page = everything[:limit]
    follow = f"/api/devices?{urlencode({'limit': limit, 'after': page[-1].id})}" if len(everything) > limit else None
    told = {"at": hub.clock.now_ms(), "devices": [_device(one, hub.places) for one in page], "next": follow}
    return _json(told)


@router.get("/{id}", response_model=DeviceOut)
async def device(
    id: str,  # noqa: A002  # the path's word
    hub: Given,
    asked: Annotated[Asked, Depends(may(Noun.DEVICE, Verb.SEE, of_device))],
) -> Response:
    """Show one device."""
    return _json(_device(found(hub, id, asked.reach), hub.places))


@router.get(
    "/{id}/history",
    response_model=HistoryOut,
    response_model_exclude_none=True,
)
async def history(
    id: str,  # noqa: A002  # the path's word
    hub: Given,
    asked: Annotated[Asked, Depends(may(Noun.HISTORY, Verb.SEE, of_device))],
    metric: str,
    from_: From = None,
    to: To = None,
    buckets: Annotated[int | None, Query(ge=1, le=2000, description="absent: samples as they are")] = None,
    limit: Annotated[int, Query(ge=1, le=MOST_RAW, description="of samples as they are")] = MOST_RAW,
    after: Annotated[int | None, Query(ge=0, lt=1 << 53, description="of `next`: the last instant shown, ms")] = None,
) -> Response:
    """Show what one metric was, as samples or in equal spans of time; the last hour unless asked otherwise."""
    one = found(hub, id, asked.reach)
    if metric not in one.values:
        known = ", ".join(sorted(one.values)) or "none yet"
        raise ProblemRaised(404, f"metric {metric[:80]!r} is not one of this device's: {known}")
    start, end = span(from_, to, now=hub.clock.now_ms(), default=HOUR, most_days=MOST_DAYS)
    told: dict[str, Any] = {"metric": metric, "unit": one.values[metric].unit, "start": start, "end": end}
    if buckets is not None:
        hold = hold_ms(one.kind, metric)
        spans = await hub.ask(hub.store.buckets, one.key, metric, start, end, buckets, hold)
        return _json({**told, **{name: getattr(spans, name) for name in spans.__slots__}})
    first = start if after is None else max(start, after + 1)
    raw = await hub.ask(hub.store.raw, one.key, metric, first, end, limit + 1)
    at, more = raw.at[:limit], len(raw.at) > limit
    told |= {"at": at, "value": raw.value[:limit], "quality": raw.quality[:limit]}
    told["instrument"] = [flags & INSTRUMENT_BITS for flags in raw.flags[:limit]]
    told["time"] = [(flags & TIME_BITS) >> TIME_SHIFT for flags in raw.flags[:limit]]
    if more:
        onward = {"metric": metric, "from": start, "to": end, "limit": limit, "after": at[-1]}
        told["next"] = f"/api/devices/{quote(id)}/history?{urlencode(onward)}"
    return _json(told)


def hold_ms(kind: Kind | None, name: str) -> int:
    """Return for how long a value of a metric counts as current, in ms."""
    known = metric(kind, name) if kind else None
    return (known.max_report_seconds if known else UNTOLD_SECONDS) * 1000


def found(hub: Given, wanted: str, reach: Reach) -> LiveDevice:
    """Return a device by its id; raise a problem where there is none, or none within reach."""
    one = hub.live.device(wanted)
    if one is None or not reach.sees(one.key):
        raise ProblemRaised(404, f"there is no device {wanted[:40]!r}; /api/devices lists all")
    return one


def _device(one: LiveDevice, places: Places) -> dict[str, Any]:
    place = places.of(one.key.of_node)
    return {
        "id": one.id,
        "group": one.key.group,
        "node": one.key.node,
        "device": one.key.device,
        "kind": one.kind,
        "commune": place.commune if place else None,
        "hamlet": place.hamlet if place else None,
        "foreign": one.foreign,
        "last_seen": one.last_seen,
        "presence": {"state": one.presence.state, "cause": one.presence.cause, "since": one.presence.since},
        "values": {
            name: {
                "value": None if isinstance(value.value, bytes) else value.value,
                "unit": value.unit,
                "at": value.at,
                "quality": value.quality,
                "instrument": value.instrument,
                "time": value.time,
                "fresh_until": value.fresh_until,
            }
            for name, value in one.values.items()
        },
    }


def _json(told: object) -> Response:
    return Response(msgspec.json.encode(told), media_type="application/json")
