"""Days as people in Viet Nam count them, and where they lie on the wire's time. Pure."""

from datetime import UTC, date, datetime, time
from zoneinfo import ZoneInfo

ZONE = ZoneInfo("Asia/Ho_Chi_Minh")


def day_start(day: date) -> int:
    """Return when a day begins, ms since 1970 UTC."""
    return int(datetime.combine(day, time(), tzinfo=ZONE).timestamp() * 1000)


def day_of(at: int) -> date:
    """Return the day in which an instant (ms) lies."""
    return datetime.fromtimestamp(at / 1000, UTC).astimezone(ZONE).date()
