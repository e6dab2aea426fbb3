"""ONVIF's SOAP messages: who asks what, and the answers' frames. Pure."""

import base64
import hashlib
import hmac
from dataclasses import dataclass, field
from datetime import UTC, datetime
from xml.sax.saxutils import escape

from lxml import etree

SPACES = {
    "s": "http://www.w3.org/2003/05/soap-envelope",
    "a": "http://www.w3.org/2005/08/addressing",
    "tt": "http://www.onvif.org/ver10/schema",
    "tds": "http://www.onvif.org/ver10/device/wsdl",
    "trt": "http://www.onvif.org/ver10/media/wsdl",
    "tev": "http://www.onvif.org/ver10/events/wsdl",
    "wsnt": "http://docs.oasis-open.org/wsn/b-2",
    "ter": "http://www.onvif.org/ver10/error",
    "tns1": "http://www.onvif.org/ver10/topics",
    "wsse": "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-secext-1.0.xsd",
    "wsu": "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-utility-1.0.xsd",
}
_DECLARED = " ".join(f'xmlns:{prefix}="{space}"' for prefix, space in SPACES.items())
FRESH_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Asked:
    """The operation, the element that asks for it, and the UsernameToken, if there is one."""

    operation: str
    body: "etree._Element"
    token: "etree._Element | None"

    def text(self, path: str, default: str = "") -> str:
        """Return a text beneath the operation's element."""
        return str(self.body.findtext(path, default, SPACES))


class NotSoap(ValueError):
    """What came is no SOAP request."""


def asked(raw: bytes) -> Asked:
    """Return what a request asks; raise NotSoap."""
    try:
        root = etree.fromstring(raw, etree.XMLParser(resolve_entities=False, no_network=True))
    except etree.XMLSyntaxError as exc:
        raise NotSoap(str(exc)) from exc
    body = root.find("s:Body", SPACES)
    if body is None or not len(body):
        raise NotSoap("no body")
    return Asked(etree.QName(body[0]).localname, body[0], root.find(".//wsse:UsernameToken", SPACES))


def envelope(body: str) -> bytes:
    """Return an answer's envelope."""
    return (
        f'<?xml version="1.0" encoding="UTF-8"?><s:Envelope {_DECLARED}><s:Body>{body}</s:Body></s:Envelope>'.encode()
    )


def fault(code: str, subcode: str, reason: str) -> bytes:
    """Return a SOAP 1.2 fault; `code` is Sender or Receiver, `subcode` one of ONVIF's (Core 24.12, 5.11.2)."""
    return envelope(
        f"<s:Fault><s:Code><s:Value>s:{code}</s:Value><s:Subcode><s:Value>ter:{subcode}</s:Value></s:Subcode></s:Code>"
        f'<s:Reason><s:Text xml:lang="en">{escape(reason)}</s:Text></s:Reason></s:Fault>'
    )


@dataclass(slots=True)
class Guard:
    """Checks UsernameTokens (WS-Security 1.1): digest, freshness by the camera's own clock, and no nonce twice."""

    user: str
    password: str
    nonces: dict[bytes, float] = field(default_factory=dict)

    def lets_in(self, token: "etree._Element | None", now: float) -> bool:
        """Return whether a token is right at an instant of the camera's clock (seconds)."""
        if token is None or token.findtext("wsse:Username", "", SPACES) != self.user:
            return False
        created = token.findtext("wsu:Created", "", SPACES)
        try:
            nonce = base64.b64decode(token.findtext("wsse:Nonce", "", SPACES))
            at = datetime.fromisoformat(created)
        except ValueError:
            return False
        digest = base64.b64encode(
            hashlib.sha1(nonce + created.encode() + self.password.encode(), usedforsecurity=False).digest()
        ).decode()
        at = at if at.tzinfo else at.replace(tzinfo=UTC)
        fresh = abs(at.timestamp() - now) <= FRESH_SECONDS and nonce not in self.nonces
        self.nonces = {one: until for one, until in self.nonces.items() if until > now} | {nonce: now + 60}
        return fresh and hmac.compare_digest(digest, token.findtext("wsse:Password", "", SPACES))
