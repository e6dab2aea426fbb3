"""The only place that knows topic text (Sparkplug 3.0.0, chapter 4)."""

import re
from dataclasses import dataclass
from enum import StrEnum

NAMESPACE = "spBv1.0"
EVERYTHING = f"{NAMESPACE}/#"

# Sparkplug forbids +, / and # in ids; we also refuse blanks and control characters, which no operator can read back.
_ID = re.compile(r"[^\s/+#\x00-\x1f\x7f]{1,100}")


class MessageType(StrEnum):
    """The third level of a topic."""

    NBIRTH = "NBIRTH"
    NDEATH = "NDEATH"
    NDATA = "NDATA"
    NCMD = "NCMD"
    DBIRTH = "DBIRTH"
    DDEATH = "DDEATH"
    DDATA = "DDATA"
    DCMD = "DCMD"


_OF_NODE = frozenset({MessageType.NBIRTH, MessageType.NDEATH, MessageType.NDATA, MessageType.NCMD})


@dataclass(frozen=True, slots=True)
class Topic:
    """Whom a message is from or for; `device` is None where the edge node itself is meant."""

    group: str
    kind: MessageType
    node: str
    device: str | None = None

    def __str__(self) -> str:
        tail = "" if self.device is None else f"/{self.device}"
        return f"{NAMESPACE}/{self.group}/{self.kind}/{self.node}{tail}"


class TopicUnreadable(ValueError):
    """A topic that is not one of ours or of any Sparkplug speaker."""


def valid_id(text: str) -> bool:
    """Return whether the text may stand as group, edge node, device or host id (tck-id-topic-structure-namespace-*)."""
    return _ID.fullmatch(text) is not None


def parse(text: str) -> Topic:
    """Return what the topic names; raise TopicUnreadable with the reason otherwise."""
    parts = text.split("/")
    if parts[0] != NAMESPACE or len(parts) not in {4, 5}:
        raise TopicUnreadable(f"topic {text[:120]!r} is not {NAMESPACE}/group/type/node[/device]")
    group, kind, node, *device = parts[1:]
    if kind not in MessageType.__members__:
        raise TopicUnreadable(f"topic {text[:120]!r}: {kind[:20]!r} is no Sparkplug message type")
    if not all(valid_id(part) for part in (group, node, *device)):
        raise TopicUnreadable(f"topic {text[:120]!r} has an empty or unreadable id")
    message = MessageType(kind)
    if (message in _OF_NODE) is bool(device):
        raise TopicUnreadable(f"topic {text[:120]!r}: {kind} {'takes no' if device else 'needs a'} device")
    return Topic(group, message, node, device[0] if device else None)


def state(host: str) -> str:
    """Return the topic on which a host application says whether it is there (tck-id-host-topic-phid-*)."""
    return f"{NAMESPACE}/STATE/{host}"


def state_host(text: str) -> str | None:
    """Return the host a STATE topic speaks of, None for any other topic."""
    head = f"{NAMESPACE}/STATE/"
    return text.removeprefix(head) if text.startswith(head) and valid_id(text.removeprefix(head)) else None


def commands_for_node(group: str, node: str) -> str:
    """Return the filter an edge node subscribes to for itself (tck-id-message-flow-edge-node-ncmd-subscribe)."""
    return str(Topic(group, MessageType.NCMD, node))


def commands_for_devices(group: str, node: str) -> str:
    """Return the filter an edge node subscribes to for its devices (tck-id-message-flow-device-dcmd-subscribe)."""
    return f"{NAMESPACE}/{group}/{MessageType.DCMD}/{node}/+"
