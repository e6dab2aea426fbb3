"""The pages: overview, one device, announcing, the daily report; each rendered whole, then kept alive by frames."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, Request, UploadFile
from fastapi.responses import HTMLResponse, RedirectResponse, StreamingResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from hub.announcements import AnnouncementRefused
from hub.announcements import Request as Announce
from hub.api.announcements import LOCAL, speakers_by_id, spoken, upload
from hub.api.completeness import look
from hub.api.delivery import account
from hub.api.problems import ProblemRaised
from hub.audio import AudioRefused
from hub.calendar_day import day_of, day_start
from hub.given import Given
from hub.web import completeness, views
from hub.web.delivery import delivery as delivery_view
from hub.web.delivery import troubles
from hub.web.frames import Frames
from hub.web.i18n import LANGUAGES, Words, chosen, words

router = APIRouter(include_in_schema=False)

_pages = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)

MOST_TYPED = 3000
YEAR_SECONDS = 365 * 86_400


@router.get("/")
async def overview(request: Request, hub: Given) -> HTMLResponse:
    """How things stand."""
    language = chosen(request, hub.config.hub.language)
    return _page(request, hub, language, "overview.html", **_overview(hub, words(language)))


@router.get("/devices/{id}")
async def device(request: Request, id: str, hub: Given) -> HTMLResponse:  # noqa: A002  # the path's word
    """One device: state, values, history."""
    language = chosen(request, hub.config.hub.language)
    found = _device(hub, words(language), id)
    if found is None:
        return _page(request, hub, language, "missing.html", status=404)
    return _page(request, hub, language, "device.html", **found, **await _delivery(hub, words(language), id))


@router.get("/devices/{id}/delivery")
async def delivery(request: Request, id: str, hub: Given) -> HTMLResponse:  # noqa: A002  # the path's word
    """What is told of an edge node's delivery, for its page to renew."""
    language = chosen(request, hub.config.hub.language)
    told = await _delivery(hub, words(language), id)
    if told["delivery"] is None:
        raise ProblemRaised(404, f"there is no edge node {id[:40]!r}")
    return _page(request, hub, language, "_delivery.html", **told)


@router.get("/reports/completeness")
async def report(request: Request, hub: Given, day: str | None = None) -> HTMLResponse:
    """How complete a day is, yesterday unless asked otherwise."""
    language = chosen(request, hub.config.hub.language)
    wanted = day or str(day_of(day_start(day_of(hub.clock.now_ms())) - 1))
    told = completeness.report(await look(hub, wanted), hub.places, words(language))
    return _page(request, hub, language, "completeness.html", report=told)


@router.get("/announce")
async def announce(request: Request, hub: Given) -> HTMLResponse:
    """Say something on loudspeakers."""
    language = chosen(request, hub.config.hub.language)
    return _page(request, hub, language, "announce.html", **_announce(hub, words(language)), **_form())


