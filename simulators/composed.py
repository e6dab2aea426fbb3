"""What `docker compose` starts with: secrets drawn at the first start, and the files its programs read.

`files FOLDER` makes a folder for each program, with nothing in it that another one's secret could be read from;
`rights FOLDER` asks an InfluxDB that is up for a token that writes and one that only reads. Both do nothing twice.
"""

import argparse
import base64
import hashlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

GROUP, NODE, ORG, DEPLOYMENT = "c7k2m", "c7k2m-01", "hamlet", "smart-hamlet-demo"
COMMUNE, HAMLET = "Xã An Thạnh", "Ấp Bình Hòa"
BUCKETS = ("readings", "rollups", "delivery")

PORTS: Mapping[str, int] = {
    "mqtt": 1883,
    "influxdb": 8086,
    "hub": 8080,
    "gateway": 15_020,
    "speaker": 15_080,
    "camera": 15_090,
    "rtsp": 15_554,
    "router": 15_100,
}
"""Where each is found on the machine's loopback address."""

OWNERS: Mapping[str, int] = {"mosquitto": 1883, "influxdb": 1000, "grafana": 472}
"""As which user the program of an image reads its folder; ours run as OURS."""

OURS = 10_001
UP_SECONDS = 60.0


class NotComposed(Exception):
    """What could not be made, and why."""


def main() -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m simulators.composed", description="Files for docker compose.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("files", "rights"):
        command = commands.add_parser(name)
        command.add_argument("folder", type=Path)
        command.add_argument("--ports", type=json.loads, default={}, help="other ports than those of the compose file")
    asked = parser.parse_args()
    ports = {**PORTS, **asked.ports}
    try:
        if asked.command == "files":
            make_files(asked.folder, ports)
        else:
            make_tokens(asked.folder, f"http://127.0.0.1:{ports['influxdb']}")
    except NotComposed as exc:
        print(f"composed: {exc}", file=sys.stderr)  # noqa: T201  # what a person reads in the log
        return 1
    return 0


def make_files(folder: Path, ports: Mapping[str, int]) -> None:
    """Make every program's folder, where it was not made before."""
    if (folder / "hub" / "hub.toml").exists():
        return
    drawn = {name: secrets.token_urlsafe(24) for name in ("hub", "node", "device", "influxdb", "grafana", "admin")}
    keys = folder / "signer" / "keys"
    identity = _keys(keys)
    mosquitto = f"hub:{_hashed(drawn['hub'])}\n{NODE}:{_hashed(drawn['node'])}\n"
    _write(folder / "mosquitto" / "passwords", mosquitto)
    _write(folder / "influxdb" / "admin.password", drawn["influxdb"])
    _write(folder / "influxdb" / "admin.token", drawn["admin"])
    _write(folder / "grafana" / "admin.password", drawn["grafana"])
    _write(folder / "hub" / "broker.password", drawn["hub"])
    _write(folder / "edge" / "broker.password", drawn["node"])
    _write(folder / "edge" / "device.password", drawn["device"])
    for name in ("root.json", "bundle.json"):
        _write(folder / "hub" / name, (keys / name).read_text(encoding="utf-8"))
    _write(folder / "edge" / "root.json", (keys / "root.json").read_text(encoding="utf-8"))
    shutil.move(keys / f"{NODE}.pem", folder / "edge" / "identity.pem")
    _write(folder / "signer" / "signer.toml", signer_toml())
    _write(folder / "edge" / "edge.toml", edge_toml(ports))
    _write(folder / "simulators" / "hamlet.yaml", hamlet_yaml(ports, drawn["device"]))
    (folder / "socket").mkdir(parents=True, exist_ok=True)
    _give(folder)
    _write(folder / "hub" / "hub.toml", hub_toml(ports, identity))  # the last: with it the folder is made
    _give(folder / "hub")


