"""The README's promise: everything together, judged from outside."""

import json
import subprocess
import sys

import pytest


@pytest.mark.broker
@pytest.mark.speech
@pytest.mark.timeout(120)
def test_a_commune_on_one_machine_measures_and_speaks() -> None:
    demo = subprocess.run(
        [sys.executable, "-m", "simulators.demo", "--seconds", "15", "--json"],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert demo.returncode == 0, demo.stderr[-3000:]
    (line,) = demo.stdout.splitlines()
    verdict = json.loads(line)
    assert (verdict["devices"]["total"], verdict["devices"]["online"]) == (28, 28)
    assert verdict["devices"]["by_kind"] == {
        "air_station": 4,
        "camera": 8,
        "hotspot": 4,
        "hydro_station": 2,
        "loudspeaker": 8,
        "water_probe": 2,
    }
    assert verdict["samples"]["stored"] == verdict["samples"]["reported"] > 0
    assert verdict["announcements"] == {"sent": 2, "claimed": 2, "heard": 2}
