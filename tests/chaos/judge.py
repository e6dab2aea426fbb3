"""Says from files alone whether anything was lost, stored twice or altered: `python judge.py FOLDER`, one JSON line.

Imports nothing of the project and nothing that is not Python's own. The folder holds
  run.json        who answered to whom, how often, and what must have gone wrong;
  answers/*.jsonl what each simulated device answered: device, serial, status, asker, at (ms);
  orders.jsonl    announcements that the hub took: order, node, speaker, and a volume that no other on that speaker has;
  recordings/*.json what each loudspeaker recorded: speaker, volume;
  faults.jsonl    what was done to whom: kind, node, begin, end (ms), `hit` if it had an effect, `off_ms` of a clock;
  samples.csv     the hub's export: group,node,device,metric,at,value,quality,instrument,time.
It writes in_flight.jsonl and findings.jsonl beside them.

An answer is a record of telemetry. It may be missing, and is then in flight, only
- where its asker lost its power within a commit interval and a poll of it: the asker was never answered again, and no
  event that the same asker had on disk came after it, since an event takes all before it along;
- or while its node's disk was full.
An event is a status that differs from that of the answer before to the same asker. It has no allowance once the asker
asked the same device again: before that the box had it on disk. An asker that died before asking again may never have
had it. An outcome has no allowance either: what a loudspeaker recorded must have come to an end in the store, and where
the store says that it was played to its end, the loudspeaker must have recorded it. Nothing else excuses anything: not
a disk put back to an older state, not a hub that forgot, not a clock.
"""

import base64
import csv
import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

GOOD = 192
ENDS = {"finished", "stopped", "refused", "failed", "expired"}


class Answer(NamedTuple):
    """One answer of a device; `asker` is a connection, so of one life of one box."""

    device: str
    serial: int
    status: int
    asker: int
    at: int


class Window(NamedTuple):
    """When answers may be missing, both ends included, because of what; after `dead` the asker was not answered."""

    begin: int
    end: int
    kind: str
    dead: int | None


class Shift(NamedTuple):
    """By how much a node's clock was off, and from when to when."""

    begin: int
    end: int
    off: int


class Row(NamedTuple):
    """Where a stored serial stands, and what the instrument is said to have been doing."""

    at: int
    instrument: str


@dataclass(slots=True)
class Stored:
    """What the export holds of one device: serials with each row that has them, and states by instant."""

    serials: dict[int, list[Row]] = field(default_factory=dict)
    states: dict[int, str] = field(default_factory=dict)


@dataclass(slots=True)
class Verdict:
    """What was counted, and a sentence's facts for each fault."""

    produced: int = 0
    stored: int = 0
    in_flight: list[dict[str, object]] = field(default_factory=list)
    lost: int = 0
    duplicated: int = 0
    altered: int = 0
    findings: list[dict[str, object]] = field(default_factory=list)

    def found(self, what: str, **facts: object) -> None:
        """Note one thing that must not be."""
        match what:
            case "lost":
                self.lost += 1
            case "duplicated":
                self.duplicated += 1
            case _:
                self.altered += 1
        self.findings.append({"what": what, **facts})


def main() -> int:
    """Judge a folder; return 0 only if nothing is wrong."""
    folder = Path(sys.argv[1])
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    answers = [
        Answer(**one) for file in sorted((folder / "answers").glob("*.jsonl")) for one in lines(file, torn_end=True)
    ]
    faults = list(lines(folder / "faults.jsonl"))
    with (folder / "samples.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    verdict = judged(run, answers, faults, rows)
    heard = [json.loads(one.read_text(encoding="utf-8")) for one in sorted((folder / "recordings").glob("*.json"))]
    check_outcomes(run, list(lines(folder / "orders.jsonl")), heard, rows, verdict)
    write_lines(folder / "in_flight.jsonl", verdict.in_flight)
    write_lines(folder / "findings.jsonl", verdict.findings)
    told, wrong = summary(run, faults, verdict)
    for device in sorted({str(one["device"]) for one in verdict.in_flight}):
        serials = ", ".join(str(one["serial"]) for one in verdict.in_flight if one["device"] == device)
        print(f"judge: in flight of {device}: {serials}", file=sys.stderr)  # noqa: T201
    print(json.dumps(told))  # noqa: T201  # what it is for
    for one in wrong:
        print(f"judge: {one}", file=sys.stderr)  # noqa: T201
    return 1 if wrong else 0


def lines(file: Path, *, torn_end: bool = False) -> Iterable[dict[str, Any]]:
    """Yield the JSON objects of a file; the last line may be half written where the writer could be killed."""
    text = file.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1] if torn_end else text
    for line in whole.splitlines():
        yield json.loads(line)


def write_lines(file: Path, found: Iterable[Mapping[str, object]]) -> None:
    """Write one JSON object a line."""
    file.write_text("".join(json.dumps(one) + "\n" for one in found), encoding="utf-8")


