"""The judge finds what it is there to find, in files made up for it."""

import csv
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

JUDGE = Path(__file__).with_name("judge.py")
FIELDS = ["group", "node", "device", "metric", "at", "value", "quality", "instrument", "time"]
SERIAL, STATE = "Water/Temperature", "Device/State"
T0 = 1_790_000_000_000
POLL, COMMIT = 500, 1000
KILLED_AT = T0 + 19 * POLL + 10


@dataclass
class Folder:
    """Twenty answers of a counting probe, as many of one whose status changes each time; all of it stored."""

    path: Path
    answers: list[dict[str, Any]] = field(default_factory=list)
    faults: list[dict[str, Any]] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for number in range(20):
            self.answer("plain", 1 + number, T0 + number * POLL)
            self.answer("switch", 1001 + number, T0 + number * POLL, status=number % 2)

    def answer(self, device: str, serial: int, at: int, *, status: int = 0, asker: int = 1) -> None:
        self.answers.append({"device": device, "serial": serial, "status": status, "asker": asker, "at": at})
        self.store(device, SERIAL, at + 3, float(serial))
        if device == "switch":
            self.store(device, STATE, at + 3, ["ok", "calibrating"][status])

    def store(self, device: str, metric: str, at: int, value: object) -> None:
        told = {"group": "g", "node": "n-01", "device": device, "metric": metric, "at": at, "value": value}
        self.rows.append({**told, "quality": 192, "instrument": 0, "time": ""})

    def forget(self, serial: int, *metrics: str) -> None:
        """Remove what is stored of an answer."""
        at = next(one["at"] for one in self.answers if one["serial"] == serial) + 3
        device = "switch" if serial > 1000 else "plain"
        self.rows = [
            one
            for one in self.rows
            if not (one["device"] == device and one["at"] == at and one["metric"] in (metrics or (SERIAL, STATE)))
        ]

    def kill(self, at: int) -> None:
        self.faults.append({"kind": "edge_kill", "node": "n-01", "begin": at, "end": at + 5})

    def judge(self) -> tuple[int, dict[str, Any]]:
        (self.path / "answers").mkdir()
        device = {"node": "n-01", "poll_ms": POLL}
        run = {
            "cycles": 1,
            "seed": 7,
            "kinds": self.kinds,
            "not_run": {},
            "store": "embedded",
            "commit_ms": COMMIT,
            "tolerance_ms": 5000,
            "serial_metric": SERIAL,
            "event_metric": STATE,
            "states": {"0": "ok", "1": "calibrating"},
            "devices": {"plain": device, "switch": device},
        }
        (self.path / "run.json").write_text(json.dumps(run), encoding="utf-8")
        write(self.path / "answers" / "all.jsonl", self.answers)
        write(self.path / "faults.jsonl", self.faults)
        with (self.path / "samples.csv").open("w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, FIELDS)
            table.writeheader()
            table.writerows(self.rows)
        # Isolated: what is not Python's own cannot be imported.
        done = subprocess.run(
            [sys.executable, "-I", "-S", JUDGE, self.path], capture_output=True, text=True, timeout=30, check=False
        )
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)