@router.post("/announce")
async def play(
    request: Request,
    hub: Given,
    speakers: Annotated[list[str] | None, Form()] = None,
    text: Annotated[str, Form()] = "",
    volume: Annotated[int, Form(ge=0, le=100)] = 60,
    file: Annotated[UploadFile | None, File()] = None,
) -> Any:
    """Announce, and go on to the tracker; or show the form again with what was typed and what is wrong."""
    language = chosen(request, hub.config.hub.language)
    said = words(language)
    try:
        audio = await upload(file)
        await spoken(hub).announce(
            Announce(
                speakers=speakers_by_id(hub, speakers or []),
                by=LOCAL,
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
            return _page(request, hub, language, "_compose.html", **_announce(hub, said), **form)
        return _page(request, hub, language, "announce.html", status=422, **_announce(hub, said), **form)
    if request.headers.get("hx-request"):
        return _page(request, hub, language, "_compose.html", **_announce(hub, said), **_form(done=True))
    return RedirectResponse("/announce", status_code=303)


@router.post("/announce/{id}/stop")
async def stop(request: Request, id: str, hub: Given) -> Any:  # noqa: A002  # the path's word
    """Stop an announcement, and go back to where one came from."""
    try:
        await spoken(hub).stop(id, LOCAL)
    except AnnouncementRefused as exc:
        raise ProblemRaised(503, str(exc), code=exc.code) from exc
    if request.headers.get("hx-request"):
        return HTMLResponse("", status_code=204)
    return RedirectResponse("/announce", status_code=303)


@router.get("/frames/{name}")
async def frames(request: Request, name: str, hub: Given, id: str = "") -> StreamingResponse:  # noqa: A002  # a device's id
    """Stream frames of a page as server-sent events."""
    language = chosen(request, hub.config.hub.language)
    said = words(language)
    renders: dict[str, Callable[[], str]] = {
        "overview": lambda: _render("_overview.html", said, **_overview(hub, said)),
        "announce": lambda: _render("_tracker.html", said, **_announce(hub, said)),
        "device": lambda: _render("_device.html", said, **(_device(hub, said, id) or {})),
    }
    if name not in renders or (name == "device" and hub.live.device(id) is None):
        raise ProblemRaised(404, f"there is no page {name[:40]!r}")
    source: Frames = request.app.state.frames

    def whole() -> str:
        return renders[name]() + _render("_on_air.html", said, **_on_air(hub, said))

    async def events() -> AsyncIterator[str]:
        async for frame in source.watch(f"{name}/{id}/{language}", whole):
            lines = "".join(f"data: {line}\n" for line in frame.splitlines())
            yield (lines or "data:\n") + "\n"

    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(events(), media_type="text/event-stream", headers=headers)


def _overview(hub: Given, said: Words) -> dict[str, Any]:
    now, devices = hub.clock.now_ms(), hub.live.devices()
    standings = {one.id: hub.ingest.delivery(one.key.of_node) for one in devices if not one.key.device}
    return {
        "overview": views.overview(devices, hub.places, said, now),
        "troubles": troubles(standings, now, said),
        "holding": hub.ingest.holding,
    }


def _device(hub: Given, said: Words, wanted: str) -> dict[str, Any] | None:
    one = hub.live.device(wanted)
    if one is None:
        return None
    return {"device": views.device(one, hub.places, said, hub.clock.now_ms())}


async def _delivery(hub: Given, said: Words, wanted: str) -> dict[str, Any]:
    """Return an edge node's delivery, None for a device behind it: that has none of its own."""
    one = hub.live.device(wanted)
    if one is None or one.key.device:
        return {"id": wanted, "delivery": None}
    return {"id": wanted, "delivery": delivery_view(await account(hub, one.key.of_node), said)}


def _announce(hub: Given, said: Words) -> dict[str, Any]:
    now = hub.clock.now_ms()
    return {
        "loudspeakers": [
            views.device(one, hub.places, said, now, full=False)
            for one in hub.live.devices()
            if one.kind == "loudspeaker" and hub.places.of(one.key.of_node) is not None
        ],
        "announcements": [
            views.announcement(one, hub.places, said, now)
            for one in (hub.announcements.recent(10) if hub.announcements else ())
        ],
        "can_announce": hub.announcements is not None,
    }


def _form(
    *, text: str = "", volume: int = 60, selected: list[str] | None = None, error: str = "", done: bool = False
) -> dict[str, Any]:
    return {"text": text, "volume": volume, "selected": selected or [], "error": error, "done": done}


def _on_air(hub: Given, said: Words) -> dict[str, Any]:
    now = hub.clock.now_ms()
    recent = hub.announcements.recent(10) if hub.announcements else ()
    shown = [views.announcement(one, hub.places, said, now) for one in recent]
    return {"on_air": [one for one in shown if one.on_air]}


def _page(
    request: Request, hub: Given, language: str, template: str, *, status: int = 200, **told: Any
) -> HTMLResponse:
    said = words(language)
    extra = {"path": request.url.path, "languages": LANGUAGES, **_on_air(hub, said)}
    response = HTMLResponse(_render(template, said, **told, **extra), status_code=status)
    if request.query_params.get("lang") in LANGUAGES:
        response.set_cookie("lang", language, max_age=YEAR_SECONDS, samesite="strict", httponly=True)
    response.headers["Cache-Control"] = "no-store"
    return response


def _render(template: str, said: Words, **told: Any) -> str:
    gettext = said._
    return _pages.get_template(template).render(_=gettext, lang=said.language, **told)
