"""A span of time that was asked for: ISO 8601 or milliseconds in, [start, end) in milliseconds out."""

import math
from datetime import UTC, date, datetime, timedelta
from typing import Annotated

from fastapi import Query

from hub.api.problems import ProblemRaised
from hub.calendar_day import day_start

DAY = 86_400_000

From = Annotated[str | None, Query(alias="from", description="ISO 8601 or ms since 1970, included")]
To = Annotated[str | None, Query(description="ISO 8601 or ms since 1970, not included; default now")]
Day = Annotated[str, Query(description="a day of Viet Nam's calendar, like 2026-11-25")]


def instant(text: str, name: str) -> int:
    """Return an instant in ms; without a zone it is UTC. Raises a problem that names it."""
    try:
        if text.lstrip("-").isdigit():
            number = int(text)
        else:
            moment = datetime.fromisoformat(text)
            number = math.floor((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError) as exc:
        raise ProblemRaised(422, f"{name}: {text[:40]!r} is neither ISO 8601 nor milliseconds since 1970") from exc
    if not 0 <= number < 1 << 53:
        raise ProblemRaised(422, f"{name}: {text[:40]!r} is outside 1970 to 287396")
    return number


def span(from_: str | None, to: str | None, *, now: int, default: int, most_days: int) -> tuple[int, int]:
    """Return start and end; raise a problem where they are turned round, too far apart, or not yet.

    `default` is how many ms before the end it starts where nothing was asked for.
    """
    end = instant(to, "to") if to is not None else now
    start = instant(from_, "from") if from_ is not None else end - default
    if start >= end:
        raise ProblemRaised(422, f"from ({start}) must be before to ({end})")
    if end > now + DAY:
        raise ProblemRaised(422, f"to ({end}) is more than a day ahead of now ({now}): nothing can be known of it yet")
    if end - start > most_days * DAY:
        days = (end - start) // DAY
        raise ProblemRaised(422, f"from and to are {days} days apart; ask for at most {most_days} days at a time")
    return start, end


def day(text: str, now: int) -> tuple[date, int, int]:
    """Return a day of Viet Nam's calendar with its start and end in ms; raise a problem where it has not begun."""
    try:
        wanted = date.fromisoformat(text)
        start, end = day_start(wanted), day_start(wanted + timedelta(days=1))
    except (ValueError, OverflowError) as exc:
        raise ProblemRaised(422, f"day: {text[:40]!r} is no day; write it like 2026-11-25") from exc
    if start < 0:
        raise ProblemRaised(422, f"day: {text[:40]!r} is before 1970")
    if start > now:
        raise ProblemRaised(422, f"day: {text[:40]!r} has not begun yet")
    return wanted, start, end
