"""People of a whole hub application: kept without their links, signed in without their passwords."""

import itertools
from typing import Any

from hub.audit import Act, Person
from hub.people.caller import Visitor
from hub.rights.permissions import Grant, Role
from hub.rights.scopes import PROVINCE, Scope

NUMBERS = itertools.count()


def account(hub: Any, *roles: Role, scope: Scope = PROVINCE, name: str = "") -> Any:
    """Keep an account that holds roles over a place."""
    inside = hub.state.hub
    accounts, now = inside.reception.accounts, inside.clock.now_ms()
    act = Act(at=now, by=Person(account="test"), what="account.make")
    called = name or f"person-{next(NUMBERS)}"
    made = accounts.add(name=called, full_name=f"Bà {called}", home=scope, at=now, act=act)
    for role in roles:
        accounts.give(made.id, Grant(role=role, scope=scope), by="test", at=now, act=act)
    return accounts.get(made.id)


def session(hub: Any, who: Any) -> tuple[str, str]:
    """Sign somebody in; return their session's secret, and what their forms bring back."""
    entrance = hub.state.hub.reception.entrance
    came = entrance.start(who.id, Visitor(address="127.0.0.1"))
    return came.secret, entrance.form_token(came.secret)
