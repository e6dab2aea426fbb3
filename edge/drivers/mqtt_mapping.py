"""Which message of a sensor holds what: a file, checked when it is read, and payloads turned into samples. Pure."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from contract.catalog import CATALOG, STATE, Condition, Kind
from contract.metrics import Metric, Quality, Sample
from edge.drivers.data_file import read
from edge.poller import DeviceMisconfigured

MOST_PAYLOAD = 64 * 1024
OLDEST_MS = 3_600_000
"""A message that says it is older says nothing of when it was measured: its sender's clock is off."""

_NUMBER = re.compile(r"[+-]?(\d{1,20}(\.\d{0,20})?|\.\d{1,20})([eE][+-]?\d{1,3})?", re.ASCII)
_NO_NUMBER = frozenset({"nan", "inf", "+inf", "-inf", "infinity", "-infinity"})
_EUI = re.compile(r"[0-9a-f]{16}", re.ASCII)
Key = Annotated[str, Field(min_length=1, max_length=100)]


class Unusable(ValueError):
    """A payload that cannot be what the mapping says; the text tells why."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class MappedValue(_Strict):
    """One value: where it is in the message, and what becomes of the number: number * scale + offset, rounded.

    `path` holds the keys from the outermost object inwards; in the shape `plain` the one name of the sensor. With
    `as_text` the number is written between quotes.
    """

    metric: str
    path: list[Key] = Field(min_length=1, max_length=8)
    as_text: bool = False
    scale: Annotated[float, Field(allow_inf_nan=False)] = 1.0
    offset: Annotated[float, Field(allow_inf_nan=False)] = 0.0
    decimals: Annotated[int, Field(ge=0, le=6)] = 3
    range: tuple[float, float]

    @model_validator(mode="after")
    def _range_is_the_right_way_up(self) -> "MappedValue":
        if not self.range[0] < self.range[1]:
            raise ValueError(f"range {list(self.range)} is upside down or empty")
        return self


class MqttMapping(_Strict):
    """What one kind of sensor publishes, and where.

    With TOPIC as configured for the device, the shape `plain` is ESPHome's, one number per topic
    TOPIC/sensor/NAME/state, and TOPIC/status; `tasmota` is JSON in tele/TOPIC/SENSOR, and tele/TOPIC/LWT; `chirpstack`
    is the JSON of ChirpStack 4 in TOPIC/event/up, where TOPIC is application/ID/device/EUI.
    """

    name: str
    kind: Literal[Kind.WATER_PROBE, Kind.AIR_STATION, Kind.HYDRO_STATION]
    source: str = Field(min_length=1)
    shape: Literal["plain", "tasmota", "chirpstack"]
    values: list[MappedValue] = Field(min_length=1, max_length=64)

    @model_validator(mode="after")
    def _fits(self) -> "MqttMapping":
        known = {one.name for one in CATALOG[self.kind].metrics} - {STATE}
        mapped: set[str] = set()
        for value in self.values:
            if value.metric not in known:
                raise ValueError(
                    f"{value.metric!r} is no metric of a {self.kind}; known are {', '.join(sorted(known))}"
                )
            if value.metric in mapped:
                raise ValueError(f"{value.metric} is mapped twice; each metric has one value")
            if self.shape == "plain" and (len(value.path) > 1 or set("/+#") & set(value.path[0])):
                raise ValueError(f"{value.metric}: in the shape plain the path is one name, without '/', '+' and '#'")
            mapped.add(value.metric)
        return self

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Return what a device with this mapping reports, in the catalogue's order."""
        told = {value.metric for value in self.values} | {STATE}
        return tuple(one for one in CATALOG[self.kind].metrics if one.name in told)


@dataclass(frozen=True, slots=True, kw_only=True)
class Topics:
    """Where one device speaks: the values that each topic holds, and where its last will is told."""

    values: Mapping[str, Sequence[MappedValue]]
    status: str | None


def load_mapping(path: Path) -> MqttMapping:
    """Return a mapping; raise DeviceMisconfigured naming file, key and what is wrong."""
    return read(path, MqttMapping, "mapping")


