"""Who reports: keys of edge nodes and devices, and the opaque id by which a program names a device."""

import base64
import hashlib
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class NodeKey:
    """One edge node."""

    group: str
    node: str


@dataclass(frozen=True, slots=True, order=True)
class DeviceKey:
    """One device of an edge node; `device` is "" for the edge node itself."""

    group: str
    node: str
    device: str

    @property
    def of_node(self) -> NodeKey:
        """Return the edge node it belongs to."""
        return NodeKey(self.group, self.node)


def device_id(key: DeviceKey) -> str:
    """Return the id a device has in the API: stable per (group, node, device), and nothing can be read from it."""
    # Ids hold no control characters (contract/topics.py), so the separator is unambiguous.
    digest = hashlib.sha256("\x1f".join((key.group, key.node, key.device)).encode()).digest()
    return base64.b32encode(digest).decode().lower()[:12]
