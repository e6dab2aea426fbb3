"""The hub as it is started: TLS, proxies by name, the first start, and commands beside a hub that runs."""

import json
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pyotp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from hub.config import ConfigRefused, load

PASSWORD = "bốn con trâu uống nước"
NAME = "loa.anthanh.example"


def certificate(folder: Path) -> None:
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "hub.crt").write_bytes(made.public_bytes(Encoding.PEM))
    (folder / "hub.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def configured(folder: Path, more: str = "") -> Path:
    file = folder / "hub.toml"
    file.write_text(
        f'[hub]\nhost_id = "hub"\nstate_dir = "state"\nport = 0\nclock = "trusted"\nstatus_file = "hub.json"\n{more}'
        "[broker]\nport = 1\n",
        encoding="utf-8",
    )
    return file


@contextmanager
def served(file: Path) -> Iterator[str]:
    """Run the hub; yield its address."""
    log = file.with_name("hub.log")
    with log.open("wb") as out:
        process = subprocess.Popen([sys.executable, "-m", "hub", "serve", str(file)], stdout=out, stderr=out)
    try:
        until = time.monotonic() + 40
        while not file.with_name("hub.json").exists():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.05)
        yield str(json.loads(file.with_name("hub.json").read_text())["url"])
    finally:
        process.terminate()
        process.wait(20)


def command(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hub", *map(str, words)], capture_output=True, text=True, timeout=60, check=False
    )


def answered(url: str, **more: Any) -> Callable[..., httpx.Response]:
    """Return how to ask a hub that has just been started."""

    def ask(method: str, path: str, **told: Any) -> httpx.Response:
        until = time.monotonic() + 40
        while True:
            try:
                with httpx.Client(base_url=url, **more) as client:
                    return client.request(method, path, **told)
            except httpx.TransportError:
                assert time.monotonic() < until
                time.sleep(0.1)

    return ask


def first_account(url: str, link: str, ask: Callable[..., httpx.Response], **headers: str) -> httpx.Response:
    page = ask("GET", f"/set-up/{link}", headers=headers)
    assert page.status_code == 200, page.text
    secret = page.text.partition('class="secret">')[2].partition("<")[0]
    form = {"name": "lan", "full_name": "Bà Lan", "password": PASSWORD, "code": pyotp.TOTP(secret).now()}
    return ask("POST", f"/set-up/{link}", data=form, headers={"Origin": url, **headers})


@pytest.mark.timeout(150)
def test_under_tls_with_the_first_start_and_commands_beside_it(tmp_path: Path) -> None:
    certificate(tmp_path)
    more = f'names = ["{NAME}"]\ntls_certificate = "hub.crt"\ntls_key = "hub.key"\nloopback_metrics = false\n'
    file = configured(tmp_path, more)
    with served(file) as url:
        assert url.startswith(f"https://{NAME}:")
        port = url.rpartition(":")[2]
        here, own = f"https://127.0.0.1:{port}", {"Host": f"{NAME}:{port}"}
        context = ssl.create_default_context(cafile=str(tmp_path / "hub.crt"))
        context.check_hostname = False
        ask = answered(here, verify=context)
        health = ask("GET", "/healthz", headers=own)
        assert (health.status_code, "strict-transport-security" in health.headers) == (200, True)
        assert ask("GET", "/metrics", headers=own).status_code == 401

        told = command("first-start", file)
        assert told.stdout.startswith(f"{url}/set-up/"), told.stderr
        link = told.stdout.strip().rpartition("/")[2]
        came = first_account(url, link, ask, **own)
        assert came.status_code == 303, came.text
        assert all(one.startswith("__Host-") and "Secure" in one for one in came.headers.get_list("set-cookie"))
        assert command("first-start", file).returncode == 1

        listed = command("quarantine", "list", file)
        assert (listed.returncode, listed.stdout, listed.stderr) == (0, "", "")
        assert "looked at 0" in command("quarantine", "retry", file).stdout
        lost = command("recover-account", file, "--name", "lan")
        assert lost.stdout.startswith(f"{url}/set-up/")
        assert "nobody" in command("recover-account", file, "--name", "nobody").stderr
    log = (tmp_path / "hub.log").read_text()
    assert "set-up" not in log, "a link is for a terminal, never for a log"
    assert "first-start" in log


@pytest.mark.parametrize(("trusted", "told"), [(True, "203.0.113.9"), (False, "127.0.0.1")])
@pytest.mark.timeout(120)
def test_what_a_proxy_says_counts_where_it_is_named(tmp_path: Path, trusted: bool, told: str) -> None:
    file = configured(tmp_path, 'trusted_proxies = ["127.0.0.1"]\n' if trusted else "")
    list_ = tmp_path / "people.csv"
    list_.write_text("name,full_name,role,scope\nlan,Bà Lan,operator,c7k2m\nlan,Bà Lan,technician,\n", encoding="utf-8")
    with served(file) as url:
        link = command("add-accounts", file, list_).stdout.strip().rpartition("/")[2]
        ask = answered(url)
        through = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https"}
        origin = url.replace("http:", "https:") if trusted else url
        secret = ask("GET", f"/api/set-up/{link}").json()["secret"]
        body = {"password": PASSWORD, "code": pyotp.TOTP(secret).generate_otp(int(time.time()) // 30 - 1)}
        assert ask("POST", f"/api/set-up/{link}", json=body, headers={"Origin": url}).status_code == 204
        attempt = {"name": "lan", "password": PASSWORD, "code": pyotp.TOTP(secret).now()}
        came = ask("POST", "/api/session", json=attempt, headers={"Origin": origin, **through})
        assert came.status_code == 204, came.text
        (session,) = (one for one in came.headers.get_list("set-cookie") if "session=" in one)
        assert session.startswith("__Host-") == trusted
        cookie = {"Cookie": session.partition(";")[0], **through}
        (open_,) = ask("GET", "/api/me/sessions", headers=cookie).json()
        assert open_["address"] == told
        rights = ask("GET", "/api/session", headers=cookie).json()["rights"]
        places = {f"{one['noun']} {one['verb']}": one["places"] for one in rights}
        assert places["announcement make"] == [["c7k2m", ""]]
        assert places["statistics see"] == [["", ""]]
        assert "account see" not in places


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ('listen = "0.0.0.0"\n', "passwords need TLS"),
        ('tls_key = "hub.key"\n', "belong together"),
        ('listen = "hub.example"\n', "is no address"),
        ('trusted_proxies = ["proxy.example"]\n', "no address or network"),
        ('names = ["https://hub.example/"]\n', "names"),
    ],
)
def test_a_file_that_would_let_passwords_travel_in_the_clear_is_refused(tmp_path: Path, more: str, words: str) -> None:
    with pytest.raises(ConfigRefused, match=words):
        load(configured(tmp_path, more))


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("lan,Bà Lan,king,", "line 1: 'king' is not a valid Role"),
        ("lan,Bà Lan,volunteer,c7k2m", "line 1: volunteer cannot be held over a whole commune"),
        ("l,Bà Lan,operator,", "line 1: the name 'l'"),
        ("lan,Bà Lan,operator", "line 1: 3 columns"),
    ],
)
def test_a_list_with_a_mistake_adds_nobody(tmp_path: Path, lines: str, words: str) -> None:
    list_ = tmp_path / "people.csv"
    list_.write_text(f"{lines}\nminh,Ông Minh,operator,\n", encoding="utf-8")
    told = command("add-accounts", configured(tmp_path), list_)
    assert told.returncode == 1
    assert words in told.stderr
    again = command("add-accounts", configured(tmp_path), list_.with_name("none.csv"))
    assert again.returncode == 1
