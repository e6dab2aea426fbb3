"""Vietnamese and English from one pair of catalogues, and the numbers, times and ages people read."""

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import cache
from pathlib import Path

from babel.dates import format_date, format_datetime, format_timedelta
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from babel.numbers import format_decimal
from babel.support import Translations
from starlette.requests import Request

from contract.metrics import Value
from hub.calendar_day import ZONE

LANGUAGES = ("vi", "en")
CATALOGUES = Path(__file__).parent / "messages"

UNITS = {
    "Cel": "°C",
    "uS/cm": "µS/cm",
    "ug/m3": "µg/m³",
    "{NTU}": "NTU",
    "{px}": "px",
    "{client}": "",
    "{radio}": "",
    "[pH]": "",
    "1": "",
    "s": "s",
}
"""UCUM codes as people write them; others stand as they are."""


@dataclass(frozen=True, slots=True)
class Words:
    """One language: its words, and how it writes numbers and times."""

    language: str
    _: Callable[[str], str]
    many: Callable[[str, str, int], str]

    def time(self, at: int) -> str:
        """Return an instant (ms) in Viet Nam's time, date first where it is not today's reading."""
        return format_datetime(
            datetime.fromtimestamp(at / 1000, UTC), "dd/MM/yyyy HH:mm:ss", tzinfo=ZONE, locale=self.language
        )

    def ago(self, at: int, now: int) -> str:
        """Return how long ago an instant was."""
        seconds = max(0, now - at) // 1000
        if seconds < 5:
            return self._("just now")
        return format_timedelta(timedelta(seconds=-seconds), add_direction=True, threshold=1.2, locale=self.language)

    def span(self, milliseconds: int) -> str:
        """Return a length of time."""
        return format_timedelta(timedelta(milliseconds=max(0, milliseconds)), threshold=1.2, locale=self.language)

    def number(self, number: int) -> str:
        """Return a whole number."""
        return str(format_decimal(number, "#,##0", locale=self.language))

    def percent(self, share: float) -> str:
        """Return a share of 1 in percent, rounded down: what is not whole is never shown as 100."""
        hundredths = math.floor(round(share * 10_000, 6))
        return f"{format_decimal(Decimal(hundredths) / 100, '#,##0.##', locale=self.language)}%"

    def size(self, count: int) -> str:
        """Return a number of bytes in MB."""
        return f"{format_decimal(Decimal(count) / 1_000_000, '#,##0.0', locale=self.language)} MB"

    def day(self, day: date) -> str:
        """Return a day of the calendar."""
        return str(format_date(day, "EEEE, dd/MM/yyyy", locale=self.language))

    def value(self, value: Value, unit: str) -> str:
        """Return a value with its unit."""
        if value is None or isinstance(value, bytes):
            return self._("no value")
        if isinstance(value, bool):
            return self._("yes") if value else self._("no")
        if isinstance(value, str):
            return value
        if unit == "s":
            return self.span(int(value) * 1000)
        number = format_decimal(value, "#,##0.###", locale=self.language)
        shown = UNITS.get(unit, unit)
        return f"{number} {shown}" if shown else number


@cache
def words(language: str) -> Words:
    """Return the words of a language."""
    with (CATALOGUES / language / "LC_MESSAGES" / "messages.po").open("rb") as source:
        catalogue = read_po(source, locale=language)
    compiled = io.BytesIO()
    write_mo(compiled, catalogue)
    compiled.seek(0)
    translations = Translations(compiled)
    return Words(language, translations.gettext, translations.ngettext)


def chosen(request: Request, default: str) -> str:
    """Return the language of a request: what was asked for, else what was kept, else the browser's, else the hub's."""
    asked = request.query_params.get("lang") or request.cookies.get("lang")
    if asked in LANGUAGES:
        return str(asked)
    for part in request.headers.get("accept-language", "").split(","):
        name = part.split(";")[0].strip().lower()[:2]
        if name in LANGUAGES:
            return name
    return default
