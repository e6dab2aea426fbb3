"""Errors as RFC 9457 problem details, for every way a request can go wrong."""

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from hub.doors import Missing, Turned
from hub.rights.permissions import Reason
from hub.storage.timeseries import StoreUnavailable

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"


class Problem(BaseModel):
    """RFC 9457, 3.1; `code` is a stable word for programs and for the pages' catalogue."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str | None = None


class ProblemRaised(Exception):
    """Ends a request with a problem."""

    def __init__(
        self, status: int, detail: str, *, code: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.code = code
        self.headers = headers or {}


RESPONSES: dict[int | str, dict[str, Any]] = {
    "default": {"description": "A problem (RFC 9457)", "content": {MEDIA_TYPE: {"schema": Problem.model_json_schema()}}}
}


def install(application: FastAPI) -> None:
    """Make the application answer every error as a problem."""

    @application.exception_handler(ProblemRaised)
    async def _raised(_: Request, exc: ProblemRaised) -> JSONResponse:
        response = _response(exc.status, exc.detail, exc.code)
        response.headers.update(exc.headers)
        return response

    @application.exception_handler(Turned)
    async def _turned(_: Request, exc: Turned) -> JSONResponse:
        return turned(exc)

    @application.exception_handler(Missing)
    async def _missing(_: Request, exc: Missing) -> JSONResponse:
        return missing(exc)

    @application.exception_handler(StoreUnavailable)
    async def _store(_: Request, exc: StoreUnavailable) -> JSONResponse:
        return _response(503, f"the store does not answer: {exc}", "store_unavailable")

    @application.exception_handler(HTTPException)
    async def _http(_: Request, exc: HTTPException) -> JSONResponse:
        return _response(exc.status_code, str(exc.detail))

    @application.exception_handler(RequestValidationError)
    async def _invalid(_: Request, exc: RequestValidationError) -> JSONResponse:
        faults = (f"{'.'.join(map(str, one['loc'][1:])) or 'body'}: {one['msg']}" for one in exc.errors())
        return _response(422, "; ".join(faults))

    @application.exception_handler(Exception)
    async def _broken(request: Request, exc: Exception) -> JSONResponse:
        log.error("%s %s failed", request.method, request.url.path, exc_info=exc)
        return _response(500, "the hub made a mistake; its log says which")


_TURNED = {
    Reason.NOT_SIGNED_IN: (401, "sign in, or send a token (Authorization: Bearer ...)"),
    Reason.NO_RIGHT: (403, "none of your roles may do that; /permissions says which may"),
    Reason.OUT_OF_SCOPE: (403, "that reaches beyond the places you work for"),
    Reason.STEP_UP: (403, "that wants a sign-in of the last five minutes; sign in again"),
}


def missing(exc: Missing) -> JSONResponse:
    """Return what is told of a thing that is not there, or not for this caller."""
    return _response(404, str(exc))


def turned(exc: Turned, words: str = "") -> JSONResponse:
    """Return what somebody is told who was not let in, in their own words if given."""
    status, detail = _TURNED[exc.reason]
    response = _response(status, words or f"{exc.verb} {exc.noun}: {detail}", exc.reason)
    if status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def _response(status: int, detail: str, code: str | None = None) -> JSONResponse:
    problem = Problem(title=HTTPStatus(status).phrase, status=status, detail=detail, code=code)
    return JSONResponse(problem.model_dump(exclude_none=True), status_code=status, media_type=MEDIA_TYPE)
