"""JSON that means one thing only: no duplicate keys, no NaN, no endless nesting."""

import json
from typing import Any


class JsonRefused(ValueError):
    """Text that is no JSON, or JSON that two readers could read differently."""


def loads(raw: str | bytes, *, most_bytes: int) -> Any:
    """Return the value; raise JsonRefused with the reason."""
    if len(raw) > most_bytes:
        raise JsonRefused(f"{len(raw)} bytes, more than {most_bytes}")
    try:
        return json.loads(raw, object_pairs_hook=_once, parse_constant=_no_constant)
    except JsonRefused:
        raise
    except (ValueError, RecursionError) as exc:
        raise JsonRefused(f"not JSON: {exc or type(exc).__name__}") from exc


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise JsonRefused(f"key {twice!r} stands twice")
    return found


def _no_constant(word: str) -> Any:
    raise JsonRefused(f"{word} is not a number here")
