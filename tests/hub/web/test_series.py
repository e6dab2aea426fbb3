"""Series through the API: pages that join without a gap, what was last stored, availability, communes."""

from typing import Any

import pytest

from contract.metrics import DataType, Value
from hub.devices import DeviceKey, device_id
from hub.storage.timeseries import Batch

PROBE = DeviceKey("g", "n-01", "probe-01")
NODE = DeviceKey("g", "n-01", "")
ID = device_id(PROBE)
GOOD = 192 << 8


def store(hub: Any, key: DeviceKey, metric: str, *given: tuple[int, Value]) -> None:
    inside, batch = hub.state.hub.store, Batch()
    for at, value in given:
        if isinstance(value, float):
            batch.numbers.put(inside.series(key, metric, DataType.DOUBLE), at, value, GOOD)
        else:
            batch.texts.put(inside.series(key, metric, DataType.STRING), at, value, GOOD)
    inside.commit(batch, 1)


async def pages(client: Any, path: str) -> list[Any]:
    """Follow `next` to the end."""
    found: list[Any] = []
    while path:
        assert len(found) < 50
        answer = await client.get(path)
        assert answer.status_code == 200, answer.text
        found.append(answer.json())
        path = found[-1].get("next")
    return found


async def test_a_history_is_paged_without_gap_or_repetition(hub: Any, client: Any) -> None:
    now = hub.state.hub.clock.now_ms()
    instants = [now - 60_000 + number * 100 for number in range(25)]
    store(hub, PROBE, "Water/pH", *((at, 7.0) for at in instants))
    path = f"/api/devices/{ID}/history?metric=Water/pH&limit=10"
    told = await pages(client, path)
    assert [len(one["at"]) for one in told] == [10, 10, 5]
    assert [at for one in told for at in one["at"]] == instants
    assert {(one["start"], one["end"]) for one in told} == {(told[0]["start"], told[0]["end"])}, "one span on all pages"
    [exactly] = await pages(client, path.replace("limit=10", "limit=25"))
    assert len(exactly["at"]) == 25


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("limit=0", "limit"),
        ("limit=50001", "limit"),
        ("after=-1", "after"),
        ("after=x", "after"),
        ("from=0", "3660 days"),
        ("to=9999-01-01", "more than a day ahead"),
    ],
)
async def test_a_page_that_cannot_be_is_a_problem(client: Any, asked: str, words: str) -> None:
    answer = await client.get(f"/api/devices/{ID}/history?metric=Water/pH&{asked}")
    assert (answer.status_code, words in answer.json()["detail"]) == (422, True), answer.text


async def test_devices_are_paged(client: Any) -> None:
    everything = (await client.get("/api/devices")).json()
    assert everything["next"] is None
    told = await pages(client, "/api/devices?limit=2")
    assert [one for page in told for one in page["devices"]] == everything["devices"]
    assert [len(page["devices"]) for page in told] == [2, 2, 1]
    assert (await client.get("/api/devices?after=none")).status_code == 404


async def test_the_last_of_every_series_is_paged_in_order(hub: Any, client: Any) -> None:
    store(hub, PROBE, "Water/pH", (2000, 7.5), (1000, 7.0))
    store(hub, PROBE, "Note", (1000, "a/b"))
    store(hub, NODE, "Presence/probe-01", (500, "online"))
    store(hub, DeviceKey("h", "m", "x"), "A", (1, 1.0))
    [whole] = await pages(client, "/api/last")
    assert [(one["group"], one["device"], one["metric"], one["at"], one["value"]) for one in whole["series"]] == [
        ("g", "", "Presence/probe-01", 500, "online"),
        ("g", "probe-01", "Note", 1000, "a/b"),
        ("g", "probe-01", "Water/pH", 2000, 7.5),
        ("h", "x", "A", 1, 1.0),
    ]
    told = await pages(client, "/api/last?limit=1")
    assert [one for page in told for one in page["series"]] == whole["series"]
    [group] = await pages(client, "/api/last?group=h")
    assert len(group["series"]) == 1
    assert (await client.get("/api/last?after=g/n")).status_code == 422


MINUTE = 60_000


async def test_availability_is_intervals_with_causes_and_unknown_counts_as_neither(hub: Any, client: Any) -> None:
    start = 1_790_000_000_000
    beats = [(start + minute * MINUTE, 1.0) for minute in range(0, 121, 5)]
    store(hub, NODE, "Box/CPU", *beats)
    store(hub, NODE, "Presence/probe-01", (start, "online"), (start + 60 * MINUTE, "silent"))
    store(hub, NODE, "Presence/probe-01", (start + 75 * MINUTE, "online"))
    path = f"/api/availability?device={ID}&from={start}&to={start + 240 * MINUTE}"
    [told] = (await client.get(path)).json()["devices"]
    assert [
        ((one["start"] - start) // MINUTE, (one["end"] - start) // MINUTE, one["state"], one["cause"])
        for one in told["intervals"]
    ] == [(0, 60, "up", ""), (60, 75, "down", "silent"), (75, 120, "up", ""), (120, 240, "unknown", "")]
    assert (told["up_ms"], told["down_ms"], told["unknown_ms"]) == (105 * MINUTE, 15 * MINUTE, 120 * MINUTE)
    assert (told["up_percent"], told["known_percent"]) == (87.5, 50.0)
    assert told["down_ms_by_cause"] == {"silent": 15 * MINUTE}


async def test_of_a_device_that_nobody_spoke_of_nothing_is_claimed(client: Any) -> None:
    [told] = (await client.get(f"/api/availability?device={ID}")).json()["devices"]
    assert (told["up_percent"], told["known_percent"], told["unknown_ms"]) == (None, 0.0, 86_400_000)


async def test_availability_of_what_is_no_device_is_a_problem(client: Any) -> None:
    assert (await client.get("/api/availability")).status_code == 422
    assert (await client.get("/api/availability?device=none")).status_code == 404
    answer = await client.get(f"/api/availability?device={device_id(NODE)}")
    assert (answer.status_code, "is an edge node" in answer.json()["detail"]) == (422, True)


async def test_a_communes_history_counts_each_device_once(hub: Any, client: Any) -> None:
    start = hub.state.hub.clock.now_ms() - 3_600_000
    for name, values in (("probe-01", [7.0] * 9), ("probe-02", [8.0])):
        key = DeviceKey("g", "n-01", name)
        store(hub, key, "Water/pH", *((start + place * 1000, value) for place, value in enumerate(values)))
    path = f"/api/communes/g/history?metric=Water/pH&from={start}&to={start + 10_000}&buckets=1"
    told = (await client.get(path)).json()
    assert (told["mean"], told["minimum"], told["maximum"], told["count"]) == ([7.5], [7.0], [8.0], [10])
    assert told["unit"] == "[pH]"


async def test_a_commune_or_metric_that_is_not_there_is_a_problem(client: Any) -> None:
    answer = await client.get("/api/communes/nowhere/history?metric=Water/pH")
    assert (answer.status_code, "nowhere" in answer.json()["detail"]) == (404, True)
    answer = await client.get("/api/communes/g/history?metric=Water/Colour")
    assert (answer.status_code, "Water/pH" in answer.json()["detail"]) == (404, True)
    quiet = await client.get("/api/communes/g/history?metric=Audio/Volume&buckets=2")
    assert (quiet.status_code, quiet.json()["count"]) == (200, [])
