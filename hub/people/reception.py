"""Accounts and sign-in put together: what hub and command line are given to work with."""

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from contract.clock import Clock
from hub.people.administration import Administration
from hub.people.entrance import Entrance
from hub.people.own import Own
from hub.people.sealing import Seal
from hub.people.set_up import SetUp
from hub.storage.accounts import AccountStore
from hub.storage.audit import Audit
from hub.storage.credentials import CredentialStore
from hub.storage.sessions import SessionStore

KEY_FILE = "accounts.key"
"""Beside hub.db and in no backup of it: whoever finds one has no second factor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reception:
    """Where people are known: what is kept of them, and what they and their administrators can do with it."""

    accounts: AccountStore
    credentials: CredentialStore
    sessions: SessionStore
    entrance: Entrance
    set_up: SetUp
    administration: Administration
    own: Own


def open_reception(database: sqlite3.Connection, audit: Audit, folder: Path, clock: Clock) -> Reception:
    """Return the accounts of a hub; makes the key that seals their secrets where there is none."""
    accounts, credentials = AccountStore(database, audit), CredentialStore(database, audit)
    sessions, seal = SessionStore(database, audit), Seal(folder / KEY_FILE)
    entrance = Entrance(accounts=accounts, credentials=credentials, sessions=sessions, seal=seal, clock=clock)
    return Reception(
        accounts=accounts,
        credentials=credentials,
        sessions=sessions,
        entrance=entrance,
        set_up=SetUp(accounts=accounts, credentials=credentials, sessions=sessions, seal=seal, clock=clock),
        administration=Administration(accounts=accounts, sessions=sessions, clock=clock),
        own=Own(credentials=credentials, sessions=sessions, seal=seal, challenges=entrance.challenges, clock=clock),
    )
