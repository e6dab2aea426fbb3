"""What each kind of device reports and accepts. One table; pages, documents, alerts and dashboards read it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from contract.metrics import DataType, Metric


class Kind(StrEnum):
    """A kind of field device, or the box itself."""

    EDGE_NODE = "edge_node"
    LOUDSPEAKER = "loudspeaker"
    CAMERA = "camera"
    HOTSPOT = "hotspot"
    WATER_PROBE = "water_probe"
    AIR_STATION = "air_station"
    HYDRO_STATION = "hydro_station"
    NETWORK_DEVICE = "network_device"


class Cause(StrEnum):
    """Why a device does not do its job, as far as its edge node can tell."""

    UNREACHABLE = "unreachable"
    """Nothing is there: no route, no such port, no such file."""
    REFUSED = "refused"
    """Something is there and turns us away."""
    UNAUTHORISED = "unauthorised"
    """It wants another password."""
    NOT_FOUND = "not_found"
    """Something is there, but not what was asked for: no such path, profile, entity or register."""
    SILENT = "silent"
    """It takes the question and does not answer in time."""
    NONSENSE = "nonsense"
    """It answers what cannot be true or cannot be read."""
    MISCONFIGURED = "misconfigured"
    """Trying again will not help until somebody changes the configuration."""
    UPSTREAM = "upstream"
    """What it hangs on (a switch, a radio link) is out; of itself nothing is known."""
    MAINS = "mains"
    """Its mains power is out; of itself nothing is known."""


class Condition(StrEnum):
    """What a device that answers says or shows of itself, in `Device/State`; the worst where there are several."""

    OK = "ok"
    NO_STREAM = "no_stream"
    """Management answers, but there is no video stream."""
    NO_PICTURE = "no_picture"
    """The stream comes, but no whole picture can be made of it."""
    FROZEN = "frozen"
    """The picture is the very same as before."""
    BLACK = "black"
    """The picture is all but black."""
    WRONG_DEVICE = "wrong_device"
    """It gives another serial number than the one that was configured."""
    CLOCK_OFF = "clock_off"
    """Its clock is so far off that its recordings are no evidence."""
    REBOOTED = "rebooted"
    """It started anew since the last read."""
    STUCK = "stuck"
    """Its readings have not moved for longer than they can stand still."""
    OUT_OF_RANGE = "out_of_range"
    """A reading is no number, or outside what the instrument can measure."""
    CALIBRATING = "calibrating"
    """The instrument says so itself."""
    INSTRUMENT_FAULT = "instrument_fault"
    """The instrument says so itself."""
    AMPLIFIER_FAILED = "amplifier_failed"
    LINE_FAILED = "line_failed"
    MUTED = "muted"
    HOT = "hot"
    NO_RADIO = "no_radio"
    """A hotspot none of whose radios is on."""
    NO_UPLINK = "no_uplink"
    """A hotspot whose way to the Internet is down."""


ONLINE = "online"
"""The value of `Presence/<device>` while the device answers; otherwise the value is a Cause."""

PRESENCE = "Presence/"
STATE = "Device/State"
MAINS = "Power/Mains"
OUTCOME = "Announcement/Outcome"
REFUSAL = "Announcement/Refused"
"""An envelope that no believed key signed, or that was tampered with: who sent it is not known, that it came is."""
LOG_LOST = "Log/Lost"
"""How many records this box had to give up, or found unreadable, before it knew that the hub has them."""
UPTIME = "Node/Uptime"
REBIRTH = "Node Control/Rebirth"
BDSEQ = "bdSeq"
HELLO = "Broadcast/Hello"
ENVELOPE = "Broadcast/Envelope"
COMMAND = "Command/Request"
COMMAND_OUTCOME = "Command/Outcome"
BUNDLE = "Broadcast/Bundle"
ROOT = "Broadcast/Root"
KIND = "Device/Kind"
"""In every birth of ours, never logged: the row of this catalogue that tells what the device is."""

NEVER_LOGGED = frozenset({BDSEQ, UPTIME, KIND, COMMAND})
NEVER_LOGGED_PREFIXES = ("Node Control/", "Device Control/", "Broadcast/", "Delivery/")

QUALITY = "Quality"
UNIT = "engUnit"
INSTRUMENT = "instrument"
TIME = "time"
"""Names of metric properties."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceKind:
    """A row of the catalogue."""

    kind: Kind
    label_vi: str
    label_en: str
    metrics: tuple[Metric, ...]


def _number(name: str, unit: str, deadband: float, vi: str, en: str, every: int = 300) -> Metric:
    return Metric(
        name=name,
        datatype=DataType.DOUBLE,
        unit=unit,
        deadband=deadband,
        max_report_seconds=every,
        label_vi=vi,
        label_en=en,
    )


