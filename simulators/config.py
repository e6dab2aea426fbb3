"""The file that describes simulated hamlets: read, checked, and refused with a sentence that names the way out."""

from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from simulators.faults import FaultEntry

Id = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")]

SAMPLE = """\
# Simulated hamlets: `hamlet-sim run hamlet.yaml`. Paths are relative to this file.
seed: 7                       # the same seed, the same readings
recordings: recordings        # what the horns let people hear, one WAV and one JSON file per stream
hamlets:
  - name: Ấp Bình Hòa
    buses:                    # RS-485 lines, each a pseudo-terminal
      - link: run/bus-1       # where a master finds it
        baud: 9600
        paced: true           # bytes take as long as the baud rate says
        probes:
          - id: probe-01
            slave: 1
          - id: probe-02
            slave: 2
            faults:           # silent, slow, corrupt, truncated, noise, illegal_address, stuck, not_a_number
              - kind: silent
                after_seconds: 60
                lasts_seconds: 30
    speakers:
      - id: speaker-01
        host: 127.0.0.1       # the address it listens at
        port: 0               # 0: a free one, told in the status file
        user: box
        password: demo
        volume: 50            # at start, 0-100
        faults: []            # silent, slow, refuse, unauthorised, nonsense, deaf, amplifier_failed, line_open, muted
"""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ProbeConfig(_Strict):
    """A water probe on a line."""

    id: Id
    slave: int = Field(ge=1, le=247)
    faults: list[FaultEntry] = []


class BusConfig(_Strict):
    """An RS-485 line."""

    link: Path
    baud: int = Field(default=9600, ge=1200, le=115_200)
    paced: bool = True
    probes: list[ProbeConfig] = Field(min_length=1)


class SpeakerConfig(_Strict):
    """A loudspeaker."""

    id: Id
    host: str = "127.0.0.1"
    port: int = Field(default=0, ge=0, le=65_535)
    user: str = "box"
    password: str = Field(min_length=1)
    volume: int = Field(default=50, ge=0, le=100)
    faults: list[FaultEntry] = []


class HamletConfig(_Strict):
    """The devices of one hamlet."""

    name: str
    buses: list[BusConfig] = []
    speakers: list[SpeakerConfig] = []


class Config(_Strict):
    """A whole file."""

    seed: int = 7
    recordings: Path = Path("recordings")
    hamlets: list[HamletConfig] = Field(min_length=1)

    @model_validator(mode="after")
    def _each_thing_once(self) -> "Config":
        probes = [one.id for hamlet in self.hamlets for bus in hamlet.buses for one in bus.probes]
        speakers = [one.id for hamlet in self.hamlets for one in hamlet.speakers]
        links = [str(bus.link) for hamlet in self.hamlets for bus in hamlet.buses]
        for what, names in (("id", probes + speakers), ("link", links)):
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(f"{what} {twice[0]!r} is used twice; give each device and line its own")
        for hamlet in self.hamlets:
            for bus in hamlet.buses:
                slaves = [one.slave for one in bus.probes]
                if len(set(slaves)) < len(slaves):
                    raise ValueError(f"bus {bus.link}: two probes share a slave number; give each its own")
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
    hamlets = [
        hamlet.model_copy(
            update={"buses": [bus.model_copy(update={"link": folder / bus.link}) for bus in hamlet.buses]}
        )
        for hamlet in config.hamlets
    ]
    return config.model_copy(update={"recordings": folder / config.recordings, "hamlets": hamlets})


def _sentence(error: object) -> str:
    assert isinstance(error, dict)  # noqa: S101  # pydantic's error details
    where = ".".join(map(str, error["loc"])) or "the file"
    if error["type"] == "extra_forbidden":
        return f"{where}: no such key; `hamlet-sim sample-config` shows all"
    return f"{where}: {error['msg']} (got {error['input']!r:.80})"
