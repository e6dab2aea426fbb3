"""A short run with real processes: kill -9 of box, hub and broker, and a link that is cut."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos.world import MOSQUITTO

SECONDS = 110
KINDS = ("broker_kill", "edge_kill", "hub_kill", "link_cut")


@pytest.mark.broker
@pytest.mark.timeout(SECONDS + 10)
@pytest.mark.skipif(not Path(MOSQUITTO).exists(), reason="Mosquitto is not installed (apt-get install mosquitto)")
def test_nothing_is_lost_stored_twice_or_altered_in_a_short_run(tmp_path: Path) -> None:
    command: list[str] = [
        sys.executable,
        "-m",
        "tests.chaos",
        "--only",
        "world",
        "--cycles",
        "1",
        "--seed",
        "7",
        "--json",
        "--keep",
        f"{tmp_path}/run",
    ]
    done = subprocess.run(
        [*command, "--kinds", ",".join(KINDS)],
        cwd=Path(__file__).parents[2],
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert all(told["faults"][kind] for kind in KINDS)
    assert (told["cycles"], told["lost"], told["duplicated"], told["altered"]) == (1, 0, 0, 0)
    assert told["produced"] > 100
    assert told["in_flight"] <= told["in_flight_bound"]
    assert told["store"] == "embedded"
