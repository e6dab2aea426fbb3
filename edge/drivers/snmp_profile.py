"""Which of a vendor's own SNMP tables mean what: a file, checked when it is read. Pure."""

from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge.poller import DeviceMisconfigured

Oid = Annotated[str, Field(pattern=r"^1\.3\.6\.1(\.\d{1,10}){1,60}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Column(_Strict):
    """A column of a table: its numbers are summed, or, with `equal_to`, those that equal it are counted."""

    oid: Oid
    equal_to: int | None = None


class Scalar(_Strict):
    """One value, number or text; a number is multiplied by `scale`."""

    oid: Oid
    scale: float = 1.0


class Profile(_Strict):
    """What a vendor tells beyond the standard tables; `source` says where that is known from."""

    name: str
    source: str
    clients: Column | None = None
    radios: Column | None = None
    temperature: Scalar | None = None
    model: Scalar | None = None
    firmware: Scalar | None = None
    serial: Scalar | None = None


def load_profile(path: Path) -> Profile:
    """Return a profile; raise DeviceMisconfigured naming file, key and what is wrong."""
    try:
        return Profile.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as exc:
        raise DeviceMisconfigured(f"SNMP profile {path}: {exc}") from exc
    except ValidationError as exc:
        first = exc.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the profile"
        raise DeviceMisconfigured(f"SNMP profile {path}: {where}: {first['msg']}") from exc
