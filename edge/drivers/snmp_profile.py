"""Which of a vendor's own SNMP tables mean what: a file, checked when it is read. Pure."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from edge.drivers.data_file import read

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
    return read(path, Profile, "SNMP profile")
