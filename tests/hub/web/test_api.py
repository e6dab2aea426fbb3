"""The JSON API: what it says, and how it says no."""

from typing import Any

import jsonschema
import pytest

from contract.metrics import DataType
from hub.devices import DeviceKey, device_id
from hub.storage.timeseries import Batch

KEY = DeviceKey("g", "n-01", "probe-01")
PROBE = device_id(KEY)
OURS = {"Origin": "http://127.0.0.1:8080"}


def store(hub: Any, *samples: tuple[int, float]) -> None:
    batch = Batch()
    for at, value in samples:
        batch.numbers.series.append(hub.state.hub.store.series(KEY, "Water/pH", DataType.DOUBLE))
        batch.numbers.at.append(at)
        batch.numbers.value.append(value)
        batch.numbers.marks.append(192 << 8)
    hub.state.hub.store.commit(batch, 1)


async def test_devices_are_listed_with_place_presence_and_values(client: Any) -> None:
    told = (await client.get("/api/devices")).json()
    assert len(told["devices"]) == 5
    probe = next(one for one in told["devices"] if one["id"] == PROBE)
    assert (probe["commune"], probe["hamlet"], probe["kind"]) == ("Xã An Thạnh", "Ấp Bình Hòa", "water_probe")
    assert probe["presence"]["state"] == "online"
    assert probe["values"]["Water/pH"]["value"] == 7.21
    assert (await client.get(f"/api/devices/{PROBE}")).json() == probe


async def test_an_id_is_stable_and_tells_nothing() -> None:
    assert device_id(KEY) == device_id(DeviceKey("g", "n-01", "probe-01"))
    assert len(device_id(KEY)) == 12
    assert "probe" not in device_id(KEY)
    assert device_id(KEY) != device_id(DeviceKey("g", "n-01", "probe-02"))


async def test_history_comes_raw_and_in_buckets(hub: Any, client: Any) -> None:
    now = hub.state.hub.clock.now_ms()
    store(hub, (now - 3000, 7.0), (now - 1000, 8.0))
    question = {"metric": "Water/pH", "from": str(now - 4000), "to": str(now)}
    raw = (await client.get(f"/api/devices/{PROBE}/history", params=question)).json()
    assert (raw["value"], raw["quality"], raw["unit"]) == ([7.0, 8.0], [192, 192], "[pH]")
    told = (await client.get(f"/api/devices/{PROBE}/history", params={**question, "buckets": 4})).json()
    assert told["mean"] == [None, 7.0, 7.0, 8.0]
    assert told["count"] == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("params", "status", "words"),
    [
        ({}, 422, "metric"),
        ({"metric": "Water/Colour"}, 404, "Water/pH"),
        ({"metric": "Water/pH", "from": "yesterday"}, 422, "from: 'yesterday' is neither ISO 8601"),
        ({"metric": "Water/pH", "from": "5", "to": "4"}, 422, "must be before"),
        ({"metric": "Water/pH", "to": "9" * 30}, 422, "outside"),
        ({"metric": "Water/pH", "buckets": "0"}, 422, "buckets"),
        ({"metric": "Water/pH", "buckets": "2001"}, 422, "buckets"),
    ],
)
async def test_a_wrong_question_names_what_is_wrong(
    client: Any, params: dict[str, str], status: int, words: str
) -> None:
    response = await client.get(f"/api/devices/{PROBE}/history", params=params)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert words in response.json()["detail"]


async def test_iso_times_are_understood(client: Any) -> None:
    params = {"metric": "Water/pH", "from": "2026-11-24T00:00:00+07:00", "to": "2026-11-24T00:00:00Z"}
    told = (await client.get(f"/api/devices/{PROBE}/history", params=params)).json()
    assert told["end"] - told["start"] == 7 * 3_600_000


@pytest.mark.parametrize("path", ["/api/devices/none", "/api/nothing", "/audio/" + "0" * 64, "/audio/..%2f..%2fsecret"])
async def test_what_is_not_there_is_a_problem(client: Any, path: str) -> None:
    response = await client.get(path)
    assert response.status_code == 404
    assert response.json()["title"] == "Not Found"


async def test_stats_count_field_devices_by_kind(client: Any) -> None:
    told = (await client.get("/api/stats")).json()
    assert told["devices"] == {"total": 4, "online": 2}
    assert told["by_kind"]["loudspeaker"] == {"total": 2, "online": 1}


