"""What every page and endpoint is given to work with: the parts of a running hub."""

import asyncio
from dataclasses import dataclass, field
from typing import Annotated, cast

from fastapi import Depends, Request

from contract.clock import Clock
from hub.announcements import Announcements
from hub.asking import Asking
from hub.audio import AudioStore
from hub.broker import Broker
from hub.commands import Commands
from hub.completeness import Days
from hub.config import Config
from hub.costly_answers import CostlyAnswers
from hub.counters import Counters
from hub.exports import Exports
from hub.ingest import Ingest
from hub.live_state import LiveState
from hub.people.reception import Reception
from hub.places import Places
from hub.quarantine import Quarantine
from hub.storage.audit import Audit
from hub.storage.timeseries import TimeSeries


@dataclass(slots=True)
class Hub:
    """What pages and API are given to work with; `announcements` is None where nothing can be announced."""

    config: Config
    clock: Clock
    store: TimeSeries
    live: LiveState
    places: Places
    broker: Broker
    ingest: Ingest
    counters: Counters
    audio: AudioStore
    ask: Asking
    exports: Exports
    days: CostlyAnswers[Days]
    audit: Audit
    reception: Reception
    announcements: Announcements | None
    commands: Commands
    quarantine: Quarantine
    closing: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when open streams must end, so that the server can."""
    ended: list[str] = field(default_factory=list)
    """Loops that ended although they must not; /readyz names them."""


def _hub(request: Request) -> Hub:
    return cast("Hub", request.app.state.hub)


Given = Annotated[Hub, Depends(_hub)]
