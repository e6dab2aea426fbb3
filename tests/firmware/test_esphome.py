"""ESPHome's own checker reads the nodes, and they publish what the mappings expect."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from edge.config import FIRMWARE
from edge.drivers.mqtt_mapping import load_mapping

NODES = FIRMWARE / "esphome"
ESPHOME = Path(__file__).parents[2] / ".venv-esphome" / "bin" / "esphome"
needs_esphome = pytest.mark.skipif(not ESPHOME.exists(), reason="ESPHome is not installed (make test installs it)")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for one in NODES.glob("*.yaml"):
        shutil.copy(one, tmp_path)
    example = (NODES / "secrets.yaml.example").read_text(encoding="utf-8")
    (tmp_path / "secrets.yaml").write_text(example.replace('"..."', '"throw-away"'), encoding="utf-8")
    return tmp_path


def checked(file: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([ESPHOME, "config", file], capture_output=True, text=True, check=False, timeout=50)


@needs_esphome
@pytest.mark.foreign
@pytest.mark.parametrize("name", ["air", "water", "hydro"])
def test_a_node_is_valid_and_publishes_what_its_mapping_reads(folder: Path, name: str) -> None:
    done = checked(folder / f"{name}.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    named = set(re.findall(r"^\s*-?\s*name: (\S+)$", done.stdout, flags=re.MULTILINE))
    mapping = load_mapping(FIRMWARE / "mqtt_mappings" / f"esphome-{name}.yaml")
    assert {str(value.path[0]) for value in mapping.values} <= named
    # An old reading must not look new to a box that was restarted.
    assert done.stdout.count("retain: false") >= len(mapping.values)


@needs_esphome
@pytest.mark.foreign
def test_a_broken_node_is_refused(folder: Path) -> None:
    broken = folder / "air.yaml"
    broken.write_text(broken.read_text(encoding="utf-8").replace("pmsx003", "pmsx999"), encoding="utf-8")
    assert checked(broken).returncode != 0


def test_no_secret_stands_in_a_node() -> None:
    example = yaml.safe_load((NODES / "secrets.yaml.example").read_text(encoding="utf-8"))
    assert {example[key] for key in example if "password" in key} == {"..."}
    assert not (NODES / "secrets.yaml").exists()
    for node in NODES.glob("*.yaml"):
        assert not re.search(r"password: (?!!secret)", node.read_text(encoding="utf-8")), node
