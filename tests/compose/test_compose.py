"""docker-compose.yml: well formed, closed to the world, naming only what exists; and what it starts works together."""

import asyncio
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_spec import PyCompose

from hub.config import HubConfig
from simulators import demo_people
from simulators.composed import BUCKETS, OWNERS, PORTS, hub_toml, main, make_files, make_tokens

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: one for name, one in SERVICES.items() if "build" in one}


def test_it_is_a_compose_file_and_names_only_volumes_and_networks_it_has() -> None:
    PyCompose.from_yaml(yaml.safe_dump(COMPOSE)).validate()  # the merge keys are YAML's, not Compose's


@pytest.mark.parametrize("wrong", ["imagee: x", "ports: 7", "restart: sometimes"])
def test_what_is_no_compose_file_would_be_told(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        PyCompose.from_yaml(TEXT.replace("image: influxdb:2.9.1", wrong, 1)).validate()


def test_nothing_listens_but_on_this_machine() -> None:
    for name, one in SERVICES.items():
        assert all(str(port).startswith("127.0.0.1:") for port in one.get("ports", [])), name
    assert HubConfig.model_fields["listen"].default == "127.0.0.1"
    assert "listen" not in hub_toml(PORTS, "key")


def test_every_image_has_one_exact_version_and_nobody_may_gain_rights() -> None:
    for name, one in SERVICES.items():
        assert re.fullmatch(r"[\w./-]+:\d+\.\d+(\.\d+)?", one["image"]), name
        assert one["security_opt"] == ["no-new-privileges:true"], name
        assert "privileged" not in one, name
    for name, one in OURS.items():
        assert (one["read_only"], one["cap_drop"]) == (True, ["ALL"]), name
    assert {name for name, one in OURS.items() if one["user"] == "0:0"} == {"made", "rights"}
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert re.search(r"^FROM [\w-]+:\d+\.\d+-slim$", dockerfile, re.MULTILINE)
    assert dockerfile.rstrip().endswith("USER 10001:10001")


def test_no_secret_is_in_the_file() -> None:
    for one in SERVICES.values():
        for name, value in one.get("environment", {}).items():
            if re.search(r"PASSWORD|TOKEN", name):
                assert name.endswith("_FILE"), name
                assert str(value).startswith("/hamlet/secret/"), value


def test_each_program_sees_its_own_folder_only() -> None:
    seen = {name: {str(one).split(":")[0] for one in service.get("volumes", [])} for name, service in SERVICES.items()}
    assert {name for name, volumes in seen.items() if "signer" in volumes} == {"made", "signer"}
    assert {name for name, volumes in seen.items() if "influxdb-secrets" in volumes} == {"made", "influxdb", "rights"}
    assert {name for name, volumes in seen.items() if "grafana-secrets" in volumes} == {"made", "rights", "grafana"}
    assert {name for name, volumes in seen.items() if "edge" in volumes} == {"made", "edge-node"}


def test_files_that_are_mounted_exist() -> None:
    for name, one in SERVICES.items():
        for volume in one.get("volumes", []):
            source = str(volume).split(":")[0]
            if source.startswith("."):
                assert (ROOT / source).exists(), f"{name}: {source}"
                assert str(volume).endswith(":ro"), f"{name}: {source}"
    for path in ("mosquitto.conf", "hub.acl", "secret/passwords"):
        mounted = [str(one) for one in SERVICES["mosquitto"]["volumes"]]
        assert any(f"/hamlet/{path.split('/')[0]}" in one for one in mounted), path


def test_published_ports_are_those_the_programs_are_told() -> None:
    published = {str(port).split(":")[1] for one in SERVICES.values() for port in one.get("ports", [])}
    assert published == {str(PORTS["mqtt"]), str(PORTS["influxdb"]), "3000"}
    assert f"127.0.0.1:{PORTS['hub']}/readyz" in str(SERVICES["hub"]["healthcheck"])
    conf = (ROOT / "firmware_configs" / "mosquitto" / "compose.conf").read_text(encoding="utf-8")
    assert re.search(rf"^listener {PORTS['mqtt']}$", conf, re.MULTILINE)


def test_secrets_are_drawn_once_and_readable_by_their_owner_only(tmp_path: Path) -> None:
    make_files(tmp_path, PORTS)
    files = {one: one.read_bytes() for one in tmp_path.rglob("*") if one.is_file()}
    secret = [one for one in files if re.search(r"password|token|\.pem|hamlet\.yaml", one.name)]
    assert len(secret) > 8
    for one in secret:
        assert one.stat().st_mode & 0o077 == 0, one
        if os.geteuid() == 0:
            of = one.relative_to(tmp_path).parts[0]
            assert one.stat().st_uid == OWNERS.get(of, 10_001), one
    make_files(tmp_path, PORTS)
    assert {one: one.read_bytes() for one in tmp_path.rglob("*") if one.is_file()} == files
    for name in ("influxdb", "grafana"):
        drawn = (tmp_path / name / "admin.password").read_text()
        assert len(drawn) >= 32
        assert not [one for one in files if one.parent.name != name and drawn.encode() in files[one]]


def test_a_server_that_is_not_there_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_files(tmp_path, PORTS)
    monkeypatch.setattr("simulators.composed.UP_SECONDS", 0.1)
    monkeypatch.setattr(sys, "argv", ["composed", "rights", str(tmp_path), "--ports", '{"influxdb": 1}'])
    assert main() == 1


@pytest.fixture
def ports() -> dict[str, int]:
    with ExitStack() as stack:
        probes = {name: stack.enter_context(socket.socket()) for name in PORTS}
        for one in probes.values():
            one.bind(("127.0.0.1", 0))
        return {name: int(one.getsockname()[1]) for name, one in probes.items()}


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[..., None]]:
    """Return a starter of processes; they end with the test."""
    running: list[subprocess.Popen[bytes]] = []

    def start(name: str, *command: str) -> None:
        with (tmp_path / f"{name}.log").open("wb") as out:
            running.append(subprocess.Popen(command, stdout=out, stderr=out, cwd=tmp_path))

    yield start
    for one in reversed(running):
        one.terminate()
    for one in reversed(running):
        try:
            one.wait(15)
        except subprocess.TimeoutExpired:
            one.kill()
            one.wait()


