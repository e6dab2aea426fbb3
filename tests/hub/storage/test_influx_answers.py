"""What an InfluxDB answers, and what becomes of a batch then: nothing is lost, nothing harmed, no end of trying."""

import logging
import time
from pathlib import Path
from typing import Any

import pytest

from contract.metrics import DataType
from contract.payload import decode
from contract.positions import Lineage, RangeSet
from hub.devices import DeviceKey, NodeKey
from hub.storage.influx_answers import Verdict, read_answer
from hub.storage.influxdb import InfluxStore, Settings
from hub.storage.timeseries import Batch, EventRow, StoreUnavailable

KEY, NODE = DeviceKey("g", "n", "probe"), NodeKey("g", "n")
LINEAGE = Lineage("log", 1, "probe")
GOOD = 192 << 8
NOW = int(time.time() * 1000)
DAY = 86_400_000


def batch(store: Any, count: int, *metrics: str, start: int = NOW - 100_000) -> Batch:
    """Return `count` records, a second apart, of all metrics, with their positions."""
    made = Batch()
    for number in range(count):
        for metric in metrics:
            made.numbers.put(store.series(KEY, metric, DataType.DOUBLE), start + 1000 * number, number + 0.5, GOOD)
    made.committed.append((NODE, LINEAGE, 0, count - 1))
    return made


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (204, Verdict.STORED),
        (400, Verdict.REFUSED),
        (413, Verdict.REFUSED),
        (422, Verdict.PARTLY),
        (401, Verdict.MISCONFIGURED),
        (403, Verdict.MISCONFIGURED),
        (404, Verdict.MISCONFIGURED),
        (405, Verdict.MISCONFIGURED),
        (302, Verdict.MISCONFIGURED),
        (429, Verdict.LATER),
        (500, Verdict.LATER),
        (503, Verdict.LATER),
        (0, Verdict.LATER),
    ],
)
def test_every_status_means_one_thing(status: int, verdict: Verdict) -> None:
    assert read_answer(status, "words").verdict is verdict


def test_a_sample_that_is_refused_goes_into_quarantine_and_all_others_are_stored(side: Any, tmp_path: Path) -> None:
    with side.open(tmp_path) as store:
        made = batch(store, 90, "x", "y")
        culprit = NOW - 100_000 + 1000 * 41
        made.numbers.value[82] = float("inf")  # what ingest would not let through, and InfluxDB answers with 400
        store.commit(made, NOW)
        assert store.ledger(NODE) == {LINEAGE: RangeSet([(0, 89)])}
        (aside,) = store.quarantined(0, 10)
    assert len(side.fields("y__f")) == 90
    assert set(side.fields("x__f")) == {NOW - 100_000 + 1000 * number for number in range(90)} - {culprit}
    assert (aside.key, aside.metric, aside.at, aside.samples) == (KEY, "x", culprit, 1)
    assert aside.reason.startswith("refused by the store: 400")
    (metric,) = decode(aside.payload).metrics
    assert (metric.name, metric.at, metric.value) == ("x", culprit, float("inf"))


def test_a_field_of_another_type_keeps_only_its_own_samples_out(side: Any, tmp_path: Path) -> None:
    with side.open(tmp_path) as store:
        store.commit(batch(store, 1, "y"), NOW)
        side.put(side.bucket, f"water_probe,group=g,node=n,device=probe x__f=1i {NOW - 100_000}")
        made = batch(store, 20, "x", "y")
        store.commit(made, NOW)
        assert store.ledger(NODE) == {LINEAGE: RangeSet([(0, 19)])}
        aside = store.quarantined(0, 100)
    assert len(side.fields("y__f")) == 20
    assert len(side.fields("x__f")) == 1
    assert [(one.metric, one.at) for one in aside] == [("x", NOW - 100_000 + 1000 * number) for number in range(20)]
    assert all("422" in one.reason for one in aside)


@pytest.mark.parametrize("seen", [NOW, NOW - 50 * DAY], ids=["by the hub", "by the server only"])
def test_what_is_older_than_the_bucket_keeps_is_neither_stored_nor_in_quarantine(
    side: Any, tmp_path: Path, seen: int, caplog: pytest.LogCaptureFixture
) -> None:
    with side.open(tmp_path, retention_days=60) as store:
        store.commit(batch(store, 3, "x"), NOW)
        made = batch(store, 5, "x", start=NOW - 100 * DAY)
        store.commit(made, seen)
        assert store.ledger(NODE) == {LINEAGE: RangeSet([(0, 4)])}
        assert store.quarantined(0, 10) == []
    assert len(side.fields("x__f")) == 3
    assert "5 samples were older than InfluxDB keeps" in caplog.text


