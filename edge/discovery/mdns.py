"""Devices that announce themselves by multicast DNS (RFC 6762, RFC 6763)."""

import asyncio

from zeroconf import IPVersion, ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from edge.discovery.found import Found, name, printable

RTSP, ESPHOME, MQTT = "_rtsp._tcp.local.", "_esphomelib._tcp.local.", "_mqtt._tcp.local."
MOST_SERVICES = 200


async def announced(*, seconds: float, interface: str | None = None) -> list[Found]:
    """Return what announced itself within `seconds`: RTSP cameras, and sensors that speak MQTT."""
    seen: dict[tuple[str, str], None] = {}

    def changed(zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange) -> None:
        if state_change is not ServiceStateChange.Removed and len(seen) < MOST_SERVICES:
            seen[service_type, name] = None

    zone = AsyncZeroconf(interfaces=[interface], ip_version=IPVersion.V4Only) if interface else AsyncZeroconf()
    try:
        browser = AsyncServiceBrowser(zone.zeroconf, [RTSP, ESPHOME, MQTT], handlers=[changed])
        await asyncio.sleep(seconds)
        await browser.async_cancel()
        infos = [AsyncServiceInfo(kind, service) for kind, service in seen]
        await asyncio.gather(*(one.async_request(zone.zeroconf, 1000) for one in infos))
    finally:
        await zone.async_close()
    return [found for one in infos if (found := _found(one)) is not None]


def _found(info: AsyncServiceInfo) -> Found | None:
    addresses = info.parsed_addresses(IPVersion.V4Only)
    if not addresses:
        return None
    where, what = addresses[0], printable(info.name.split("._")[0])
    if info.type == RTSP:
        path = (info.properties.get(b"path") or b"").decode("utf-8", "replace").lstrip("/")
        return Found(
            seen=f"mDNS, RTSP: {what}",
            table={
                "id": name("cam", where),
                "kind": "camera",
                "driver": "onvif_camera",
                "stream_url": f"rtsp://{where}:{info.port or 554}/{printable(path)}",
            },
            todo=("username", "password_file"),
        )
    if info.type == ESPHOME:
        return Found(
            seen=f"mDNS, ESPHome: {what} at {where}",
            table={
                "id": name("air", what),
                "kind": "air_station",
                "driver": "mqtt_sensor",
                "topic": what,
                "mapping": "esphome-air.yaml",
            },
        )
    return None
