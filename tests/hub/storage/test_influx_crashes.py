"""A server killed in the middle, a hub killed in the middle, a cache that is lost: the books and the samples agree."""

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from contract.metrics import DataType
from contract.positions import Lineage, RangeSet
from hub.devices import DeviceKey, NodeKey
from hub.storage.timeseries import Batch, EventRow, FloorRaised, Quarantined, StoreUnavailable, Void

KEY, NODE = DeviceKey("g", "n", "probe"), NodeKey("g", "n")
LINEAGE = Lineage("log", 1, "probe")
GOOD = 192 << 8
EVERYTHING = ("series", "ledger", "floors", "voids", "events", "quarantine", "marks")


def batch(store: Any, first: int, count: int) -> Batch:
    made = Batch()
    for number in range(first, first + count):
        made.numbers.put(store.series(KEY, "x", DataType.DOUBLE), number, number + 0.25, GOOD)
    made.committed.append((NODE, LINEAGE, first, first + count - 1))
    return made


def eventful(store: Any, number: int) -> Batch:
    """Return a batch that changes every one of the books."""
    made = batch(store, number * 10, 10)
    lineage = Lineage("log", number + 10, "probe")
    made.committed += [(NODE, lineage, 0, 3), (NODE, lineage, 7, 9)]
    made.events.append(EventRow(key=KEY, metric="e", at=number, received_at=number, value=f"Ấp {number}"))
    made.quarantined.append(
        Quarantined(key=KEY, reason="bad", payload=bytes(range(256)) * (number % 3), received_at=number, samples=1)
    )
    made.voids.append(Void(node=NODE, lineage=lineage, first=4, last=6, at=number))
    if number > 2:
        made.floors.append(FloorRaised(node=NODE, log="log", floor=number + 8, over=(number + 7, number + 8)))
        made.released.append(number - 1)
    return made


def books(folder: Path) -> dict[str, list[tuple[Any, ...]]]:
    with contextlib.closing(sqlite3.connect(folder / "store.db")) as database:
        return {name: sorted(database.execute(f"SELECT * FROM {name}"), key=repr) for name in EVERYTHING}


def test_books_that_are_lost_are_made_anew_from_the_bucket_row_by_row(real_side: Any, tmp_path: Path) -> None:
    with real_side.open(tmp_path) as store:
        for number in range(12):
            store.commit(eventful(store, number), 1000 + number)
        ledger, floors = store.ledger(NODE), store.floors(NODE)
    before = books(tmp_path)
    assert all(before.values())
    for one in tmp_path.glob("store.db*"):
        one.unlink()
    with real_side.open(tmp_path) as store:
        assert (store.ledger(NODE), store.floors(NODE)) == (ledger, floors)
        assert store.newest_received() == 1011
        assert books(tmp_path) == before
        store.commit(eventful(store, 12), 2000)
        assert [one.id for one in store.events(0, "e", 99)][-1] == 13
    after = books(tmp_path)
    with real_side.open(tmp_path):
        assert books(tmp_path) == after


def test_a_number_once_given_is_never_given_again_although_its_row_is_gone(real_side: Any, tmp_path: Path) -> None:
    with real_side.open(tmp_path) as store:
        store.commit(eventful(store, 0), 1)
        (one,) = store.quarantined(0, 9)
        made = Batch()
        made.released.append(one.id)
        store.commit(made, 2)
    (tmp_path / "store.db").unlink()
    with real_side.open(tmp_path) as store:
        store.commit(eventful(store, 1), 3)
        (another,) = store.quarantined(0, 9)
        assert another.id == one.id + 1


def test_what_is_let_go_of_is_gone_from_the_bucket_too(real_side: Any, tmp_path: Path) -> None:
    day = 86_400_000
    with real_side.open(tmp_path, retention_days=60) as store:
        for number in range(3):
            store.commit(eventful(store, number), 1000 + number)
        store.tend(60 * day + 2)  # what was received before 2 goes
        assert [one.id for one in store.events(0, "e", 9)] == [3]
        before = books(tmp_path)
    for one in tmp_path.glob("store.db*"):
        one.unlink()
    with real_side.open(tmp_path, retention_days=60) as store:
        assert books(tmp_path) == before
        store.commit(eventful(store, 3), 2000)
        assert [one.id for one in store.events(0, "e", 9)] == [3, 4]


def test_a_payload_of_a_mebibyte_survives(real_side: Any, tmp_path: Path) -> None:
    payload = os.urandom(1 << 20)
    with real_side.open(tmp_path) as store:
        made = Batch()
        made.quarantined.append(Quarantined(key=KEY, reason="bad", payload=payload, received_at=2, samples=3))
        store.commit(made, 9)
    (tmp_path / "store.db").unlink()
    with real_side.open(tmp_path) as store:
        (one,) = store.quarantined(0, 9)
        assert one.payload == payload