def test_a_wrong_token_holds_everything_and_names_the_file(
    side: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with side.open(tmp_path, token="not-the-token") as store:
        with pytest.raises(StoreUnavailable, match=r"401.*influx\.token_file") as caught:
            store.commit(batch(store, 3, "x"), NOW)
        assert store.ledger(NODE) == {}
    assert "not-the-token" not in caplog.text + str(caught.value)


def test_a_bucket_that_is_gone_holds_acknowledgements_until_it_is_back(side: Any, tmp_path: Path) -> None:
    with side.open(tmp_path) as store:
        store.commit(batch(store, 3, "x"), NOW)
        side.drop(side.bucket)
        made = batch(store, 6, "x")
        with pytest.raises(StoreUnavailable, match=r"404.*bucket"):
            store.commit(made, NOW)
        assert store.ledger(NODE) == {LINEAGE: RangeSet([(0, 2)])}


def test_an_organisation_that_is_not_there_is_named(influx: Any, tmp_path: Path) -> None:
    settings = Settings(url=influx.url, org="nobody", token=influx.token)
    with InfluxStore(tmp_path, settings, lambda key: None) as store:
        with pytest.raises(StoreUnavailable, match=r"influx\.org"):
            store.commit(batch(store, 1, "x"), NOW)


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_a_server_that_cannot_now_is_asked_again_and_gets_the_same_once(
    double_side: Any, tmp_path: Path, status: int
) -> None:
    double = double_side.server
    with double_side.open(tmp_path) as store:
        made = batch(store, 10, "x", "y")
        made.events.append(
            EventRow(key=KEY, metric="e", at=NOW, received_at=NOW, value="on", lineage=LINEAGE, offset=3)
        )
        for bucket in ("readings", "delivery"):
            double.script[bucket] = [status]
            with pytest.raises(StoreUnavailable, match=str(status)):
                store.commit(made, NOW)
            assert store.ledger(NODE) == {}
            assert store.events(0, "e", 10) == []
        store.commit(made, NOW)
        assert store.ledger(NODE) == {LINEAGE: RangeSet([(0, 9)])}
        assert [one.id for one in store.events(0, "e", 10)] == [1]
    assert len(double_side.fields("x__f")) == 10
    assert len([one for one in double.bucket("delivery") if one[0] == b"events"]) == 1


def test_a_ledger_that_is_refused_stays_unsaid(double_side: Any, tmp_path: Path) -> None:
    with double_side.open(tmp_path) as store:
        store.commit(batch(store, 1, "x"), NOW)
        double_side.server.script["delivery"] = [422]
        with pytest.raises(StoreUnavailable, match="does not take the ledger"):
            store.commit(batch(store, 5, "x"), NOW)
        assert store.ledger(NODE) == {LINEAGE: RangeSet([(0, 0)])}


@pytest.mark.parametrize("bucket", ["readings", "delivery"])
def test_a_server_that_answers_nothing_is_not_waited_for(double_side: Any, tmp_path: Path, bucket: str) -> None:
    with double_side.open(tmp_path, write_seconds=0.3) as store:
        store.commit(batch(store, 1, "x"), NOW)
        double_side.server.script[bucket] = [0]
        began = time.monotonic()
        with pytest.raises(StoreUnavailable, match="timed out"):
            store.commit(batch(store, 5, "x"), NOW)
        assert time.monotonic() - began < 5
        assert store.ledger(NODE) == {LINEAGE: RangeSet([(0, 0)])}


def test_a_request_that_is_too_large_for_something_on_the_way_is_cut(double_side: Any, tmp_path: Path) -> None:
    with double_side.open(tmp_path) as store:
        double_side.server.script["readings"] = [413, 413]
        store.commit(batch(store, 50, "x"), NOW)
        assert store.quarantined(0, 10) == []
    assert len(double_side.fields("x__f")) == 50


def test_a_culprit_among_many_costs_few_requests(double_side: Any, tmp_path: Path) -> None:
    with double_side.open(tmp_path) as store:
        made = batch(store, 4096, "x", start=NOW - 10_000_000)
        made.numbers.value[1234] = float("inf")
        store.commit(made, NOW)
        assert len(store.quarantined(0, 10)) == 1
    assert double_side.server.writes["readings"] <= 1 + 2 * 13


def test_a_token_that_may_not_make_buckets_is_no_fault_where_they_are(
    double_side: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    double = double_side.server
    double.may_make = False
    with double_side.open(tmp_path) as store:
        with pytest.raises(StoreUnavailable, match="404"):
            store.commit(batch(store, 1, "x"), NOW)
        double.buckets |= {"readings": {}, "delivery": {}}
        store.commit(batch(store, 1, "x"), NOW)
        assert store.ledger(NODE) == {LINEAGE: RangeSet([(0, 0)])}
    assert "may not look after bucket" in caplog.text


def test_a_server_that_comes_later_is_taken_up(double_side: Any, tmp_path: Path) -> None:
    url = double_side.server.url
    with double_side.open(tmp_path, url="http://127.0.0.1:1") as store:
        assert store.name == "influxdb"
        made = batch(store, 2, "x")
        with pytest.raises(StoreUnavailable, match="refused"):
            store.commit(made, NOW)
    with double_side.open(tmp_path, url=url) as store:
        assert store.name == "influxdb 2.9.1"
        store.commit(batch(store, 2, "x"), NOW)
        assert store.ledger(NODE) == {LINEAGE: RangeSet([(0, 1)])}