@pytest.mark.broker
@pytest.mark.timeout(120)
def test_what_it_starts_brings_readings_of_a_commune_into_influxdb(
    own_influx: Any, ports: dict[str, int], started: Callable[..., None], tmp_path: Path, eventually_now: Any
) -> None:
    if not shutil.which("mosquitto") and not Path("/usr/sbin/mosquitto").exists():
        pytest.skip("Mosquitto is not installed (apt-get install mosquitto)")
    made = tmp_path / "made"
    ports |= {"influxdb": int(own_influx.url.rpartition(":")[2])}
    make_files(made, ports)
    (made / "influxdb" / "admin.token").write_text(own_influx.token)
    make_tokens(made, own_influx.url)
    conf = (ROOT / "firmware_configs" / "mosquitto" / "compose.conf").read_text(encoding="utf-8")
    conf = conf.replace(f"listener {PORTS['mqtt']}", f"listener {ports['mqtt']} 127.0.0.1")
    conf = conf.replace("/hamlet/secret", str(made / "mosquitto"))
    conf = conf.replace("/hamlet/hub.acl", str(ROOT / "firmware_configs" / "mosquitto" / "hub.acl"))
    (tmp_path / "mosquitto.conf").write_text(f"user root\n{conf}")
    started("mosquitto", shutil.which("mosquitto") or "/usr/sbin/mosquitto", "-c", str(tmp_path / "mosquitto.conf"))
    tools = Path(sys.executable).parent
    for name in ("simulated-commune", "signer", "hub", "edge-node"):
        program, *rest = (str(one).replace("/made/", f"{made}/") for one in SERVICES[name]["command"])
        started(name, str(tools / program), *rest)
    hub = f"http://127.0.0.1:{ports['hub']}"

    eventually_now((made / "hub" / "status.json").exists, 60, lambda: "the hub has no status file")
    cookie = asyncio.run(demo_people.cookie(hub, made / "hub" / "hub.toml", demo_people.JUDGE))

    def online() -> bool:
        try:
            asking = urllib.request.Request(f"{hub}/api/stats", headers={"Cookie": cookie})
            with urllib.request.urlopen(asking, timeout=2) as answer:
                told = json.loads(answer.read())
        except OSError:
            return False
        return bool(told["devices"] == {"total": 6, "online": 6} and told["samples"]["stored"] > 60)

    def said() -> str:
        return "".join(f"--- {one.name}\n{one.read_text()[-1500:]}\n" for one in sorted(tmp_path.glob("*.log")))

    eventually_now(online, 60, said)
    with urllib.request.urlopen(f"{hub}/readyz", timeout=5) as answer:
        assert answer.status == 200
    token = (made / "grafana" / "influx.token").read_text()
    question = f'import "influxdata/influxdb/schema" schema.measurements(bucket: "{BUCKETS[0]}")'
    assert {"water_probe", "hydro_station", "air_station", "loudspeaker", "camera", "hotspot"} <= _told(
        own_influx.url, token, question
    )
    with pytest.raises(urllib.error.HTTPError, match=r"40[134]"):
        _ask(own_influx.url, token, "/api/v2/write?org=hamlet&bucket=readings", b"m f=1")


def _told(url: str, token: str, question: str) -> set[str]:
    rows = _ask(url, token, "/api/v2/query?org=hamlet", question.encode()).decode().split("\r\n")
    return {one.split(",")[-1] for one in rows if one.startswith(",_result")}


def _ask(url: str, token: str, path: str, body: bytes) -> bytes:
    request = urllib.request.Request(url + path, body)
    for name, value in (
        ("Authorization", f"Token {token}"),
        ("Content-Type", "application/vnd.flux"),
        ("Accept", "application/csv"),
    ):
        request.add_header(name, value)
    with urllib.request.urlopen(request, timeout=10) as answer:
        told: bytes = answer.read()
        return told


@pytest.fixture
def eventually_now() -> Callable[..., None]:
    def wait(condition: Callable[[], bool], within: float, said: Callable[[], str]) -> None:
        deadline = time.monotonic() + within
        while not condition():
            assert time.monotonic() < deadline, said()
            time.sleep(0.2)

    return wait
