"""The hub for programs: JSON, one file per noun."""

from hub.api import (
    announcements,
    audio,
    availability,
    communes,
    completeness,
    delivery,
    devices,
    edge_nodes,
    health,
    last,
    me,
    quarantine,
    samples,
    session,
    set_up,
    stats,
)

ROUTERS = (
    devices.router,
    edge_nodes.router,
    delivery.router,
    samples.router,
    last.router,
    availability.router,
    communes.router,
    completeness.router,
    quarantine.router,
    stats.router,
    announcements.router,
    audio.router,
    session.router,
    me.router,
    set_up.router,
    health.router,
)
