"""What rights cost: a permission question, finding out who asks, a sign-in; and what throttling leaves of sign-ins.

The reference of a question is the same answer by a plain dictionary of booleans: what a system without places, days and
tokens would pay.
"""

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

import pyotp

from contract.clock import SystemClock
from hub.audit import Act, Person
from hub.people.caller import Visitor
from hub.people.entrance import SignInRefused
from hub.people.reception import Reception, open_reception
from hub.people.throttle import ACCOUNT, ADDRESS
from hub.rights.permissions import TABLE, Allowed, Grant, Holder, Noun, Role, Verb, allowed
from hub.rights.scopes import Scope
from hub.storage.audit import Audit
from hub.storage.database import open_database

PASSWORD = "bốn con trâu uống nước"
ATTEMPTS = 24
MINUTES = 10
HERE = Visitor(address="10.0.0.1")


def told(name: str, figure: float, unit: str, reference: float, detail: Mapping[str, object]) -> None:
    ratio = round(figure / reference, 3) if reference else None
    line = {"bench": name, "figure": figure, "unit": unit, "reference": reference, "ratio": ratio, "detail": detail}
    print(json.dumps(line, ensure_ascii=False))


def per_call(call: Callable[[], object], seconds: float = 1.0) -> float:
    """Return how many microseconds a call takes, the best of five."""
    count, best = 1000, float("inf")
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        start = time.perf_counter()
        for _ in range(count):
            call()
        best = min(best, (time.perf_counter() - start) / count)
    return best * 1e6


def question() -> None:
    """Print what one permission question costs somebody with four roles in four communes."""
    now = 1_790_000_000_000
    roles = (Role.OPERATOR, Role.DUTY_OFFICER, Role.TECHNICIAN, Role.VOLUNTEER)
    places = (Scope("a"), Scope("b"), Scope("c"), Scope("d", "1"))
    grants = tuple(Grant(role=role, scope=place) for role, place in zip(roles, places, strict=True))
    holder = Holder(account="x", grants=grants, proven_at=now)
    place = Scope("b", "2")
    assert isinstance(allowed(holder, Noun.ANNOUNCEMENT, Verb.MAKE, place, now), Allowed)
    figure = per_call(lambda: allowed(holder, Noun.ANNOUNCEMENT, Verb.MAKE, place, now))
    plain = {(role, *key): role in right.roles for key, right in TABLE.items() for role in Role}
    reference = per_call(lambda: any(plain[role, Noun.ANNOUNCEMENT, Verb.MAKE] for role in roles))
    told("rights.question", round(figure, 2), "µs", round(reference, 2), {"grants": 4, "rows": len(TABLE)})


def caller(reception: Reception, account: str) -> None:
    """Print what it costs to find out who sends a request: session, account and grants, from the database each time."""
    secret = reception.entrance.start(account, HERE).secret
    assert reception.entrance.caller(secret, "") is not None
    figure = per_call(lambda: reception.entrance.caller(secret, ""))
    refused = per_call(lambda: reception.entrance.caller("x" * 43, ""))
    told("rights.caller", round(figure, 1), "µs", round(refused, 1), {"reference": "a secret that opens nothing"})


async def sign_ins(reception: Reception, secret: str) -> None:
    """Print how many attempts a second the hub can work through, and how many of a guesser's throttling leaves."""
    entrance = reception.entrance
    start, worked = time.perf_counter(), time.process_time()
    attempts = (
        entrance.by_password(f"nobody-{number}", PASSWORD, "000000", Visitor(address=f"10.1.{number}.1"))
        for number in range(ATTEMPTS)
    )
    done = await asyncio.gather(*attempts, return_exceptions=True)
    assert all(type(one) is SignInRefused for one in done)
    a_second = ATTEMPTS / (time.perf_counter() - start)
    core_ms = (time.process_time() - worked) / ATTEMPTS * 1000
    code = pyotp.TOTP(secret).now()
    start = time.perf_counter()
    await entrance.by_password("lan", PASSWORD, code, HERE)
    alone = time.perf_counter() - start
    left = ACCOUNT.burst + MINUTES * 60 / ACCOUNT.seconds_each
    detail = {
        "core_ms_each": round(core_ms, 1),
        "one_alone_ms": round(alone * 1000, 1),
        "cores": os.cpu_count(),
        "throttled_account_in_10_min": left,
        "throttled_address_in_10_min": ADDRESS.burst + MINUTES * 60 / ADDRESS.seconds_each,
        "unthrottled_in_10_min": round(a_second * 60 * MINUTES),
        "reference": "attempts a second that throttling leaves on one account for ten minutes",
    }
    told("rights.sign_ins", round(a_second, 1), "1/s", round(left / (MINUTES * 60), 4), detail)


async def measure() -> None:
    """Set up one account, and print all figures."""
    question()
    with tempfile.TemporaryDirectory(prefix="hamlet-bench-") as folder:
        clock = SystemClock()
        with closing(open_database(Path(folder) / "hub.db", "hub")) as database:
            reception = open_reception(database, Audit(database), Path(folder), clock)
            by = Person(account="bench")
            act = Act(at=clock.now_ms(), by=by, what="account.make")
            made = reception.accounts.add(name="lan", full_name="Bà Lan", home=Scope("a"), at=clock.now_ms(), act=act)
            for role in (Role.OPERATOR, Role.TECHNICIAN):
                grant = Grant(role=role, scope=Scope("a"))
                reception.accounts.give(made.id, grant, by="bench", at=clock.now_ms(), act=act)
            link = reception.set_up.link_for(made, by)
            opened = reception.set_up.opened(link)
            assert opened is not None
            code = pyotp.TOTP(opened.secret).generate_otp(int(time.time()) // 30 - 1)
            await reception.set_up.done(link, name="", full_name="", password=PASSWORD, code=code, address="127.0.0.1")
            caller(reception, made.id)
            await sign_ins(reception, opened.secret)


if __name__ == "__main__":
    sys.exit(asyncio.run(measure()))
