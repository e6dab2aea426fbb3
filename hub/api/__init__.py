"""The hub for programs: JSON, one file per noun."""

from hub.api import announcements, audio, devices, edge_nodes, health, stats

ROUTERS = (
    devices.router,
    edge_nodes.router,
    stats.router,
    announcements.router,
    audio.router,
    health.router,
)
