"""The demonstration for phones in the same network: a name, a certificate, and a page that helps to trust it.

A phone's microphone and passkeys work only on a page with a name and a certificate it trusts. The authority that signs
is made for one demonstration, may sign for that one name and these addresses only, and its key is never written down.
"""

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import segno
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from zeroconf import ServiceInfo
from zeroconf.asyncio import AsyncZeroconf

NAME = "smart-hamlet.local"
PAGE = Path(__file__).with_name("lan_guide.html")
LASTS = timedelta(days=30)
"""Phones refuse certificates that last longer than 398 days; a demonstration is over sooner."""

CA_TYPE = "application/x-x509-ca-cert"
"""What Android and iOS open with their installers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificates:
    """Files for a TLS server, and the authority's certificate that phones are to trust."""

    certificate: Path
    key: Path
    authority: Path


def certificates(folder: Path, name: str, addresses: Sequence[str], now: datetime) -> Certificates:
    """Make an authority and a certificate of one server, and keep all but the authority's key."""
    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Demonstration {now:%d.%m.%Y %H:%M} ({name})")])
    numbers = [ipaddress.ip_address(one) for one in addresses]
    permitted: list[x509.GeneralName] = [
        x509.DNSName(name),
        *(x509.IPAddress(ipaddress.ip_network(one)) for one in numbers),
    ]
    authority = (
        _builder(issuer, issuer, authority_key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(x509.NameConstraints(permitted_subtrees=permitted, excluded_subtrees=None), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    certificate = (
        _builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), issuer, key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName(name), *(x509.IPAddress(one) for one in numbers)]),
            critical=False,
        )
        .sign(authority_key, hashes.SHA256())
    )
    made = Certificates(
        certificate=folder / "tls.crt", key=folder / "tls.key", authority=folder / "demonstration-ca.crt"
    )
    made.authority.write_bytes(authority.public_bytes(Encoding.PEM))
    made.certificate.write_bytes(certificate.public_bytes(Encoding.PEM))
    made.key.touch(mode=0o600)
    made.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return made


def addresses_here() -> list[str]:
    """Return this machine's IPv4 addresses in the network it would use, [] where it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # TEST-NET-1 (RFC 5737): nothing is sent, only a way is chosen
        except OSError:
            return []
        return [probe.getsockname()[0]]


@asynccontextmanager
async def announced(name: str, addresses: Sequence[str], port: int) -> AsyncIterator[None]:
    """Answer for the name by multicast DNS (RFC 6762) while the context is open."""
    service = ServiceInfo(
        "_https._tcp.local.",
        "Smart Hamlet._https._tcp.local.",
        addresses=[ipaddress.ip_address(one).packed for one in addresses],
        port=port,
        server=f"{name}.",
    )
    async with AsyncZeroconf() as zeroconf:
        await zeroconf.async_register_service(service, allow_name_change=True)
        try:
            yield
        finally:
            await zeroconf.async_unregister_service(service)


@asynccontextmanager
async def guide(address: str, authority: Path, url: str) -> AsyncIterator[str]:
    """Serve the page that helps a phone to trust the authority, without TLS; yield its address."""
    text, certificate = (
        await asyncio.to_thread(PAGE.read_text, "utf-8"),
        await asyncio.to_thread(authority.read_bytes),
    )

    async def page(_: web.Request) -> web.Response:
        return web.Response(text=text.replace("{url}", url), content_type="text/html")

    async def download(_: web.Request) -> web.Response:
        headers = {"Content-Disposition": f'attachment; filename="{authority.name}"'}
        return web.Response(body=certificate, content_type=CA_TYPE, headers=headers)

    application = web.Application()
    application.add_routes([web.get("/", page), web.get(f"/{authority.name}", download)])
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        site = web.TCPSite(runner, address, 0)
        await site.start()
        yield f"http://{address}:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


def as_blocks(text: str) -> str:
    """Return a QR code of a text as a terminal shows it."""
    lines = []
    rows = [list(row) for row in segno.make(text, error="m").matrix_iter(border=2)]
    for upper, lower in zip(rows[::2], [*rows[1::2], [0] * len(rows[0])], strict=False):
        # Light on dark terminals: a module that is dark on paper is left empty.
        lines.append("".join(" ▄▀█"[2 * (not top) + (not bottom)] for top, bottom in zip(upper, lower, strict=True)))
    return "\n".join(lines)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now.astimezone(UTC) - timedelta(hours=1))
        .not_valid_after(now.astimezone(UTC) + LASTS)
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
