"""The file that describes simulated hamlets: read, checked, and refused with a sentence that names the way out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from simulators.faults import FaultEntry

Id = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")]

SAMPLE = """\
# Simulated hamlets: `hamlet-sim run hamlet.yaml`. Paths are relative to this file. Ports: 0 is a free one, told in the
# status file. Every device may have `faults`: see the kinds of each in simulators/README.md.
seed: 7                       # the same seed, the same readings
recordings: recordings        # what the horns let people hear, one WAV and one JSON file per stream
quiet_file: quiet             # while a file of this name exists, every device is silent
broker: {host: 127.0.0.1, port: 1883, username: sensors, password: demo}   # the box's own, for mqtt_sensors
hamlets:
  - name: Ấp Bình Hòa
    power_supply: run/power   # a folder as /sys/class/power_supply, for the box
    faults:                   # of all its devices that hang on the mains, and of the power supply
      - {kind: mains_lost, after_seconds: 600, lasts_seconds: 60}
    buses:                    # RS-485 lines, each a pseudo-terminal
      - link: run/bus-1       # where a master finds it
        baud: 9600
        paced: true           # bytes take as long as the baud rate says
        probes:
          - {id: probe-01, slave: 1}
          - {id: gauge-01, slave: 2, layout: hydro, faults: [{kind: silent, after_seconds: 60, lasts_seconds: 30}]}
    gateways:                 # Modbus TCP
      - id: gateway-01
        port: 0
        probes:
          - {id: probe-02, slave: 1}
          - id: probe-03      # instead of readings it tells numbers, each written down before it leaves
            slave: 2
            layout: serial
            first: 1000
            states: [0, 1]    # its status register, answer by answer
            apart_seconds: 0.1
            answers: probe-03.jsonl
    uarts:                    # particulate sensors on serial ports of their own
      - {id: dust-01, model: pms5003, link: run/dust-1}
    mqtt_sensors:
      - {id: air-01, shape: esphome, layout: air, topic: air-01, every_seconds: 5}
    speakers:
      - {id: speaker-01, user: box, password: demo, volume: 50, battery: false, room_metres: 25}
    cameras:
      - {id: cam-01, user: box, password: demo, codec: H264, onvif: true, rtsp_port: 0}
    routers:                  # OpenWrt hotspots
      - {id: wifi-01, user: box, password: demo, naming: phy0-ap0}
    snmp_hotspots:
      - {id: wifi-02, community: hamlet, user: box, auth_password: demo-auth, privacy_password: demo-privacy}
"""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _DeviceConfig(_Strict):
    id: Id
    faults: list[FaultEntry] = Field(default=[])


class _Listening(_DeviceConfig):
    host: str = "127.0.0.1"
    port: int = Field(default=0, ge=0, le=65_535)


class ProbeConfig(_DeviceConfig):
    """A probe on a line or behind a gateway."""

    slave: int = Field(ge=1, le=247)
    layout: Literal["water", "air", "hydro", "serial"] = "water"
    first: int = Field(default=1, ge=0, le=2**31)
    """The serial number of the first answer."""
    states: list[Annotated[int, Field(ge=0, le=65_535)]] = Field(default=[0], min_length=1)
    """What the status register tells, one after another, with each answer of the layout `serial`."""
    apart_seconds: float = Field(default=0, ge=0, le=60)
    """The least time between two answers, whoever asks."""
    answers: Path | None = None
    """Where each serial number is written down before it leaves."""

    @model_validator(mode="after")
    def _counts_its_answers(self) -> "ProbeConfig":
        if self.layout != "serial" and self.model_fields_set & {"first", "states", "apart_seconds", "answers"}:
            raise ValueError("first, states, apart_seconds and answers are for layout: serial")
        return self


class BusConfig(_Strict):
    """An RS-485 line."""

    link: Path
    baud: int = Field(default=9600, ge=1200, le=115_200)
    paced: bool = True
    probes: list[ProbeConfig] = Field(min_length=1)


class GatewayConfig(_Listening):
    """A Modbus TCP gateway."""

    probes: list[ProbeConfig] = Field(min_length=1)


class UartConfig(_DeviceConfig):
    """A particulate sensor."""

    model: Literal["pms5003", "sds011"]
    link: Path


class MqttSensorConfig(_DeviceConfig):
    """A sensor that publishes on the box's own broker."""

    shape: Literal["esphome", "tasmota", "chirpstack"]
    layout: Literal["water", "air", "hydro"]
    topic: str = Field(min_length=1)
    every_seconds: float = Field(default=10, gt=0, le=3600)


class SpeakerConfig(_Listening):
    """A loudspeaker."""

    user: str = "box"
    password: str = Field(min_length=1)
    volume: int = Field(default=50, ge=0, le=100)
    battery: bool = False
    room_metres: float | None = Field(default=None, gt=0, le=1000)


class CameraConfig(_Listening):
    """A camera."""

    rtsp_port: int = Field(default=0, ge=0, le=65_535)
    user: str = "box"
    password: str = Field(min_length=1)
    codec: Literal["H264", "MJPEG"] = "H264"
    onvif: bool = True