def make_tokens(folder: Path, url: str) -> None:
    """Make the buckets and two tokens for them: the hub's, and Grafana's, which only reads."""
    told = {"hub": ("read", "write"), "grafana": ("read",)}
    if all((folder / name / "influx.token").exists() for name in told):
        return
    admin = (folder / "influxdb" / "admin.token").read_text(encoding="utf-8")
    _wait(url)
    org = _asked(url, admin, f"/api/v2/orgs?{urllib.parse.urlencode({'org': ORG})}")["orgs"][0]["id"]
    known = {one["name"]: one["id"] for one in _asked(url, admin, f"/api/v2/buckets?orgID={org}&limit=100")["buckets"]}
    for name in BUCKETS:
        if name not in known:
            made = _asked(url, admin, "/api/v2/buckets", {"orgID": org, "name": name, "retentionRules": []})
            known[name] = made["id"]
    for name, actions in told.items():
        permissions = [
            {"action": action, "resource": {"type": "buckets", "id": known[bucket], "orgID": org}}
            for bucket in BUCKETS
            for action in actions
        ]
        made = {"orgID": org, "description": f"of {name}", "permissions": permissions}
        _write(folder / name / "influx.token", _asked(url, admin, "/api/v2/authorizations", made)["token"])
        _give(folder / name)


def hub_toml(ports: Mapping[str, int], identity: str) -> str:
    """Return the hub's configuration."""
    return (
        f'[hub]\nhost_id = "hamlet-hub"\nstate_dir = "state"\nport = {ports["hub"]}\nclock = "trusted"\n'
        'status_file = "status.json"\n'
        f'[broker]\nport = {ports["mqtt"]}\nusername = "hub"\npassword_file = "broker.password"\n'
        '[store]\nkind = "influxdb"\n'
        f'[store.influx]\nurl = "http://127.0.0.1:{ports["influxdb"]}"\norg = "{ORG}"\ntoken_file = "influx.token"\n'
        f'bucket = "{BUCKETS[0]}"\nrollup_bucket = "{BUCKETS[1]}"\ndelivery_bucket = "{BUCKETS[2]}"\n'
        '[broadcast]\nsigner_socket = "../socket/signer.sock"\nroots = ["root.json"]\nbundle = "bundle.json"\n'
        f'[[edge_nodes]]\ngroup = "{GROUP}"\nid = "{NODE}"\ncommune = "{COMMUNE}"\nhamlet = "{HAMLET}"\n'
        f'identity = "{identity}"\n'
    )


def signer_toml() -> str:
    """Return the signer's configuration; its key is in no other program's folder."""
    return (
        f'deployment = "{DEPLOYMENT}"\nkey = "keys/signer.pem"\nsocket = "../socket/signer.sock"\nlog = "signer.log"\n'
    )


def edge_toml(ports: Mapping[str, int]) -> str:
    """Return the edge node's configuration."""
    devices: list[dict[str, Any]] = [
        {"id": "water-01", "kind": "water_probe", "driver": "modbus_sensor", "host": "127.0.0.1"},
        {"id": "gauge-01", "kind": "hydro_station", "driver": "modbus_sensor", "host": "127.0.0.1"},
        {"id": "air-01", "kind": "air_station", "driver": "modbus_sensor", "host": "127.0.0.1"},
        {"id": "speaker-01", "kind": "loudspeaker", "driver": "ip_speaker"},
        {"id": "cam-01", "kind": "camera", "driver": "onvif_camera", "poll_seconds": 30},
        {"id": "wifi-01", "kind": "hotspot", "driver": "openwrt_hotspot"},
    ]
    maps = ("generic-water-probe.yaml", "generic-hydro-station.yaml", "generic-air-station.yaml")
    for slave, (device, file) in enumerate(zip(devices[:3], maps, strict=True), start=1):
        device |= {"tcp_port": ports["gateway"], "slave": slave, "register_map": file}
    for device, port in zip(devices[3:], ("speaker", "camera", "router"), strict=True):
        device |= {"url": f"http://127.0.0.1:{ports[port]}", "username": "box", "password_file": "device.password"}
    tables = "".join(
        "[[devices]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in one.items()) for one in devices
    )
    return (
        f'[node]\ngroup = "{GROUP}"\nid = "{NODE}"\nstate_dir = "state"\nstatus_file = "status.json"\n'
        'clock = "trusted"\nprimary_host = "hamlet-hub"\nbirth_jitter_seconds = 0\n'
        f'[[brokers]]\nhost = "127.0.0.1"\nport = {ports["mqtt"]}\nusername = "{NODE}"\n'
        'password_file = "broker.password"\n'
        f'[broadcast]\ndeployment = "{DEPLOYMENT}"\nenvironment = "demo"\nroot = "root.json"\n'
        f'identity_key = "identity.pem"\naudio_url = "http://127.0.0.1:{ports["hub"]}"\nmax_volume = 80\n{tables}'
    )