def _count(name: str, unit: str, deadband: float, vi: str, en: str, every: int = 300) -> Metric:
    return Metric(
        name=name,
        datatype=DataType.INT64,
        unit=unit,
        deadband=deadband,
        max_report_seconds=every,
        label_vi=vi,
        label_en=en,
    )


def _switch(name: str, vi: str, en: str) -> Metric:
    """Return a yes or no: every change of it is an event."""
    return Metric(name=name, datatype=DataType.BOOLEAN, event=True, label_vi=vi, label_en=en)


def _word(name: str, vi: str, en: str) -> Metric:
    """Return a word of a fixed list: every change of it is an event."""
    return Metric(name=name, datatype=DataType.STRING, event=True, label_vi=vi, label_en=en)


def _name(name: str, vi: str, en: str) -> Metric:
    """Return a name that hardly ever changes."""
    return Metric(name=name, datatype=DataType.STRING, max_report_seconds=3600, label_vi=vi, label_en=en)


_STATE = _word(STATE, "Tình trạng", "State")
_UPTIME = _count("Device/Uptime", "s", 600, "Thời gian chạy", "Uptime", 600)
_TEMPERATURE = _number("Device/Temperature", "Cel", 1.0, "Nhiệt độ máy", "Device temperature")
_MODEL = _name("Device/Model", "Kiểu máy", "Model")
_FIRMWARE = _name("Device/Firmware", "Phần mềm máy", "Firmware")
_SERIAL = _name("Device/Serial", "Số sê-ri", "Serial number")
_ROUND_TRIP = _number("Reach/RoundTrip", "ms", 20.0, "Thời gian phản hồi", "Round trip")
_LOSS = _number("Reach/Loss", "%", 10.0, "Tỷ lệ mất gói", "Packet loss")
_BATTERY = _number("Power/BatteryV", "V", 0.1, "Điện áp ắc quy", "Battery voltage")
_MAINS = _switch(MAINS, "Có điện lưới", "Mains power")

