"""The demonstration for phones: what is signed, for whom, and how a phone finds it."""

import asyncio
import ssl
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from cryptography import x509
from zeroconf import IPVersion
from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

from simulators.lan import Certificates, addresses_here, announced, as_blocks, certificates, guide

NAME = "smart-hamlet.local"


@pytest.fixture
def made(tmp_path: Path) -> Certificates:
    return certificates(tmp_path, NAME, ["127.0.0.1"], datetime.now(UTC))


def trusting(authority: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(authority))


async def asked(made: Certificates, name: str) -> str:
    """Ask a server that has the certificate, under a name, as a phone that trusts the authority."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(text="xin chào")

    application = web.Application()
    application.add_routes([web.get("/", answer)])
    runner = web.AppRunner(application)
    await runner.setup()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(made.certificate, made.key)
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=server)
    await site.start()
    try:
        async with aiohttp.ClientSession() as session:
            url = f"https://127.0.0.1:{runner.addresses[0][1]}/"
            context = trusting(made.authority)
            async with session.get(url, ssl=context, server_hostname=name) as response:
                return await response.text()
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("name", [NAME, "127.0.0.1"])
async def test_who_trusts_the_authority_trusts_the_name_and_the_address(made: Certificates, name: str) -> None:
    assert await asked(made, name) == "xin chào"


async def test_no_other_name_is_trusted(made: Certificates) -> None:
    with pytest.raises(aiohttp.ClientConnectorCertificateError):
        await asked(made, "bank.example")


def test_the_authority_can_vouch_for_no_other_name(made: Certificates) -> None:
    """Also where its key had been stolen: the limit stands in what phones were made to trust."""
    authority = x509.load_pem_x509_certificate(made.authority.read_bytes())
    limits = authority.extensions.get_extension_for_class(x509.NameConstraints)
    assert limits.critical
    assert [str(one.value) for one in limits.value.permitted_subtrees or []] == [NAME, "127.0.0.1/32"]
    assert {one.name for one in made.key.parent.iterdir()} == {"tls.crt", "tls.key", "demonstration-ca.crt"}
    assert made.key.stat().st_mode & 0o077 == 0


async def test_the_guide_gives_the_certificate_as_phones_open_it(made: Certificates) -> None:
    async with guide("127.0.0.1", made.authority, f"https://{NAME}:8443/") as url, aiohttp.ClientSession() as session:
        async with session.get(url) as page:
            text = await page.text()
        assert f"https://{NAME}:8443/" in text
        assert "Tải chứng chỉ" in text
        async with session.get(f"{url}{made.authority.name}") as file:
            assert file.content_type == "application/x-x509-ca-cert"
            assert await file.read() == made.authority.read_bytes()


async def test_the_name_is_answered_by_multicast_dns() -> None:
    found = addresses_here()
    if not found:
        pytest.skip("this machine is in no network")
    async with announced(NAME, found, 8443), AsyncZeroconf(ip_version=IPVersion.V4Only) as phone:
        service = AsyncServiceInfo("_https._tcp.local.", "Smart Hamlet._https._tcp.local.")
        assert await service.async_request(phone.zeroconf, 5000)
        assert service.server == f"{NAME}."
        assert service.parsed_addresses() == found
        await asyncio.sleep(0)


def test_a_code_is_square_and_has_a_border() -> None:
    lines = as_blocks("https://smart-hamlet.local:8443/").splitlines()
    assert len({len(one) for one in lines}) == 1
    assert set(lines[0]) <= {"█", "▀"}
    assert abs(len(lines[0]) - 2 * len(lines)) <= 1
