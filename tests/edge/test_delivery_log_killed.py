"""The log after kill -9 between any two statements it gives to its files, and after version 0.1 wrote them."""

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from contract.catalog import CATALOG, Kind
from contract.metrics import Sample
from contract.positions import Lineage, RangeSet
from edge.day_file import day_of
from edge.delivery_log import DeliveryLog

KNOWN = {one.name: one for one in CATALOG[Kind.WATER_PROBE].metrics}
DAY = 86_400_000


class Killer:
    """Keeps what a kill would leave behind before each statement, and what had been promised by then."""

    def __init__(self, folder: Path, left: Path) -> None:
        self._folder = folder
        self._left = left
        self.promised: set[tuple[str, int]] = set()
        """Streams and instants that a commit returned for."""
        self.given: set[tuple[str, int]] = set()
        """Streams and instants that a stranger was given."""
        self.remains: list[tuple[Path, frozenset[tuple[str, int]], frozenset[tuple[str, int]]]] = []

    def strike(self, statement: str) -> None:
        left = self._left / f"{len(self.remains):04}"
        shutil.copytree(self._folder, left)
        self.remains.append((left, frozenset(self.promised), frozenset(self.given)))


@contextmanager
def watched(killer: Killer, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    connect = sqlite3.connect

    def connect_watched(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*arguments, **options)
        connection.set_trace_callback(killer.strike)
        return connection

    with monkeypatch.context() as patch:
        patch.setattr(sqlite3, "connect", connect_watched)
        yield


def read_all(log: DeliveryLog) -> list[tuple[str, int]]:
    found = []
    for lineage, ranges in log.held.items():
        for first, last in ranges:
            offset = first
            while offset <= last:
                part = log.read(lineage, offset, last, 10**6)
                assert part, f"{lineage} {offset} is held and cannot be read"
                found += [(lineage.stream, one.at) for one in part]
                offset = part[-1].offset + 1
    return found


def lives(folder: Path, clock: Any, killer: Killer) -> None:
    """Live through all that a log does: starts, commits, events, folding, midnight, handing over, eviction."""
    for life in range(2):
        with DeliveryLog(folder, clock, budget=1) as log:
            for number in range(6):
                clock.wall += DAY / 3
                at, made = clock.now_ms(), set()
                for stream in ("probe", "other"):
                    sample = Sample(metric="Water/pH", at=at, value=float(number))
                    record = log.append(stream, at, [sample], KNOWN, handed=number % 2 == 0)
                    made.add((stream, record.at))
                log.commit()
                killer.promised |= made
                if number == 3:
                    lineage = Lineage(log.log_id, log.epoch, "probe")
                    (record,) = log.read(lineage, 1, 1, 100)
                    log.hand_over(lineage, 1, 1)
                    killer.given.add(("probe", record.at))
            if life == 1:
                oldest = min(day for day in log._days)
                killer.promised -= {one for one in killer.promised if day_of(one[1]) == oldest}
                log.expire(_only(oldest, log), under=(), hub_known=True, clock_known=True)


def _only(day: str, log: DeliveryLog) -> Callable[[Lineage, RangeSet], RangeSet]:
    """Call one day committed, and nothing else."""
    spans = log._days[day].spans
    return lambda lineage, ranges: ranges - spans.get(lineage, RangeSet())


def test_whatever_statement_a_kill_comes_before_what_was_promised_is_held_once_and_can_be_read(
    tmp_path: Path, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.delivery_log.FOLD_AFTER", 2)
    monkeypatch.setattr("edge.delivery_log.leaving", lambda days, **_: [min(days, key=lambda one: one.day)])
    killer = Killer(tmp_path / "log", tmp_path / "left")
    with watched(killer, monkeypatch):
        lives(tmp_path / "log", clock, killer)
    assert len(killer.remains) > 200
    for left, promised, given in killer.remains:
        with DeliveryLog(left, clock) as log:
            found = read_all(log)
            assert len(set(found)) == len(found), f"{left.name}: something is held twice"
            assert promised <= set(found), f"{left.name}: {promised - set(found)} is gone"
            sample = log.newest("probe", KNOWN["Water/pH"])
            assert sample is not None or not found
            again = {
                (lineage.stream, one.at)
                for lineage, ranges in log.unhanded.items()
                for first, last in ranges
                for one in log.read(lineage, first, last, 10**6)
            }
            assert not given & again, f"{left.name}: a stranger would be given something twice"
        with DeliveryLog(left, clock) as log:
            assert set(read_all(log)) == set(found), "and a second start changes nothing"


OLD_SCHEMA = """
CREATE TABLE origin (log_id TEXT PRIMARY KEY) STRICT;
CREATE TABLE records (
    epoch INTEGER NOT NULL, stream TEXT NOT NULL, offset INTEGER NOT NULL, at INTEGER NOT NULL,
    event INTEGER NOT NULL, metrics BLOB NOT NULL, PRIMARY KEY (epoch, stream, offset)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX instants ON records (stream, at);
CREATE TABLE spans (
    epoch INTEGER NOT NULL, stream TEXT NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
    PRIMARY KEY (epoch, stream, first)
) STRICT, WITHOUT ROWID;
CREATE TABLE newest (
    alias INTEGER PRIMARY KEY, epoch INTEGER NOT NULL, offset INTEGER NOT NULL, metric BLOB NOT NULL
) STRICT;
"""


def test_what_version_0_1_logged_is_held_in_the_order_of_its_starts(tmp_path: Path, clock: Any) -> None:
    with DeliveryLog(tmp_path, clock) as log:
        at = clock.now_ms()
        records = [
            log.append("probe", at + one, [Sample(metric="Water/pH", at=at + one, value=float(one))], KNOWN)
            for one in range(5)
        ]
        log_id, epochs = log.log_id, (1 << 32 | 99, 2 << 32 | 5)
    for file in tmp_path.glob("????-??-??.db*"):
        file.unlink()
    day = tmp_path / "2026-09-21.db"
    connection = sqlite3.connect(day)
    connection.executescript(OLD_SCHEMA)
    connection.execute("INSERT INTO origin VALUES (?)", (log_id,))
    for number, epoch in enumerate(epochs):
        connection.execute("INSERT INTO spans VALUES (?, 'probe', 0, 4)", (epoch,))
        for one in records:
            row = (epoch, one.offset, one.at + 1000 * number, one.metrics)
            connection.execute("INSERT INTO records VALUES (?, 'probe', ?, ?, 0, ?)", row)
    connection.commit()
    connection.close()
    with DeliveryLog(tmp_path, clock) as log:
        assert log.held == {Lineage(log_id, epoch, "probe"): RangeSet([(0, 4)]) for epoch in epochs}
        assert read_all(log) == [("probe", at + 1000 * number + one) for number in range(2) for one in range(5)]
        places = [log.place(epoch) for epoch in (*epochs, log.epoch)]
        assert None not in places
        assert places == sorted(places, key=lambda place: place or 0)
        assert log.unhanded == {}
    with sqlite3.connect(day) as connection:
        assert not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'records'").fetchall()
    connection.close()
