"""Whether the hub lives, whether it works, its counters, and what its API looks like."""

from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel

from hub.doors import may, of_this_machine_or, open_to_all
from hub.given import Given
from hub.rights.permissions import Noun, Verb

router = APIRouter(tags=["health"])


class ReadyOut(BaseModel):
    """Whether the hub does its work; what is not as it should be, in words."""

    ready: bool
    broker: str
    acknowledgements: str
    ended: list[str]


WATCHED = open_to_all(
    "whoever watches the hub must hear it when nobody can sign in; it tells nothing of what is measured"
)


@router.get("/healthz", dependencies=[Depends(WATCHED)])
async def healthz() -> dict[str, bool]:
    """Say that the process answers."""
    return {"alive": True}


@router.get("/readyz", dependencies=[Depends(WATCHED)])
async def readyz(hub: Given, response: Response) -> ReadyOut:
    """Say whether the broker is connected and readings are committed and acknowledged; 503 if not."""
    held = hub.ingest.holding
    online = hub.broker.online
    if held or not online or hub.ended:
        response.status_code = 503
    return ReadyOut(
        ready=online and not held and not hub.ended,
        broker="online" if online else "not connected",
        acknowledgements=f"held: {held}" if held else "given",
        ended=hub.ended,
    )


@router.get("/metrics", include_in_schema=False, dependencies=[Depends(of_this_machine_or(Noun.METRICS, Verb.SEE))])
async def metrics(hub: Given) -> Response:
    """Return the hub's counters for Prometheus."""
    return Response(hub.counters.page(), media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get("/openapi.json", include_in_schema=False, dependencies=[Depends(may(Noun.PERMISSIONS, Verb.SEE))])
async def openapi(request: Request) -> dict[str, Any]:
    """Return the API's own description (OpenAPI)."""
    described: dict[str, Any] = request.app.openapi()
    return described
