"""How long a sign-in, a link and a token last. Pure."""

MINUTE = 60_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR

IDLE_MS = 8 * HOUR
"""A session nobody used for a working day is over."""

ABSOLUTE_MS = 7 * DAY
SEEN_EVERY_MS = MINUTE
"""How exactly it is kept when a session was last used."""

FIRST_START_MS = 15 * MINUTE
SET_UP_MS = DAY
LONGEST_TOKEN_MS = 366 * DAY
LONGEST_DEPUTY_MS = 92 * DAY


def alive(*, created_at: int, seen_at: int, now: int) -> bool:
    """Return whether a session counts at an instant (all ms); one from the future, after a clock jumped, does not."""
    return created_at <= now + MINUTE and now - seen_at < IDLE_MS and now - created_at < ABSOLUTE_MS