def topics(mapping: MqttMapping, topic: str) -> Topics:
    """Return where a device speaks; raise DeviceMisconfigured for a topic that names several devices or none."""
    if not topic.strip("/") or set("+#\0") & set(topic):
        raise DeviceMisconfigured(f"topic {topic!r} must name one device, without '+' and '#'")
    match mapping.shape:
        case "plain":
            return Topics(
                values={f"{topic}/sensor/{one.path[0]}/state": [one] for one in mapping.values},
                status=f"{topic}/status",
            )
        case "tasmota":
            return Topics(values={f"tele/{topic}/SENSOR": mapping.values}, status=f"tele/{topic}/LWT")
        case "chirpstack":
            if not _EUI.fullmatch(topic.rpartition("/")[2]):
                raise DeviceMisconfigured(
                    f"topic {topic!r} must be application/ID/device/EUI, the EUI in small letters"
                )
            return Topics(values={f"{topic}/event/up": mapping.values}, status=None)


def samples(
    mapping: MqttMapping, values: Sequence[MappedValue], *, topic: str, payload: bytes, received_at: int
) -> list[Sample]:
    """Return what a message with these values of the device at `topic` says; raise Unusable.

    All are of the instant that the message tells, or else of `received_at`. What it leaves out is left out; no number
    becomes a bad sample without value, one outside its range a bad sample with its value.
    """
    if len(payload) > MOST_PAYLOAD:
        raise Unusable(f"{len(payload)} bytes, more than {MOST_PAYLOAD}")
    if mapping.shape == "plain":
        return [_sample(one, _written(_text(payload)), received_at) for one in values]
    document = _document(payload)
    at = received_at
    if mapping.shape == "chirpstack":
        _same_device(document, topic)
        at = _told_time(document.get("time"), received_at)
    told = [(one, _at_path(document, one.path)) for one in values]
    found = [_sample(one, _number(number, one), at) for one, number in told if number is not _ABSENT]
    if not found:
        raise Unusable("none of the mapped values is in it")
    return found


def condition(latest: Sequence[Sample]) -> Condition:
    """Return what the newest samples of each metric show of the sensor."""
    return Condition.OUT_OF_RANGE if any(one.quality is Quality.BAD for one in latest) else Condition.OK


_ABSENT = object()


def _sample(value: MappedValue, number: float | None, at: int) -> Sample:
    scaled = math.nan if number is None else number * value.scale + value.offset
    good = math.isfinite(scaled) and value.range[0] <= scaled <= value.range[1]
    return Sample(
        metric=value.metric,
        at=at,
        value=round(scaled, value.decimals) if math.isfinite(scaled) else None,
        quality=Quality.GOOD if good else Quality.BAD,
    )


def _text(payload: bytes) -> str:
    try:
        return payload.decode("utf-8").strip()
    except UnicodeDecodeError as exc:
        raise Unusable("not text") from exc


def _written(text: str) -> float | None:
    """Return the number that is written there, None for a word that sensors use for none."""
    if text.lower() in _NO_NUMBER:
        return None
    if not _NUMBER.fullmatch(text):
        raise Unusable(f"{text[:40]!r} is no number")
    return float(text)


def _document(payload: bytes) -> dict[str, Any]:
    # The parser itself gives up on nesting before it harms; what was parsed is only walked along known paths.
    try:
        document = json.loads(payload, parse_constant=_refused)
    except Unusable:
        raise
    except (ValueError, RecursionError) as exc:
        raise Unusable(f"no JSON: {exc}"[:200]) from exc
    if not isinstance(document, dict):
        raise Unusable("JSON, but no object")
    return document


def _refused(word: str) -> Any:
    raise Unusable(f"{word} is no number in JSON")


def _at_path(document: Any, path: Sequence[str]) -> Any:
    for key in path:
        if not isinstance(document, dict) or key not in document:
            return _ABSENT
        document = document[key]
    return document


def _number(told: Any, value: MappedValue) -> float | None:
    if value.as_text and isinstance(told, str):
        return float(told) if _NUMBER.fullmatch(told.strip()) else None
    if isinstance(told, bool) or not isinstance(told, (int, float)):
        return None
    try:
        return float(told)
    except OverflowError:
        return None


def _same_device(document: Mapping[str, Any], topic: str) -> None:
    eui = topic.rpartition("/")[2]
    told = _at_path(document, ["deviceInfo", "devEui"])
    if told is not _ABSENT and told != eui:
        raise Unusable(f"it is of the device {str(told)[:40]!r}, not of {eui}")


def _told_time(told: object, received_at: int) -> int:
    try:
        moment = datetime.fromisoformat(told) if isinstance(told, str) else None
        if moment is None or moment.tzinfo is None:
            return received_at
        at = int(moment.timestamp() * 1000)
    except (ValueError, OverflowError):
        return received_at
    return at if received_at - OLDEST_MS <= at <= received_at else received_at
