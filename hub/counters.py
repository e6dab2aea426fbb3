"""What the hub counts of itself, in Prometheus' terms."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest


class Counters:
    """One registry per hub, so that two hubs in one process do not count for each other."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        self.messages = Counter("hamlet_messages", "Sparkplug messages taken in", ["type"], registry=registry)
        self.samples = Counter("hamlet_samples", "Samples put into a batch", registry=registry)
        self.dropped = Counter("hamlet_dropped", "Messages not acknowledged, by reason", ["reason"], registry=registry)
        self.quarantined = Counter(
            "hamlet_quarantined", "Samples put aside for good, by reason", ["reason"], registry=registry
        )
        self.again = Counter("hamlet_records_again", "Records that had come before", registry=registry)
        self.rebirths = Counter("hamlet_rebirth_requests", "Rebirths asked for", registry=registry)
        self.commits = Counter("hamlet_commits", "Batches committed", registry=registry)
        self.commit_failures = Counter("hamlet_commit_failures", "Commits the store refused", registry=registry)
        self.commit_seconds = Histogram("hamlet_commit_seconds", "Time of one commit", registry=registry)
        self.undecided = Gauge("hamlet_undecided_bytes", "Bytes taken in and not yet committed", registry=registry)
        self.holding = Gauge("hamlet_acknowledgements_held", "1 while acknowledgements are withheld", registry=registry)

        self.alarms = Gauge(
            "hamlet_edge_node_alarms", "Edge nodes whose log needs a look, by kind", ["kind"], registry=registry
        )
        self.strangers_forgotten = Counter(
            "hamlet_strangers_forgotten", "Edge nodes nobody configured that had to make room", registry=registry
        )
        self.sign_ins = Counter("hamlet_sign_ins", "Attempts to sign in, by result", ["result"], registry=registry)

    def page(self) -> bytes:
        """Return the text page that Prometheus reads."""
        return generate_latest(self.registry)
