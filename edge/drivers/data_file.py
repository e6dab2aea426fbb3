"""Reads a file of the configuration that is data, not code: YAML, checked against its shape."""

from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from edge.poller import DeviceMisconfigured

Shape = TypeVar("Shape", bound=BaseModel)


def read(path: Path, shape: type[Shape], what: str) -> Shape:
    """Return what stands in a file; raise DeviceMisconfigured naming `what` it is, the file, the key and the fault."""
    try:
        return shape.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as exc:
        raise DeviceMisconfigured(f"{what} {path}: {exc}") from exc
    except ValidationError as exc:
        first = exc.errors()[0]
        where = ".".join(map(str, first["loc"])) or "all of it"
        raise DeviceMisconfigured(f"{what} {path}: {where}: {first['msg']}") from exc
