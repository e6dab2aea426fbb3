"""What an InfluxDB's answer to a write means, and how the bad ones are sifted out of a request. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from hub.storage.line_protocol import Record


class Verdict(StrEnum):
    """What became of a request."""

    STORED = "stored"
    REFUSED = "refused"
    """Nothing of it is stored, and never will be as it is."""
    PARTLY = "partly"
    """All of it is stored but some points, which never will be."""
    MISCONFIGURED = "misconfigured"
    """Nothing is stored until somebody changes a setting, here or there."""
    LATER = "later"
    """Nothing is known to be stored; the same again may work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a server said to a write; `status` 0 where it said nothing."""

    verdict: Verdict
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """One sample that the server will never take, and why; `expired`: only because it is older than it keeps."""

    record: Record
    series: int
    message: str
    expired: bool


_TOO_OLD = "retention policy"
MOST_MESSAGE = 200


def read_answer(status: int, message: str) -> Answer:
    """Return what a status and the server's words mean. What no InfluxDB 2.x says is a wrong address: configuration."""
    told = " ".join(message.split())[:MOST_MESSAGE]
    if 200 <= status < 300:
        return Answer(verdict=Verdict.STORED)
    if status in {400, 413}:
        verdict = Verdict.REFUSED
    elif status == 422:
        verdict = Verdict.PARTLY
    elif status == 429 or status >= 500 or status == 0:
        verdict = Verdict.LATER
    else:
        verdict = Verdict.MISCONFIGURED
    return Answer(verdict=verdict, message=f"{status} {told}" if status else told)


def sift(records: Sequence[Record], send: Callable[[str], Answer], lines: int) -> list[Refusal]:
    """Send every record, `lines` a request; return the samples that were refused, all others being stored.

    A refused request is halved until the culprit stands alone, then its record is sent a field at a time, so that only
    what is bad stays out. `send` raises where the server cannot be written to now; what was sent may be sent again.
    """
    refused: list[Refusal] = []
    waiting = [list(records[start : start + lines]) for start in range(0, len(records), lines)][::-1]
    while waiting:
        part = waiting.pop()
        answer = send("".join([one.text() for one in part]))
        if answer.verdict is Verdict.STORED:
            continue
        if len(part) > 1:
            middle = len(part) // 2
            waiting += [part[middle:], part[:middle]]
            continue
        record = part[0]
        if len(record.fields) > 1:
            waiting += [[Record(record.head, record.at, {number: text})] for number, text in record.fields.items()]
            continue
        (series,) = record.fields
        expired = answer.verdict is Verdict.PARTLY and _TOO_OLD in answer.message
        refused.append(Refusal(record=record, series=series, message=answer.message, expired=expired))
    return refused
