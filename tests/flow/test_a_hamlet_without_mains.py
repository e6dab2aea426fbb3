"""The mains of a whole hamlet fail: that is said once as what it is, and nobody's device is called broken."""

import asyncio
import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

from simulators import ip_speaker, openwrt_hotspot, power_supply
from simulators.faults import Fault, Faults
from simulators.modbus_probe import Probe, bus

NODE = """
[node]
group = "g"
id = "n-01"
state_dir = "state"
status_file = "status.json"
clock = "trusted"
power_supply = "power"
[[brokers]]
host = "127.0.0.1"
port = 9
"""
PACE = "poll_seconds = 0.3\ngrace_seconds = 0.5\ntimeout_seconds = 0.4\n"


async def test_the_mains_are_the_cause_of_all_that_hangs_on_them_and_all_comes_back(
    tmp_path: Path, eventually: Any
) -> None:
    faults = Faults([], time.monotonic)
    horn = ip_speaker.Speaker(id="s", user="box", password="pw", recordings=tmp_path, faults=faults)
    spot = openwrt_hotspot.Router(id="w", user="box", password="pw", faults=faults)
    probe = Probe(id="p", slave=1, seed=7, faults=faults, now=time.time)
    battery_fed = Probe(id="q", slave=2, seed=7, faults=Faults([], time.monotonic), now=time.time)
    supply = power_supply.PowerSupply(tmp_path / "power", faults)
    (tmp_path / "pw").write_text("pw", encoding="utf-8")
    async with (
        power_supply.serving(supply),
        ip_speaker.serving(horn) as horn_url,
        openwrt_hotspot.serving(spot) as spot_url,
        bus([probe, battery_fed], link=tmp_path / "line", paced=False),
    ):
        modbus = (
            'kind = "water_probe"\ndriver = "modbus_sensor"\nport = "line"\nregister_map = "generic-water-probe.yaml"\n'
        )
        login = 'username = "box"\npassword_file = "pw"\n'
        (tmp_path / "edge.toml").write_text(
            f"{NODE}"
            f'[[devices]]\nid = "horn"\nkind = "loudspeaker"\ndriver = "ip_speaker"\nurl = "{horn_url}"\n{login}'
            f'mains = true\nbehind = "spot"\n{PACE}'
            f'[[devices]]\nid = "spot"\nkind = "hotspot"\ndriver = "openwrt_hotspot"\nurl = "{spot_url}"\n{login}'
            f"mains = true\n{PACE}"
            f'[[devices]]\nid = "probe"\nslave = 1\nmains = true\n{modbus}{PACE}'
            f'[[devices]]\nid = "gauge"\nslave = 2\n{modbus}{PACE}',
            encoding="utf-8",
        )
        with (tmp_path / "log").open("wb") as log:
            agent = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "edge", "run", tmp_path / "edge.toml", stdout=log, stderr=log
            )

        def presences() -> dict[str, str]:
            status = tmp_path / "status.json"
            told = json.loads(status.read_text(encoding="utf-8"))["devices"] if status.exists() else {}
            return {name: one["presence"] for name, one in told.items()}

        def are(word: str) -> bool:
            return presences() == {"horn": word, "spot": word, "probe": word, "gauge": "online"}

        try:
            await eventually(lambda: are("online"), within=20)
            faults.forced = Fault.MAINS_LOST
            await eventually(lambda: are("mains"), within=20)
            faults.forced = None
            await eventually(lambda: are("online"), within=40)
        finally:
            agent.send_signal(signal.SIGTERM)
            await asyncio.wait_for(agent.wait(), 60)
        assert agent.returncode == 0
