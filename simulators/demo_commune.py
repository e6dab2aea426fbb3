"""The commune that the demonstration shows: its hamlets, their devices, and the files its programs are started with."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from simulators.lan import NAME

GROUP = "c7k2m"
DEPLOYMENT = "smart-hamlet-demo"
COMMUNE = "Xã An Thạnh"
USER, PASSWORD, SNMP_PASSWORD = "box", "demo", "demo-demo"
DEVICES_EACH = 14
"""Four cameras, four loudspeakers, two hotspots and four sensors on each edge node."""


@dataclass(frozen=True, slots=True)
class Hamlet:
    """One edge node and what it is to announce."""

    node: str
    name: str
    sentence: str

    @property
    def number(self) -> str:
        """Return what the names of its devices end in, before their letter."""
        return self.node[-2:]

    def named(self, what: str, count: int = 4) -> Sequence[str]:
        """Return the ids of its devices of one sort."""
        return [f"{what}-{self.number}{letter}" for letter in "abcd"[:count]]

    @property
    def speakers(self) -> Sequence[str]:
        """Return the ids of its loudspeakers."""
        return self.named("speaker")


HAMLETS = (
    Hamlet("c7k2m-01", "Ấp Bình Hòa", "Thông báo: chiều nay triều cường dâng cao, bà con chú ý kê cao tài sản."),
    Hamlet("c7k2m-02", "Ấp Phú Thạnh", "Thông báo: sáng mai trạm y tế tiêm phòng cho trẻ em, mời bà con đưa cháu đến."),
)


def hamlet_yaml(*, box_mqtt_port: int) -> str:
    """Return what the simulators are to run."""
    login = {"user": USER, "password": PASSWORD}
    snmp = {"user": USER, "community": "hamlet", "auth_password": SNMP_PASSWORD, "privacy_password": SNMP_PASSWORD}
    hamlets = []
    for one in HAMLETS:
        number = one.number
        cameras: list[dict[str, object]] = [{"id": name, **login} for name in one.named("cam")]
        cameras[-1] |= {"codec": "MJPEG", "onvif": False}
        probes = [{"id": f"water-{number}", "slave": 1}, {"id": f"gauge-{number}", "slave": 2, "layout": "hydro"}]
        air = {"id": f"air-{number}", "shape": "esphome", "layout": "air", "topic": f"air-{number}", "every_seconds": 2}
        hamlets.append(
            {
                "name": one.name,
                "power_supply": f"run/power-{number}",
                "buses": [{"link": f"run/{one.node}", "probes": probes}],
                "uarts": [{"id": f"dust-{number}", "model": "pms5003", "link": f"run/dust-{number}"}],
                "mqtt_sensors": [air],
                "speakers": [{"id": name, **login} for name in one.speakers],
                "cameras": cameras,
                "routers": [{"id": f"wifi-{number}a", **login}],
                "snmp_hotspots": [{"id": f"wifi-{number}b", **snmp}],
            }
        )
    told = {"seed": 7, "recordings": "recordings", "broker": {"port": box_mqtt_port}, "hamlets": hamlets}
    return json.dumps(told, ensure_ascii=False)


def hub_toml(identities: dict[str, str], *, port: int, mqtt_port: int, lan: str | None = None) -> str:
    """Return the hub's configuration; `identities` are the boxes' public keys by their ids.

    With `lan`, an address of this machine, it listens there with TLS, and answers to its name too.
    """
    seen = (
        f'listen = "{lan}"\nnames = ["{lan}", "{NAME}"]\ntls_certificate = "tls.crt"\ntls_key = "tls.key"\n'
        if lan
        else ""
    )
    nodes = "".join(
        f'[[edge_nodes]]\ngroup = "{GROUP}"\nid = "{hamlet.node}"\ncommune = "{COMMUNE}"\nhamlet = "{hamlet.name}"\n'
        f'identity = "{identities[hamlet.node]}"\n'
        for hamlet in HAMLETS
    )
    return (
        f'[hub]\nhost_id = "hamlet-hub"\nstate_dir = "hub"\nport = {port}\nclock = "trusted"\n'
        f'status_file = "hub.json"\n{seen}'
        f"[broker]\nport = {mqtt_port}\n"
        f'[broadcast]\nsigner_socket = "signer.sock"\nroots = ["keys/root.json"]\nbundle = "keys/bundle.json"\n{nodes}'
    )


def edge_toml(hamlet: Hamlet, found: dict[str, Any], *, mqtt_port: int, box_mqtt_port: int, hub_url: str) -> str:
    """Return an edge node's configuration; `found` tells where each simulated device is."""
    number, login = hamlet.number, {"username": USER, "password_file": "device.password"}
    devices: list[dict[str, Any]] = []

    def add(name: str, kind: str, driver: str, **more: object) -> None:
        devices.append({"id": name, "kind": kind, "driver": driver, "poll_seconds": 2, "mains": True, **more})

    for slave, (name, kind, file) in enumerate(
        (
            (f"water-{number}", "water_probe", "generic-water-probe.yaml"),
            (f"gauge-{number}", "hydro_station", "generic-hydro-station.yaml"),
        ),
        start=1,
    ):
        add(name, kind, "modbus_sensor", port=f"run/{hamlet.node}", slave=slave, register_map=file)
    add(f"dust-{number}", "air_station", "uart_sensor", model="pms5003", port=f"run/dust-{number}")
    local = {"port": box_mqtt_port, "mapping": "esphome-air.yaml", "topic": f"air-{number}"}
    add(f"air-{number}", "air_station", "mqtt_sensor", **local)
    for name in hamlet.speakers:
        add(name, "loudspeaker", "ip_speaker", url=found[name]["url"], **login)
    for place, name in enumerate(hamlet.named("cam")):
        # The last one has no ONVIF, as many that hang there already.
        where = {"stream_url": found[name]["stream_url"]} if place == 3 else {"url": found[name]["url"]}
        add(name, "camera", "onvif_camera", **where, **login, poll_seconds=10)
    add(f"wifi-{number}a", "hotspot", "openwrt_hotspot", url=found[f"wifi-{number}a"]["url"], **login)
    passwords = {f"{what}_password_file": "snmp.password" for what in ("auth", "privacy")}
    snmp = {"username": USER, **passwords, "profile": "simulated.yaml", "uplink_interface": "eth0"}
    spot = found[f"wifi-{number}b"]
    add(f"wifi-{number}b", "hotspot", "snmp_hotspot", host=spot["host"], port=spot["port"], **snmp)
    # JSON's strings, numbers and booleans are TOML's.
    tables = "".join(
        "[[devices]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in one.items()) for one in devices
    )
    return (
        f'[node]\ngroup = "{GROUP}"\nid = "{hamlet.node}"\nstate_dir = "{hamlet.node}"\n'
        f'status_file = "{hamlet.node}.json"\nclock = "trusted"\npower_supply = "run/power-{number}"\n'
        'primary_host = "hamlet-hub"\nbirth_jitter_seconds = 0\n'
        f'[[brokers]]\nhost = "127.0.0.1"\nport = {mqtt_port}\n'
        f'[broadcast]\ndeployment = "{DEPLOYMENT}"\nenvironment = "demo"\nroot = "keys/root.json"\n'
        f'identity_key = "keys/{hamlet.node}.pem"\naudio_url = "{hub_url}"\nmax_volume = 80\n{tables}'
    )