async def test_without_a_broker_the_hub_lives_and_is_not_ready(client: Any) -> None:
    assert (await client.get("/healthz")).status_code == 200
    ready = await client.get("/readyz")
    assert (ready.status_code, ready.json()["broker"]) == (503, "not connected")
    assert "hamlet_messages_total" in (await client.get("/metrics")).text


async def test_nothing_on_our_own_edge_nodes_can_be_written_plainly(client: Any) -> None:
    body = {"device": "loa-01", "metric": "Audio/Volume", "datatype": "INT64", "value": 100}
    response = await client.post("/api/edge-nodes/g/n-01/write", json=body, headers=OURS)
    assert response.status_code == 403
    assert "ours" in response.json()["detail"]


@pytest.mark.parametrize(
    "metric", ["Audio/Volume", " audio/VOLUME", "Playback/State", "Command/Request", "Broadcast/Envelope"]
)
async def test_nothing_that_sounds_can_be_written_on_anybodys_equipment(client: Any, metric: str) -> None:
    body = {"device": "loa-09", "metric": metric, "datatype": "INT64", "value": 100}
    response = await client.post("/api/edge-nodes/x/n-99/write", json=body, headers=OURS)
    assert response.status_code == 403
    assert "signed orders" in response.json()["detail"]


async def test_without_a_broadcast_section_nothing_is_announced(hub: Any, client: Any) -> None:
    hub.state.hub.announcements = None
    form = {"text": "x", "speakers": device_id(DeviceKey("g", "n-01", "loa-01"))}
    response = await client.post("/api/announcements", data=form, headers=OURS)
    assert (response.status_code, response.json()["code"]) == (503, "no_broadcast")


async def test_only_a_loudspeaker_can_be_chosen(client: Any) -> None:
    response = await client.post("/api/announcements", data={"text": "x", "speakers": PROBE}, headers=OURS)
    assert (response.status_code, response.json()["code"]) == (422, "no_speaker")


async def test_the_api_describes_itself(client: Any) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]
    assert {
        "/api/devices",
        "/api/devices/{id}",
        "/api/devices/{id}/history",
        "/api/stats",
        "/api/announcements",
        "/api/samples.csv",
        "/api/last",
        "/api/availability",
        "/api/communes/{group}/history",
    } <= set(paths)
    assert "text/csv" in paths["/api/samples.csv"]["get"]["responses"]["200"]["content"]
    history = paths["/api/devices/{id}/history"]["get"]
    assert {"metric", "from", "to", "buckets"} <= {one["name"] for one in history["parameters"]}
    assert "application/problem+json" in history["responses"]["default"]["content"]


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/api/devices", "?limit=2"),
        ("/api/devices/{id}", ""),
        ("/api/devices/{id}/history", "?metric=Water/pH&limit=1"),
        ("/api/devices/{id}/history", "?metric=Water/pH&buckets=3"),
        ("/api/devices/{id}/history", "?metric=Water/Colour"),
        ("/api/last", "?limit=1"),
        ("/api/availability", f"?device={PROBE}"),
        ("/api/availability", ""),
        ("/api/communes/{group}/history", "?metric=Water/pH&buckets=2"),
        ("/api/edge-nodes/{group}/{node}/delivery", ""),
        ("/api/completeness", "?day=2026-11-24"),
        ("/api/completeness", "?day=soon"),
        ("/api/stats", ""),
        ("/readyz", ""),
    ],
)
async def test_answers_are_as_they_are_described(hub: Any, client: Any, path: str, asked: str) -> None:
    now = hub.state.hub.clock.now_ms()
    store(hub, (now - 3000, 7.0), (now - 2000, 7.1), (now - 1000, 8.0))
    described = (await client.get("/openapi.json")).json()
    answer = await client.get(path.format(id=PROBE, group="g", node="n-01") + asked)
    kind = answer.headers["content-type"]
    responses = described["paths"][path]["get"]["responses"]
    if kind == "application/problem+json":
        said = responses["default"]["content"][kind]["schema"]
    else:
        said = responses["200"]["content"][kind]["schema"]
    assert "additionalProperties" not in said
    jsonschema.validate(answer.json(), {**said, "components": described["components"]})
    named = said.get("$ref", "").rpartition("/")[2]
    if named:
        assert set(answer.json()) <= set(described["components"]["schemas"][named]["properties"])
