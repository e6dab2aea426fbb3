"""What a search found, and how it reads as configuration to paste. Pure."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import tomli_w

MOST_TEXT = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One device: what was seen of it (for people), and the table to paste; `todo` names keys nobody but you knows."""

    seen: str
    table: Mapping[str, object]
    todo: Sequence[str] = ()


def name(prefix: str, address: str) -> str:
    """Return an id for a device at an address, as it may stand in a topic."""
    return f"{prefix}-{re.sub(r'[^A-Za-z0-9]+', '-', address).strip('-')}"[:40]


def printable(text: str) -> str:
    """Return a stranger's words without control characters, cut to a length: they end up in a terminal and a file."""
    return "".join(one if one.isprintable() else " " for one in text)[:MOST_TEXT].strip()


def toml(found: Sequence[Found]) -> str:
    """Return the tables in TOML, each under a comment that says what was seen."""
    return "\n".join(_table(one) for one in found)


def _table(one: Found) -> str:
    todo = "".join(f'# {key} = "..."    # yours to fill in\n' for key in one.todo)
    return f"# {printable(one.seen)}\n{tomli_w.dumps({'devices': [one.table]})}{todo}"
