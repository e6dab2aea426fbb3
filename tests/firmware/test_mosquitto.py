"""The real broker with the files for box and hub: what each may say and hear, and that the rest vanishes."""

import asyncio
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from edge.config import FIRMWARE

BROKER = Path("/usr/sbin/mosquitto")
PASSWORDS = ("mosquitto_passwd", "-b")
pytestmark = [
    pytest.mark.broker,
    pytest.mark.skipif(not BROKER.exists(), reason="Mosquitto is not installed (apt-get install mosquitto)"),
]


@contextmanager
def broker(folder: Path, name: str, ports: dict[str, int]) -> Iterator[None]:
    """Run the broker with the shipped file, at other ports and paths."""
    text = (FIRMWARE / "mosquitto" / f"{name}.conf").read_text(encoding="utf-8")
    for shipped, port in ports.items():
        assert f"listener {shipped}" in text, shipped
        text = text.replace(f"listener {shipped}", f"listener {port} 127.0.0.1")
    text = text.replace("/etc/mosquitto/hamlet", str(folder)).replace("log_dest syslog", "log_dest stderr")
    (folder / f"{name}.acl").write_bytes((FIRMWARE / "mosquitto" / f"{name}.acl").read_bytes())
    for one in (*folder.iterdir(), folder):
        one.chmod(0o755 if one.is_dir() else 0o644)
    # Its own user is used when it is started as root.
    (folder / "mosquitto.conf").write_text(f"user root\n{text}", encoding="utf-8")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([BROKER, "-c", folder / "mosquitto.conf"], stdout=log, stderr=log)
    try:
        yield
        assert process.poll() is None, (folder / "log").read_text(encoding="utf-8")
    finally:
        process.terminate()
        process.wait(10)


def passwords(folder: Path, *users: str) -> None:
    file = folder / "passwords"
    file.touch()
    for user in users:
        subprocess.run([*PASSWORDS, file, user, f"pw-{user}"], check=True, capture_output=True)


def free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def connected(port: int, user: str | None = None, context: ssl.SSLContext | None = None) -> AsyncIterator[Any]:
    """Connect as soon as the broker listens."""
    deadline = asyncio.get_running_loop().time() + 10
    while True:
        client = aiomqtt.Client(
            "127.0.0.1", port, username=user, password=f"pw-{user}" if user else None, tls_context=context, timeout=5
        )
        try:
            await client.__aenter__()
            break
        except aiomqtt.MqttError as exc:
            if "refused" not in str(exc).lower() or asyncio.get_running_loop().time() > deadline:
                raise
            await asyncio.sleep(0.05)
    try:
        yield client
    finally:
        await client.__aexit__(None, None, None)


async def heard(listener: Any, last: str) -> list[str]:
    """Return the topics that came up to the last one, which somebody who may is known to send."""
    found: list[str] = []
    async with asyncio.timeout(10):
        async for message in listener.messages:
            if str(message.topic) == last:
                return found
            found.append(str(message.topic))
    raise AssertionError


async def test_a_sensor_writes_beneath_its_own_name_and_the_agent_alone_hears(tmp_path: Path) -> None:
    passwords(tmp_path, "air-01", "air-02", "agent", "chirpstack")
    port, other = free(), free()
    with broker(tmp_path, "box", {"1883 127.0.0.1": port, "1883 192.168.50.1": other}):
        async with connected(port, "agent") as agent, connected(other, "air-01") as sensor:
            await agent.subscribe("#", qos=1)
            allowed = ("air-01/sensor/pm1/state", "tele/air-01/SENSOR")
            for topic in ("air-02/sensor/pm1/state", *allowed, "application/1/x"):
                await sensor.publish(topic, b"1", qos=1)
            await sensor.subscribe("#", qos=1)
            await agent.publish("air-01/command", b"on", qos=1)
            await sensor.publish("air-01/status", b"last", qos=1)
            assert await heard(agent, "air-01/status") == list(allowed)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await anext(aiter(sensor.messages))