class RouterConfig(_Listening):
    """An OpenWrt hotspot."""

    user: str = "box"
    password: str = Field(min_length=1)
    naming: Literal["phy0-ap0", "wlan0"] = "phy0-ap0"


class SnmpHotspotConfig(_Listening):
    """A hotspot that answers SNMP."""

    community: str = Field(min_length=1)
    user: str = "box"
    auth_password: str = Field(min_length=8)
    privacy_password: str = Field(min_length=8)


class BrokerConfig(_Strict):
    """The box's own broker."""

    host: str = "127.0.0.1"
    port: int = Field(default=1883, ge=1, le=65_535)
    username: str | None = None
    password: str | None = None


class HamletConfig(_Strict):
    """The devices of one hamlet."""

    name: str
    power_supply: Path | None = None
    faults: list[FaultEntry] = Field(default=[])
    buses: list[BusConfig] = Field(default=[])
    gateways: list[GatewayConfig] = Field(default=[])
    uarts: list[UartConfig] = Field(default=[])
    mqtt_sensors: list[MqttSensorConfig] = Field(default=[])
    speakers: list[SpeakerConfig] = Field(default=[])
    cameras: list[CameraConfig] = Field(default=[])
    routers: list[RouterConfig] = Field(default=[])
    snmp_hotspots: list[SnmpHotspotConfig] = Field(default=[])

    def ids(self) -> list[str]:
        """Return the id of everything in it."""
        probes = [one.id for bus in self.buses for one in bus.probes]
        probes += [one.id for gateway in self.gateways for one in gateway.probes]
        serial = (*self.gateways, *self.uarts, *self.mqtt_sensors)
        listening = (*self.speakers, *self.cameras, *self.routers, *self.snmp_hotspots)
        return probes + [one.id for one in serial] + [one.id for one in listening]

    def links(self) -> list[str]:
        """Return every path it makes."""
        supply = [] if self.power_supply is None else [self.power_supply]
        return [str(one) for one in (*(bus.link for bus in self.buses), *(uart.link for uart in self.uarts), *supply)]


class Config(_Strict):
    """A whole file."""

    seed: int = 7
    recordings: Path = Path("recordings")
    quiet_file: Path | None = None
    broker: BrokerConfig | None = None
    hamlets: list[HamletConfig] = Field(min_length=1)

    @model_validator(mode="after")
    def _each_thing_once(self) -> "Config":
        ids = [one for hamlet in self.hamlets for one in hamlet.ids()]
        links = [one for hamlet in self.hamlets for one in hamlet.links()]
        for what, names in (("id", ids), ("link", links)):
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(f"{what} {twice[0]!r} is used twice; give each device and line its own")
        for hamlet in self.hamlets:
            shared = [(f"bus {bus.link}", bus.probes) for bus in hamlet.buses]
            shared += [(f"gateway {gateway.id}", gateway.probes) for gateway in hamlet.gateways]
            for name, probes in shared:
                slaves = [one.slave for one in probes]
                if len(set(slaves)) < len(slaves):
                    raise ValueError(f"{name}: two probes share a slave number; give each its own")
        if self.broker is None and any(hamlet.mqtt_sensors for hamlet in self.hamlets):
            raise ValueError("broker: is missing; mqtt_sensors need one to publish on")
        return self


class ConfigRefused(ValueError):
    """What is wrong with a file, one line per fault."""


def load(path: Path) -> Config:
    """Return the configuration with paths made absolute; raise ConfigRefused naming file, key, value and way out."""
    try:
        told = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as exc:
        raise ConfigRefused(f"{path}: {exc}") from exc
    try:
        config = Config.model_validate(told)
    except ValidationError as exc:
        raise ConfigRefused("\n".join(f"{path}: {_sentence(one)}" for one in exc.errors())) from exc
    folder = path.resolve().parent

    def probes(told: Sequence[ProbeConfig]) -> list[ProbeConfig]:
        return [one.model_copy(update={"answers": folder / one.answers}) if one.answers else one for one in told]

    hamlets = [
        hamlet.model_copy(
            update={
                "buses": [
                    bus.model_copy(update={"link": folder / bus.link, "probes": probes(bus.probes)})
                    for bus in hamlet.buses
                ],
                "gateways": [one.model_copy(update={"probes": probes(one.probes)}) for one in hamlet.gateways],
                "uarts": [uart.model_copy(update={"link": folder / uart.link}) for uart in hamlet.uarts],
                "power_supply": folder / hamlet.power_supply if hamlet.power_supply else None,
            }
        )
        for hamlet in config.hamlets
    ]
    quiet = folder / config.quiet_file if config.quiet_file else None
    return config.model_copy(update={"recordings": folder / config.recordings, "quiet_file": quiet, "hamlets": hamlets})


def _sentence(error: object) -> str:
    assert isinstance(error, dict)  # noqa: S101  # pydantic's error details
    where = ".".join(map(str, error["loc"])) or "the file"
    if error["type"] == "extra_forbidden":
        return f"{where}: no such key; `hamlet-sim sample-config` shows all"
    return f"{where}: {error['msg']} (got {error['input']!r:.80})"
