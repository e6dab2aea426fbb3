"""What is told of an edge node's delivery, to programs and to people, and of how complete its days are."""

import csv
import io
import re
from dataclasses import replace
from typing import Any

import pytest

from contract.metrics import DataType, Value
from contract.positions import Lineage
from hub.calendar_day import day_of, day_start
from hub.devices import DeviceKey, NodeKey, device_id
from hub.node_delivery import Alarm, AlarmKind, Depth, NodeDelivery
from hub.storage.timeseries import Batch, Quarantined, Void

NODE = NodeKey("g", "n-01")
OWN = DeviceKey("g", "n-01", "")
PROBE = DeviceKey("g", "n-01", "probe-01")
PAGE = f"/devices/{device_id(OWN)}"
LIFE = 7 << 32 | 5
GOOD = 192 << 8
MINUTE = 60_000


def standing(now: int, **change: Any) -> NodeDelivery:
    told = NodeDelivery(
        foreign=False,
        log="log",
        epoch=LIFE,
        floor=6 << 32 | 4,
        closed=2,
        depth=Depth(records=0, oldest=None, bytes_on_disk=12_345_678, told_at=now - 12_000),
        acknowledged_at=now - 3000,
        alarms=(),
    )
    return replace(told, **change)


@pytest.fixture
def stands(hub: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let the edge node be heard, and stand as a test says."""

    def stand(**change: Any) -> None:
        told = standing(hub.state.hub.clock.now_ms(), **change)
        monkeypatch.setattr(hub.state.hub.ingest, "delivery", lambda key: told if key == NODE else None)

    stand()
    return stand


def keep(hub: Any, *, voids: int = 0, aside: str = "", positions: tuple[tuple[int, int], ...] = ()) -> None:
    now, lineage = hub.state.hub.clock.now_ms(), Lineage("log", LIFE, "probe-01")
    made = Batch(committed=[(NODE, lineage, *one) for one in positions])
    if voids:
        made.voids.append(Void(node=NODE, lineage=lineage, first=100, last=99 + voids, at=now - 5000))
    if aside:
        made.quarantined.append(Quarantined(key=PROBE, reason=aside, payload=b"", received_at=now - 9000, samples=3))
    hub.state.hub.store.commit(made, now)


def put(hub: Any, key: DeviceKey, metric: str, *given: tuple[int, Value]) -> None:
    inside, batch = hub.state.hub.store, Batch()
    for at, value in given:
        if isinstance(value, float):
            batch.numbers.put(inside.series(key, metric, DataType.DOUBLE), at, value, GOOD)
        else:
            batch.texts.put(inside.series(key, metric, DataType.STRING), at, value, GOOD)
    inside.commit(batch, 1)


async def test_the_account_of_an_edge_node_is_told_whole(hub: Any, client: Any, stands: Any) -> None:
    now = hub.state.hub.clock.now_ms()
    stands(
        depth=Depth(records=5, oldest=now - 60_000, bytes_on_disk=1000, told_at=now - 1000),
        alarms=(Alarm(kind=AlarmKind.TWO_LOGS, since=now - 5000),),
    )
    keep(hub, voids=4, aside="impossible_time", positions=((0, 9), (12, 20)))
    told = (await client.get("/api/edge-nodes/g/n-01/delivery")).json()
    assert (told["epoch"], told["floor"], told["heard"], told["foreign"]) == (str(LIFE), str(6 << 32 | 4), True, False)
    assert told["depth"]["records"] == 5
    assert [one["kind"] for one in told["alarms"]] == ["two_logs"]
    [ledger] = told["ledger"]
    assert (ledger["device"], ledger["start"], ledger["records"], ledger["ranges"]) == (
        "probe-01",
        7,
        19,
        [[0, 9], [12, 20]],
    )
    [void] = told["voids"]
    assert (void["first"], void["last"], void["device"]) == (100, 103, "probe-01")
    assert told["quarantine"] == [
        {"reason": "impossible_time", "samples": 3, "newest": told["quarantine"][0]["newest"]}
    ]
    assert (told["today"]["void_records"], told["today"]["quarantined_samples"]) == (4, 3)


async def test_of_an_edge_node_not_heard_yet_nothing_is_claimed(client: Any) -> None:
    told = (await client.get("/api/edge-nodes/g/n-01/delivery")).json()
    assert (told["heard"], told["log"], told["depth"]["records"]) == (False, None, None)
    assert (await client.get("/api/edge-nodes/g/nobody/delivery")).status_code == 404


async def test_a_ledger_of_thousands_of_ranges_is_cut_and_says_so(hub: Any, client: Any, stands: Any) -> None:
    keep(hub, positions=tuple((place, place) for place in range(0, 6000, 2)))
    told = (await client.get("/api/edge-nodes/g/n-01/delivery")).json()
    assert (told["ledger_is_cut"], told["ledger"]) == (True, [])


def alive(hub: Any, start: int, minutes: int) -> None:
    """Let the edge node have spoken, and the probe have been read, every five minutes from an instant on."""
    spoken = range(0, minutes + 1, 5)
    put(hub, OWN, "Presence/probe-01", *((start + one * MINUTE, "online") for one in spoken))
    put(hub, PROBE, "Water/pH", *((start + one * MINUTE + 1, 7.0) for one in spoken))


async def test_yesterday_is_reported_and_the_unknown_half_of_it_is_not_good(hub: Any, client: Any, stands: Any) -> None:
    now = hub.state.hub.clock.now_ms()
    today = day_start(day_of(now))
    yesterday = day_of(today - 1)
    start = day_start(yesterday)
    alive(hub, start, 12 * 60)
    told = (await client.get(f"/api/completeness?day={yesterday}")).json()
    assert (told["start"], told["end"]) == (start, today)
    [node] = told["edge_nodes"]
    assert (node["verdict"], node["complete_percent"], node["unknown_seconds"]) == ("gaps", 50.0, 12 * 3600)
    assert (node["commune"], node["hamlet"], node["expected_records"]) == ("Xã An Thạnh", "Ấp Bình Hòa", None)
    assert (node["records"], node["samples"], node["late_percent"]) == (290, 290, 0.0)
    alive(hub, start, 24 * 60 - 5)
    [node] = (await client.get(f"/api/completeness?day={yesterday}")).json()["edge_nodes"]
    assert (node["verdict"], node["complete_percent"], node["expected_records"]) == ("whole", 100.0, node["records"])


@pytest.mark.parametrize("told", ["holds", "silent", "before"])
async def test_a_day_of_which_a_box_may_hold_records_is_open(hub: Any, client: Any, stands: Any, told: str) -> None:
    now = hub.state.hub.clock.now_ms()
    today = day_start(day_of(now))
    start = day_start(day_of(today - 1))
    alive(hub, start, 24 * 60 - 5)
    depths = {
        "holds": Depth(records=3, oldest=today - 1, bytes_on_disk=1, told_at=now),
        "silent": Depth(),
        "before": Depth(records=0, oldest=None, bytes_on_disk=1, told_at=today - 1),
    }
    stands(depth=depths[told])
    [node] = (await client.get(f"/api/completeness?day={day_of(start)}")).json()["edge_nodes"]
    assert (node["verdict"], node["expected_records"]) == ("open", None)
    stands(depth=Depth(records=3, oldest=today, bytes_on_disk=1, told_at=now))
    [node] = (await client.get(f"/api/completeness?day={day_of(start)}")).json()["edge_nodes"]
    assert node["verdict"] == "whole"


@pytest.mark.parametrize(
    ("day", "words"),
    [("", "is no day"), ("2026-13-01", "is no day"), ("9999-12-31", "no day"), ("1969-12-31", "before 1970")],
)
async def test_a_day_that_cannot_be_is_a_problem(client: Any, day: str, words: str) -> None:
    for path in ("/api/completeness", "/api/completeness.csv"):
        answer = await client.get(path, params={"day": day})
        assert (answer.status_code, words in answer.json()["detail"]) == (422, True), answer.text


async def test_tomorrow_cannot_be_reported(hub: Any, client: Any) -> None:
    tomorrow = day_of(hub.state.hub.clock.now_ms() + 86_400_000)
    answer = await client.get("/api/completeness", params={"day": str(tomorrow)})
    assert (answer.status_code, "has not begun" in answer.json()["detail"]) == (422, True)


async def test_the_report_is_a_table_for_a_spreadsheet(hub: Any, client: Any, stands: Any) -> None:
    day = day_of(hub.state.hub.clock.now_ms())
    answer = await client.get("/api/completeness.csv", params={"day": str(day)})
    assert answer.headers["content-disposition"] == f'attachment; filename="completeness_{day}.csv"'
    [row] = csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig"), newline=""))
    assert (row["day"], row["node"], row["commune"], row["verdict"]) == (str(day), "n-01", "Xã An Thạnh", "unknown")
    assert (row["complete_percent"], row["expected_records"]) == ("0.0", "")


def text(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))


async def page(client: Any, path: str, language: str) -> str:
    answer = await client.get(path, params={"lang": language})
    assert answer.status_code == 200
    return text(answer.text)


@pytest.mark.parametrize(
    ("change", "vi", "en"),
    [
        ({}, "Hoạt động tốt : Đã lưu tất cả số liệu", "Working : All that it has measured is stored."),
        ({"depth": Depth(records=2)}, "Không rõ : Thiết bị chưa báo", "Unknown : It has not said yet"),
        ({"foreign": True}, "Không rõ : Thiết bị ngoài hệ thống", "Unknown : Foreign equipment numbers nothing"),
        (
            {"alarms": (Alarm(kind=AlarmKind.WILD_CLOCK, since=0),)},
            "Có vấn đề : Cần người kiểm tra thiết bị này. Đồng hồ thiết bị sai.",
            "Problem : Somebody must look at this box. Its clock is wrong.",
        ),
    ],
)
async def test_an_edge_nodes_page_says_first_how_its_delivery_stands(
    client: Any, stands: Any, change: dict[str, Any], vi: str, en: str
) -> None:
    stands(**change)
    assert vi in await page(client, PAGE, "vi")
    assert en in await page(client, PAGE, "en")


async def test_an_edge_node_that_fell_behind_or_silent_is_not_shown_as_working(
    hub: Any, client: Any, stands: Any
) -> None:
    now = hub.state.hub.clock.now_ms()
    behind = Depth(records=900, oldest=now - 7_200_000, bytes_on_disk=1, told_at=now)
    stands(depth=behind)
    assert "Cảnh báo : Đang gửi chậm: bản ghi cũ nhất đã chờ 2 giờ" in await page(client, PAGE, "vi")
    stands(depth=replace(behind, told_at=now - 7_200_000))
    assert "Không rõ : Liên lạc lần cuối 2 giờ trước" in await page(client, PAGE, "vi")


async def test_what_is_lost_or_in_quarantine_is_told_with_number_reason_and_age(
    hub: Any, client: Any, stands: Any
) -> None:
    keep(hub, voids=1200, aside="impossible_time", positions=((0, 9999),))
    told = await page(client, PAGE, "en")
    assert "Warning : Within the last day records turned out to be lost." in told
    assert "Lost records: 1,200" in told
    assert "100 to 1,299 of start 7" in told
    assert "impossible time (over 400 days old, or in the future) 3" in told
    assert "0–9,999" in told
    assert "12.3 MB" in told
    assert "12,3 MB" in await page(client, PAGE, "vi")


async def test_while_the_hub_acknowledges_nothing_the_page_says_why(
    hub: Any, client: Any, stands: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(hub.state.hub.ingest), "holding", "the disk is <full>")
    told = (await client.get(PAGE, params={"lang": "vi"})).text
    assert "Máy chủ đang không xác nhận số liệu" in told
    assert "the disk is &lt;full&gt;" in told


async def test_the_section_renews_itself_and_only_an_edge_node_has_one(client: Any, stands: Any) -> None:
    assert f'hx-get="{PAGE}/delivery"' in (await client.get(PAGE)).text
    assert (await client.get(f"{PAGE}/delivery")).text.lstrip().startswith("<section")
    probe = f"/devices/{device_id(PROBE)}"
    assert 'id="delivery"' not in (await client.get(probe)).text
    assert (await client.get(f"{probe}/delivery")).status_code == 404


async def test_the_report_page_says_in_one_sentence_how_the_day_went(hub: Any, client: Any, stands: Any) -> None:
    now = hub.state.hub.clock.now_ms()
    start = day_start(day_of(day_start(day_of(now)) - 1))
    alive(hub, start, 24 * 60 - 5)
    told = await page(client, "/reports/completeness", "vi")
    assert "1/1 thiết bị tại ấp đủ số liệu." in told
    assert "đầy đủ" in told
    assert "100%" in told
    lineage = Lineage("log", LIFE, "probe-01")
    void = Void(node=NODE, lineage=lineage, first=0, last=0, at=start + 5)
    hub.state.hub.store.commit(Batch(voids=[void]), now)
    told = await page(client, "/reports/completeness", "en")
    assert "0 of 1 edge nodes are complete; lost records: 1." in told
    assert "99.82%" in told, "rounded down, never up to whole"


async def test_the_report_leads_to_the_days_beside_and_not_to_tomorrow(hub: Any, client: Any) -> None:
    today = day_of(hub.state.hub.clock.now_ms())
    told = (await client.get("/reports/completeness", params={"day": str(today)})).text
    assert "Ngày trước" in told or "Day before" in told
    assert "Ngày sau" not in told
    assert (await client.get("/reports/completeness", params={"day": "soon"})).status_code == 422


async def test_the_first_page_says_where_somebody_must_look(
    hub: Any, client: Any, stands: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = hub.state.hub.clock.now_ms()
    assert "Giao nhận số liệu" not in await page(client, "/", "vi")
    stands(alarms=(Alarm(kind=AlarmKind.TWO_LOGS, since=now),))
    assert "Có vấn đề Giao nhận số liệu : Cần người kiểm tra thiết bị này." in await page(client, "/", "vi")
    stands(depth=Depth(records=9, oldest=now - 7_200_000, told_at=now))
    assert "Warning Delivery : It is behind: its oldest record has been waiting for 2 hours." in await page(
        client, "/", "en"
    )
    stands(depth=Depth(records=None))
    assert "Delivery" not in await page(client, "/", "en"), "what is not known is no news here"
    assert "acknowledges nothing" not in await page(client, "/", "en")
    monkeypatch.setattr(type(hub.state.hub.ingest), "holding", "the disk is full")
    assert "The hub acknowledges nothing at present; the box keeps what it has. (the disk is full)" in await page(
        client, "/", "en"
    )
