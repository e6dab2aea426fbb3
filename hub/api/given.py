"""What every endpoint is given: the hub it speaks for."""

from typing import TYPE_CHECKING, Annotated, cast

from fastapi import Depends, Request

if TYPE_CHECKING:
    from hub.app import Hub


def _hub(request: Request) -> "Hub":
    return cast("Hub", request.app.state.hub)


Given = Annotated["Hub", Depends(_hub)]
