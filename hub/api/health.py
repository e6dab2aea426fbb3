"""Whether the hub lives, whether it works, and its counters."""

from fastapi import APIRouter, Response
from pydantic import BaseModel

from hub.given import Given

router = APIRouter(tags=["health"])


class ReadyOut(BaseModel):
    """Whether the hub does its work; what is not as it should be, in words."""

    ready: bool
    broker: str
    acknowledgements: str
    ended: list[str]


@router.get("/healthz")
async def healthz() -> dict[str, bool]:
    """Say that the process answers."""
    return {"alive": True}


@router.get("/readyz")
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


@router.get("/metrics", include_in_schema=False)
async def metrics(hub: Given) -> Response:
    """Return the hub's counters for Prometheus."""
    return Response(hub.counters.page(), media_type="text/plain; version=0.0.4; charset=utf-8")
