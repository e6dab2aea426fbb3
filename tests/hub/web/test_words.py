"""Every word of the pages exists in both languages, and nothing stands in a catalogue that no page says."""

import io
from pathlib import Path

import pytest
from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po

from contract.catalog import Cause, Condition, Kind, metric
from hub.web.health import _CONDITIONS
from hub.web.i18n import CATALOGUES, LANGUAGES, words
from hub.web.views import _FIRST, CAUSE_WORDS

WEB = Path(CATALOGUES).parent


def said() -> set[str]:
    found = extract_from_dir(
        WEB, [("**.py", "python"), ("**/templates/**.html", "jinja2")], keywords={"_": None, "N_": None}
    )
    return {one for _, _, message, *_ in found if isinstance(one := message, str)}


def catalogue(language: str) -> Catalog:
    return read_po(io.BytesIO((CATALOGUES / language / "LC_MESSAGES" / "messages.po").read_bytes()), locale=language)


@pytest.mark.parametrize("language", LANGUAGES)
def test_nothing_is_untranslated_and_nothing_is_left_over(language: str) -> None:
    translated = {str(one.id): str(one.string) for one in catalogue(language) if one.id}
    assert said() == set(translated)
    assert [one for one, text in translated.items() if not text] == []


def test_placeholders_are_the_same_in_both_languages() -> None:
    vi, en = catalogue("vi"), catalogue("en")
    for one in vi:
        if one.id:
            other = en.get(str(one.id))
            assert other is not None
            for name in ("%(bad)d", "%(total)d", "%(dark)d", "%(span)s"):
                assert (name in str(one.string)) == (name in str(other.string)), one.id


def test_every_cause_an_edge_node_can_tell_has_words() -> None:
    assert {cause.value for cause in Cause} <= set(CAUSE_WORDS)


def test_every_condition_a_device_can_be_in_has_words_and_a_meaning() -> None:
    assert {one.value for one in Condition} - {"ok"} <= set(CAUSE_WORDS)
    assert set(Condition) - {Condition.OK} == set(_CONDITIONS)


def test_every_kind_of_device_shows_something_in_a_list() -> None:
    for kind, shown in _FIRST.items():
        assert all(metric(kind, one) is not None for one in shown), kind
    assert set(_FIRST) == set(Kind)


def test_numbers_and_times_are_written_as_each_language_does() -> None:
    vi, en = words("vi"), words("en")
    assert (vi.value(1410.5, "uS/cm"), en.value(1410.5, "uS/cm")) == ("1.410,5 µS/cm", "1,410.5 µS/cm")
    assert vi.time(1_790_000_000_000) == "21/09/2026 21:13:20"
    assert (vi.ago(0, 120_000), en.ago(0, 120_000)) == ("2 phút trước", "2 minutes ago")
    assert (vi.value(True, ""), en.value(None, "")) == ("có", "no value")
