"""The pages: overview, one device, announcing, the daily report; each rendered whole, then kept alive by frames."""

from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, File, Form, Request, UploadFile
from fastapi.responses import HTMLResponse, RedirectResponse, StreamingResponse

from hub.announcements import AnnouncementRefused
from hub.announcements import Request as Announce
from hub.api.announcements import MAKES, SEES, STOPS_THIS, speakers_by_id, spoken, upload
from hub.api.completeness import look
from hub.api.delivery import account
from hub.api.problems import ProblemRaised
from hub.audio import AudioRefused
from hub.border import identified
from hub.calendar_day import day_of, day_start
from hub.doors import Asked, Missing, may, of_device
from hub.given import Given, Hub
from hub.rights.permissions import Noun, Verb
from hub.rights.scopes import Reach
from hub.web import completeness, views
from hub.web.commands import shown
from hub.web.delivery import delivery as delivery_view
from hub.web.delivery import troubles
from hub.web.frames import Frames
from hub.web.i18n import Words
from hub.web.render import Sight, announced, of_our_form, on_air, page, render, said_to, sight

router = APIRouter(include_in_schema=False, tags=["pages"], dependencies=[Depends(of_our_form)])
streams = APIRouter(prefix="/frames", include_in_schema=False)

SEES_DEVICES = Annotated[Asked, Depends(may(Noun.DEVICE, Verb.SEE))]
SEES_DEVICE = Annotated[Asked, Depends(may(Noun.DEVICE, Verb.SEE, of_device))]


@router.get("/")
async def overview(request: Request, hub: Given, asked: SEES_DEVICES) -> HTMLResponse:
    """How things stand."""
    return page(request, hub, "overview.html", **_overview(hub, said_to(request, hub), sight(asked.caller)))


@router.get("/devices/{id}")
async def device(request: Request, id: str, hub: Given, asked: SEES_DEVICE) -> HTMLResponse:  # noqa: A002  # the path's word
    """One device: state, values, history."""
    said = said_to(request, hub)
    told = await _delivery(hub, said, asked.to(Noun.EDGE_NODE, Verb.SEE), id)
    found = _device(hub, said, sight(asked.caller), id)
    if found is None:
        raise Missing(f"there is no device {id[:40]!r}")
    return page(request, hub, "device.html", **found, **told)


@router.get("/devices/{id}/delivery")
async def delivery(
    request: Request,
    id: str,  # noqa: A002  # the path's word
    hub: Given,
    asked: Annotated[Asked, Depends(may(Noun.EDGE_NODE, Verb.SEE, of_device))],
) -> HTMLResponse:
    """What is told of an edge node's delivery, for its page to renew."""
    told = await _delivery(hub, said_to(request, hub), asked.reach, id)
    if told["delivery"] is None:
        raise Missing(f"there is no edge node {id[:40]!r}")
    return page(request, hub, "_delivery.html", **told)


@router.get("/reports/completeness")
async def report(
    request: Request,
    hub: Given,
    asked: Annotated[Asked, Depends(may(Noun.REPORT, Verb.SEE))],
    day: str | None = None,
) -> HTMLResponse:
    """How complete a day is, yesterday unless asked otherwise."""
    wanted = day or str(day_of(day_start(day_of(hub.clock.now_ms())) - 1))
    told = completeness.report(await look(hub, wanted, asked.reach), hub.places, said_to(request, hub))
    return page(request, hub, "completeness.html", report=told)


@router.get("/announce")
async def announce(request: Request, hub: Given, asked: SEES) -> HTMLResponse:
    """Say something on loudspeakers."""
    told = _announce(hub, said_to(request, hub), sight(asked.caller))
    return page(request, hub, "announce.html", **told, **_form())


@router.post("/announce")
async def play(
    request: Request,
    hub: Given,
    asked: MAKES,
    speakers: Annotated[list[str] | None, Form()] = None,
    text: Annotated[str, Form()] = "",
    volume: Annotated[int, Form(ge=0, le=100)] = 60,
    file: Annotated[UploadFile | None, File()] = None,
) -> Any:
    """Announce, and go on to the tracker; or show the form again with what was typed and what is wrong."""
    said, sees = said_to(request, hub), sight(asked.caller)
    try:
        audio = await upload(file)
        await spoken(hub).announce(
            Announce(
                speakers=speakers_by_id(hub, speakers or [], asked.reach),
                by=asked.caller.by,
                volume=volume,
                text=text if audio is None else "",
                audio=audio,
                filename=(file.filename or "")[:200] if file is not None and audio is not None else "",
            )
        )
    except (AnnouncementRefused, AudioRefused, ProblemRaised) as exc:
        gettext = said._
        known = views.REFUSAL_WORDS.get(exc.code or "")
        error = gettext(known) if known else str(exc)
        form = _form(text=text, volume=volume, selected=speakers or [], error=error)
        if request.headers.get("hx-request"):
            return page(request, hub, "_compose.html", **_announce(hub, said, sees), **form)
        return page(request, hub, "announce.html", status=422, **_announce(hub, said, sees), **form)
    if request.headers.get("hx-request"):
        return page(request, hub, "_compose.html", **_announce(hub, said, sees), **_form(done=True))
    return RedirectResponse("/announce", status_code=303)