def judged(
    run: Mapping[str, Any],
    answers: Sequence[Answer],
    faults: Sequence[Mapping[str, Any]],
    rows: Iterable[Mapping[str, str]],
) -> Verdict:
    """Return the verdict on what was answered, what went wrong, and what is stored."""
    verdict = Verdict()
    stored = _stored(run, rows, verdict)
    by_device: dict[str, list[Answer]] = {name: [] for name in run["devices"]}
    last_of: dict[int, int] = {}
    for one in sorted(answers, key=lambda one: one.serial):
        by_device[one.device].append(one)
        last_of[one.asker] = max(one.at, last_of.get(one.asker, 0))
    for device, told in by_device.items():
        own = stored[device]
        _check_serials(run, device, told, own, shifts(run, device, faults), verdict)
        _check_telemetry(told, own, windows(run, device, faults), last_of, verdict)
        _check_events(run, device, told, own, verdict)
    return verdict


def summary(
    run: Mapping[str, Any], faults: Sequence[Mapping[str, Any]], verdict: Verdict
) -> tuple[dict[str, object], list[str]]:
    """Return the line of JSON, and a sentence for everything that makes the run fail."""
    hits = Counter(one["kind"] for one in faults if one["hit"])
    bound = in_flight_bound(run, faults)
    told = {
        "cycles": run["cycles"],
        "faults": {kind: hits[kind] for kind in run["kinds"]},
        "produced": verdict.produced,
        "stored": verdict.stored,
        "in_flight": len(verdict.in_flight),
        "in_flight_bound": bound,
        "lost": verdict.produced - verdict.stored - len(verdict.in_flight),
        "duplicated": verdict.duplicated,
        "altered": verdict.altered,
        "store": run["store"],
    }
    wrong = [f"{kind} was never hit" for kind in run["kinds"] if not hits[kind]]
    wrong += [f"{told[name]} {name}" for name in ("lost", "duplicated", "altered") if told[name]]
    if verdict.lost != told["lost"]:
        wrong.append(f"{verdict.lost} were found lost one by one, {told['lost']} by counting")
    if len(verdict.in_flight) > bound:
        wrong.append(f"{len(verdict.in_flight)} in flight, more than {bound}")
    if not verdict.produced:
        wrong.append("nothing was produced")
    return told, wrong


def windows(run: Mapping[str, Any], device: str, faults: Iterable[Mapping[str, Any]]) -> list[Window]:
    """Return when answers of a device may be missing.

    A question that was on its way when its asker died is answered to nobody, within a poll.
    """
    node, poll = run["devices"][device]["node"], run["devices"][device]["poll_ms"]
    found = []
    for one in faults:
        if one["node"] == node and one["kind"] == "edge_kill":
            dead = one["end"] + poll
            found.append(Window(one["begin"] - run["commit_ms"] - poll, dead, "edge_kill", dead))
        elif one["node"] == node and one["kind"] == "edge_disk_full":
            found.append(Window(one["begin"], one["end"], "edge_disk_full", None))
    return found


def in_flight_bound(run: Mapping[str, Any], faults: Iterable[Mapping[str, Any]]) -> int:
    """Return how many answers can fall into all windows at most, each device asked once a poll."""
    noted = list(faults)
    return sum(
        (one.end - one.begin) // run["devices"][device]["poll_ms"] + 1
        for device in run["devices"]
        for one in windows(run, device, noted)
    )


def shifts(run: Mapping[str, Any], device: str, faults: Iterable[Mapping[str, Any]]) -> list[Shift]:
    """Return when the clock of a device's node was off."""
    node = run["devices"][device]["node"]
    return [Shift(one["begin"], one["end"], one["off_ms"]) for one in faults if one["node"] == node and "off_ms" in one]


def _stored(run: Mapping[str, Any], rows: Iterable[Mapping[str, str]], verdict: Verdict) -> dict[str, Stored]:
    found = {name: Stored() for name in run["devices"]}
    for row in rows:
        device, metric, at = row["device"], row["metric"], int(row["at"])
        if device not in found or metric not in {run["serial_metric"], run["event_metric"]}:
            continue
        facts = {"device": device, "at": at, "value": row["value"]}
        own = found[device]
        if row["node"] != run["devices"][device]["node"] or int(row["quality"]) != GOOD:
            verdict.found("altered", why="another node or quality", **facts)
        elif metric == run["event_metric"]:
            if at in own.states:
                verdict.found("duplicated", why="two states at one instant", **facts)
            own.states[at] = row["value"]
        elif not _whole(row["value"]):
            verdict.found("altered", why="no serial number", **facts)
        else:
            own.serials.setdefault(int(float(row["value"])), []).append(Row(at, row["instrument"]))
    return found


def _whole(text: str) -> bool:
    try:
        return float(text).is_integer()
    except ValueError:
        return False


