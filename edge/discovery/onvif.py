"""Cameras that answer WS-Discovery (ONVIF Core 24.12, 7; WS-Discovery 1.0 over UDP)."""

import asyncio
import re
import socket
import uuid
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree as ET

from edge.discovery.found import Found, name, printable

GROUP = ("239.255.255.250", 3702)
MOST_DATAGRAM = 65_535
MOST_ANSWERS = 500
_ADDRESSING = "http://schemas.xmlsoap.org/ws/2004/08/addressing"
_DISCOVERY = "http://schemas.xmlsoap.org/ws/2005/04/discovery"


def probe() -> bytes:
    """Return a probe for video transmitters."""
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        f'<e:Envelope xmlns:e="http://www.w3.org/2003/05/soap-envelope" xmlns:w="{_ADDRESSING}" xmlns:d="{_DISCOVERY}"'
        ' xmlns:dn="http://www.onvif.org/ver10/network/wsdl"><e:Header>'
        f"<w:MessageID>uuid:{uuid.uuid4()}</w:MessageID>"
        "<w:To>urn:schemas-xmlsoap-org:ws:2005:04:discovery</w:To>"
        f"<w:Action>{_DISCOVERY}/Probe</w:Action></e:Header>"
        "<e:Body><d:Probe><d:Types>dn:NetworkVideoTransmitter</d:Types></d:Probe></e:Body></e:Envelope>"
    ).encode()


def match(datagram: bytes) -> Found | None:
    """Return the camera a probe match tells of; None where it is none, or is not to be read."""
    # A document type is the only way to entities, and no probe match has one.
    if b"<!DOCTYPE" in datagram or b"<!ENTITY" in datagram:
        return None
    try:
        root = ET.fromstring(datagram)  # noqa: S314  # without a document type there is nothing to expand
    except (ET.ParseError, UnicodeDecodeError, ValueError, LookupError):
        return None
    found = root.find(f".//{{{_DISCOVERY}}}ProbeMatch")
    if found is None:
        return None
    addresses = (found.findtext(f"{{{_DISCOVERY}}}XAddrs") or "").split()
    url = next((one for one in map(_origin, addresses) if one), None)
    if url is None:
        return None
    scopes = (found.findtext(f"{{{_DISCOVERY}}}Scopes") or "")[:4096]
    told = {key: unquote(value) for key, value in re.findall(r"onvif://www\.onvif\.org/(name|hardware)/(\S+)", scopes)}
    what = " ".join(printable(told[key]) for key in ("name", "hardware") if key in told)
    return Found(
        seen=f"ONVIF: {what or 'a camera that gives no name'}",
        table={
            "id": name("cam", urlsplit(url).netloc),
            "kind": "camera",
            "driver": "onvif_camera",
            "url": url,
        },
        todo=("username", "password_file"),
    )


def _origin(address: str) -> str | None:
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if parts.scheme not in {"http", "https"} or not host or not re.fullmatch(r"[A-Za-z0-9.:-]+", host):
        return None
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}" + (f":{port}" if port else "")


class _Answers(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.found: dict[str, Found] = {}

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        one = match(data[:MOST_DATAGRAM]) if len(self.found) < MOST_ANSWERS else None
        if one is not None:
            self.found[str(one.table["url"])] = one


async def cameras(*, seconds: float, interface: str | None = None, to: tuple[str, int] = GROUP) -> list[Found]:
    """Return the cameras that answered within `seconds`; `interface` is the local address to ask from."""
    asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    asking.setblocking(False)
    if interface is not None:
        asking.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(interface))
    asking.bind((interface or "", 0))
    transport, protocol = await asyncio.get_running_loop().create_datagram_endpoint(_Answers, sock=asking)
    try:
        transport.sendto(probe(), to)
        await asyncio.sleep(seconds)
    finally:
        transport.close()
    return [one for _, one in sorted(protocol.found.items())]