@router.post("/announce/{id}/stop")
async def stop(request: Request, id: str, hub: Given, asked: STOPS_THIS) -> Any:  # noqa: A002  # the path's word
    """Stop an announcement, and go back to where one came from."""
    try:
        await spoken(hub).stop(id, asked.caller.by)
    except AnnouncementRefused as exc:
        raise ProblemRaised(503, str(exc), code=exc.code) from exc
    if request.headers.get("hx-request"):
        return HTMLResponse("", status_code=204)
    return RedirectResponse("/announce", status_code=303)


@streams.get("/overview")
async def overview_frames(request: Request, hub: Given, asked: SEES_DEVICES) -> StreamingResponse:
    """Stream frames of the overview."""
    said, sees = said_to(request, hub), sight(asked.caller)
    return _stream(request, hub, "overview", lambda: render("_overview.html", said, **_overview(hub, said, sees)))


@streams.get("/announce")
async def announce_frames(request: Request, hub: Given, asked: SEES) -> StreamingResponse:
    """Stream frames of the announcements' stages."""
    said, sees = said_to(request, hub), sight(asked.caller)
    return _stream(
        request, hub, "announce", lambda: render("_tracker.html", said, form_token="", **_announce(hub, said, sees))
    )


@streams.get("/device")
async def device_frames(request: Request, id: str, hub: Given, asked: SEES_DEVICE) -> StreamingResponse:  # noqa: A002  # a device's id
    """Stream frames of a device."""
    said, sees = said_to(request, hub), sight(asked.caller)

    def body() -> str:
        found = _device(hub, said, sees, id)
        return render("_device.html", said, form_token="", **found) if found is not None else ""

    return _stream(request, hub, f"device {id}", body, there=lambda: hub.live.device(id) is not None)


def _stream(
    request: Request, hub: Hub, name: str, body: Callable[[], str], *, there: Callable[[], bool] = lambda: True
) -> StreamingResponse:
    """Stream frames as server-sent events, while the caller's rights stay what they were and the thing is there."""
    said, source = said_to(request, hub), request.app.state.frames
    assert isinstance(source, Frames)  # noqa: S101  # hub/app.py put it there
    sees = sight(identified(request.scope, used=False))

    def whole() -> str:
        return body() + render("_on_air.html", said, form_token="", on_air=on_air(hub, said, sees))

    def still() -> bool:
        return there() and sight(identified(request.scope, used=False)) == sees

    async def events() -> AsyncIterator[str]:
        async for frame in source.watch((name, said.language, sees), whole, still):
            lines = "".join(f"data: {line}\n" for line in frame.splitlines())
            yield (lines or "data:\n") + "\n"

    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(events(), media_type="text/event-stream", headers=headers)


def _overview(hub: Hub, said: Words, sees: Sight) -> dict[str, Any]:
    now = hub.clock.now_ms()
    devices = [one for one in hub.live.devices() if sees.devices.sees(one.key)]
    standings = {one.id: hub.ingest.delivery(one.key.of_node) for one in devices if not one.key.device}
    return {
        "overview": views.overview(devices, hub.places, said, now),
        "troubles": troubles(standings, now, said),
        "holding": hub.ingest.holding,
        "may_announce": bool(sees.make),
    }


def _device(hub: Hub, said: Words, sees: Sight, wanted: str) -> dict[str, Any] | None:
    """Return what is shown of a device, None once it was taken out of its box's configuration."""
    one = hub.live.device(wanted)
    if one is None:
        return None
    return {
        "device": views.device(one, hub.places, said, hub.clock.now_ms()),
        "may_announce": sees.make.sees(one.key),
        "may_see_history": sees.history.sees(one.key),
        **shown(hub, said, sees, one),
    }


async def _delivery(hub: Hub, said: Words, reach: Reach, wanted: str) -> dict[str, Any]:
    """Return an edge node's delivery, None for a device behind it: that has none of its own."""
    one = hub.live.device(wanted)
    if one is None or one.key.device or not reach.sees(one.key):
        return {"id": wanted, "delivery": None}
    return {"id": wanted, "delivery": delivery_view(await account(hub, one.key.of_node), said)}


def _announce(hub: Hub, said: Words, sees: Sight) -> dict[str, Any]:
    now = hub.clock.now_ms()
    return {
        "loudspeakers": [
            views.device(one, hub.places, said, now, full=False)
            for one in hub.live.devices()
            if one.kind == "loudspeaker" and hub.places.of(one.key.of_node) is not None and sees.make.sees(one.key)
        ],
        "announcements": announced(hub, said, sees),
        "can_announce": hub.announcements is not None,
        "may_announce": bool(sees.make),
    }


def _form(
    *, text: str = "", volume: int = 60, selected: list[str] | None = None, error: str = "", done: bool = False
) -> dict[str, Any]:
    return {"text": text, "volume": volume, "selected": selected or [], "error": error, "done": done}
