"""A record of acts that nobody can change unnoticed: each entry carries the hash of the one before it. Pure.

In the chain stand an act's number, instant, account, verb and subject in clear, and of everything that may speak of a
person (name, address, reason, before and after) only a salted hash. What a person may ask to have deleted can therefore
be deleted, and the chain still holds.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

GENESIS = bytes(32)
"""What stands for the entry before the first."""

DETAILS = ("name", "address", "why", "before", "after")
"""Fields that may speak of a person."""

ERASE_PERSON = "audit.erase_person"
ERASE_ACT = "audit.erase_act"
"""Verbs that say whose name and address, or which act's details, were deleted: its subject tells."""

OF_A_PERSON = ("name", "address")


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Who acts: an opaque account id, the name people know it by, and the address the request came from."""

    account: str
    name: str = ""
    address: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """Something that somebody did: `what` as noun.verb, `before` and `after` as JSON values."""

    at: int
    by: Person
    what: str
    subject: str = ""
    why: str = ""
    before: Any = None
    after: Any = None

    def details(self) -> dict[str, Any]:
        """Return what may speak of a person, without what is empty."""
        told = (self.by.name, self.by.address, self.why, self.before, self.after)
        return {name: value for name, value in zip(DETAILS, told, strict=True) if value is not None and value != ""}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An act's place in the chain; `sealed` are the salted hashes of its details by field."""

    number: int
    at: int
    account: str
    what: str
    subject: str
    sealed: Mapping[str, str]
    previous: bytes
    hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The newest entry at some instant, as another machine may have kept it."""

    at: int
    number: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class Detail:
    """A detail as it is kept outside the chain: its salt, and its value as canonical JSON."""

    salt: bytes
    value: str


def canonical(value: Any) -> str:
    """Return the one JSON text of a value: sorted keys, no blanks."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def sealed(detail: Detail) -> str:
    """Return the salted hash that stands in the chain for a detail."""
    return hashlib.sha256(detail.salt + detail.value.encode()).hexdigest()


def entry(act: Act, details: Mapping[str, Detail], *, number: int, previous: bytes) -> Entry:
    """Return the entry of an act after the one whose hash is `previous`."""
    hashes = {name: sealed(one) for name, one in details.items()}
    return Entry(
        number=number,
        at=act.at,
        account=act.by.account,
        what=act.what,
        subject=act.subject,
        sealed=hashes,
        previous=previous,
        hash=digest(previous, number, act.at, act.by.account, act.what, act.subject, hashes),
    )


def digest(
    previous: bytes, number: int, at: int, account: str, what: str, subject: str, hashes: Mapping[str, str]
) -> bytes:
    """Return an entry's hash: SHA-256 over the hash before it and its own content."""
    content = canonical([number, at, account, what, subject, dict(hashes)])
    return hashlib.sha256(previous + content.encode()).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What a walk along the chain found; `difference` is a sentence naming the first thing that is not as it was."""

    entries: int
    erased: int
    head: bytes
    difference: str | None


def verified(
    entries: Iterable[tuple[Entry, Mapping[str, Detail]]], heads: Sequence[Head] = (), *, whole: bool = True
) -> Verified:
    """Return what a walk along entries in order finds, against heads kept elsewhere as well.

    With `whole` False the entries are a part of the chain: it may begin and end anywhere, and what was erased is not
    asked for the act that says so.
    """
    by_number = {one.number: one for one in heads}
    expected, head = (1, GENESIS) if whole else (None, GENESIS)
    gone: dict[int, tuple[str, list[str]]] = {}
    count = erased = 0
    for one, details in entries:
        if expected is None:
            expected, head = one.number, one.previous
        wrong = next(_wrong(one, details, expected, head, by_number.get(one.number)), None)
        if wrong is not None:
            return Verified(entries=count, erased=erased, head=head, difference=wrong)
        lacking = [name for name in one.sealed if name not in details]
        if lacking:
            erased += 1
            gone[one.number] = (one.account, lacking)
        _excuse(gone, one)
        count, head, expected = count + 1, one.hash, one.number + 1
    end = _wrong_at_the_end(heads, (expected or 1) - 1, gone if whole else {})
    return Verified(entries=count, erased=erased, head=head, difference=end)


def _wrong(
    one: Entry, details: Mapping[str, Detail], expected: int, previous: bytes, head: Head | None
) -> Iterator[str]:
    if one.number != expected:
        yield f"entry {expected} is missing; entry {one.number} follows"
    if one.previous != previous:
        yield f"entry {one.number} does not follow entry {expected - 1}: the hash before it is another"
    if one.hash != digest(one.previous, one.number, one.at, one.account, one.what, one.subject, one.sealed):
        yield f"entry {one.number}: its content is not what was hashed"
    for name, detail in details.items():
        if one.sealed.get(name) != sealed(detail):
            yield f"entry {one.number}: {name} is not what was hashed"
    if head is not None and head.hash != one.hash:
        yield f"entry {one.number}: a head kept elsewhere has another hash; entries were made anew up to there"


def _wrong_at_the_end(heads: Sequence[Head], last: int, gone: Mapping[int, tuple[str, Sequence[str]]]) -> str | None:
    beyond = min((one.number for one in heads if one.number > last), default=None)
    if beyond is not None:
        return f"the chain ends with entry {last}, a head kept elsewhere names entry {beyond}"
    for number, (_, lacking) in gone.items():
        return f"entry {number}: {', '.join(lacking)} is gone, and no later act says that it was erased"
    return None


def _excuse(gone: dict[int, tuple[str, list[str]]], one: Entry) -> None:
    """Take from what is gone the details that this act says were erased."""
    if one.what == ERASE_ACT and one.subject.isdecimal():
        gone.pop(int(one.subject), None)
    elif one.what == ERASE_PERSON:
        for number, (account, lacking) in list(gone.items()):
            rest = [name for name in lacking if account != one.subject or name not in OF_A_PERSON]
            if rest:
                gone[number] = (account, rest)
            else:
                del gone[number]
