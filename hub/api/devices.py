"""Devices: what is there now, and what it reported over time."""

import asyncio
import math
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Response
from pydantic import BaseModel

from contract.catalog import Kind, metric
from hub.api.problems import RESPONSES, ProblemRaised
from hub.given import Given
from hub.live_state import UNTOLD_SECONDS, LiveDevice
from hub.places import Places

router = APIRouter(prefix="/api/devices", tags=["devices"], responses=RESPONSES)

MOST_RAW = 50_000


class ValueOut(BaseModel):
    """The newest value of a metric; `at` in ms since 1970 UTC, `fresh_until` likewise."""

    value: bool | int | float | str | None
    unit: str
    at: int
    quality: int
    instrument: int
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
    """All devices, and when this was true (ms)."""

    at: int
    devices: list[DeviceOut]


class HistoryOut(BaseModel):
    """A series over [from, to): samples as they are, or `buckets` of equal length where asked for.

    `mean` is weighted by time; nothing measured is null, never bridged.
    """

    metric: str
    unit: str
    start: int
    end: int
    at: list[int]
    value: list[bool | int | float | str | None] | None = None
    quality: list[int] | None = None
    instrument: list[int] | None = None
    count: list[int] | None = None
    minimum: list[float | None] | None = None
    maximum: list[float | None] | None = None
    mean: list[float | None] | None = None
    first: list[float | None] | None = None
    last: list[float | None] | None = None
    covered_seconds: list[float] | None = None


@router.get("", response_model=DevicesOut)
async def devices(hub: Given) -> Response:
    """List every device and edge node the hub knows, with presence and newest values."""
    told = {"at": hub.clock.now_ms(), "devices": [_device(one, hub.places) for one in hub.live.devices()]}
    return _json(told)


@router.get("/{id}", response_model=DeviceOut)
async def device(id: str, hub: Given) -> Response:  # noqa: A002  # the path's word
    """Show one device."""
    return _json(_device(_found(hub, id), hub.places))


@router.get("/{id}/history", response_model=HistoryOut, response_model_exclude_none=True)
async def history(
    id: str,  # noqa: A002  # the path's word
    hub: Given,
    metric: str,
    from_: Annotated[
        str | None, Query(alias="from", description="ISO 8601 or ms since 1970; default one hour ago")
    ] = None,
    to: Annotated[str | None, Query(description="ISO 8601 or ms since 1970; default now")] = None,
    buckets: Annotated[int | None, Query(ge=1, le=2000, description="absent: samples as they are")] = None,
) -> Response:
    """Show what one metric was, as samples or in equal spans of time."""
    one = _found(hub, id)
    if metric not in one.values:
        known = ", ".join(sorted(one.values)) or "none yet"
        raise ProblemRaised(404, f"metric {metric[:80]!r} is not one of this device's: {known}")
    now = hub.clock.now_ms()
    end = _instant(to, "to") if to is not None else now
    start = _instant(from_, "from") if from_ is not None else end - 3_600_000
    if start >= end:
        raise ProblemRaised(422, f"from ({start}) must be before to ({end})")
    told: dict[str, Any] = {"metric": metric, "unit": one.values[metric].unit, "start": start, "end": end}
    if buckets is None:
        raw = await asyncio.to_thread(hub.store.raw, one.key, metric, start, end, MOST_RAW + 1)
        if len(raw.at) > MOST_RAW:
            raise ProblemRaised(422, f"more than {MOST_RAW} samples; ask for buckets or a shorter time")
        instrument = [flags & 3 for flags in raw.flags]
        return _json({**told, "at": raw.at, "value": raw.value, "quality": raw.quality, "instrument": instrument})
    hold = hold_ms(one.kind, metric)
    found = await asyncio.to_thread(hub.store.buckets, one.key, metric, start, end, buckets, hold)
    return _json({**told, **{name: getattr(found, name) for name in found.__slots__}})


def hold_ms(kind: Kind | None, name: str) -> int:
    """Return for how long a value of a metric counts as current, in ms."""
    known = metric(kind, name) if kind else None
    return (known.max_report_seconds if known else UNTOLD_SECONDS) * 1000


def _found(hub: Given, wanted: str) -> LiveDevice:
    one = hub.live.device(wanted)
    if one is None:
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
                "fresh_until": value.fresh_until,
            }
            for name, value in one.values.items()
        },
    }


def _instant(text: str, name: str) -> int:
    try:
        if text.lstrip("-").isdigit():
            number = int(text)
        else:
            moment = datetime.fromisoformat(text)
            number = math.floor((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError) as exc:
        raise ProblemRaised(422, f"{name}: {text[:40]!r} is neither ISO 8601 nor milliseconds since 1970") from exc
    if not 0 <= number < 1 << 53:
        raise ProblemRaised(422, f"{name}: {text[:40]!r} is outside 1970 to 287396")
    return number


def _json(told: object) -> Response:
    return Response(msgspec.json.encode(told), media_type="application/json")
