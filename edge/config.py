"""What an edge node is told in its one TOML file: read, checked, and refused with the way out."""

import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from contract.catalog import Kind
from contract.topics import valid_id

Id = Annotated[str, Field(min_length=1, max_length=40)]

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

[[devices]]
id = "probe-01"
kind = "water_probe"
driver = "modbus_sensor"
port = "/dev/ttyUSB0"            # devices that name one port share one line
baud = 9600
slave = 1
register_map = "generic-water-probe.yaml"
poll_seconds = 10
timeout_seconds = 1.0
grace_seconds = 30               # silence shorter than this is nobody's news

[[devices]]
id = "speaker-01"
kind = "loudspeaker"
driver = "ip_speaker"
url = "http://192.168.1.20"
username = "box"
password_file = "speaker-01.password"
codec = "L16/16000"              # or "PCMU/8000"
poll_seconds = 10
timeout_seconds = 3.0
grace_seconds = 30
"""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NodeConfig(_Strict):
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

    @field_validator("group", "id")
    @classmethod
    def _may_stand_in_a_topic(cls, text: str) -> str:
        if not valid_id(text):
            raise ValueError("must not contain blanks, '/', '+' or '#'")
        return text


class BrokerConfig(_Strict):
    """An MQTT broker."""

    host: str = Field(min_length=1)
    port: int = Field(default=1883, ge=1, le=65_535)
    username: str | None = None
    password_file: Path | None = None


class BroadcastConfig(_Strict):
    """Whom this box believes when it is told to speak."""

    deployment: str = Field(min_length=1)
    environment: Literal["production", "demo"] = "production"
    root: Path
    identity_key: Path
    audio_url: str = Field(pattern=r"^https?://[^/]+$")
    max_volume: int = Field(default=80, ge=1, le=100)


class _DeviceConfig(_Strict):
    id: Id
    poll_seconds: float = Field(default=10, ge=0.2, le=3600)
    grace_seconds: float = Field(default=30, ge=0, le=3600)

    @field_validator("id")
    @classmethod
    def _may_stand_in_a_topic(cls, text: str) -> str:
        if not valid_id(text):
            raise ValueError("must not contain blanks, '/', '+' or '#'")
        return text


class ModbusSensorConfig(_DeviceConfig):
    """A probe on a serial line."""

    driver: Literal["modbus_sensor"]
    kind: Literal[Kind.WATER_PROBE]
    port: str = Field(min_length=1)
    baud: int = Field(default=9600, ge=1200, le=115_200)
    slave: int = Field(ge=1, le=247)
    register_map: Path
    timeout_seconds: float = Field(default=1.0, gt=0, le=10)


class IpSpeakerConfig(_DeviceConfig):
    """A loudspeaker with HTTP control and RTP audio."""

    driver: Literal["ip_speaker"]
    kind: Literal[Kind.LOUDSPEAKER]
    url: str = Field(pattern=r"^https?://[^/]+$")
    username: str = Field(min_length=1)
    password_file: Path
    codec: Literal["L16/16000", "PCMU/8000"] = "L16/16000"
    timeout_seconds: float = Field(default=3.0, gt=0, le=30)


_DRIVERS = frozenset({"modbus_sensor", "ip_speaker"})
DeviceConfig = Annotated[ModbusSensorConfig | IpSpeakerConfig, Field(discriminator="driver")]


class Config(_Strict):
    """A whole file; paths are absolute after `load`."""

    node: NodeConfig
    brokers: list[BrokerConfig] = Field(min_length=1)
    broadcast: BroadcastConfig | None = None
    devices: list[DeviceConfig] = []

    @model_validator(mode="after")
    def _fits_together(self) -> "Config":
        names = [device.id for device in self.devices]
        # Two names of one node may not differ only in case (Sparkplug 3.0.0, 6.4.6).
        twice = sorted({one for one in names if [other.lower() for other in names].count(one.lower()) > 1})
        if twice:
            raise ValueError(
                f'devices "{twice[0]}": this id is used twice (case does not tell ids apart); give each device its own'
            )
        lines: dict[str, int] = {}
        slaves: set[tuple[str, int]] = set()
        for device in self.devices:
            if isinstance(device, ModbusSensorConfig):
                if lines.setdefault(device.port, device.baud) != device.baud:
                    raise ValueError(
                        f'devices "{device.id}" baud: {device.baud}, but another device on {device.port} says'
                        f" {lines[device.port]}; a line has one speed"
                    )
                if (device.port, device.slave) in slaves:
                    raise ValueError(
                        f'devices "{device.id}" slave: {device.slave} is used twice on {device.port}; each has its own'
                    )
                slaves.add((device.port, device.slave))
        return self


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
        if isinstance(device, IpSpeakerConfig):
            wanted.append((f'devices "{device.id}" password_file', device.password_file))
        else:
            wanted.append((f'devices "{device.id}" register_map', device.register_map))
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


MAPS = Path(__file__).resolve().parent.parent / "firmware_configs" / "register_maps"


def _absolute(config: Config, folder: Path) -> Config:
    def device(one: DeviceConfig) -> DeviceConfig:
        if isinstance(one, IpSpeakerConfig):
            return one.model_copy(update={"password_file": folder / one.password_file})
        own = folder / one.register_map
        port = one.port if one.port.startswith("/") else str(folder / one.port)
        return one.model_copy(update={"register_map": own if own.is_file() else MAPS / one.register_map, "port": port})

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
            "node": node.model_copy(update={"state_dir": folder / node.state_dir, "status_file": status}),
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
        return f"{where} driver: is missing; one of {', '.join(sorted(_DRIVERS))}"
    if error["type"] == "union_tag_invalid":
        return (
            f"{where} driver: there is none of this name; one of {', '.join(sorted(_DRIVERS))}{_got(error, 'driver')}"
        )
    if error["type"] == "string_pattern_mismatch":
        return f"{where}: must look like http://192.168.1.20 or https://host:8443, without a path{_got(error)}"
    return f"{where}: {message}{_got(error)}"


def _got(error: Mapping[str, object], key: str | None = None) -> str:
    told = error["input"]
    return f" (got {(told.get(key) if key and isinstance(told, dict) else told)!r:.80})"


def _where(location: Sequence[str | int], told: Mapping[str, object]) -> str:
    """Return `devices[1] "speaker-01" volume` for the place that a file's reader looks for."""
    table, *rest = [part for part in location if part not in _DRIVERS]
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
