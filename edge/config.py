"""What an edge node is told in its one TOML file: read, checked, and refused with the way out."""

import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from edge.device_configs import (
    DRIVERS,
    DeviceConfig,
    Id,
    ModbusSensorConfig,
    Strict,
    UartSensorConfig,
    may_stand_in_a_topic,
)

SAMPLE = """\
# An edge node: `hamlet-edge run edge.toml`. Paths are relative to this file.

[node]
group = "c7k2m"                  # the commune's key, given at enrolment
id = "c7k2m-01"                  # this box, unique in the whole deployment
state_dir = "state"              # what must survive a power cut
status_file = "status.json"      # optional: counts, rewritten every few seconds
clock = "ntp"                    # "ntp": ask the kernel whether it is synchronised; "trusted": believe it
primary_host = "hamlet-hub"      # the hub's host id; "" = any Sparkplug host, births at once
birth_jitter_seconds = 30        # births spread over so long after the hub comes back
keep_alive_seconds = 30
commit_interval_seconds = 10     # telemetry a power cut may cost
log_megabytes = 4000             # the most the log may take of the card; 60 days are kept if they fit
# power_supply = "/sys/class/power_supply"   # where mains and battery are told, if they are wired
# modem_signal = "/run/modem-signal"         # a file with the modem's signal in dBm, if somebody writes one

[[brokers]]                      # tried in this order
host = "127.0.0.1"
port = 1883
# username = "c7k2m-01"
# password_file = "broker.password"

[broadcast]                      # without it nothing on this box can be made to sound
deployment = "smart-hamlet-demo"
environment = "production"       # "demo" keys are believed only where this says "demo"
root = "root.json"               # the province's root, pinned
identity_key = "identity.pem"    # this box's own key; it can make nothing sound
audio_url = "http://127.0.0.1:8080"   # the hub: audio comes from <audio_url>/audio/<sha256>
max_volume = 80                  # this box's own limit

# Every device has: id, kind, driver; poll_seconds, timeout_seconds; grace_seconds (silence shorter than this is
# nobody's news); behind = "switch-01" (the device through which it is reached); mains = true (on the box's mains).

[[devices]]
id = "probe-01"
kind = "water_probe"             # or "air_station", "hydro_station"
driver = "modbus_sensor"
port = "/dev/ttyUSB0"            # devices that name one port share one line; or host and tcp_port (Modbus TCP)
baud = 9600
slave = 1
register_map = "generic-water-probe.yaml"
timeout_seconds = 1.0

[[devices]]
id = "dust-01"
kind = "air_station"
driver = "uart_sensor"
model = "pms5003"                # or "sds011"
port = "/dev/ttyUSB1"            # a port of its own

[[devices]]
id = "air-02"
kind = "air_station"
driver = "mqtt_sensor"           # publishes on this box's own broker
topic = "air-02"
mapping = "esphome-air.yaml"
silent_after_seconds = 900       # without a word for so long it is silent

[[devices]]
id = "speaker-01"
kind = "loudspeaker"
driver = "ip_speaker"
url = "http://192.168.1.20"
username = "box"
password_file = "speaker-01.password"
codec = "L16/16000"              # or "PCMU/8000"
# multicast = "239.1.2.3:5004"   # send to a group that the device joins, from
# interface = "192.168.1.1"      # this address of the box
behind = "switch-01"
mains = true

[[devices]]
id = "speaker-02"
kind = "loudspeaker"
driver = "local_output"          # the box's own sound card
alsa_device = "default"
# relay = "/sys/class/gpio/gpio17/value"   # switches the amplifier, which needs
# warm_up_seconds = 0.5          # so long before it can be heard

[[devices]]
id = "cam-01"
kind = "camera"
driver = "onvif_camera"
url = "http://192.168.1.30"      # ONVIF; or stream_url = "rtsp://...", or snapshot_url = "http://.../x.jpg"
username = "viewer"
password_file = "cam-01.password"
# serial = "DS-2CD..."           # another one at this address is another's camera
events = true                    # motion, tampering, video loss
poll_seconds = 60
timeout_seconds = 10.0
behind = "switch-01"

[[devices]]
id = "wifi-01"
kind = "hotspot"
driver = "openwrt_hotspot"
url = "http://192.168.1.40"
username = "hamlet"
password_file = "wifi-01.password"
uplink = "wan"

[[devices]]
id = "wifi-02"
kind = "hotspot"
driver = "snmp_hotspot"
host = "192.168.1.41"
port = 161
version = "3"                    # or "2c" with community_file
auth_protocol = "sha1"           # or "sha256", "md5"
privacy_protocol = "aes128"      # or "des"
username = "hamlet"
auth_password_file = "wifi-02.auth"
privacy_password_file = "wifi-02.privacy"
profile = "generic.yaml"
uplink_interface = "eth0"

[[devices]]
id = "switch-01"
kind = "network_device"
driver = "reachability"
host = "192.168.1.2"
tcp_port = 80                    # asked where this box may not ping
"""


