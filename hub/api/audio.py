"""Audio by digest: what edge nodes fetch, and what a person hears before it airs."""

from fastapi import APIRouter, Depends
from fastapi.responses import FileResponse

from hub.api.problems import RESPONSES, ProblemRaised
from hub.doors import open_to_all
from hub.given import Given

router = APIRouter(prefix="/audio", tags=["audio"], responses=RESPONSES)


OPEN = open_to_all("edge nodes fetch it by a digest that nobody can guess and only an announcement tells")


@router.get("/{sha256}", response_class=FileResponse, dependencies=[Depends(OPEN)])
async def audio(sha256: str, hub: Given) -> FileResponse:
    """Return a FLAC file by its SHA-256; it never changes."""
    path = hub.audio.path(sha256)
    if path is None:
        raise ProblemRaised(404, f"there is no audio {sha256[:64]!r}")
    headers = {"Cache-Control": "public, max-age=31536000, immutable"}
    return FileResponse(path, media_type="audio/flac", headers=headers)
