"""When an edge node connects, waits, is born and dies: the Sparkplug session, decided without touching a socket.

Every decision is `step(session, event, rules) -> (session, actions)`: total, pure, time handed in with the event. The
loop that acts is in uplink.py.

    OFFLINE --Connected--> WAITING --HostOnline--> DUE --jitter over--> BORN
       ^                      ^  |                  |                    |
       |                      |  +--60 s, other broker in the list--+    |
       +---- Lost ------------+----------HostOffline before birth---+    |
       +---- NDEATH, disconnect, next broker: HostOffline after birth ---+

Sparkplug 3.0.0 clauses decided here (prefix `tck-id-` left out):
message-flow-edge-node-birth-publish-phid-wait, -phid-wait-id, -phid-wait-online, -phid-wait-timestamp, -phid-offline;
operational-behavior-edge-node-termination-host-offline, -host-offline-reconnect, -host-offline-timestamp;
operational-behavior-data-commands-rebirth-action-1 to -3; payloads-ndeath-will-message-publisher-disconnect-mqtt311.
"""

from dataclasses import dataclass, replace
from enum import Enum, auto

WAIT_WITH_OTHER_BROKERS = 60.0
"""Seconds to wait connected for the primary host before the next broker of the list is tried."""

BETWEEN_BIRTHS = 1.0
"""Seconds between two births of one session: whoever floods us with rebirth requests gets one a second, not a storm."""

FIRST_BACKOFF = 1.0
MOST_BACKOFF = 60.0
CALM_AFTER = 600.0
"""Back-off starts from the beginning again so many seconds after a session's first ledger, not earlier: two boxes with
one id throw each other out again and again, and must not do it every second."""


class Phase(Enum):
    """How far a session has come."""

    OFFLINE = auto()
    WAITING = auto()
    DUE = auto()
    BORN = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the configuration says: how many brokers there are, and whether a primary host must be online first."""

    brokers: int = 1
    waits_for_host: bool = True
    birth_jitter: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """Where the edge node stands. Instants are seconds of the monotonic clock, `host_seen` is a STATE timestamp.

    `host_seen` counts within one MQTT connection: a host that comes back from a backup with an older clock must be
    believed by who connects anew. `since` is when the phase began or the last birth was; `due` when a birth is.
    """

    phase: Phase = Phase.OFFLINE
    broker: int = 0
    retries: int = 0
    since: float = 0.0
    due: float = 0.0
    host_seen: int | None = None
    first_ledger: float | None = None


@dataclass(frozen=True, slots=True)
class Connected:
    """The broker accepted us and the subscriptions stand; `chance` is a fresh number from 0 to 1 for the jitter."""

    now: float
    chance: float


@dataclass(frozen=True, slots=True)
class Lost:
    """The connection is gone, or could not be made; `chance` as above."""

    now: float
    chance: float


@dataclass(frozen=True, slots=True)
class HostSaid:
    """The primary host's STATE: online or not, with its timestamp."""

    now: float
    online: bool
    timestamp: int
    chance: float


@dataclass(frozen=True, slots=True)
class RebirthAsked:
    """A host wrote `Node Control/Rebirth` = true."""

    now: float


@dataclass(frozen=True, slots=True)
class LedgerCame:
    """The hub said what it has committed."""

    now: float


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed."""

    now: float


Event = Connected | Lost | HostSaid | RebirthAsked | LedgerCame | Tick


@dataclass(frozen=True, slots=True)
class Bear:
    """Publish NBIRTH with the bdSeq of this connection's will, then a DBIRTH for each device."""


@dataclass(frozen=True, slots=True)
class Leave:
    """Disconnect; with `death`, publish NDEATH first."""

    death: bool


@dataclass(frozen=True, slots=True)
class Connect:
    """Connect to the session's broker at that instant of the monotonic clock."""

    at: float


Action = Bear | Leave | Connect


