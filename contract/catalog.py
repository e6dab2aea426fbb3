"""What each kind of device reports and accepts. One table; pages, documents, alerts and dashboards read it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from contract.metrics import DataType, Metric


class Kind(StrEnum):
    """A kind of field device, or the box itself."""

    EDGE_NODE = "edge_node"
    LOUDSPEAKER = "loudspeaker"
    WATER_PROBE = "water_probe"


class Cause(StrEnum):
    """Why a device does not do its job, as far as its edge node can tell."""

    UNREACHABLE = "unreachable"
    """Nothing is there: no route, no such port, no such file."""
    REFUSED = "refused"
    """Something is there and turns us away."""
    UNAUTHORISED = "unauthorised"
    """It wants another password."""
    SILENT = "silent"
    """It takes the question and does not answer in time."""
    NONSENSE = "nonsense"
    """It answers what cannot be true or cannot be read."""
    MISCONFIGURED = "misconfigured"
    """Trying again will not help until somebody changes the configuration."""


ONLINE = "online"
"""The value of `Presence/<device>` while the device answers; otherwise the value is a Cause."""

PRESENCE = "Presence/"
OUTCOME = "Announcement/Outcome"
REFUSAL = "Announcement/Refused"
"""An envelope that no believed key signed, or that was tampered with: who sent it is not known, that it came is."""
UPTIME = "Node/Uptime"
REBIRTH = "Node Control/Rebirth"
BDSEQ = "bdSeq"
HELLO = "Broadcast/Hello"
ENVELOPE = "Broadcast/Envelope"
BUNDLE = "Broadcast/Bundle"
ROOT = "Broadcast/Root"
KIND = "Device/Kind"
"""In every birth of ours, never logged: the row of this catalogue that tells what the device is."""

NEVER_LOGGED = frozenset({BDSEQ, UPTIME, KIND})
NEVER_LOGGED_PREFIXES = ("Node Control/", "Device Control/", "Command/", "Broadcast/", "Delivery/")

QUALITY = "Quality"
UNIT = "engUnit"
INSTRUMENT = "instrument"
"""Names of metric properties."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceKind:
    """A row of the catalogue."""

    kind: Kind
    label_vi: str
    label_en: str
    metrics: tuple[Metric, ...]


_D, _I, _B, _S = DataType.DOUBLE, DataType.INT64, DataType.BOOLEAN, DataType.STRING

