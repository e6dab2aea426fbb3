"""Whom this box believes: the root pinned in its configuration and its verified successors, and the bundle in force."""

import contextlib
import json
import logging
from dataclasses import dataclass

from contract.broadcast import BroadcastRefused, Bundle, Root, accepted_bundle, next_root, pinned_root
from contract.clock import Clock
from edge.command_journal import CommandJournal

log = logging.getLogger(__name__)

ROOTS, BUNDLE = "roots", "bundle"


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """What a technician writes into the box: for whom it speaks, and the signed root it starts from."""

    group: str
    deployment: str
    environment: str
    root: str


class Trust:
    """Root and bundle in force, kept in the journal and verified anew at each start."""

    def __init__(self, anchor: Anchor, journal: CommandJournal, clock: Clock) -> None:
        self._anchor = anchor
        self._journal = journal
        self._clock = clock
        self.root: Root = pinned_root(anchor.root)
        self._chain: list[str] = json.loads(journal.trust(ROOTS) or "[]")
        for successor in self._chain:
            # Link by link from the pin: a technician who pins another root is not overruled by what an old one left.
            with contextlib.suppress(BroadcastRefused):
                self.root = next_root(self.root, successor)
        self.bundle: Bundle | None = self._kept_bundle()

    def take_root(self, raw: str) -> bool:
        """Put a successor of the root in force; False if it already is; raise BroadcastRefused otherwise."""
        if raw in self._chain:
            return False
        self.root = next_root(self.root, raw)
        self._chain.append(raw)
        self._journal.keep_trust(ROOTS, json.dumps(self._chain))
        log.warning("root version %d is in force", self.root.version)
        return True

    def take_bundle(self, raw: str) -> bool:
        """Put a newer bundle in force; False if this one already is; raise BroadcastRefused otherwise."""
        bundle = self._verified(raw, self.bundle)
        if self.bundle is not None and bundle.version == self.bundle.version:
            return False
        self._journal.keep_trust(BUNDLE, raw)
        self._put_in_force(bundle)
        return True

    def _kept_bundle(self) -> Bundle | None:
        kept = self._journal.trust(BUNDLE)
        if kept is None:
            return None
        try:
            bundle = self._verified(kept, None)
        except BroadcastRefused as exc:
            log.error("the kept trust bundle is not believed any more: %s", exc)
            return None
        self._put_in_force(bundle)
        return bundle

    def _put_in_force(self, bundle: Bundle) -> None:
        self.bundle = bundle
        log.info("trust bundle version %d is in force", bundle.version)
        if bundle.renew_by < self._clock.now_ms():
            log.warning("trust bundle version %d is past its renewal date; it stays in force", bundle.version)

    def _verified(self, raw: str, current: Bundle | None) -> Bundle:
        anchor = self._anchor
        return accepted_bundle(
            raw,
            root=self.root,
            deployment=anchor.deployment,
            group=anchor.group,
            environment=anchor.environment,
            current=current,
        )