def hamlet_yaml(ports: Mapping[str, int], password: str) -> str:
    """Return the simulated commune; YAML takes JSON as it is."""
    login = {"user": "box", "password": password}
    probes = [
        {"id": "water-01", "slave": 1},
        {"id": "gauge-01", "slave": 2, "layout": "hydro"},
        {"id": "air-01", "slave": 3, "layout": "air"},
    ]
    hamlet = {
        "name": HAMLET,
        "gateways": [{"id": "gateway-01", "port": ports["gateway"], "probes": probes}],
        "speakers": [{"id": "speaker-01", "port": ports["speaker"], **login}],
        "cameras": [{"id": "cam-01", "port": ports["camera"], "rtsp_port": ports["rtsp"], **login}],
        "routers": [{"id": "wifi-01", "port": ports["router"], **login}],
    }
    return json.dumps({"seed": 7, "recordings": "recordings", "hamlets": [hamlet]}, ensure_ascii=False)


def _keys(folder: Path) -> str:
    """Make keys for a demonstration; return the box's public one."""
    words = ("--dir", str(folder), "--deployment", DEPLOYMENT, "--group", GROUP, "--node", NODE)
    told = subprocess.run(
        [sys.executable, "-m", "hub", "trust", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    if told.returncode:
        raise NotComposed(f"keys could not be made: {told.stderr}")
    return str(json.loads(told.stdout)["identities"][NODE])


def _hashed(password: str) -> str:
    """Return a password as Mosquitto 2 keeps it: PBKDF2-HMAC-SHA512 (its `mosquitto_passwd`, type 7)."""
    salt, rounds = secrets.token_bytes(12), 20_000
    told = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, rounds)
    return f"$7${rounds}${base64.b64encode(salt).decode()}${base64.b64encode(told).decode()}"


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")


def _give(folder: Path) -> None:
    """Give everything to who will read it, where we may."""
    if os.geteuid() != 0:
        return
    for one in (folder, *folder.rglob("*")):
        names = [part for part in one.parts if part in OWNERS]
        owner = OWNERS[names[-1]] if names else OURS
        os.chown(one, owner, owner)


def _wait(url: str) -> None:
    deadline = time.monotonic() + UP_SECONDS
    while True:
        try:
            urllib.request.urlopen(f"{url}/health", timeout=5).close()
        except OSError as exc:
            if time.monotonic() > deadline:
                raise NotComposed(f"{url} does not answer: {exc}") from exc
            time.sleep(0.5)
        else:
            return


def _asked(url: str, token: str, path: str, body: object = None) -> Any:
    request = urllib.request.Request(url + path, json.dumps(body).encode() if body is not None else None)
    request.add_header("Authorization", f"Token {token}")
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.loads(answer.read())
    except OSError as exc:
        told = exc.read().decode() if isinstance(exc, urllib.error.HTTPError) else ""
        raise NotComposed(f"{url}{path}: {exc} {told}") from exc


if __name__ == "__main__":
    sys.exit(main())
