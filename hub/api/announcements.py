"""Announcements: asking for one, watching its stages, stopping it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Depends, File, Form, UploadFile
from pydantic import BaseModel

from hub.announcements import AnnouncementRefused, Announcements, Request
from hub.api.problems import RESPONSES, ProblemRaised
from hub.audio import MOST_UPLOAD, AudioRefused
from hub.devices import DeviceKey, device_id
from hub.doors import Asked, may, of_announcement
from hub.given import Given
from hub.rights.permissions import Noun, Verb
from hub.rights.scopes import Reach
from hub.storage.announcements import Announcement

router = APIRouter(prefix="/api/announcements", tags=["announcements"], responses=RESPONSES)

MAKES = Annotated[Asked, Depends(may(Noun.ANNOUNCEMENT, Verb.MAKE))]
SEES = Annotated[Asked, Depends(may(Noun.ANNOUNCEMENT, Verb.SEE))]
SEES_THIS = Annotated[Asked, Depends(may(Noun.ANNOUNCEMENT, Verb.SEE, of_announcement, in_part=True))]
STOPS_THIS = Annotated[Asked, Depends(may(Noun.ANNOUNCEMENT, Verb.STOP, of_announcement))]


class PartOut(BaseModel):
    """One loudspeaker: how far it has come, why, and when it reached each stage (ms)."""

    device: str
    name: str
    stage: str
    reason: str
    at: dict[str, int]


class AnnouncementOut(BaseModel):
    """An announcement and what became of it on each loudspeaker."""

    id: str
    created_at: int
    expires_at: int
    issuer: str
    text: str
    filename: str
    sha256: str
    duration_ms: int
    volume: int
    parts: list[PartOut]


class AnnouncementsOut(BaseModel):
    """The newest announcements, newest first."""

    announcements: list[AnnouncementOut]


@router.post("", status_code=201)
async def announce(
    hub: Given,
    asked: MAKES,
    speakers: Annotated[list[str], Form(description="device ids")],
    text: Annotated[str, Form(description="what shall be said, in Vietnamese")] = "",
    volume: Annotated[int, Form(ge=0, le=100)] = 60,
    why: Annotated[str, Form(max_length=300)] = "",
    file: Annotated[UploadFile | None, File(description="an audio file instead of text")] = None,
) -> AnnouncementOut:
    """Play text or a file on loudspeakers; answers as soon as it is signed and on its way."""
    chosen = speakers_by_id(hub, speakers, asked.reach)
    audio = await upload(file)
    request = Request(
        speakers=chosen,
        by=asked.caller.by,
        volume=volume,
        text=text if audio is None else "",
        audio=audio,
        filename=(file.filename or "")[:200] if file is not None and audio is not None else "",
        why=why,
    )
    try:
        return out(await spoken(hub).announce(request), asked)
    except (AnnouncementRefused, AudioRefused) as exc:
        raise ProblemRaised(503 if exc.code in {"no_signer", "no_voice"} else 422, str(exc), code=exc.code) from exc


@router.get("")
async def announcements(hub: Given, asked: SEES) -> AnnouncementsOut:
    """List the newest announcements that are to be heard where the caller works."""
    return AnnouncementsOut(announcements=[out(one, asked) for one in seen(spoken(hub).recent(50), asked.reach)])


@router.get("/{id}")
async def announcement(id: str, hub: Given, asked: SEES_THIS) -> AnnouncementOut:  # noqa: A002  # the path's word
    """Show one announcement with its stages, as far as the caller's places go."""
    found = spoken(hub).get(id)
    if found is None:
        raise ProblemRaised(404, f"there is no announcement {id[:40]!r}")
    return out(found, asked)


@router.post("/{id}/stop", status_code=202)
async def stop(id: str, hub: Given, asked: STOPS_THIS) -> AnnouncementOut:  # noqa: A002  # the path's word
    """Stop an announcement wherever it sounds; all of that must be where the caller works."""
    try:
        return out(await spoken(hub).stop(id, asked.caller.by), asked)
    except AnnouncementRefused as exc:
        raise ProblemRaised(404 if exc.code == "unknown" else 503, str(exc), code=exc.code) from exc


def spoken(hub: Given) -> Announcements:
    """Return the announcements of a hub that can announce; raise a problem otherwise."""
    if hub.announcements is None:
        raise ProblemRaised(503, "this hub has no [broadcast] section: nothing can be announced", code="no_broadcast")
    return hub.announcements


def seen(ones: Sequence[Announcement], reach: Reach) -> list[Announcement]:
    """Return the announcements that are to be heard within a reach, each without its parts elsewhere."""
    within = (replace(one, parts=tuple(part for part in one.parts if reach.sees(part.device))) for one in ones)
    return [one for one in within if one.parts]


def speakers_by_id(hub: Given, wanted: Sequence[str], reach: Reach) -> list[DeviceKey]:
    """Return loudspeakers by their device ids; raise a problem naming one that is none, or out of reach."""
    chosen = []
    for one in wanted:
        device = hub.live.device(one)
        if device is None or device.kind != "loudspeaker" or not reach.sees(device.key):
            raise ProblemRaised(422, f"{one[:40]!r} is not a loudspeaker; /api/devices lists all", code="no_speaker")
        chosen.append(device.key)
    return chosen


async def upload(file: UploadFile | None) -> bytes | None:
    """Return an uploaded file's bytes, None if nothing was chosen; raise a problem if it is too large."""
    if file is None or (not file.filename and not file.size):
        return None
    raw = await file.read(MOST_UPLOAD + 1)
    if len(raw) > MOST_UPLOAD:
        raise ProblemRaised(413, f"the file is larger than {MOST_UPLOAD // 1024 // 1024} MiB", code="file_too_large")
    return raw


def out(one: Announcement, asked: Asked) -> AnnouncementOut:
    """Return an announcement as the API shows it: parts within reach, the audio's digest to who may hear it."""
    parts = [part for part in one.parts if asked.to(Noun.ANNOUNCEMENT, Verb.SEE).sees(part.device)]
    hear = asked.to(Noun.AUDIO, Verb.HEAR)
    return AnnouncementOut(
        id=one.id,
        created_at=one.created_at,
        expires_at=one.expires_at,
        issuer=one.issuer,
        text=one.text,
        filename=one.filename,
        sha256=one.sha256 if any(hear.sees(part.device) for part in one.parts) else "",
        duration_ms=one.duration_ms,
        volume=one.volume,
        parts=[
            PartOut(
                device=device_id(part.device),
                name=part.device.device,
                stage=part.stage,
                reason=part.reason,
                at={str(stage): at for stage, at in part.at.items()},
            )
            for part in parts
        ],
    )
