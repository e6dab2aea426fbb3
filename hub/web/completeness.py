"""The daily report of completeness as people read it: one sentence, then node by node, worst first. No I/O."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from hub.calendar_day import day_of
from hub.completeness import Days, NodeDay, Verdict
from hub.devices import DeviceKey, device_id
from hub.places import Places
from hub.web.health import Health
from hub.web.i18n import Words
from hub.web.views import N_

NOT_KNOWN = "–"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeDayView:
    """One edge node's row; texts are ready to be read, `–` where nobody can know."""

    id: str
    name: str
    place: str
    health: Health
    word: str
    complete: str
    records: str
    expected: str
    samples: str
    late: str
    void: str
    aside: str
    conflicts: str
    unknown: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportView:
    """The page; `day` is for the form, `before` and `after` are the neighbouring days, "" where there is none yet."""

    day: str
    title: str
    sentence: str
    health: Health
    time: str
    before: str
    after: str
    latest: str
    rows: Sequence[NodeDayView]


def report(days: Days, places: Places, words: Words) -> ReportView:
    """Return the report's view."""
    day = date.fromisoformat(days.day)
    today = day_of(days.at)
    rows = sorted(days.nodes, key=lambda one: (_ORDER[one.report.verdict], _place(one, places), one.node))
    return ReportView(
        day=days.day,
        title=words.day(day),
        sentence=_sentence(days.nodes, words),
        health=_worst(days.nodes),
        time=words.time(days.at),
        before=str(day - timedelta(days=1)),
        after=str(day + timedelta(days=1)) if day < today else "",
        latest=str(today),
        rows=[_row(one, places, words) for one in rows],
    )


def _worst(nodes: Sequence[NodeDay]) -> Health:
    found = {HEALTH[one.report.verdict] for one in nodes}
    order = (Health.PROBLEM, Health.WARNING, Health.UNKNOWN, Health.OK)
    return next((one for one in order if one in found), Health.UNKNOWN)


def _sentence(nodes: Sequence[NodeDay], words: Words) -> str:
    _ = words._
    ours = [one.report for one in nodes if not one.foreign]
    if not ours:
        return _("No edge node of ours was there on this day.")
    whole = sum(one.verdict is Verdict.WHOLE for one in ours)
    said = _("%(whole)s of %(total)s edge nodes are complete") % {
        "whole": words.number(whole),
        "total": words.number(len(ours)),
    }
    lost = sum(one.void for one in ours)
    if lost:
        said += _("; lost records: %(lost)s") % {"lost": words.number(lost)}
    return f"{said}."


def _row(one: NodeDay, places: Places, words: Words) -> NodeDayView:
    _, told = words._, one.report
    return NodeDayView(
        id=device_id(DeviceKey(one.node.group, one.node.node, "")),
        name=one.node.node,
        place=_place(one, places),
        health=HEALTH[told.verdict],
        word=_(VERDICT_WORDS[told.verdict]),
        complete=NOT_KNOWN if told.complete_share is None else words.percent(told.complete_share),
        records=words.number(told.records),
        expected=NOT_KNOWN if told.expected is None else words.number(told.expected),
        samples=words.number(told.samples),
        late=NOT_KNOWN if told.late_share is None else words.percent(told.late_share),
        void=words.number(told.void),
        aside=words.number(told.quarantined),
        conflicts=words.number(told.conflicts),
        unknown=words.span(told.unknown_ms),
    )


def _place(one: NodeDay, places: Places) -> str:
    place = places.of(one.node)
    return f"{place.hamlet}, {place.commune}" if place else ""


HEALTH = {
    Verdict.LOSSES: Health.PROBLEM,
    Verdict.UNKNOWN: Health.UNKNOWN,
    Verdict.GAPS: Health.WARNING,
    Verdict.OPEN: Health.WARNING,
    Verdict.BEST_EFFORT: Health.UNKNOWN,
    Verdict.WHOLE: Health.OK,
}
"""How each verdict is marked, worst first."""

_ORDER = {verdict: place for place, verdict in enumerate(HEALTH)}

VERDICT_WORDS = {
    Verdict.LOSSES: N_("records lost or set aside"),
    Verdict.UNKNOWN: N_("nothing known"),
    Verdict.GAPS: N_("part of the day unknown"),
    Verdict.OPEN: N_("not final: more may come"),
    Verdict.BEST_EFFORT: N_("foreign: cannot be told"),
    Verdict.WHOLE: N_("complete"),
}
