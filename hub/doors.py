"""The door of every route: which right it asks for, on what; a route without one does not start.

`may(noun, verb, place)` is a dependency that lets in who has the right there and gives back how far it reaches.
`open_to_all(why)` marks the few routes that must answer strangers. Nothing else decides who comes in.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Annotated, Any, cast

from fastapi import Depends, FastAPI, Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import iter_route_contexts
from starlette.routing import Mount

from hub.border import CALLER, from_this_machine
from hub.given import Given
from hub.people.caller import Caller
from hub.rights.permissions import TABLE, Noun, Reason, Refused, Verb, allowed
from hub.rights.scopes import PROVINCE, Reach, Scope, of_node


class Turned(Exception):
    """Somebody was not let in; `reason` says why, `noun` and `verb` which right is wanted."""

    def __init__(self, reason: Reason, noun: Noun, verb: Verb) -> None:
        super().__init__(f"{verb} {noun}: {reason}")
        self.reason = reason
        self.noun = noun
        self.verb = verb


class Missing(Exception):
    """There is no such thing, or none that this caller may know of: the same words for both."""


class Where(Enum):
    """On what a route asks for its right, where it is no single thing."""

    LISTED = auto()
    """Anywhere: the route shows only what lies within the reach it is given."""
    WHOLE = auto()
    """The province as a whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """Where a thing is; a thing in several places is in all of them. None: there is no such thing, `missing` says."""

    places: Sequence[Scope] | None
    missing: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Who came in, and how far the right they came in with reaches."""

    caller: Caller
    reach: Reach

    def to(self, noun: Noun, verb: Verb) -> Reach:
        """Return where the caller has another right: for what a page shows besides."""
        return self.caller.reach(noun, verb)


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """What a route asks; `open` says why it asks nothing."""

    noun: Noun | None = None
    verb: Verb | None = None
    place: "Where | Callable[..., Any] | None" = None
    in_part: bool = False
    open: str = ""


def may(
    noun: Noun, verb: Verb, place: "Where | Callable[..., Any]" = Where.LISTED, *, in_part: bool = False
) -> Callable[..., Any]:
    """Return a dependency that lets in who has a right; raises Turned, or Missing for things out of their reach.

    `in_part`: of a thing in several places one suffices.
    """
    if (noun, verb) not in TABLE:
        raise ValueError(f"the table of permissions has no {verb} of {noun}")
    located = _nowhere if isinstance(place, Where) else place

    async def somewhere(request: Request) -> Caller:
        caller = caller_of(request)
        if caller is None:
            raise Turned(Reason.NOT_SIGNED_IN, noun, verb)
        if not caller.reach(noun, verb):
            raise Turned(Reason.NO_RIGHT, noun, verb)
        return caller

    async def door(
        caller: Annotated[Caller, Depends(somewhere)], found: Annotated[Located | None, Depends(located)]
    ) -> Asked:
        over = caller.reach(noun, verb)
        if found is None:
            places: Sequence[Scope] = [PROVINCE] if place is Where.WHOLE else sorted(over.scopes)[:1]
        elif found.places is None:
            raise Missing(found.missing)
        else:
            seen = [one for one in found.places if over.covers(one)]
            if not seen or (len(seen) < len(found.places) and not in_part):
                raise Missing(found.missing)
            places = seen
        for one in places:
            answer = allowed(caller.holder, noun, verb, one, caller.now)
            if isinstance(answer, Refused):
                raise Turned(answer.reason, noun, verb)
        return Asked(caller=caller, reach=over)

    door.door = Door(noun=noun, verb=verb, place=place, in_part=in_part)  # type: ignore[attr-defined]  # read by doors_of
    return door


def of_this_machine_or(noun: Noun, verb: Verb) -> Callable[..., Any]:
    """Return a dependency for machines: lets in this machine, where configured so, and who has the right everywhere."""

    async def door(request: Request, hub: Given) -> None:
        if hub.config.hub.loopback_metrics and from_this_machine(request.scope):
            return
        caller = caller_of(request)
        answer = allowed(caller.holder if caller else None, noun, verb, PROVINCE, hub.clock.now_ms())
        if isinstance(answer, Refused):
            raise Turned(answer.reason, noun, verb)

    door.door = Door(noun=noun, verb=verb, place=Where.WHOLE)  # type: ignore[attr-defined]  # read by doors_of
    return door


def open_to_all(why: str) -> Callable[..., Any]:
    """Return a dependency that asks nothing, and says why none is needed."""

    async def door() -> None:
        return None

    door.door = Door(open=why)  # type: ignore[attr-defined]  # read by doors_of
    return door


async def of_device(id: str, hub: Given) -> Located:  # noqa: A002  # the path's word
    """Return where the device of the path is."""
    one = hub.live.device(id)
    return Located(
        places=None if one is None else [of_node(one.key)],
        missing=f"there is no device {id[:40]!r}; /api/devices lists all",
    )


async def of_commune(group: str) -> Located:
    """Return the commune of the path, known or not: whose place it is, theirs it is to find out."""
    return Located(
        places=[Scope(group)], missing=f"there is no commune {group[:40]!r}; /api/devices names the groups of all"
    )


async def of_edge_node(group: str, node: str) -> Located:
    """Return the place of the edge node of the path, known or not: whose place it is, theirs it is to find out."""
    return Located(
        places=[Scope(group, node)], missing=f"there is no edge node {group[:40]}/{node[:40]}; /api/devices lists all"
    )


async def of_announcement(id: str, hub: Given) -> Located:  # noqa: A002  # the path's word
    """Return all the places where the announcement of the path is to be heard."""
    one = hub.announcements.get(id) if hub.announcements is not None else None
    places = None if one is None else sorted({of_node(part.device) for part in one.parts})
    return Located(places=places, missing=f"there is no announcement {id[:40]!r}")


def caller_of(request: Request) -> Caller | None:
    """Return who sends a request, None for strangers."""
    return cast("Caller | None", request.scope.get(CALLER))


def doors_of(application: FastAPI) -> Iterator[tuple[str, list[str], list[Door]]]:
    """Yield every route's path, methods and doors; static files are not asked for one."""
    for context in iter_route_contexts(application.routes):
        if isinstance(context.route, Mount) and context.name == "static":
            continue
        dependant = getattr(context, "dependant", None)
        doors = list(_doors(dependant)) if isinstance(dependant, Dependant) else []
        yield context.path or str(context.route), sorted(context.methods or ()), doors


def check(application: FastAPI) -> None:
    """Raise RuntimeError naming each route that has no door, or two: such a hub does not start."""
    wrong = [path for path, _, doors in doors_of(application) if len(doors) != 1]
    if wrong:
        raise RuntimeError(f"routes that do not say who may use them: {', '.join(wrong)}")


def _doors(dependant: Dependant) -> Iterator[Door]:
    for one in dependant.dependencies:
        found = getattr(one.call, "door", None)
        if isinstance(found, Door):
            yield found
        yield from _doors(one)


async def _nowhere() -> None:
    return None
