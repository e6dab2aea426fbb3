"""The judge finds what it is there to find, in files made up for it."""

import base64
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
SERIAL, STATE, OUTCOME = "Water/Temperature", "Device/State", "Announcement/Outcome"
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
    orders: list[dict[str, Any]] = field(default_factory=list)
    recorded: list[dict[str, Any]] = field(default_factory=list)
    said: str = ""

    def __post_init__(self) -> None:
        for number in range(20):
            self.answer("plain", 1 + number, T0 + number * POLL)
            self.answer("switch", 1001 + number, T0 + number * POLL, status=number % 2)

    def answer(self, device: str, serial: int, at: int, *, status: int = 0, asker: int = 1) -> None:
        self.answers.append({"device": device, "serial": serial, "status": status, "asker": asker, "at": at})
        self.store(device, SERIAL, at + 3, float(serial), status)
        if device == "switch":
            self.store(device, STATE, at + 3, ["ok", "calibrating"][status])

    def store(self, device: str, metric: str, at: int, value: object, instrument: int = 0) -> None:
        told = {"group": "g", "node": "n-01", "device": device, "metric": metric, "at": at, "value": value}
        self.rows.append({**told, "quality": 192, "instrument": instrument, "time": 0})

    def forget(self, serial: int, *metrics: str) -> None:
        """Remove what is stored of an answer."""
        at = next(one["at"] for one in self.answers if one["serial"] == serial) + 3
        device = "switch" if serial > 1000 else "plain"
        self.rows = [
            one
            for one in self.rows
            if not (one["device"] == device and one["at"] == at and one["metric"] in (metrics or (SERIAL, STATE)))
        ]

    def fault(self, kind: str, begin: int, end: int, *, node: str | None = "n-01", **facts: Any) -> None:
        self.faults.append({"kind": kind, "node": node, "begin": begin, "end": end, "hit": True, **facts})

    def kill(self, at: int) -> None:
        self.fault("edge_kill", at, at + 5)

    def order(self, order: str, *, recorded: bool, stages: Sequence[str]) -> None:
        """An order to a loudspeaker, whether it was heard there, and what the store says became of it."""
        volume = 5 + len(self.orders)
        self.orders.append({"order": order, "node": "n-01", "speaker": "horn", "volume": volume})
        if recorded:
            self.recorded.append({"speaker": "horn", "volume": volume})
        for place, stage in enumerate(stages):
            payload = base64.b64encode(json.dumps({"order": order, "stage": stage}).encode()).decode()
            self.store("", OUTCOME, T0 + volume * 100 + place, json.dumps({"payload": payload}))

    def judge(self) -> tuple[int, dict[str, Any]]:
        (self.path / "answers").mkdir(exist_ok=True)
        device = {"node": "n-01", "poll_ms": POLL}
        run = {
            "cycles": 1,
            "kinds": self.kinds,
            "store": "embedded",
            "commit_ms": COMMIT,
            "tolerance_ms": 5000,
            "serial_metric": SERIAL,
            "event_metric": STATE,
            "outcome_metric": OUTCOME,
            "states": {"0": "ok", "1": "calibrating"},
            "devices": {"plain": device, "switch": device},
        }
        (self.path / "run.json").write_text(json.dumps(run), encoding="utf-8")
        write(self.path / "answers" / "all.jsonl", self.answers)
        write(self.path / "faults.jsonl", self.faults)
        write(self.path / "orders.jsonl", self.orders)
        (self.path / "recordings").mkdir(exist_ok=True)
        for number, one in enumerate(self.recorded):
            (self.path / "recordings" / f"horn-{number}.json").write_text(json.dumps(one), encoding="utf-8")
        with (self.path / "samples.csv").open("w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, FIELDS)
            table.writeheader()
            table.writerows(self.rows)
        # Isolated: what is not Python's own cannot be imported.
        done = subprocess.run(
            [sys.executable, "-I", "-S", JUDGE, self.path], capture_output=True, text=True, timeout=30, check=False
        )
        assert done.stdout, done.stderr
        self.said = done.stderr
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
    assert told == {
        "cycles": 1,
        "faults": {"edge_kill": 1},
        "produced": 20 + 20 + 18,
        "stored": 20 + 20 + 18,
        "in_flight": 0,
        "in_flight_bound": told["in_flight_bound"],
        "lost": 0,
        "duplicated": 0,
        "altered": 0,
        "store": "embedded",
    }


def drop(folder: Folder, row: dict[str, Any]) -> None:
    folder.rows.remove(row)


def double(folder: Folder, row: dict[str, Any]) -> None:
    folder.rows.append(dict(row))


def double_later(folder: Folder, row: dict[str, Any]) -> None:
    folder.rows.append({**row, "at": row["at"] + 1})


def shift(folder: Folder, row: dict[str, Any]) -> None:
    row["at"] += 60_000


def swap_neighbours(folder: Folder, row: dict[str, Any]) -> None:
    """Give two rows of one series each other's value: every value is there, none where it was read."""
    other = next(
        one
        for one in folder.rows
        if (one["device"], one["metric"]) == (row["device"], row["metric"]) and one["value"] != row["value"]
    )
    row["value"], other["value"] = other["value"], row["value"]
    row["at"], other["at"] = row["at"] + 7000, other["at"] - 7000


def change(value: object) -> Any:
    def changed(_: Folder, row: dict[str, Any]) -> None:
        row["value"] = value

    return changed


def mark(name: str, value: object) -> Any:
    def marked(_: Folder, row: dict[str, Any]) -> None:
        row[name] = value

    return marked


MUTATIONS = {
    "dropped": (drop, {"lost"}),
    "stored twice": (double, {"duplicated"}),
    "stored again a moment later": (double_later, {"duplicated"}),
    "moved by a minute": (shift, {"altered"}),
    "swapped with another": (swap_neighbours, {"altered"}),
    "another number": (change(7000.0), {"lost", "altered"}),
    "half a number": (change(5.5), {"lost", "altered"}),
    "no number": (change("nan"), {"lost", "altered"}),
    "empty": (change(""), {"lost", "altered"}),
    "the number of another device": (change(1005.0), {"lost", "altered"}),
    "the number of another row": (change(9.0), {"lost", "duplicated"}),
    "of another node": (mark("node", "n-02"), {"lost", "altered"}),
    "of another device": (mark("device", "switch"), {"lost", "altered"}),
    "of bad quality": (mark("quality", 0), {"lost", "altered"}),
    "of another state of the instrument": (mark("instrument", 2), {"altered"}),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_one_row_that_is_not_as_it_was_is_found(folder: Folder, name: str) -> None:
    mutate, expected = MUTATIONS[name]
    mutate(folder, next(one for one in folder.rows if one["device"] == "plain" and one["value"] == 10.0))
    code, told = folder.judge()
    assert code == 1
    assert {what for what in ("lost", "duplicated", "altered") if told[what]} == expected
    assert told["in_flight"] == 0
    assert told["lost"] == told["produced"] - told["stored"] - told["in_flight"]


EVENT_MUTATIONS = {
    "dropped": (drop, {"lost"}),
    "stored twice": (double, {"duplicated"}),
    "stored again a moment later": (double_later, {"altered"}),
    "moved by a minute": (shift, {"lost", "altered"}),
    "another word": (change("stuck"), {"altered"}),
    "of another node": (mark("node", "n-02"), {"lost", "altered"}),
    "of bad quality": (mark("quality", 500), {"lost", "altered"}),
}


@pytest.mark.parametrize("name", EVENT_MUTATIONS)
def test_one_event_that_is_not_as_it_was_is_found(folder: Folder, name: str) -> None:
    mutate, expected = EVENT_MUTATIONS[name]
    at = T0 + 9 * POLL + 3
    mutate(folder, next(one for one in folder.rows if one["metric"] == STATE and one["at"] == at))
    code, told = folder.judge()
    assert code == 1
    assert {what for what in ("lost", "duplicated", "altered") if told[what]} == expected


EXCUSES = ("edge_kill", "edge_disk_full")
EVERYTHING_ELSE = (
    "hub_kill",
    "broker_kill",
    "broker_forgets",
    "store_kill",
    "link_cut",
    "hub_disk_full",
    "edge_disk_image",
    "edge_disk_clone",
    "hub_restore",
    "hub_clock_back",
    "edge_stop",
)


@pytest.mark.parametrize("kind", EVERYTHING_ELSE)
def test_nothing_else_excuses_anything(folder: Folder, kind: str) -> None:
    folder.fault(kind, T0 - 10_000, T0 + 60_000)
    folder.forget(10)
    code, told = folder.judge()
    assert (code, told["lost"], told["in_flight"]) == (1, 1, 0)


@pytest.mark.parametrize("kind", EXCUSES)
@pytest.mark.parametrize("name", [name for name in MUTATIONS if name != "dropped"])
def test_an_excuse_for_what_is_missing_hides_nothing_that_is_wrong(folder: Folder, kind: str, name: str) -> None:
    """Everything may be missing here: the asker is dead in time, or the disk is full all along."""
    if kind == "edge_kill":
        folder.kill(KILLED_AT)
        row = next(one for one in folder.rows if one["device"] == "plain" and one["value"] == 19.0)
    else:
        folder.fault(kind, T0 - 10_000, T0 + 60_000)
        row = next(one for one in folder.rows if one["device"] == "plain" and one["value"] == 10.0)
    mutate, expected = MUTATIONS[name]
    mutate(folder, row)
    code, told = folder.judge()
    assert code == 1
    assert {what for what in ("duplicated", "altered") if told[what]} >= expected - {"lost"}


def test_a_serial_answered_just_before_a_kill_is_in_flight_and_listed(folder: Folder) -> None:
    folder.kill(KILLED_AT)
    folder.forget(19)
    code, told = folder.judge()
    assert (code, told["lost"], told["in_flight"]) == (0, 0, 1)
    assert told["produced"] == told["stored"] + told["in_flight"]
    (listed,) = (json.loads(one) for one in (folder.path / "in_flight.jsonl").read_text().splitlines())
    assert (listed["device"], listed["serial"], listed["because"]) == ("plain", 19, "edge_kill")
    assert "in flight of plain: 19\n" in folder.said


def test_a_serial_answered_long_before_a_kill_is_lost(folder: Folder) -> None:
    folder.kill(KILLED_AT)
    folder.forget(16)  # 1,510 ms before; a commit interval and a poll are 1,500
    assert folder.judge()[1]["lost"] == 1


def test_a_question_that_was_under_way_when_its_asker_died_is_answered_to_nobody(folder: Folder) -> None:
    folder.kill(KILLED_AT)
    folder.answer("plain", 21, KILLED_AT + 100)
    folder.forget(21)
    assert folder.judge()[1]["in_flight"] == 1


def test_a_kill_of_another_box_excuses_nothing(folder: Folder) -> None:
    folder.fault("edge_kill", KILLED_AT, KILLED_AT, node="n-02")
    folder.forget(19)
    assert folder.judge()[1]["lost"] == 1


def test_a_kill_excuses_nothing_of_an_asker_that_lived_on(folder: Folder) -> None:
    """Two boxes with one id: the death of one is no excuse for the other."""
    folder.kill(KILLED_AT)
    folder.answer("switch", 1021, KILLED_AT + 2000)
    folder.forget(19)
    assert folder.judge()[1]["lost"] == 1


def test_a_kill_excuses_nothing_that_an_event_took_along(folder: Folder) -> None:
    """The nineteenth and twentieth answer of `switch` differ, and it was asked again after the nineteenth."""
    folder.kill(KILLED_AT)
    folder.forget(1018)
    code, told = folder.judge()
    assert (code, told["in_flight"]) == (1, 0)
    assert told["lost"] == 2  # the answer, and the change that it was


def test_a_full_disk_excuses_what_was_answered_meanwhile(folder: Folder) -> None:
    folder.fault("edge_disk_full", T0 + 1000, T0 + 3000)
    folder.forget(4)
    folder.forget(9)
    told = folder.judge()[1]
    assert (told["lost"], told["in_flight"]) == (1, 1)


def test_a_full_disk_excuses_no_event(folder: Folder) -> None:
    folder.fault("edge_disk_full", T0 + 1000, T0 + 3000)
    folder.forget(1004)
    told = folder.judge()[1]
    assert (told["lost"], told["in_flight"]) == (1, 1)


def test_a_wrong_clock_moves_instants_by_as_much_as_it_was_wrong_and_no_more(folder: Folder) -> None:
    folder.fault("edge_clock_back", T0 - 20_000, T0 + 60_000, off_ms=-3_600_000)
    for row in folder.rows:
        row["at"] -= 3_600_000
    assert folder.judge()[0] == 0
    row = next(one for one in folder.rows if one["value"] == 10.0)
    row["at"] += 60_000
    assert folder.judge()[1]["altered"] == 1


def test_while_a_clock_was_surely_wrong_no_instant_can_be_right(folder: Folder) -> None:
    folder.fault("edge_clock_forward", T0 - 20_000, T0 + 60_000, off_ms=480_000)
    for row in folder.rows:
        row["at"] += 480_000
    next(one for one in folder.rows if one["value"] == 10.0)["at"] -= 480_000
    assert folder.judge()[1]["altered"] == 1


def test_the_wrong_clock_of_another_box_moves_nothing(folder: Folder) -> None:
    folder.fault("edge_clock_forward", T0 - 20_000, T0 + 60_000, node="n-02", off_ms=480_000)
    next(one for one in folder.rows if one["value"] == 10.0)["at"] += 480_000
    assert folder.judge()[1]["altered"] == 1


def test_an_event_lost_inside_the_window_of_a_kill_is_found(folder: Folder) -> None:
    folder.kill(KILLED_AT)
    folder.forget(1019, STATE)
    code, told = folder.judge()
    assert (code, told["lost"], told["in_flight"]) == (1, 1, 0)


def test_an_event_whose_asker_died_with_it_is_not_demanded(folder: Folder) -> None:
    folder.kill(KILLED_AT)
    folder.forget(1020)
    code, told = folder.judge()
    assert (code, told["lost"], told["in_flight"]) == (0, 0, 1)


def test_what_a_loudspeaker_recorded_must_have_come_to_an_end_in_the_store(folder: Folder) -> None:
    folder.order("aa", recorded=True, stages=["accepted", "started", "finished"])
    folder.order("bb", recorded=True, stages=["accepted", "failed"])
    folder.order("cc", recorded=False, stages=["accepted", "failed"])
    code, told = folder.judge()
    assert (code, told["produced"], told["stored"]) == (0, 58 + 2, 58 + 2)


@pytest.mark.parametrize("excuse", [*EXCUSES, *EVERYTHING_ELSE])
@pytest.mark.parametrize("stages", [[], ["accepted", "started"]])
def test_an_outcome_that_is_missing_is_lost_whatever_happened(
    folder: Folder, excuse: str, stages: Sequence[str]
) -> None:
    folder.order("aa", recorded=True, stages=stages)
    folder.fault(excuse, T0 - 10_000, T0 + 60_000)
    code, told = folder.judge()
    assert (code, told["lost"], told["in_flight"]) == (1, 1, 0)


def test_the_outcome_of_another_box_is_none(folder: Folder) -> None:
    folder.order("aa", recorded=True, stages=["finished"])
    next(row for row in folder.rows if row["metric"] == OUTCOME)["node"] = "n-02"
    assert folder.judge()[1]["lost"] == 1


def test_a_sound_that_is_said_to_have_been_and_was_not_is_found(folder: Folder) -> None:
    folder.order("aa", recorded=False, stages=["accepted", "started", "finished"])
    code, told = folder.judge()
    assert (code, told["altered"], told["lost"]) == (1, 1, 0)


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


def test_a_fault_that_showed_no_effect_has_not_happened(folder: Folder) -> None:
    folder.kinds = ["link_cut"]
    folder.fault("link_cut", T0, T0 + 1000)
    folder.faults[0]["hit"] = False
    code, told = folder.judge()
    assert (code, told["faults"]) == (1, {"link_cut": 0})


def test_a_run_in_which_nothing_was_produced_fails(folder: Folder) -> None:
    folder.answers, folder.rows = [], []
    assert folder.judge()[0] == 1