def write(file: Path, told: Sequence[dict[str, Any]]) -> None:
    file.write_text("".join(json.dumps(one) + "\n" for one in told), encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_what_is_all_there_passes(folder: Folder) -> None:
    folder.kinds = ["edge_kill"]
    folder.kill(KILLED_AT)
    code, told = folder.judge()
    assert code == 0
    # Twenty answers each; of the changes the last one's asker never asked again.
    assert (told["produced"], told["stored"]) == (20 + 20 + 18, 20 + 20 + 18)
    assert (told["in_flight"], told["lost"], told["duplicated"], told["altered"]) == (0, 0, 0, 0)
    assert told["faults"] == {"edge_kill": 1}


def test_a_lost_serial_is_found(folder: Folder) -> None:
    folder.kill(KILLED_AT)
    folder.forget(10)
    code, told = folder.judge()
    assert (code, told["lost"], told["in_flight"]) == (1, 1, 0)


def test_a_serial_answered_just_before_a_kill_is_in_flight_and_listed(folder: Folder) -> None:
    folder.kill(KILLED_AT)
    folder.forget(19)
    code, told = folder.judge()
    assert (code, told["lost"], told["in_flight"]) == (0, 0, 1)
    assert told["produced"] == told["stored"] + told["in_flight"]
    (listed,) = (json.loads(one) for one in (folder.path / "in_flight.jsonl").read_text().splitlines())
    assert (listed["device"], listed["serial"]) == ("plain", 19)


def test_a_kill_of_another_box_excuses_nothing(folder: Folder) -> None:
    folder.faults.append({"kind": "edge_kill", "node": "n-02", "begin": KILLED_AT, "end": KILLED_AT})
    folder.forget(19)
    assert folder.judge()[1]["lost"] == 1


def test_a_stop_excuses_only_the_question_that_was_asked(folder: Folder) -> None:
    folder.faults.append({"kind": "edge_stop", "node": "n-01", "begin": KILLED_AT, "end": KILLED_AT + 900})
    folder.forget(19)
    folder.forget(20)
    told = folder.judge()[1]
    assert (told["lost"], told["in_flight"]) == (1, 1)


def test_a_full_disk_excuses_what_was_answered_meanwhile(folder: Folder) -> None:
    folder.faults.append({"kind": "edge_disk_full", "node": "n-01", "begin": T0 + 1000, "end": T0 + 3000})
    folder.forget(4)
    folder.forget(9)
    told = folder.judge()[1]
    assert (told["lost"], told["in_flight"]) == (1, 1)


def test_a_serial_stored_at_two_instants_is_found(folder: Folder) -> None:
    folder.store("plain", SERIAL, T0 + 77, 5.0)
    code, told = folder.judge()
    assert (code, told["duplicated"], told["lost"]) == (1, 1, 0)


@pytest.mark.parametrize("value", [7000.0, 5.5, "nan", 1005.0])
def test_a_value_that_was_never_answered_is_found(folder: Folder, value: object) -> None:
    """A value of another device too: no two devices share a serial."""
    folder.store("plain", SERIAL, T0 + 77, value)
    code, told = folder.judge()
    assert (code, told["altered"], told["lost"]) == (1, 1, 0)


def test_a_serial_stored_for_another_node_or_of_another_quality_is_found(folder: Folder) -> None:
    folder.rows[0]["node"] = "n-02"
    folder.rows[2]["quality"] = 0
    code, told = folder.judge()
    assert (code, told["altered"]) == (1, 2)


def test_an_instant_far_from_the_answer_is_found_unless_the_clock_was_wrong(folder: Folder) -> None:
    folder.rows[0]["at"] = T0 + 60_000
    assert folder.judge()[1]["altered"] == 1


def test_an_instant_far_from_the_answer_is_right_while_the_clock_was_wrong(folder: Folder) -> None:
    folder.faults.append({"kind": "edge_clock_forward", "node": "n-01", "begin": T0 - 5, "end": T0 + 5})
    folder.rows[0]["at"] = T0 + 60_000
    assert folder.judge()[1]["altered"] == 0


def test_an_event_lost_inside_the_window_of_a_kill_is_found(folder: Folder) -> None:
    folder.kill(KILLED_AT)
    folder.forget(1019)
    code, told = folder.judge()
    assert (code, told["lost"], told["in_flight"]) == (1, 1, 1)


def test_an_event_whose_asker_died_with_it_is_not_demanded(folder: Folder) -> None:
    folder.kill(KILLED_AT)
    folder.forget(1020)
    code, told = folder.judge()
    assert (code, told["lost"], told["in_flight"]) == (0, 0, 1)


def test_an_event_without_its_state_is_found(folder: Folder) -> None:
    folder.forget(1010, STATE)
    assert folder.judge()[1]["lost"] == 1


def test_a_state_nobody_answered_is_found(folder: Folder) -> None:
    next(one for one in folder.rows if one["metric"] == STATE)["value"] = "stuck"
    assert folder.judge()[1]["altered"] == 1


def test_more_in_flight_than_can_be_is_found(folder: Folder) -> None:
    folder.kill(KILLED_AT)
    for number in range(60):  # a box that asks thirty times as often as it may
        folder.answers.append(
            {"device": "plain", "serial": 100 + number, "status": 0, "asker": 1, "at": KILLED_AT - number}
        )
    code, told = folder.judge()
    assert (code, told["lost"]) == (1, 0)
    assert told["in_flight"] == 60 > told["in_flight_bound"]


def test_a_fault_that_never_happened_fails_the_run(folder: Folder) -> None:
    folder.kinds = ["edge_kill", "hub_kill"]
    folder.kill(KILLED_AT)
    code, told = folder.judge()
    assert (code, told["faults"]) == (1, {"edge_kill": 1, "hub_kill": 0})


def test_a_run_in_which_nothing_was_produced_fails(folder: Folder) -> None:
    folder.answers, folder.rows = [], []
    assert folder.judge()[0] == 1