CATALOG: Mapping[Kind, DeviceKind] = {
    row.kind: row
    for row in (
        DeviceKind(
            kind=Kind.WATER_PROBE,
            label_vi="Trạm đo nước",
            label_en="Water probe",
            metrics=(
                Metric(name="Water/pH", datatype=_D, unit="[pH]", deadband=0.02, label_vi="pH", label_en="pH"),
                Metric(
                    name="Water/Temperature",
                    datatype=_D,
                    unit="Cel",
                    deadband=0.1,
                    label_vi="Nhiệt độ nước",
                    label_en="Water temperature",
                ),
                Metric(
                    name="Water/Conductivity",
                    datatype=_D,
                    unit="uS/cm",
                    deadband=10.0,
                    label_vi="Độ dẫn điện",
                    label_en="Conductivity",
                ),
                Metric(
                    name="Water/DissolvedOxygen",
                    datatype=_D,
                    unit="mg/L",
                    deadband=0.05,
                    label_vi="Oxy hòa tan",
                    label_en="Dissolved oxygen",
                ),
                Metric(
                    name="Water/Turbidity",
                    datatype=_D,
                    unit="{NTU}",
                    deadband=0.5,
                    label_vi="Độ đục",
                    label_en="Turbidity",
                ),
            ),
        ),
        DeviceKind(
            kind=Kind.LOUDSPEAKER,
            label_vi="Cụm loa",
            label_en="Loudspeaker",
            metrics=(
                Metric(
                    name="Playback/State",
                    datatype=_S,
                    event=True,
                    label_vi="Tình trạng phát",
                    label_en="Playback",
                ),
                Metric(name="Audio/Volume", datatype=_I, unit="%", label_vi="Âm lượng", label_en="Volume"),
                Metric(name="Audio/Muted", datatype=_B, event=True, label_vi="Tắt tiếng", label_en="Muted"),
                Metric(name="Amp/OK", datatype=_B, event=True, label_vi="Tăng âm tốt", label_en="Amplifier works"),
                Metric(
                    name="Line/OK",
                    datatype=_B,
                    event=True,
                    label_vi="Đường dây loa tốt",
                    label_en="Line works",
                ),
                Metric(
                    name="Device/Temperature",
                    datatype=_D,
                    unit="Cel",
                    deadband=1.0,
                    label_vi="Nhiệt độ máy",
                    label_en="Device temperature",
                ),
                Metric(
                    name="Device/Uptime",
                    datatype=_I,
                    unit="s",
                    deadband=600.0,
                    max_report_seconds=600,
                    label_vi="Thời gian chạy",
                    label_en="Uptime",
                ),
                Metric(
                    name="Device/Model",
                    datatype=_S,
                    max_report_seconds=3600,
                    label_vi="Kiểu máy",
                    label_en="Model",
                ),
                Metric(
                    name="Device/Firmware",
                    datatype=_S,
                    max_report_seconds=3600,
                    label_vi="Phần mềm máy",
                    label_en="Firmware",
                ),
            ),
        ),
        DeviceKind(
            kind=Kind.EDGE_NODE,
            label_vi="Thiết bị tại ấp",
            label_en="Edge node",
            metrics=(
                Metric(name="Box/CPU", datatype=_D, unit="%", deadband=10.0, label_vi="Bộ xử lý", label_en="CPU"),
                Metric(
                    name="Box/Memory",
                    datatype=_D,
                    unit="%",
                    deadband=5.0,
                    label_vi="Bộ nhớ",
                    label_en="Memory in use",
                ),
                Metric(
                    name="Box/Disk",
                    datatype=_D,
                    unit="%",
                    deadband=1.0,
                    label_vi="Đĩa đã dùng",
                    label_en="Disk in use",
                ),
                Metric(
                    name="Box/ClockSynchronised",
                    datatype=_B,
                    event=True,
                    label_vi="Đồng hồ đã đồng bộ",
                    label_en="Clock synchronised",
                ),
                Metric(
                    name="Agent/Version",
                    datatype=_S,
                    max_report_seconds=3600,
                    label_vi="Phiên bản phần mềm",
                    label_en="Agent version",
                ),
                Metric(
                    name=OUTCOME,
                    datatype=_S,
                    event=True,
                    label_vi="Kết quả phát thanh",
                    label_en="Announcement outcome",
                ),
                Metric(
                    name=REFUSAL,
                    datatype=_S,
                    event=True,
                    label_vi="Lệnh phát bị từ chối",
                    label_en="Order to speak refused",
                ),
            ),
        ),
    )
}


def presence(device: str) -> Metric:
    """Return the metric by which an edge node says whether a device of its answers, and if not, why."""
    return Metric(
        name=f"{PRESENCE}{device}",
        datatype=DataType.STRING,
        event=True,
        label_vi="Kết nối",
        label_en="Presence",
    )


def node_metrics(devices: Iterable[str]) -> tuple[Metric, ...]:
    """Return every metric an edge node with these devices ever reports of itself and of their presence."""
    return (*CATALOG[Kind.EDGE_NODE].metrics, *(presence(device) for device in devices))


def metric(kind: Kind, name: str) -> Metric | None:
    """Return a kind's metric by name; None for a stranger's metric."""
    return _BY_NAME.get((kind, name))


_BY_NAME = {(row.kind, one.name): one for row in CATALOG.values() for one in row.metrics}
