"""What the templates walk: small frozen views in the words of one language, worst first. No I/O."""

from collections.abc import Sequence
from dataclasses import dataclass

from contract.catalog import CATALOG, COMMAND_OUTCOME, OUTCOME, PRESENCE, REFUSAL, STATE, Kind, metric
from contract.commands import FINAL, Stage
from contract.metrics import Instrument, Quality
from hub.live_state import LiveDevice, LiveValue
from hub.places import Place, Places
from hub.presence import State
from hub.storage.announcements import Announcement, Part
from hub.web.health import Health, Judged, judged
from hub.web.i18n import Words

_FIRST = {
    Kind.LOUDSPEAKER: ("Audio/Volume", "Playback/State"),
    Kind.CAMERA: ("Picture/Age", "Picture/Brightness", "Clock/Skew"),
    Kind.HOTSPOT: ("Wifi/Clients", "Uplink/OK", "Traffic/Received"),
    Kind.WATER_PROBE: ("Water/pH", "Water/Temperature", "Water/Conductivity"),
    Kind.AIR_STATION: ("Air/PM2.5", "Air/PM10", "Air/Temperature"),
    Kind.HYDRO_STATION: ("Water/Level", "Rain/Total"),
    Kind.NETWORK_DEVICE: ("Reach/RoundTrip", "Reach/Loss"),
    Kind.EDGE_NODE: ("Box/CPU", "Box/Disk"),
}
"""What a list shows of each kind."""

