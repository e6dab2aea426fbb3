"""The files for hotspots and machines say what they must, in the words of whoever reads them."""

import configparser
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from edge.config import FIRMWARE

OPENWRT, BOX = FIRMWARE / "openwrt", FIRMWARE / "box"
UNITS = sorted(BOX.glob("*.service"))
DRIVER = Path(__file__).parents[2] / "edge" / "drivers" / "openwrt_hotspot.py"


def test_the_account_on_a_hotspot_may_ask_what_the_driver_asks_and_change_nothing() -> None:
    granted = json.loads((OPENWRT / "hamlet-acl.json").read_text(encoding="utf-8"))["hamlet"]
    assert granted["write"] == {}
    allowed = granted["read"]["ubus"]
    calls = re.findall(r'_call\("([\w.]+)", "(\w+)"', DRIVER.read_text(encoding="utf-8"))
    assert len(calls) >= 4
    for name, method in calls:
        assert method in allowed[name]
    assert allowed["hostapd.*"] == ["get_clients"]
    harmless = re.compile(r"^(get_\w+|board|info|dump|status|devices|access|login)$")
    assert all(harmless.match(method) for methods in allowed.values() for method in methods)


def uci() -> dict[str, dict[str, list[str]]]:
    """Return sections and their options from a `uci batch` file; fail on any line that uci would not take."""
    found: dict[str, dict[str, list[str]]] = {}
    for line in (OPENWRT / "guest.uci").read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#") or line == "commit":
            continue
        command, rest = line.split(" ", 1)
        [assignment] = shlex.split(rest)
        path, value = assignment.split("=", 1)
        assert command in {"set", "add_list"}, line
        config, section, *option = path.split(".")
        assert re.fullmatch(r"[a-z0-9_]+", config), line
        assert re.fullmatch(r"[a-z0-9_]+", section), line
        known = found.setdefault(f"{config}.{section}", {})
        assert option or command == "set", line
        known.setdefault(option[0] if option else "", []).append(value)
        assert "" in known, f"{line}: the section was not made before its options"
    return found


def test_guests_reach_the_internet_and_nothing_of_the_commune() -> None:
    told = uci()
    zone = told["firewall.guest"]
    assert (zone["input"], zone["forward"]) == (["REJECT"], ["REJECT"])
    assert told["wireless.guest"]["isolate"] == ["1"]
    ways = [one for one in told.values() if one[""] == ["forwarding"]]
    assert [(one["src"], one["dest"]) for one in ways] == [(["guest"], ["wan"])]
    kept_out = told["firewall.guest_private"]
    assert set(kept_out["dest_ip"]) == {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"}
    assert kept_out["target"] == ["REJECT"]
    accepted = [one["dest_port"][0] for one in told.values() if one.get("target") == ["ACCEPT"]]
    assert sorted(accepted) == ["53", "67"]


def unit(file: Path) -> dict[str, dict[str, str]]:
    parser = configparser.ConfigParser(strict=True, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # systemd's names have capitals
    parser.read_string(file.read_text(encoding="utf-8"))
    return {name: dict(parser[name]) for name in parser.sections()}


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.foreign
@pytest.mark.parametrize("file", UNITS, ids=lambda file: file.stem)
def test_systemd_takes_the_unit(file: Path, tmp_path: Path) -> None:
    copies = []
    for one in UNITS:
        copy = tmp_path / one.name
        text = one.read_text(encoding="utf-8")
        # What they start, whom they are and where they read is not on this machine.
        text = re.sub(r"ExecStart=\S+", "ExecStart=/bin/true", text)
        text = re.sub(r"^(Documentation|SupplementaryGroups)=.*\n", "", text, flags=re.MULTILINE)
        copy.write_text(text, encoding="utf-8")
        copies.append(copy)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", tmp_path / file.name],
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    complaints = [line for line in done.stderr.splitlines() if file.name in line]
    assert complaints == []


def test_the_units_start_commands_that_exist_and_the_signer_has_no_network() -> None:
    units = {file.stem: unit(file) for file in UNITS}
    starts = {name: one["Service"]["ExecStart"].split()[:2] for name, one in units.items()}
    assert starts == {
        "hamlet-edge": ["/opt/hamlet/bin/hamlet-edge", "run"],
        "hamlet-hub": ["/opt/hamlet/bin/hamlet-hub", "serve"],
        "hamlet-signer": ["/opt/hamlet/bin/hamlet-hub", "signer"],
    }
    assert units["hamlet-signer"]["Service"]["PrivateNetwork"] == "yes"
    assert units["hamlet-signer"]["Service"]["RestrictAddressFamilies"] == "AF_UNIX"
    for one in units.values():
        assert one["Service"]["Restart"] == "always"
        assert one["Service"]["NoNewPrivileges"] == "yes"
        assert one["Service"]["ProtectSystem"] == "strict"


def first_boot(root: Path, name: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["sh", BOX / "first-boot.sh", name],
        env={"ROOT": str(root), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )


def test_the_first_boot_prepares_a_box_and_may_be_run_again(tmp_path: Path) -> None:
    config = tmp_path / "boot" / "firmware" / "config.txt"
    config.parent.mkdir(parents=True)
    config.write_text("arm_64bit=1\n", encoding="utf-8")
    for _ in range(2):
        done = first_boot(tmp_path, "c7k2m-01")
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "etc" / "hostname").read_text(encoding="utf-8") == "c7k2m-01\n"
    assert "ping_group_range" in (tmp_path / "etc" / "sysctl.d" / "90-hamlet.conf").read_text(encoding="utf-8")
    assert config.read_text(encoding="utf-8").count("dtoverlay=i2c-rtc") == 1


@pytest.mark.parametrize("name", ["", "a b", "x;reboot", "ấp-3"])
def test_the_first_boot_refuses_what_is_no_name(tmp_path: Path, name: str) -> None:
    done = first_boot(tmp_path, name)
    assert done.returncode != 0
    assert not (tmp_path / "etc").exists()


def test_every_folder_says_what_it_is_for_in_a_few_lines() -> None:
    for folder in (one for one in FIRMWARE.iterdir() if one.is_dir()):
        lines = (folder / "README.md").read_text(encoding="utf-8").splitlines()
        assert 6 <= len(lines) <= 40, folder
