"""What the configuration says of each device: one class per driver, checked by itself. Opens nothing."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from contract.catalog import Kind
from contract.topics import valid_id

Id = Annotated[str, Field(min_length=1, max_length=40)]
Address = Annotated[str, Field(pattern=r"^https?://[^/]+$")]
Port = Annotated[int, Field(ge=1, le=65_535)]


class Strict(BaseModel):
    """A table of which every key is known."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def may_stand_in_a_topic(text: str) -> str:
    """Return an id as it is; raise ValueError where topics could not carry it."""
    if not valid_id(text):
        raise ValueError("must not contain blanks, '/', '+' or '#'")
    return text


class _DeviceConfig(Strict):
    id: Id
    poll_seconds: float = Field(default=10, ge=0.2, le=3600)
    grace_seconds: float = Field(default=30, ge=0, le=3600)
    behind: str | None = None
    """The device through which this one is reached: if that is out, this one's silence says nothing of its own."""
    mains: bool = False
    """Fed by the same mains as the box: if the box sees it fail, this one's silence says nothing of its own."""

    @field_validator("id")
    @classmethod
    def _may_stand_in_a_topic(cls, text: str) -> str:
        return may_stand_in_a_topic(text)


class ModbusSensorConfig(_DeviceConfig):
    """A probe on a serial line, or behind a Modbus TCP gateway."""

    driver: Literal["modbus_sensor"]
    kind: Literal[Kind.WATER_PROBE, Kind.AIR_STATION, Kind.HYDRO_STATION]
    port: str | None = Field(default=None, min_length=1)
    baud: int = Field(default=9600, ge=1200, le=115_200)
    host: str | None = Field(default=None, min_length=1)
    tcp_port: Port = 502
    slave: int = Field(ge=1, le=247)
    register_map: Path
    timeout_seconds: float = Field(default=1.0, gt=0, le=10)

    @model_validator(mode="after")
    def _one_way(self) -> "ModbusSensorConfig":
        if (self.port is None) == (self.host is None):
            raise ValueError(f'devices "{self.id}": give either port (a serial line) or host (Modbus TCP)')
        return self

    @property
    def line(self) -> str:
        """Return the name of the bus it shares with others: the serial port, or host and TCP port."""
        return self.port if self.port is not None else f"{self.host}:{self.tcp_port}"


class UartSensorConfig(_DeviceConfig):
    """A particulate sensor that sends frames by itself on a serial port of its own."""

    driver: Literal["uart_sensor"]
    kind: Literal[Kind.AIR_STATION]
    model: Literal["pms5003", "sds011"]
    port: str = Field(min_length=1)
    timeout_seconds: float = Field(default=5.0, gt=0, le=60)


class MqttSensorConfig(_DeviceConfig):
    """A sensor that publishes on the box's own broker."""

    driver: Literal["mqtt_sensor"]
    kind: Literal[Kind.WATER_PROBE, Kind.AIR_STATION, Kind.HYDRO_STATION]
    host: str = "127.0.0.1"
    port: Port = 1883
    username: str | None = None
    password_file: Path | None = None
    topic: str = Field(min_length=1)
    mapping: Path
    silent_after_seconds: float = Field(default=900, gt=0, le=86_400)
    timeout_seconds: float = Field(default=5.0, gt=0, le=60)


class IpSpeakerConfig(_DeviceConfig):
    """A loudspeaker with HTTP control and RTP audio."""

    driver: Literal["ip_speaker"]
    kind: Literal[Kind.LOUDSPEAKER]
    url: Address
    username: str = Field(min_length=1)
    password_file: Path
    codec: Literal["L16/16000", "PCMU/8000"] = "L16/16000"
    multicast: str | None = Field(default=None, pattern=r"^2(2[4-9]|3\d)(\.\d{1,3}){3}:\d{1,5}$")
    interface: str | None = None
    """Local address that multicast leaves by."""
    timeout_seconds: float = Field(default=3.0, gt=0, le=30)


class LocalOutputConfig(_DeviceConfig):
    """The box's own sound output, with the relay that switches the amplifier on."""

    driver: Literal["local_output"]
    kind: Literal[Kind.LOUDSPEAKER]
    alsa_device: str = "default"
    relay: Path | None = None
    """A GPIO's value file that is written 1 while it sounds, 0 otherwise."""
    warm_up_seconds: float = Field(default=0.5, ge=0, le=10)
    timeout_seconds: float = Field(default=3.0, gt=0, le=30)