class NodeConfig(Strict):
    """Who this box is."""

    group: Id
    id: Id
    state_dir: Path
    status_file: Path | None = None
    clock: Literal["ntp", "trusted"] = "ntp"
    primary_host: str = ""
    birth_jitter_seconds: float = Field(default=30, ge=0, le=300)
    keep_alive_seconds: int = Field(default=30, ge=5, le=600)
    commit_interval_seconds: float = Field(default=10, gt=0, le=60)
    log_megabytes: int = Field(default=4000, ge=50)
    power_supply: Path = Path("/sys/class/power_supply")
    modem_signal: Path | None = None

    @field_validator("group", "id")
    @classmethod
    def _may_stand_in_a_topic(cls, text: str) -> str:
        return may_stand_in_a_topic(text)


class BrokerConfig(Strict):
    """An MQTT broker."""

    host: str = Field(min_length=1)
    port: int = Field(default=1883, ge=1, le=65_535)
    username: str | None = None
    password_file: Path | None = None


class BroadcastConfig(Strict):
    """Whom this box believes when it is told to speak."""

    deployment: str = Field(min_length=1)
    environment: Literal["production", "demo"] = "production"
    root: Path
    identity_key: Path
    audio_url: str = Field(pattern=r"^https?://[^/]+$")
    max_volume: int = Field(default=80, ge=1, le=100)


class Config(Strict):
    """A whole file; paths are absolute after `load`."""

    node: NodeConfig
    brokers: list[BrokerConfig] = Field(min_length=1)
    broadcast: BroadcastConfig | None = None
    devices: list[DeviceConfig] = Field(default=[])

    @model_validator(mode="after")
    def _fits_together(self) -> "Config":
        names = [device.id for device in self.devices]
        # Two names of one node may not differ only in case (Sparkplug 3.0.0, 6.4.6).
        twice = sorted({one for one in names if [other.lower() for other in names].count(one.lower()) > 1})
        if twice:
            raise ValueError(
                f'devices "{twice[0]}": this id is used twice (case does not tell ids apart); give each device its own'
            )
        _check_lines(self.devices)
        _check_topology(self.devices)
        return self


def _check_lines(devices: Sequence[DeviceConfig]) -> None:
    """Raise ValueError where devices cannot share the lines they name."""
    lines: dict[str, int] = {}
    slaves: set[tuple[str, int]] = set()
    for device in devices:
        if isinstance(device, ModbusSensorConfig):
            line = device.line
            if device.port is not None and lines.setdefault(line, device.baud) != device.baud:
                raise ValueError(
                    f'devices "{device.id}" baud: {device.baud}, but another device on {line} says'
                    f" {lines[line]}; a line has one speed"
                )
            if (line, device.slave) in slaves:
                raise ValueError(
                    f'devices "{device.id}" slave: {device.slave} is used twice on {line}; each has its own'
                )
            slaves.add((line, device.slave))
    taken: dict[str, str] = {one.line: one.id for one in devices if isinstance(one, ModbusSensorConfig)}
    for device in devices:
        if isinstance(device, UartSensorConfig):
            if device.port in taken:
                raise ValueError(
                    f'devices "{device.id}" port: {device.port} belongs to {taken[device.port]}; a UART sensor needs'
                    " a port of its own"
                )
            taken[device.port] = device.id


def _check_topology(devices: Sequence[DeviceConfig]) -> None:
    """Raise ValueError where a device hangs on one that is not there, or on itself."""
    parents = {one.id: one.behind for one in devices}
    for device in devices:
        seen, here = {device.id}, device.behind
        while here is not None:
            if here not in parents:
                raise ValueError(f'devices "{device.id}" behind: there is no device {here!r}; name one of this file')
            if here in seen:
                raise ValueError(f'devices "{device.id}" behind: {here!r} hangs on it in turn; break the circle')
            seen.add(here)
            here = parents[here]


class ConfigRefused(ValueError):
    """What is wrong with a file, one line per fault."""


def load(path: Path) -> Config:
    """Return the configuration; raise ConfigRefused naming file, key, value and the way out. Opens nothing else."""
    try:
        told = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise ConfigRefused(f"{path}: {exc}") from exc
    try:
        config = Config.model_validate(told)
    except ValidationError as exc:
        raise ConfigRefused("\n".join(f"{path}: {_sentence(dict(one), told)}" for one in exc.errors())) from exc
    return _absolute(config, path.resolve().parent)


