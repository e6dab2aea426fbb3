"""The files that broker, hub, boxes and simulated devices of a run are started with. Pure."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

GROUP = DEPLOYMENT = "chaos"
NODES = ("n-01", "n-02", "n-03")
PROBES_EACH = 3
SERIAL, STATE = "Water/Temperature", "Device/State"
"""The metric that carries the serial number: any whose every whole step is worth a report."""

STATES = (0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1)
WORDS = {"0": "ok", "1": "calibrating"}
POLL_SECONDS = 0.5
COMMIT_SECONDS = 2.0
APART_SECONDS = 0.1
KEEP_ALIVE = 5
OUTCOME = "Announcement/Outcome"
PASSWORD = "of-a-run"
SIGNER = f'deployment = "{DEPLOYMENT}"\nkey = "keys/signer.pem"\nsocket = "signer.sock"\nlog = "orders.log"\n'
SERIALS_EACH = 10_000_000
REGISTER_MAP = f"""\
name: A probe that counts
kind: water_probe
source: generic
values:
  - {{metric: {SERIAL}, address: 0, type: uint32, decimals: 0, range: [0, 4294967295]}}
status:
  address: 10
  calibrating: [1]
"""


def probes(node: str) -> list[str]:
    """Return the devices of an edge node."""
    return [f"{node}-probe-{number}" for number in range(1, PROBES_EACH + 1)]


def speaker(node: str) -> str:
    """Return the loudspeaker of an edge node."""
    return f"{node}-speaker"


def broker_conf(port: int, folder: str) -> str:
    """Return Mosquitto's file; what it must remember is on disk a second later."""
    return (
        f"listener {port} 127.0.0.1\nallow_anonymous true\n"
        "user root\n"  # in a namespace of a user's own there is nobody else to become
        f"persistence true\npersistence_location {folder}/\nautosave_interval 1\n"
        "max_queued_messages 100000\nmax_inflight_messages 0\nmax_queued_bytes 268435456\n"
    )


def hub_toml(port: int, mqtt_port: int, state: str, store: str, identities: Mapping[str, str]) -> str:
    """Return the hub's file; `store` is what it says of that, `identities` are the boxes' public keys."""
    nodes = "".join(
        f'[[edge_nodes]]\ngroup = "{GROUP}"\nid = "{node}"\ncommune = "Xã Thử"\nhamlet = "Ấp {node}"\n'
        f'identity = "{identities[node]}"\n'
        for node in NODES
    )
    return (
        f'[hub]\nhost_id = "hamlet-hub"\nstate_dir = {json.dumps(state)}\nport = {port}\nclock = "trusted"\n'
        f'status_file = "hub.json"\n[broker]\nport = {mqtt_port}\nkeep_alive_seconds = {KEEP_ALIVE}\n'
        + '[broadcast]\nsigner_socket = "signer.sock"\nroots = ["keys/root.json"]\nbundle = "keys/bundle.json"\n'
        + store
        + nodes
    )


def edge_toml(
    node: str, *, state: str, status: str, broker: tuple[str, int], hub_port: int, devices: Mapping[str, Any]
) -> str:
    """Return a box's file; `devices` is where its simulator says that each of them is found."""
    host, port = broker
    horn = {
        "id": speaker(node),
        "kind": "loudspeaker",
        "driver": "ip_speaker",
        "url": devices[speaker(node)]["url"],
        "username": "box",
        "password_file": "speaker.password",
    }
    tables = [horn]
    for name in probes(node):
        where = {key: devices[name][key] for key in ("host", "tcp_port", "slave")}
        told = {
            "id": name,
            "kind": "water_probe",
            "driver": "modbus_sensor",
            "register_map": "counting-probe.yaml",
            "poll_seconds": POLL_SECONDS,
            # An answer that came too late for its asker would be an answer nobody took.
            "timeout_seconds": 10,
            **where,
        }
        tables.append(told)
    text = "".join(
        "[[devices]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in one.items()) for one in tables
    )
    return (
        f'[node]\ngroup = "{GROUP}"\nid = "{node}"\nstate_dir = {json.dumps(state)}\nstatus_file = "{status}"\n'
        f'clock = "trusted"\nprimary_host = "hamlet-hub"\nbirth_jitter_seconds = 1\nkeep_alive_seconds = {KEEP_ALIVE}\n'
        f"commit_interval_seconds = {COMMIT_SECONDS}\n[[brokers]]\nhost = {json.dumps(host)}\nport = {port}\n"
        f'[broadcast]\ndeployment = "{DEPLOYMENT}"\nenvironment = "demo"\nroot = "keys/root.json"\n'
        f'identity_key = "keys/{node}.pem"\naudio_url = "http://127.0.0.1:{hub_port}"\n{text}'
    )


def hamlet_yaml(node: str, seed: int) -> str:
    """Return the simulator's file for the devices of one box."""
    first = 1 + NODES.index(node) * PROBES_EACH * SERIALS_EACH
    told = [
        {
            "id": name,
            "slave": number,
            "layout": "serial",
            "first": first + (number - 1) * SERIALS_EACH,
            "states": STATES,
            "apart_seconds": APART_SECONDS,
            "answers": f"answers/{name}.jsonl",
        }
        for number, name in enumerate(probes(node), start=1)
    ]
    gateway = {"id": f"{node}-gateway", "probes": told}
    horn = {"id": speaker(node), "password": PASSWORD}
    hamlet = {"name": node, "gateways": [gateway], "speakers": [horn]}
    # JSON is YAML.
    return json.dumps({"seed": seed, "quiet_file": f"quiet-{node}", "hamlets": [hamlet]})


def run_json(*, cycles: int, kinds: Sequence[str], store: str) -> str:
    """Return what the judge is told of a run."""
    devices = {name: {"node": node, "poll_ms": int(POLL_SECONDS * 1000)} for node in NODES for name in probes(node)}
    return json.dumps(
        {
            "cycles": cycles,
            "kinds": list(kinds),
            "store": store,
            "commit_ms": int(COMMIT_SECONDS * 1000),
            "tolerance_ms": 5000,
            "serial_metric": SERIAL,
            "event_metric": STATE,
            "states": WORDS,
            "outcome_metric": OUTCOME,
            "devices": devices,
        }
    )
