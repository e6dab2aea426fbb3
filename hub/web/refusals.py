"""What people see who are not let in: the way to sign in, a page that says why not, or that there is no such thing."""

from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.responses import RedirectResponse, Response
from starlette.routing import BaseRoute

from hub.api.problems import missing, turned
from hub.doors import Missing, Turned
from hub.given import Hub
from hub.rights.permissions import Reason
from hub.web import account_words
from hub.web.render import page, said_to


def install(application: FastAPI) -> None:
    """Make pages answer with pages where the API answers with problems."""

    @application.exception_handler(Turned)
    async def _turned(request: Request, exc: Turned) -> Response:
        if not _is_page(request):
            return turned(exc)
        hub: Hub = request.app.state.hub
        gettext = said_to(request, hub)._
        if request.headers.get("hx-request"):
            # Shown beside what was typed, which stays where it is.
            return turned(exc, gettext(account_words.TURNED[exc.reason]))
        match exc.reason:
            case Reason.NOT_SIGNED_IN:
                return _to("/sign-in", request)
            case Reason.STEP_UP:
                return _to("/step-up", request)
            case _:
                words = gettext(account_words.TURNED[exc.reason])
                return page(request, hub, "turned.html", status=403, words=words)

    @application.exception_handler(Missing)
    async def _missing(request: Request, exc: Missing) -> Response:
        if not _is_page(request):
            return missing(exc)
        return page(request, request.app.state.hub, "missing.html", status=404)


def way_back(path: str) -> str:
    """Return a path of this hub to go on to; the first page for anything else, so that no link leads elsewhere."""
    plain = path.isascii() and path.isprintable() and "\\" not in path
    return path if plain and path.startswith("/") and not path.startswith("//") else "/"


def _to(where: str, request: Request) -> RedirectResponse:
    path = request.url.path
    if request.method == "GET":
        path += f"?{request.url.query}" if request.url.query else ""
    else:
        # What was posted cannot be posted again by itself: back to the page it came from.
        first, second = [*path.split("/")[1:], ""][:2]
        path = f"/{first}/{second}" if first == "people" and second else f"/{first}"
    return RedirectResponse(f"{where}?next={quote(path, safe='')}", status_code=303)


def _is_page(request: Request) -> bool:
    route: BaseRoute | None = request.scope.get("route")
    return "pages" in getattr(route, "tags", ())
