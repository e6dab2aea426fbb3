"""What an edge node's file may say, and how it is refused: golden folders under tests/cases/config/edge."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edge.config import SAMPLE, ConfigRefused, load, problems
from edge.device_configs import DRIVERS

CASES = sorted((Path(__file__).parents[1] / "cases" / "config" / "edge").iterdir())


def edge(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edge", *arguments], capture_output=True, text=True, timeout=30, check=False
    )


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_wrong_file_is_refused_naming_key_value_and_way_out(case: Path) -> None:
    with pytest.raises(ConfigRefused) as caught:
        load(case / "edge.toml")
    said = str(caught.value).replace(str(case) + os.sep, "")
    assert said.splitlines() == (case / "error.txt").read_text(encoding="utf-8").splitlines()


def test_the_sample_is_good(tmp_path: Path) -> None:
    file = tmp_path / "edge.toml"
    file.write_text(SAMPLE, encoding="utf-8")
    config = load(file)
    assert config.node.state_dir == tmp_path / "state"
    assert {one.driver for one in config.devices} == DRIVERS


def test_the_sample_is_what_the_command_prints() -> None:
    assert edge("sample-config").stdout == SAMPLE


def test_a_check_names_every_missing_file_and_makes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "edge.toml"
    file.write_text(SAMPLE, encoding="utf-8")
    checked = edge("check", file)
    assert checked.returncode == 1
    for missing in ("root.json", "identity.pem", "speaker-01.password"):
        assert missing in checked.stderr
    assert "register_map" not in checked.stderr
    assert [one.name for one in tmp_path.iterdir()] == ["edge.toml"]


def test_a_state_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file stands in the way")
    file = tmp_path / "edge.toml"
    file.write_text(SAMPLE, encoding="utf-8")
    assert any("state_dir" in one and "cannot be written" in one for one in problems(load(file)))


def test_a_register_map_beside_the_file_goes_before_the_shipped_one(tmp_path: Path) -> None:
    file = tmp_path / "edge.toml"
    file.write_text(SAMPLE, encoding="utf-8")
    shipped = load(file).devices[0]
    own = tmp_path / "generic-water-probe.yaml"
    own.write_text("name: own")
    assert load(file).devices[0] != shipped
    checked = edge("check", file)
    assert str(own) in checked.stderr
