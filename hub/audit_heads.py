"""The newest hash of the audit, written down each hour where another machine can keep a copy of it.

Who makes the whole chain anew, with right hashes throughout, is found by a head kept elsewhere.
"""

import asyncio
import json
import logging
import os
from pathlib import Path

from contract.clock import Clock
from hub.audit import Head
from hub.storage.audit import Audit

log = logging.getLogger(__name__)

EVERY_SECONDS = 3600.0


class HeadsUnreadable(ValueError):
    """A file of heads that holds a line which is none."""


async def keep_heads(audit: Audit, file: Path, clock: Clock) -> None:
    """Append the newest head to the file now and each hour, until cancelled; a file that cannot be written is said."""
    while True:
        head = audit.head(clock.now_ms())
        if head is not None:
            try:
                await asyncio.to_thread(append, file, head)
            except OSError as exc:
                log.error("the audit's head could not be written to %s: %s", file, exc)
        await clock.sleep(EVERY_SECONDS)


def append(file: Path, head: Head) -> None:
    """Return once the head stands in the file, fsynced."""
    line = json.dumps({"at": head.at, "number": head.number, "hash": head.hash.hex()})
    with file.open("a", encoding="utf-8") as out:
        out.write(line + "\n")
        out.flush()
        os.fsync(out.fileno())


def read(file: Path) -> list[Head]:
    """Return the heads of a file, oldest first; raise HeadsUnreadable naming the line. A cut-off last line is none."""
    text = file.read_text(encoding="utf-8")
    heads = []
    for number, line in enumerate(text[: text.rfind("\n") + 1].splitlines(), start=1):
        try:
            told = json.loads(line)
            heads.append(Head(at=int(told["at"]), number=int(told["number"]), hash=bytes.fromhex(told["hash"])))
        except (ValueError, KeyError, TypeError) as exc:
            raise HeadsUnreadable(f"{file}, line {number}: {line[:80]!r} is no head of an audit") from exc
    return heads