def test_books_older_than_the_bucket_are_brought_up_to_it(real_side: Any, tmp_path: Path) -> None:
    with real_side.open(tmp_path) as store:
        store.commit(batch(store, 0, 10), 1)
    shutil.copy(tmp_path / "store.db", tmp_path / "yesterday")
    with real_side.open(tmp_path) as store:
        store.commit(batch(store, 10, 10), 2)
    for one in tmp_path.glob("store.db*"):
        one.unlink()
    (tmp_path / "yesterday").rename(tmp_path / "store.db")
    with real_side.open(tmp_path) as store:
        assert store.ledger(NODE) == {LINEAGE: RangeSet([(0, 19)])}


def test_a_server_met_late_whose_books_are_others_is_not_written_to(
    influx: Any, real_side: Any, tmp_path: Path
) -> None:
    one, other = real_side, replace(real_side, bucket=influx.bucket(), delivery=influx.bucket())
    with one.open(tmp_path) as store:
        store.commit(batch(store, 0, 10), 1)
    with other.open(tmp_path, url="http://127.0.0.1:1") as store:
        made = batch(store, 10, 10)
        with pytest.raises(StoreUnavailable, match="refused"):
            store.commit(made, 2)
        store._server.__exit__(None, None, None)
        store._server = type(store._server)(
            url=influx.url, org=influx.org, token=influx.token, write_seconds=5, query_seconds=5
        )
        with pytest.raises(StoreUnavailable, match="restart the hub"):
            store.commit(made, 2)


def test_a_server_killed_again_and_again_keeps_all_that_was_acknowledged(
    own_influx: Any, on: Callable[[Any], Any], tmp_path: Path
) -> None:
    side, done = on(own_influx), threading.Event()
    committed, failed = 0, 0
    with side.open(tmp_path / "hub") as store:

        def commit() -> None:
            nonlocal committed, failed
            while not done.is_set():
                made = batch(store, committed * 500, 500)
                try:
                    store.commit(made, committed)
                except StoreUnavailable:
                    failed += 1
                    time.sleep(0.01)
                else:
                    committed += 1

        thread = threading.Thread(target=commit)
        thread.start()
        for rounds in range(3):
            reached = committed + 5
            while committed < reached:
                time.sleep(0.005)
            own_influx.kill()
            seen = failed
            while failed == seen:
                time.sleep(0.005)
            own_influx.start()
            assert rounds < 3
        reached = committed + 5
        while committed < reached:
            time.sleep(0.005)
        done.set()
        thread.join(30)
        assert store.ledger(NODE) == {LINEAGE: RangeSet([(0, committed * 500 - 1)])}
    for one in (tmp_path / "hub").glob("store.db*"):
        one.unlink()
    with side.open(tmp_path / "hub") as store:
        assert store.ledger(NODE) == {LINEAGE: RangeSet([(0, committed * 500 - 1)])}
        raw = store.raw(KEY, "x", 0, 10**9, 10**6)
        stats = store.stats()
    assert failed > 0
    assert list(raw.at) == list(range(committed * 500))
    assert list(raw.value) == [number + 0.25 for number in range(committed * 500)]
    assert (stats.samples, stats.conflicts) == (committed * 500, 0)


WRITER = """
import sys
from pathlib import Path
from contract.metrics import DataType
from contract.positions import Lineage
from hub.devices import DeviceKey, NodeKey
from hub.storage.influxdb import InfluxStore, Settings
from hub.storage.timeseries import Batch
folder, url, org, token, bucket, delivery = sys.argv[1:]
key = DeviceKey("g", "n", "probe")
settings = Settings(url=url, org=org, token=token, bucket=bucket, delivery_bucket=delivery)
with InfluxStore(Path(folder), settings, lambda key: None) as store:
    number = sum(len(one) for one in store.ledger(NodeKey("g", "n")).values())
    while True:
        made = Batch()
        for each in range(number, number + 50):
            made.numbers.put(store.series(key, "x", DataType.DOUBLE), each, float(each), 192 << 8)
        made.committed.append((NodeKey("g", "n"), Lineage("log", 1, "probe"), number, number + 49))
        number += 50
        store.commit(made, number)
        print(number, flush=True)
"""


@pytest.mark.parametrize("after", [1, 4, 11])
def test_a_hub_killed_while_it_commits_acknowledged_nothing_that_is_not_there(
    influx: Any, tmp_path: Path, real_side: Any, after: int
) -> None:
    side = real_side
    told = [str(tmp_path), influx.url, influx.org, influx.token, side.bucket, side.delivery]
    acknowledged = 0
    for _ in range(2):
        with subprocess.Popen([sys.executable, "-c", WRITER, *told], stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            for _ in range(after):
                acknowledged = int(writer.stdout.readline())
            os.kill(writer.pid, signal.SIGKILL)
            rest = writer.stdout.read().split()
            acknowledged = int(rest[-1]) if rest else acknowledged
    with side.open(tmp_path) as store:
        (ranges,) = store.ledger(NODE).values()
        found = list(store.raw(KEY, "x", 0, 10**9, 10**6).at)
    assert len(ranges) >= acknowledged
    assert ranges == RangeSet([(0, len(ranges) - 1)])
    assert found[: len(ranges)] == list(range(len(ranges)))