def problems(config: Config) -> list[str]:
    """Return what is missing on this machine for the configuration to work, a sentence each."""
    wanted: list[tuple[str, Path]] = []
    for number, broker in enumerate(config.brokers):
        if broker.password_file is not None:
            wanted.append((f"brokers[{number}] password_file", broker.password_file))
    if config.broadcast is not None:
        wanted += [("broadcast root", config.broadcast.root), ("broadcast identity_key", config.broadcast.identity_key)]
    for device in config.devices:
        wanted += [(f'devices "{device.id}" {key}', file) for key, file in _files(device).items()]
    missing = [
        f"{what}: there is no file {file}; put it there or name another" for what, file in wanted if not file.is_file()
    ]
    folder = config.node.state_dir
    existing = next(one for one in (folder, *folder.parents) if one.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        missing.append(f"node state_dir: {existing} cannot be written; choose another folder or mend its rights")
    return missing


def secret(file: Path) -> str:
    """Return a password from its file, without the newline at its end."""
    return file.read_text(encoding="utf-8").rstrip("\r\n")


FIRMWARE = Path(__file__).resolve().parent.parent / "firmware_configs"
SHIPPED = {"register_map": "register_maps", "mapping": "mqtt_mappings", "profile": "snmp_profiles"}
"""Files that come with the product, found by name alone; the folder of the configuration goes first."""


def _files(device: DeviceConfig) -> dict[str, Path]:
    """Return the files a device needs, by key; a relay is no file of ours."""
    return {key: told for key, told in device if isinstance(told, Path) and key != "relay"}


def _absolute(config: Config, folder: Path) -> Config:
    def found(key: str, file: Path) -> Path:
        own = folder / file
        return FIRMWARE / SHIPPED[key] / file if key in SHIPPED and not own.is_file() else own

    def device(one: DeviceConfig) -> DeviceConfig:
        update: dict[str, object] = {key: found(key, file) for key, file in _files(one).items()}
        if isinstance(one, (ModbusSensorConfig, UartSensorConfig)) and one.port is not None:
            update["port"] = one.port if one.port.startswith("/") else str(folder / one.port)
        return one.model_copy(update=update)

    node = config.node
    status = folder / node.status_file if node.status_file else None
    broadcast = config.broadcast
    if broadcast is not None:
        broadcast = broadcast.model_copy(
            update={"root": folder / broadcast.root, "identity_key": folder / broadcast.identity_key}
        )
    brokers = [
        one.model_copy(update={"password_file": folder / one.password_file}) if one.password_file else one
        for one in config.brokers
    ]
    return config.model_copy(
        update={
            "node": node.model_copy(
                update={
                    "state_dir": folder / node.state_dir,
                    "status_file": status,
                    "power_supply": folder / node.power_supply,
                    "modem_signal": folder / node.modem_signal if node.modem_signal else None,
                }
            ),
            "brokers": brokers,
            "broadcast": broadcast,
            "devices": [device(one) for one in config.devices],
        }
    )


def _sentence(error: Mapping[str, object], told: Mapping[str, object]) -> str:
    location, message = error["loc"], str(error["msg"]).removeprefix("Value error, ")
    assert isinstance(location, tuple)  # noqa: S101  # pydantic's error details
    if not location:
        return message
    where = _where(location, told)
    if error["type"] == "extra_forbidden":
        return f"{where}: no such key; `hamlet-edge sample-config` shows all"
    if error["type"] == "missing":
        return f"{where}: is missing; `hamlet-edge sample-config` shows what it looks like"
    if error["type"] == "union_tag_not_found":
        return f"{where} driver: is missing; one of {', '.join(sorted(DRIVERS))}"
    if error["type"] == "union_tag_invalid":
        return f"{where} driver: there is none of this name; one of {', '.join(sorted(DRIVERS))}{_got(error, 'driver')}"
    if error["type"] == "string_pattern_mismatch":
        return f"{where}: must look like {_LOOKS.get(str(location[-1]), _LOOKS['url'])}{_got(error)}"
    return f"{where}: {message}{_got(error)}"


_LOOKS = {
    "url": "http://192.168.1.20 or https://host:8443, without a path or a login",
    "stream_url": "rtsp://192.168.1.30:554/stream, without a login",
    "snapshot_url": "http://192.168.1.30/snapshot.jpg, without a login",
    "multicast": "239.1.2.3:5004",
}


def _got(error: Mapping[str, object], key: str | None = None) -> str:
    told = error["input"]
    return f" (got {(told.get(key) if key and isinstance(told, dict) else told)!r:.80})"


def _where(location: Sequence[str | int], told: Mapping[str, object]) -> str:
    """Return `devices[1] "speaker-01" volume` for the place that a file's reader looks for."""
    table, *rest = [part for part in location if part not in DRIVERS]
    words = str(table)
    if rest and isinstance(rest[0], int):
        number = rest.pop(0)
        assert isinstance(number, int)  # noqa: S101  # it just was
        words += f"[{number}]"
        rows = told.get(str(table))
        row = rows[number] if isinstance(rows, list) else None
        if isinstance(row, dict) and isinstance(row.get("id"), str):
            words += f' "{row["id"]}"'
    return " ".join([words, *map(str, rest)])