class OnvifCameraConfig(_DeviceConfig):
    """A camera: ONVIF for management, RTSP or a snapshot for the picture; any of the three will do."""

    driver: Literal["onvif_camera"]
    kind: Literal[Kind.CAMERA]
    url: str | None = Field(default=None, pattern=r"^https?://[^/@]+$")
    stream_url: str | None = Field(default=None, pattern=r"^rtsps?://[^/@]+(/.*)?$")
    snapshot_url: str | None = Field(default=None, pattern=r"^https?://[^/@]+/.*$")
    username: str | None = None
    password_file: Path | None = None
    serial: str | None = Field(default=None, min_length=1)
    """The serial number it must give; another one is another's camera."""
    events: bool = True
    poll_seconds: float = Field(default=60, ge=0.2, le=3600)
    timeout_seconds: float = Field(default=10.0, gt=0, le=60)

    @model_validator(mode="after")
    def _some_way(self) -> "OnvifCameraConfig":
        if self.url is None and self.stream_url is None and self.snapshot_url is None:
            raise ValueError(f'devices "{self.id}": give url (ONVIF), stream_url (RTSP) or snapshot_url, at least one')
        return self


class OpenwrtHotspotConfig(_DeviceConfig):
    """A hotspot on OpenWrt, asked by ubus over HTTP."""

    driver: Literal["openwrt_hotspot"]
    kind: Literal[Kind.HOTSPOT]
    url: Address
    username: str = Field(min_length=1)
    password_file: Path
    uplink: str = "wan"
    """The logical interface that leads to the Internet."""
    timeout_seconds: float = Field(default=5.0, gt=0, le=30)


class SnmpHotspotConfig(_DeviceConfig):
    """A hotspot asked by SNMP; what a vendor's own tables mean is a file."""

    driver: Literal["snmp_hotspot"]
    kind: Literal[Kind.HOTSPOT]
    host: str = Field(min_length=1)
    port: Port = 161
    version: Literal["2c", "3"] = "3"
    community_file: Path | None = None
    username: str | None = None
    auth_protocol: Literal["sha256", "sha1", "md5"] = "sha1"
    auth_password_file: Path | None = None
    privacy_protocol: Literal["aes128", "des"] = "aes128"
    privacy_password_file: Path | None = None
    profile: Path = Path("generic.yaml")
    uplink_interface: str | None = None
    """`ifName` or `ifDescr` of the way to the Internet."""
    timeout_seconds: float = Field(default=5.0, gt=0, le=30)

    @model_validator(mode="after")
    def _knows_its_secrets(self) -> "SnmpHotspotConfig":
        if self.version == "2c" and self.community_file is None:
            raise ValueError(f'devices "{self.id}": SNMP 2c needs community_file')
        if self.version == "3" and None in {self.username, self.auth_password_file, self.privacy_password_file}:
            raise ValueError(
                f'devices "{self.id}": SNMP 3 needs username, auth_password_file and privacy_password_file'
            )
        return self


class ReachabilityConfig(_DeviceConfig):
    """Anything with an address of which only this is asked: whether it answers, and how fast."""

    driver: Literal["reachability"]
    kind: Literal[Kind.NETWORK_DEVICE, Kind.HOTSPOT]
    host: str = Field(min_length=1)
    tcp_port: Port | None = None
    """Where it listens; asked when this box may not send ICMP."""
    timeout_seconds: float = Field(default=3.0, gt=0, le=30)


DeviceConfig = Annotated[
    ModbusSensorConfig
    | UartSensorConfig
    | MqttSensorConfig
    | IpSpeakerConfig
    | LocalOutputConfig
    | OnvifCameraConfig
    | OpenwrtHotspotConfig
    | SnmpHotspotConfig
    | ReachabilityConfig,
    Field(discriminator="driver"),
]
DRIVERS = frozenset(
    {
        "modbus_sensor",
        "uart_sensor",
        "mqtt_sensor",
        "ip_speaker",
        "local_output",
        "onvif_camera",
        "openwrt_hotspot",
        "snmp_hotspot",
        "reachability",
    }
)
