"""What the page of an edge node says of its delivery: one verdict in words, then the account behind it. No I/O."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from contract.positions import RangeSet
from hub.api.delivery import Account
from hub.floor import starts
from hub.node_delivery import AlarmKind, NodeDelivery
from hub.storage.timeseries import Void
from hub.web.health import Health
from hub.web.i18n import Words
from hub.web.views import HEALTH_WORDS, N_

BEHIND_MS = 900_000
"""An oldest waiting record of this age is no longer what is just under way."""

QUIET_MS = 120_000
"""An edge node tells its depth every 30 s."""

RECENT_MS = 86_400_000
MOST_ROWS = 20
MOST_RANGES = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class FactView:
    """One line of the account; `note` says what it means or how old it is."""

    label: str
    text: str
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamView:
    """What is committed of one stream in one life of the agent."""

    device: str
    life: str
    records: str
    ranges: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VoidView:
    """Records that are lost, and when the hub learnt it."""

    device: str
    records: str
    which: str
    age: str
    time: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AsideView:
    """Samples in quarantine for one reason."""

    reason: str
    samples: str
    age: str
    time: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AlarmView:
    """What somebody must look at, since when."""

    text: str
    age: str
    time: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TroubleView:
    """What is wrong with an edge node's delivery, for the first page."""

    health: Health
    word: str
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryView:
    """The section as the template walks it; `detail` is a machine's own words, "" if there are none."""

    health: Health
    word: str
    sentence: str
    detail: str
    time: str
    alarms: Sequence[AlarmView]
    facts: Sequence[FactView]
    streams: Sequence[StreamView]
    streams_total: str
    voids: Sequence[VoidView]
    voids_total: str
    aside: Sequence[AsideView]


def delivery(account: Account, words: Words) -> DeliveryView:
    """Return the view of an edge node's account."""
    _ = words._
    health, sentence = _verdict(account, words)
    standing = account.standing
    return DeliveryView(
        health=health,
        word=_(HEALTH_WORDS[health]),
        sentence=sentence,
        detail=account.holding,
        time=words.time(account.at),
        alarms=[
            AlarmView(text=_(ALARM_WORDS[one.kind]), age=words.ago(one.since, account.at), time=words.time(one.since))
            for one in (standing.alarms if standing else ())
        ],
        facts=[] if standing is None or standing.foreign else _facts(standing, account, words),
        streams=_streams(account, words),
        streams_total=words.number(sum(len(ranges) for ranges in account.ledger.values())),
        voids=[_void(one, account, words) for one in account.voids[:MOST_ROWS]],
        voids_total=words.number(sum(one.last - one.first + 1 for one in account.voids)),
        aside=[
            AsideView(
                reason=_(REASON_WORDS[one.reason]) if one.reason in REASON_WORDS else one.reason,
                samples=words.number(one.samples),
                age=words.ago(one.newest, account.at),
                time=words.time(one.newest),
            )
            for one in account.aside
        ],
    )


def troubles(standings: Mapping[str, NodeDelivery | None], now: int, words: Words) -> dict[str, TroubleView]:
    """Return what the first page must say of edge nodes' delivery, by their ids; nothing where nobody need look.

    Only from what the hub has in mind: the first page never asks the store.
    """
    found = {}
    for name, standing in standings.items():
        told = None if standing is None else _alarm(standing, words) or _behind(standing, now, words)
        if told is not None and told[0] in {Health.PROBLEM, Health.WARNING}:
            health, sentence = told
            found[name] = TroubleView(health=health, word=words._(HEALTH_WORDS[health]), sentence=sentence)
    return found


def _verdict(account: Account, words: Words) -> tuple[Health, str]:
    """Return the worst that is true, and say it."""
    _, at, standing = words._, account.at, account.standing
    alarm = _alarm(standing, words) if standing is not None else None
    if alarm is not None:
        return alarm
    if account.holding:
        return Health.WARNING, _("The hub acknowledges nothing at present; the box keeps what it has.")
    if standing is None:
        return Health.UNKNOWN, _("Not heard since the hub was started: nobody can say what it still holds.")
    if standing.foreign:
        return Health.UNKNOWN, _("Foreign equipment numbers nothing: nobody can say whether anything is missing.")
    behind = _behind(standing, at, words)
    if behind is not None:
        return behind
    if account.voids and at - account.voids[0].at < RECENT_MS:
        return Health.WARNING, _("Within the last day records turned out to be lost.")
    if account.aside and at - account.aside[0].newest < RECENT_MS:
        return Health.WARNING, _("Within the last day values came that can never be good; they are in quarantine.")
    if standing.depth.records:
        return Health.OK, _("All but what is just under way is stored.")
    return Health.OK, _("All that it has measured is stored.")


def _alarm(standing: NodeDelivery, words: Words) -> tuple[Health, str] | None:
    return (Health.PROBLEM, words._("Somebody must look at this box.")) if standing.alarms else None


