"""What the signer is told, in a file of its own: where its key is, and what it may at most sign."""

import tomllib
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hub.signer.policy import Limits

SAMPLE = """\
# The signer: `hamlet-hub signer signer.toml`. A process of its own; the web server cannot read its key.
deployment = "smart-hamlet-demo"
key = "signer.pem"               # Ed25519, readable by the signer alone
socket = "signer.sock"           # where the hub asks; its own user's alone
log = "signer.log"               # every order: who, what, why, when; appended, never changed

[limits]
duration_seconds = 600
volume = 80
orders_a_minute = 20
"""


class SignerConfig(BaseModel):
    """A whole file; paths are absolute after `load`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    deployment: Annotated[str, Field(min_length=1)]
    key: Path
    socket: Path
    log: Path
    limits: Limits = Limits()


class SignerConfigRefused(ValueError):
    """What is wrong with a file, one line per fault."""


def load(path: Path) -> SignerConfig:
    """Return the configuration; raise SignerConfigRefused naming file, key, value and the way out."""
    try:
        config = SignerConfig.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise SignerConfigRefused(f"{path}: {exc}") from exc
    except ValidationError as exc:
        lines = [
            f"{path}: {'.'.join(map(str, one['loc']))}: {one['msg']} (got {one['input']!r:.80})" for one in exc.errors()
        ]
        raise SignerConfigRefused("\n".join(lines)) from exc
    folder = path.resolve().parent
    absolute = {"key": folder / config.key, "socket": folder / config.socket, "log": folder / config.log}
    return config.model_copy(update=absolute)
