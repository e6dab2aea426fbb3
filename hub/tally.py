"""What intake counts, and what it complains of: once a minute for each reason and source, whoever floods us."""

import logging
from collections import Counter

from contract.clock import Clock
from contract.topics import MessageType
from hub.alias_tables import Taken
from hub.counters import Counters

log = logging.getLogger(__name__)

COMPLAIN_EVERY = 60.0
MOST_REMEMBERED = 10_000


class Tally:
    """Counts by the message are brought up to the counters now and then: each costs as much as reading a sample."""

    def __init__(self, *, clock: Clock, counters: Counters) -> None:
        self._clock = clock
        self._counters = counters
        self._complained: dict[tuple[str, str], float] = {}
        self.messages: Counter[MessageType] = Counter()
        self.samples = 0

    def bring_up(self) -> None:
        """Bring the counters up to date."""
        for kind, count in self.messages.items():
            self._counters.messages.labels(kind).inc(count)
        self._counters.samples.inc(self.samples)
        self.messages.clear()
        self.samples = 0

    def taken(self, what: Taken, topic: str) -> None:
        """Count what a message brought, and complain of what was wrong with it."""
        self.samples += what.samples
        if what.again:
            self._counters.again.inc(what.again)
        for reason in what.faults:
            self._counters.quarantined.labels(reason).inc()
        if what.faults:
            self.complain(what.faults[0], topic, f"{topic}: {', '.join(sorted(set(what.faults)))}")

    def dropped(self, reason: str, source: str, sentence: str) -> None:
        """Count and complain of a message that is not acknowledged."""
        self._counters.dropped.labels(reason).inc()
        self.complain(reason, source, sentence)

    def complain(self, reason: str, source: str, sentence: str) -> None:
        """Log once per source and minute."""
        now = self._clock.monotonic()
        if now - self._complained.get((reason, source), float("-inf")) < COMPLAIN_EVERY:
            return
        if len(self._complained) > MOST_REMEMBERED:
            self._complained.clear()
        self._complained[reason, source] = now
        log.warning("%s", sentence)