async def test_a_stranger_gets_no_connection_to_the_box(tmp_path: Path) -> None:
    passwords(tmp_path, "agent")
    port = free()
    with broker(tmp_path, "box", {"1883 127.0.0.1": port, "1883 192.168.50.1": free()}):
        async with connected(port, "agent"):
            pass
        for user in (None, "air-99"):
            with pytest.raises(aiomqtt.MqttError, match=r"[Nn]ot authori[sz]ed"):
                async with connected(port, user):
                    pass


class Authority:
    """Makes certificates as a province would."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._signed("authority", self._key.public_key(), authority=True)
        (folder / "ca.crt").write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str, file: str) -> tuple[Path, Path]:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._signed(name, key.public_key(), authority=False)
        paths = self._folder / f"{file}.crt", self._folder / f"{file}.key"
        paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        paths[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return paths

    def _signed(self, name: str, key: Any, *, authority: bool) -> x509.Certificate:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")])
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .sign(self._key, hashes.SHA256())
        )


def context(folder: Path, pair: tuple[Path, Path] | None) -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=str(folder / "ca.crt"))
    made.check_hostname = False
    if pair is not None:
        made.load_cert_chain(*map(str, pair))
    return made


async def test_an_edge_node_speaks_as_itself_alone_and_hears_what_is_meant_for_it(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    authority.issue("localhost", "broker")
    passwords(tmp_path, "hub")
    tls, local = free(), free()
    own = context(tmp_path, authority.issue("n-01", "n-01"))
    with broker(tmp_path, "hub", {"8883": tls, "1883 127.0.0.1": local}):
        async with connected(local, "hub") as hub, connected(tls, context=own) as node:
            await hub.subscribe("spBv1.0/#", qos=1)
            told = ["NDATA/n-01", "DDATA/n-01/probe", "DBIRTH/n-01/probe", "NDEATH/n-01"]
            forged = ["NDATA/n-02", "DDATA/n-02/probe", "NCMD/n-02", "NCMD/n-01", "DCMD/n-01/x"]
            for topic in (*forged, *told):
                await node.publish(f"spBv1.0/g/{topic}", b"1", qos=1)
            await node.publish("spBv1.0/STATE/hub", b"{}", qos=1, retain=True)
            await node.publish("elsewhere", b"1", qos=1)
            await node.publish("spBv1.0/g/NBIRTH/n-01", b"last", qos=1)
            assert await heard(hub, "spBv1.0/g/NBIRTH/n-01") == [f"spBv1.0/g/{one}" for one in told]
            for filter_ in ("spBv1.0/+/NCMD/n-01", "spBv1.0/+/DCMD/n-01/+", "spBv1.0/STATE/hub", "spBv1.0/#"):
                await node.subscribe(filter_, qos=1)
            for topic in ("NCMD/n-02", "DCMD/n-02/x", "NDATA/n-02", "NCMD/n-01", "DCMD/n-01/x"):
                await hub.publish(f"spBv1.0/g/{topic}", b"1", qos=1)
            await hub.publish("spBv1.0/STATE/hub", b"{}", qos=1)
            assert set(await heard(node, "spBv1.0/STATE/hub")) == {"spBv1.0/g/NCMD/n-01", "spBv1.0/g/DCMD/n-01/x"}


async def test_without_a_certificate_of_the_provinces_nobody_comes_in(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    authority.issue("localhost", "broker")
    passwords(tmp_path, "hub")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    stranger = Authority(elsewhere).issue("n-01", "n-01")
    tls, local = free(), free()
    with broker(tmp_path, "hub", {"8883": tls, "1883 127.0.0.1": local}):
        async with connected(local, "hub"):
            pass
        for pair in (None, stranger):
            with pytest.raises((aiomqtt.MqttError, OSError)):
                async with connected(tls, context=context(tmp_path, pair)):
                    pass