def step(session: Session, event: Event, rules: Rules) -> tuple[Session, tuple[Action, ...]]:
    """Return the session after an event and what must be done now, in order."""
    match event:
        case Connected():
            return _connected(session, event, rules)
        case Lost():
            return _lost(session, event, rules)
        case HostSaid():
            return _host_said(session, event, rules)
        case RebirthAsked():
            return _rebirth_asked(session, event.now)
        case LedgerCame():
            if session.phase is Phase.BORN and session.first_ledger is None:
                return replace(session, first_ledger=event.now), ()
            return session, ()
        case Tick():
            return _tick(session, event.now, rules)


def _rebirth_asked(session: Session, now: float) -> tuple[Session, tuple[Action, ...]]:
    if session.phase is not Phase.BORN:
        return session, ()
    due = session.since + BETWEEN_BIRTHS
    if now < due:
        return replace(session, due=due), ()
    return replace(session, since=now, due=0.0), (Bear(),)


def _connected(session: Session, event: Connected, rules: Rules) -> tuple[Session, tuple[Action, ...]]:
    fresh = replace(session, phase=Phase.WAITING, since=event.now, host_seen=None, first_ledger=None)
    if rules.waits_for_host:
        return fresh, ()
    return replace(fresh, phase=Phase.DUE, due=event.now + event.chance * rules.birth_jitter), ()


def _lost(session: Session, event: Lost, rules: Rules) -> tuple[Session, tuple[Action, ...]]:
    calm = session.first_ledger is not None and event.now - session.first_ledger >= CALM_AFTER
    retries = 0 if calm else session.retries
    # A connection that never came to a birth is the broker's fault: the next of the list may be better.
    broker = session.broker if session.phase is Phase.BORN else (session.broker + 1) % rules.brokers
    gone = Session(broker=broker, retries=retries + 1, since=event.now)
    return gone, (Connect(event.now + _backoff(retries, event.chance)),)


def _host_said(session: Session, event: HostSaid, rules: Rules) -> tuple[Session, tuple[Action, ...]]:
    if session.phase is Phase.OFFLINE or not rules.waits_for_host:
        return session, ()
    if session.host_seen is not None and event.timestamp < session.host_seen:
        return session, ()
    if event.online:
        seen = replace(session, host_seen=event.timestamp)
        if session.phase is Phase.WAITING:
            return replace(seen, phase=Phase.DUE, due=event.now + event.chance * rules.birth_jitter), ()
        return seen, ()
    match session.phase:
        case Phase.BORN:
            return _next_broker(session, event.now, event.chance, rules, death=True)
        case Phase.DUE:
            return replace(session, phase=Phase.WAITING, since=event.now), ()
        case _:
            # A retained offline STATE met before birth ends nothing; leaving here would spin the loop.
            return session, ()


def _tick(session: Session, now: float, rules: Rules) -> tuple[Session, tuple[Action, ...]]:
    if session.phase is Phase.DUE and now >= session.due:
        return replace(session, phase=Phase.BORN, since=now, due=0.0), (Bear(),)
    if session.phase is Phase.BORN and 0.0 < session.due <= now:
        return replace(session, since=now, due=0.0), (Bear(),)
    patience_over = now >= session.since + WAIT_WITH_OTHER_BROKERS
    if session.phase is Phase.WAITING and rules.brokers > 1 and patience_over:
        return _next_broker(session, now, 0.0, rules, death=False)
    return session, ()


def _next_broker(
    session: Session, now: float, chance: float, rules: Rules, *, death: bool
) -> tuple[Session, tuple[Action, ...]]:
    calm = session.first_ledger is not None and now - session.first_ledger >= CALM_AFTER
    retries = 0 if calm else session.retries
    gone = Session(broker=(session.broker + 1) % rules.brokers, retries=retries + 1, since=now)
    return gone, (Leave(death=death), Connect(now + _backoff(retries, chance)))


def _backoff(retries: int, chance: float) -> float:
    longest: float = min(MOST_BACKOFF, FIRST_BACKOFF * 2.0 ** min(retries, 10))
    return longest * (0.5 + chance / 2)