def _check_serials(
    run: Mapping[str, Any],
    device: str,
    told: Iterable[Answer],
    own: Stored,
    off: Sequence[Shift],
    verdict: Verdict,
) -> None:
    """Find serials stored twice, stored though nobody answered them, or with what cannot be of that answer."""
    tolerance = run["tolerance_ms"]
    answered = {one.serial: one for one in told}
    for serial, rows in own.serials.items():
        facts = {"device": device, "serial": serial, "at": [row.at for row in rows]}
        if len(rows) > 1:
            verdict.found("duplicated", why="stored more than once", **facts)
        if serial not in answered:
            verdict.found("altered", why="never answered by this device", **facts)
            continue
        one = answered[serial]
        for row in rows:
            if not any(abs(row.at - one.at - error) <= tolerance for error in _errors(one.at, off, tolerance)):
                verdict.found("altered", why="stored at another instant", answered=one.at, **facts)
            if row.instrument != str(one.status):
                verdict.found("altered", why="another state of the instrument", status=one.status, **facts)


def _errors(at: int, off: Sequence[Shift], margin: int) -> set[int]:
    """Return by how much the asker's clock can have been off at an instant; near a jump, both before and after it."""
    near = {one.off for one in off if one.begin - margin <= at <= one.end + margin}
    surely = any(one.begin + margin < at < one.end - margin for one in off)
    return near if surely else near | {0}


def _check_telemetry(
    told: Sequence[Answer], own: Stored, allowed: Sequence[Window], last_of: Mapping[int, int], verdict: Verdict
) -> None:
    carried = _carried(told)
    for one in told:
        verdict.produced += 1
        if one.serial in own.serials:
            verdict.stored += 1
            continue
        because = next((window.kind for window in allowed if _excuses(window, one, last_of, carried)), None)
        if because is not None:
            verdict.in_flight.append({"device": one.device, "serial": one.serial, "at": one.at, "because": because})
        else:
            verdict.found("lost", device=one.device, serial=one.serial, at=one.at)


def _excuses(window: Window, one: Answer, last_of: Mapping[int, int], carried: Mapping[int, int]) -> bool:
    if not window.begin <= one.at <= window.end:
        return False
    if window.dead is None:
        return True
    return last_of[one.asker] <= window.dead and one.serial > carried.get(one.asker, -1)


def _carried(told: Iterable[Answer]) -> dict[int, int]:
    """Return by asker the serial of the last event that it must have had on disk, with all that came before."""
    found: dict[int, int] = {}
    for asker, asked in _by_asker(told).items():
        events = [one.serial for before, one in pairwise(asked[:-1]) if before.status != one.status]
        if events:
            found[asker] = events[-1]
    return found


def _by_asker(told: Iterable[Answer]) -> dict[int, list[Answer]]:
    found: dict[int, list[Answer]] = {}
    for one in told:
        found.setdefault(one.asker, []).append(one)
    return found


def _check_events(run: Mapping[str, Any], device: str, told: Sequence[Answer], own: Stored, verdict: Verdict) -> None:
    """Demand each change of status that its asker must have had on disk; refuse states that nobody answered."""
    words = run["states"]
    state_at = {row.at: words[str(one.status)] for one in told for row in own.serials.get(one.serial, ())}
    for at, word in own.states.items():
        if state_at.get(at) != word:
            verdict.found("altered", why="a state nobody answered", device=device, at=at, value=word)
    for asked in _by_asker(told).values():
        # The last answer is left out: its asker may have died with it in its hands.
        for before, one in pairwise(asked[:-1]):
            if before.status == one.status:
                continue
            verdict.produced += 1
            if any(row.at in own.states for row in own.serials.get(one.serial, ())):
                verdict.stored += 1
            else:
                verdict.found("lost", event=words[str(one.status)], device=device, serial=one.serial, at=one.at)


def check_outcomes(
    run: Mapping[str, Any],
    orders: Iterable[Mapping[str, Any]],
    heard: Iterable[Mapping[str, Any]],
    rows: Iterable[Mapping[str, str]],
    verdict: Verdict,
) -> None:
    """Demand the end of every order that a loudspeaker recorded, and a recording of each that is said to be played."""
    recorded = {(one["speaker"], one["volume"]) for one in heard}
    said: dict[tuple[str, str], set[str]] = {}
    for row in rows:
        if row["metric"] == run["outcome_metric"] and row["device"] == "":
            outcome = json.loads(base64.b64decode(json.loads(row["value"])["payload"]))
            said.setdefault((row["node"], outcome["order"]), set()).add(outcome["stage"])
    for one in orders:
        stages = said.get((one["node"], one["order"]), set())
        facts = {"order": one["order"], "speaker": one["speaker"], "stages": sorted(stages)}
        if (one["speaker"], one["volume"]) in recorded:
            verdict.produced += 1
            if stages & ENDS:
                verdict.stored += 1
            else:
                verdict.found("lost", why="recorded, and no word of its end", **facts)
        elif "finished" in stages:
            verdict.found("altered", why="said to be played, and not recorded", **facts)


if __name__ == "__main__":
    sys.exit(main())
