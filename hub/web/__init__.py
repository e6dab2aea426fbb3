"""The hub for people: pages, one file per task they come to do."""

from pathlib import Path

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles

from hub.given import Hub
from hub.web import commands, own_account, pages, people, permissions, record, refusals, sign_in
from hub.web.frames import Frames


def install(application: FastAPI) -> None:
    """Give the application its pages and static files."""
    for router in (
        pages.router,
        pages.streams,
        commands.router,
        sign_in.router,
        own_account.router,
        people.router,
        permissions.router,
        record.router,
    ):
        application.include_router(router)
    refusals.install(application)
    application.mount("/static", StaticFiles(directory=Path(__file__).parent / "static"), name="static")


def frames_for(hub: Hub) -> Frames:
    """Return the frames of a hub's pages."""
    return Frames(
        live=hub.live, commands=hub.commands, announcements=hub.announcements, closing=hub.closing, clock=hub.clock
    )