def _behind(standing: NodeDelivery, at: int, words: Words) -> tuple[Health, str] | None:
    """Return what keeps the hub from saying that all is stored, by what the box told of its log."""
    _, depth = words._, standing.depth
    if standing.foreign:
        return None
    if depth.records is None or depth.told_at is None:
        return Health.UNKNOWN, _("It has not said yet what it still holds.")
    if at - depth.told_at > QUIET_MS:
        said = words.ago(depth.told_at, at)
        return Health.UNKNOWN, _("It last spoke %(ago)s; what it has measured since is not known.") % {"ago": said}
    if depth.records and depth.oldest is not None and at - depth.oldest > BEHIND_MS:
        span = words.span(at - depth.oldest)
        return Health.WARNING, _("It is behind: its oldest record has been waiting for %(span)s.") % {"span": span}
    return None


def _facts(standing: NodeDelivery, account: Account, words: Words) -> list[FactView]:
    _, at, depth = words._, account.at, standing.depth
    said = _("said %(ago)s") % {"ago": words.ago(depth.told_at, at)} if depth.told_at is not None else ""
    nothing = _("not said yet")
    facts = [
        FactView(
            label=_("Records waiting to be stored"),
            text=words.number(depth.records) if depth.records is not None else nothing,
            note=said,
        )
    ]
    if depth.records and depth.oldest is not None:
        facts.append(
            FactView(label=_("The oldest of them"), text=words.time(depth.oldest), note=words.ago(depth.oldest, at))
        )
    size = words.size(depth.bytes_on_disk) if depth.bytes_on_disk is not None else nothing
    facts.append(FactView(label=_("Log on the box"), text=size, note=said))
    acknowledged = standing.acknowledged_at
    facts.append(
        FactView(
            label=_("Last acknowledged by the hub"),
            text=words.time(acknowledged) if acknowledged is not None else _("not yet"),
            note=words.ago(acknowledged, at) if acknowledged is not None else _("since the hub was started"),
        )
    )
    if standing.epoch is not None:
        floor = standing.floor
        done = _("all before start %(number)s is stored") % {"number": starts(floor) + 1} if floor is not None else ""
        facts.append(FactView(label=_("Start of its agent"), text=words.number(starts(standing.epoch)), note=done))
    today = account.today
    facts.append(FactView(label=_("Stored of today"), text=words.number(today.samples), note=_("values")))
    facts.append(
        FactView(
            label=_("Conflicts today"),
            text=words.number(today.conflicts),
            note=_("two values for one instant; the last stands") if today.conflicts else "",
        )
    )
    return facts


def _streams(account: Account, words: Words) -> list[StreamView]:
    ledger = account.ledger
    order = sorted(ledger, key=lambda one: (one.stream, -starts(one.epoch), one.log, one.epoch))
    return [
        StreamView(
            device=one.stream or words._("the box itself"),
            life=words.number(starts(one.epoch)),
            records=words.number(len(ledger[one])),
            ranges=_spans(ledger[one], words),
        )
        for one in order
    ]


def _spans(ranges: RangeSet, words: Words) -> str:
    spans = list(ranges)
    shown = [f"{words.number(first)}–{words.number(last)}" for first, last in spans[-MOST_RANGES:]]
    return "; ".join(["…", *shown] if len(spans) > MOST_RANGES else shown)


def _void(one: Void, account: Account, words: Words) -> VoidView:
    return VoidView(
        device=one.lineage.stream or words._("the box itself"),
        records=words.number(one.last - one.first + 1),
        which=words._("%(first)s to %(last)s of start %(number)s")
        % {"first": words.number(one.first), "last": words.number(one.last), "number": starts(one.lineage.epoch)},
        age=words.ago(one.at, account.at),
        time=words.time(one.at),
    )


ALARM_WORDS = {
    AlarmKind.TWO_LOGS: N_(
        "Two boxes speak under this name, or its log was exchanged. Both are served; find the second box."
    ),
    AlarmKind.TWO_EPOCHS: N_("Two copies of one memory card are running. Both are served; take one of them away."),
    AlarmKind.EPOCH_BACK: N_(
        "Its memory card was restored from an older copy. What was measured after that copy and not sent is lost."
    ),
    AlarmKind.NEW_LOG: N_("It came with a new log: the old one was deleted or exchanged. What it still held is lost."),
    AlarmKind.WILD_CLOCK: N_(
        "Its clock is wrong. Nothing is acknowledged until it is mended; meanwhile the box keeps what it has."
    ),
    AlarmKind.UNREADABLE_LOG: N_("What it says of its log cannot be read: other version of the agent, or damage."),
}
REASON_WORDS = {
    "impossible_time": N_("impossible time (over 400 days old, or in the future)"),
    "not_a_number": N_("no number"),
    "wrong_datatype": N_("another kind of value than announced"),
    "record_count": N_("other number of records than announced"),
    "position_incomplete": N_("record without its number"),
    "position_too_large": N_("record with an impossible number"),
}
