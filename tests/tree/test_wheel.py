"""What is installed on a box or a hub is whole: programs, files for hardware, the pages' assets."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
VENDOR = ROOT / "hub" / "web" / "static" / "vendor" / "htmx.min.js"


@pytest.mark.skipif(not VENDOR.exists(), reason="the pages' assets are not built (make test builds them)")
def test_the_wheel_holds_what_the_programs_read(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=50,
    )
    [wheel] = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for wanted in (
        "firmware_configs/register_maps/generic-water-probe.yaml",
        "firmware_configs/mqtt_mappings/esphome-air.yaml",
        "firmware_configs/snmp_profiles/generic.yaml",
        "hub/web/static/vendor/htmx.min.js",
        "hub/web/templates/overview.html",
        "hub/web/messages/vi/LC_MESSAGES/messages.po",
        "contract/sparkplug_pb2.py",
    ):
        assert wanted in names
    assert [one for one in names if one.startswith("tests/") or one.endswith("secrets.yaml")] == []