_HIDDEN = frozenset({OUTCOME, COMMAND_OUTCOME, REFUSAL, STATE})
"""Told in other words already."""
_SEVERITY = {health: place for place, health in enumerate(Health)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueView:
    """A value as it stands on a page; `note` says why not to trust it, "" if there is no reason."""

    metric: str
    label: str
    text: str
    age: str
    at: int
    time: str
    note: str
    stale: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceView:
    """A device as a row or a page shows it."""

    id: str
    name: str
    kind: str
    place: str
    health: Health
    word: str
    cause: str
    since: str
    since_time: str
    seen: str
    values: Sequence[ValueView]
    charts: Sequence[tuple[str, str]]
    is_loudspeaker: bool
    online: bool
    foreign: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class HamletView:
    """A hamlet and its devices, worst first; `node` is the edge node they hang on."""

    name: str
    node: DeviceView | None
    devices: Sequence[DeviceView]


@dataclass(frozen=True, slots=True, kw_only=True)
class OverviewView:
    """The first page: how things stand in one sentence, then commune by commune."""

    sentence: str
    health: Health
    communes: Sequence[tuple[str, Sequence[HamletView]]]
    time: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PartView:
    """One loudspeaker of an announcement."""

    name: str
    place: str
    stage: Stage
    word: str
    reason: str
    steps: Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnouncementView:
    """An announcement and how far it has come."""

    id: str
    title: str
    when: str
    length: str
    audio: str
    running: bool
    stoppable: bool
    on_air: bool
    parts: Sequence[PartView]


def overview(devices: Sequence[LiveDevice], places: Places, words: Words, now: int) -> OverviewView:
    """Return the first page's view."""
    _ = words._
    field_devices = [one for one in devices if one.key.device]
    verdicts = {one.id: judged(one, now) for one in devices}
    bad = [verdicts[one.id] for one in field_devices if verdicts[one.id].health is Health.PROBLEM]
    dark = [one for one in field_devices if verdicts[one.id].health is Health.UNKNOWN]
    communes: dict[str, dict[str, list[LiveDevice]]] = {}
    for one in devices:
        place = places.of(one.key.of_node) or Place(_("Other equipment"), one.key.node)
        communes.setdefault(place.commune, {}).setdefault(place.hamlet, []).append(one)
    return OverviewView(
        sentence=_sentence(len(field_devices), bad, len(dark), words, now),
        health=Health.PROBLEM if bad else Health.UNKNOWN if dark or not field_devices else Health.OK,
        communes=[
            (commune, [_hamlet(name, ones, verdicts, places, words, now) for name, ones in hamlets.items()])
            for commune, hamlets in communes.items()
        ],
        time=words.time(now),
    )


def device(one: LiveDevice, places: Places, words: Words, now: int, *, full: bool = True) -> DeviceView:
    """Return a device's view; `full` with all values, otherwise those a list shows."""
    return _device(one, judged(one, now), places, words, now, full=full)


def announcement(
    one: Announcement, places: Places, words: Words, now: int, *, hear: bool, stop: bool
) -> AnnouncementView:
    """Return an announcement's view; `hear` and `stop`: whether its reader may."""
    _ = words._
    return AnnouncementView(
        id=one.id,
        title=one.text or one.filename or _("Recorded bulletin"),
        when=words.ago(one.created_at, now),
        length=words.span(one.duration_ms),
        audio=f"/audio/{one.sha256}" if hear else "",
        running=any(part.stage not in FINAL for part in one.parts) and now < one.expires_at + one.duration_ms,
        stoppable=stop,
        on_air=any(part.stage is Stage.STARTED for part in one.parts),
        parts=[_part(part, places, words) for part in one.parts],
    )


def _sentence(total: int, bad: Sequence[Judged], dark: int, words: Words, now: int) -> str:
    _ = words._
    if not total:
        return _("No device has reported yet.")
    if bad:
        oldest = min((one.since for one in bad if one.since is not None), default=None)
        first = _("%(bad)d of %(total)d devices have a problem") % {"bad": len(bad), "total": total}
        if oldest is not None:
            first += _(", the longest for %(span)s") % {"span": words.span(now - oldest)}
    else:
        first = _("All %(total)d devices work") % {"total": total} if not dark else ""
    unknown = _("nobody can say of %(dark)d of %(total)d devices") % {"dark": dark, "total": total} if dark else ""
    sentence = "; ".join(part for part in (first, unknown) if part)
    return f"{sentence[:1].upper()}{sentence[1:]}."


def _hamlet(
    name: str, ones: Sequence[LiveDevice], verdicts: dict[str, Judged], places: Places, words: Words, now: int
) -> HamletView:
    rows = sorted(
        (one for one in ones if one.key.device),
        key=lambda one: (_SEVERITY[verdicts[one.id].health], one.kind or "", one.key.device),
    )
    nodes = [one for one in ones if not one.key.device]
    return HamletView(
        name=name,
        node=_device(nodes[0], verdicts[nodes[0].id], places, words, now, full=False) if nodes else None,
        devices=[_device(one, verdicts[one.id], places, words, now, full=False) for one in rows],
    )


def _device(one: LiveDevice, verdict: Judged, places: Places, words: Words, now: int, *, full: bool) -> DeviceView:
    _ = words._
    place = places.of(one.key.of_node)
    kind = CATALOG[one.kind] if one.kind else None
    shown = list(one.values) if full or kind is None else [name for name in _FIRST[kind.kind] if name in one.values]
    shown = [name for name in shown if name not in _HIDDEN and not name.startswith(PRESENCE)][: None if full else 3]
    values = [_value(one, one.values[name], words, now) for name in shown]
    label = (kind.label_vi if words.language == "vi" else kind.label_en) if kind else _("Foreign equipment")
    return DeviceView(
        id=one.id,
        name=one.key.device or one.key.node,
        kind=label,
        place=f"{place.hamlet}, {place.commune}" if place else one.key.node,
        health=verdict.health,
        word=_(HEALTH_WORDS[verdict.health]),
        cause=_(CAUSE_WORDS.get(verdict.cause, verdict.cause)) if verdict.cause else "",
        since=words.ago(verdict.since, now) if verdict.since is not None else "",
        since_time=words.time(verdict.since) if verdict.since is not None else "",
        seen=words.ago(one.last_seen, now) if one.last_seen is not None else "",
        values=values,
        charts=[
            (value.metric, value.label) for value in values if isinstance(one.values[value.metric].value, (int, float))
        ],
        is_loudspeaker=one.kind is Kind.LOUDSPEAKER,
        online=one.presence.state is State.ONLINE,
        foreign=one.foreign,
    )


def _value(one: LiveDevice, value: LiveValue, words: Words, now: int) -> ValueView:
    _ = words._
    known = metric(one.kind, value.metric) if one.kind else None
    label = (known.label_vi if words.language == "vi" else known.label_en) if known else value.metric
    stale = not value.event and (now > value.fresh_until or value.quality == Quality.STALE)
    notes = []
    if value.quality == Quality.BAD:
        notes.append(_("not plausible"))
    if stale:
        notes.append(_("old"))
    if value.instrument == Instrument.CALIBRATING:
        notes.append(_("calibrating"))
    if value.instrument == Instrument.FAULT:
        notes.append(_("instrument fault"))
    text = words.value(value.value, value.unit)
    if value.metric == "Playback/State" and isinstance(value.value, str):
        text = _("playing") if value.value == "playing" else _("idle")
    return ValueView(
        metric=value.metric,
        label=label,
        text=text,
        age=words.ago(value.at, now),
        at=value.at,
        time=words.time(value.at),
        note=", ".join(notes),
        stale=stale,
    )


def _part(part: Part, places: Places, words: Words) -> PartView:
    _ = words._
    place = places.of(part.device.of_node)
    return PartView(
        name=part.device.device,
        place=place.hamlet if place else part.device.node,
        stage=part.stage,
        word=_(STAGE_WORDS[part.stage]),
        reason=_(CAUSE_WORDS.get(part.reason, part.reason)) if part.reason else "",
        steps=[(_(STAGE_WORDS[stage]), words.time(at)[-8:]) for stage, at in sorted(part.at.items(), key=_by_time)],
    )


def _by_time(step: tuple[Stage, int]) -> tuple[int, int]:
    return step[1], list(Stage).index(step[0])


def N_(text: str) -> str:  # noqa: N802  # gettext's own name for a message translated later
    """Mark a message for the catalogues."""
    return text


HEALTH_WORDS = {
    Health.PROBLEM: N_("Problem"),
    Health.WARNING: N_("Warning"),
    Health.OK: N_("Working"),
    Health.UNKNOWN: N_("Unknown"),
    Health.MAINTENANCE: N_("Maintenance"),
}
CAUSE_WORDS = {
    "unreachable": N_("not connected"),
    "refused": N_("turns us away"),
    "unauthorised": N_("wants another password"),
    "silent": N_("does not answer"),
    "nonsense": N_("answers nonsense"),
    "not_found": N_("is not what was configured"),
    "misconfigured": N_("configured wrongly"),
    "upstream": N_("what it hangs on is out"),
    "mains": N_("mains power is out"),
    "node_gone": N_("its edge node is gone"),
    "node_silent": N_("edge node silent"),
    "dead": N_("switched off or gone"),
    "never_seen": N_("never heard of yet"),
    "amplifier_failed": N_("amplifier broken"),
    "line_failed": N_("loudspeaker line broken"),
    "muted": N_("muted"),
    "hot": N_("too hot"),
    "no_stream": N_("no video stream"),
    "no_picture": N_("no picture in the stream"),
    "frozen": N_("picture frozen"),
    "black": N_("picture black"),
    "wrong_device": N_("another device answers at its address"),
    "clock_off": N_("clock is wrong"),
    "rebooted": N_("started anew"),
    "stuck": N_("readings do not move"),
    "out_of_range": N_("readings out of range"),
    "no_radio": N_("no radio is on"),
    "no_uplink": N_("no way to the Internet"),
    "unsupervised": N_("nothing supervises its sound"),
    "bad_values": N_("values not plausible"),
    "old_values": N_("values are old"),
    "calibrating": N_("calibrating"),
    "instrument_fault": N_("instrument fault"),
    "late": N_("reached the edge node too late"),
    "power_cut": N_("the edge node lost power before it was done"),
    "not_asked": N_("the edge node did not come round to it in time"),
    "never_reached": N_("the edge node could not be reached in time"),
    "never_answered": N_("the edge node did not confirm in time"),
}
STAGE_WORDS = {
    Stage.PENDING: N_("waiting"),
    Stage.SENT: N_("sent"),
    Stage.ACCEPTED: N_("accepted"),
    Stage.STARTED: N_("sounding"),
    Stage.FINISHED: N_("finished"),
    Stage.DONE: N_("done"),
    Stage.STOPPED: N_("stopped"),
    Stage.REFUSED: N_("refused"),
    Stage.FAILED: N_("failed"),
    Stage.EXPIRED: N_("expired, not played"),
}
REFUSAL_WORDS = {
    "no_speaker": N_("Choose at least one loudspeaker."),
    "no_identity": N_("This edge node has no identity key on the hub; ask the technician to enrol it."),
    "no_signer": N_("Not sent: the signer does not answer. Start hamlet-hub signer and press play again."),
    "signer_refused": N_("Not sent: the signer refused it."),
    "no_broadcast": N_("This hub is not set up to announce anything."),
    "unknown": N_("There is no such announcement."),
    "text_empty": N_("Type what shall be said, or choose an audio file."),
    "text_too_long": N_("The text is too long; at most 3,000 characters."),
    "no_voice": N_("The voice is not installed. Choose an audio file, or have smart-hamlet[speech] installed."),
    "unspeakable": N_("The voice could not speak this text."),
    "file_too_large": N_("The file is too large; at most 32 MB."),
    "unreadable": N_("The file could not be read as audio. Use MP3, M4A, WAV, OGG or FLAC."),
    "silent": N_("The file is silent."),
    "too_long": N_("The recording is too long; at most 10 minutes."),
    "empty": N_("The file holds no sound."),
    "too_slow": N_("The file took too long to read."),
}
