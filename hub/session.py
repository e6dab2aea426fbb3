"""The host's side of each Sparkplug session: births, deaths and the order of messages, decided without I/O.

Storing never waits for order: every message is taken as it comes. A gap in the sequence only starts a timer, and only
a timer that runs out with the gap still open asks for a rebirth.

Sparkplug 3.0.0 clauses decided here (prefix `tck-id-` left out): operational-behavior-host-reordering-start,
-reordering-rebirth, -reordering-success, -reordering-param; payloads-ndeath-bdseq (a death counts only for the birth in
force); operational-behavior-edge-node-termination-host-action-ndeath-devices-offline;
operational-behavior-host-application-host-rebirth (data before birth asks for one).
"""

from dataclasses import dataclass, replace

ASK_AGAIN = 60.0
"""Seconds between two rebirth requests to one edge node; a node that cannot answer is not helped by more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSession:
    """One edge node as the host sees it; instants are seconds of the monotonic clock."""

    born: bool = False
    bdseq: int | None = None
    expected: int = 0
    missing: frozenset[int] = frozenset()
    gap_since: float | None = None
    asked: float | None = None
    wants_birth: bool = False


def birth(session: NodeSession, *, bdseq: int | None, seq: int) -> NodeSession:
    """Return the session after an NBIRTH: it begins anew, whatever was before."""
    return NodeSession(born=True, bdseq=bdseq, expected=(seq + 1) % 256, asked=session.asked)


def message(session: NodeSession, seq: int | None, now: float) -> NodeSession:
    """Return the session after any later message with a sequence number; one before birth wants a birth."""
    if not session.born:
        return replace(session, wants_birth=True)
    if seq is None:
        return session
    if seq == session.expected:
        # By hand: what `replace` does at every message costs as much as reading three samples.
        return NodeSession(
            born=True,
            bdseq=session.bdseq,
            expected=(seq + 1) % 256,
            missing=session.missing,
            gap_since=session.gap_since,
            asked=session.asked,
            wants_birth=session.wants_birth,
        )
    if seq in session.missing:
        missing = session.missing - {seq}
        return replace(session, missing=missing, gap_since=session.gap_since if missing else None)
    ahead = (seq - session.expected) % 256
    skipped = frozenset((session.expected + step) % 256 for step in range(ahead))
    return replace(
        session,
        expected=(seq + 1) % 256,
        missing=session.missing | skipped,
        gap_since=now if session.gap_since is None else session.gap_since,
    )


def death(session: NodeSession, bdseq: int | None) -> NodeSession | None:
    """Return the session after an NDEATH, None if it is not of the birth in force and changes nothing."""
    if not session.born or bdseq != session.bdseq:
        return None
    return replace(session, born=False, missing=frozenset(), gap_since=None)


def unreadable(session: NodeSession) -> NodeSession:
    """Return the session after data that no birth explains (unknown alias, unknown device)."""
    return replace(session, wants_birth=True)


def overdue(session: NodeSession, now: float, reorder_seconds: float) -> NodeSession:
    """Return the session with a birth wanted, if its gap has been open for the reorder time."""
    if session.gap_since is None or now - session.gap_since < reorder_seconds:
        return session
    return replace(session, missing=frozenset(), gap_since=None, wants_birth=True)


def asks(session: NodeSession, now: float) -> NodeSession | None:
    """Return the session after asking for a rebirth now, None if none is wanted or it is too soon to ask again."""
    if not session.wants_birth or (session.asked is not None and now - session.asked < ASK_AGAIN):
        return None
    return replace(session, wants_birth=False, asked=now)