CATALOG: Mapping[Kind, DeviceKind] = {
    row.kind: row
    for row in (
        DeviceKind(
            kind=Kind.LOUDSPEAKER,
            label_vi="Cụm loa",
            label_en="Loudspeaker",
            metrics=(
                _STATE,
                _word("Playback/State", "Tình trạng phát", "Playback"),
                _count("Audio/Volume", "%", 0, "Âm lượng", "Volume"),
                _number("Audio/Level", "dB", 3.0, "Mức âm ra", "Output level"),
                _switch("Audio/Muted", "Tắt tiếng", "Muted"),
                _switch("Amp/OK", "Tăng âm tốt", "Amplifier works"),
                _switch("Line/OK", "Đường dây loa tốt", "Line works"),
                _MAINS,
                _BATTERY,
                _TEMPERATURE,
                _UPTIME,
                _MODEL,
                _FIRMWARE,
                _SERIAL,
            ),
        ),
        DeviceKind(
            kind=Kind.CAMERA,
            label_vi="Camera",
            label_en="Camera",
            metrics=(
                _STATE,
                _number("Picture/Age", "s", 30.0, "Tuổi hình mới nhất", "Age of the newest picture"),
                _number("Picture/Brightness", "%", 5.0, "Độ sáng hình", "Brightness"),
                _number("Picture/Sharpness", "1", 20.0, "Độ nét hình", "Sharpness"),
                _count("Picture/Width", "{px}", 0, "Chiều ngang hình", "Picture width", 3600),
                _count("Picture/Height", "{px}", 0, "Chiều cao hình", "Picture height", 3600),
                _name("Picture/Codec", "Chuẩn nén", "Codec"),
                _number("Clock/Skew", "s", 2.0, "Lệch đồng hồ", "Clock skew"),
                _switch("Event/Motion", "Chuyển động", "Motion"),
                _switch("Event/Tamper", "Bị can thiệp", "Tampering"),
                _switch("Event/VideoLoss", "Mất tín hiệu hình", "Video loss"),
                _MODEL,
                _FIRMWARE,
                _SERIAL,
            ),
        ),
        DeviceKind(
            kind=Kind.HOTSPOT,
            label_vi="Điểm Wi-Fi",
            label_en="Wi-Fi hotspot",
            metrics=(
                _STATE,
                _count("Wifi/Clients", "{client}", 0, "Số máy kết nối", "Clients"),
                _count("Wifi/RadiosOn", "{radio}", 0, "Số sóng đang phát", "Radios on"),
                _number("Traffic/Received", "kbit/s", 50.0, "Tải xuống", "Received"),
                _number("Traffic/Sent", "kbit/s", 50.0, "Tải lên", "Sent"),
                _switch("Uplink/OK", "Đường truyền tốt", "Uplink works"),
                _number("Device/CPU", "%", 10.0, "Bộ xử lý", "CPU"),
                _number("Device/Memory", "%", 5.0, "Bộ nhớ", "Memory in use"),
                _ROUND_TRIP,
                _LOSS,
                _TEMPERATURE,
                _UPTIME,
                _MODEL,
                _FIRMWARE,
                _SERIAL,
            ),
        ),
        DeviceKind(
            kind=Kind.WATER_PROBE,
            label_vi="Trạm đo nước",
            label_en="Water probe",
            metrics=(
                _STATE,
                _number("Water/pH", "[pH]", 0.02, "pH", "pH"),
                _number("Water/Temperature", "Cel", 0.1, "Nhiệt độ nước", "Water temperature"),
                _number("Water/Conductivity", "uS/cm", 10.0, "Độ dẫn điện", "Conductivity"),
                _number("Water/Salinity", "g/L", 0.05, "Độ mặn", "Salinity"),
                _number("Water/DissolvedOxygen", "mg/L", 0.05, "Oxy hòa tan", "Dissolved oxygen"),
                _number("Water/Turbidity", "{NTU}", 0.5, "Độ đục", "Turbidity"),
                _number("Water/Ammonium", "mg/L", 0.02, "Amoni (N-NH4+)", "Ammonium (N-NH4+)"),
                _BATTERY,
            ),
        ),
        DeviceKind(
            kind=Kind.AIR_STATION,
            label_vi="Trạm đo không khí",
            label_en="Air station",
            metrics=(
                _STATE,
                _number("Air/PM1", "ug/m3", 1.0, "Bụi PM1", "PM1"),
                _number("Air/PM2.5", "ug/m3", 1.0, "Bụi PM2.5", "PM2.5"),
                _number("Air/PM10", "ug/m3", 1.0, "Bụi PM10", "PM10"),
                _number("Air/Temperature", "Cel", 0.2, "Nhiệt độ không khí", "Air temperature"),
                _number("Air/Humidity", "%", 1.0, "Độ ẩm", "Relative humidity"),
                _number("Air/Pressure", "hPa", 0.5, "Áp suất", "Air pressure"),
                _BATTERY,
            ),
        ),
        DeviceKind(
            kind=Kind.HYDRO_STATION,
            label_vi="Trạm thủy văn",
            label_en="Level and rain station",
            metrics=(
                _STATE,
                _number("Water/Level", "m", 0.01, "Mực nước", "Water level"),
                _number("Rain/Total", "mm", 0.1, "Lượng mưa cộng dồn", "Rain, accumulated"),
                _BATTERY,
            ),
        ),
        DeviceKind(
            kind=Kind.NETWORK_DEVICE,
            label_vi="Thiết bị mạng",
            label_en="Network device",
            metrics=(_ROUND_TRIP, _LOSS),
        ),
        DeviceKind(
            kind=Kind.EDGE_NODE,
            label_vi="Thiết bị tại ấp",
            label_en="Edge node",
            metrics=(
                _number("Box/CPU", "%", 10.0, "Bộ xử lý", "CPU"),
                _number("Box/Memory", "%", 5.0, "Bộ nhớ", "Memory in use"),
                _number("Box/Disk", "%", 1.0, "Đĩa đã dùng", "Disk in use"),
                _number("Box/DiskWear", "%", 1.0, "Hao mòn thẻ nhớ", "Storage wear"),
                _number("Box/Temperature", "Cel", 2.0, "Nhiệt độ hộp", "Box temperature"),
                _switch("Box/ClockSynchronised", "Đồng hồ đã đồng bộ", "Clock synchronised"),
                _number("Box/ClockError", "s", 0.1, "Sai số đồng hồ", "Estimated clock error"),
                _MAINS,
                _BATTERY,
                _number("Modem/Signal", "dBm", 5.0, "Sóng di động", "Modem signal"),
                _word("Uplink/Interface", "Đường truyền đang dùng", "Uplink in use"),
                _name("Agent/Version", "Phiên bản phần mềm", "Agent version"),
                Metric(
                    name=LOG_LOST,
                    datatype=DataType.INT64,
                    unit="{record}",
                    event=True,
                    label_vi="Số bản ghi bị mất",
                    label_en="Records lost",
                ),
                _word(OUTCOME, "Kết quả phát thanh", "Announcement outcome"),
                _word(REFUSAL, "Lệnh phát bị từ chối", "Order to speak refused"),
                _word(COMMAND_OUTCOME, "Kết quả lệnh", "Command outcome"),
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


def report_seconds(name: str) -> int:
    """Return how long a value of a metric of this name may go unrepeated, whatever kind of device reports it."""
    return _REPORT_SECONDS.get(name, Metric(name=name, datatype=DataType.DOUBLE).max_report_seconds)


_BY_NAME = {(row.kind, one.name): one for row in CATALOG.values() for one in row.metrics}
_REPORT_SECONDS: dict[str, int] = {}
for _one in _BY_NAME.values():
    _REPORT_SECONDS[_one.name] = max(_one.max_report_seconds, _REPORT_SECONDS.get(_one.name, 0))
