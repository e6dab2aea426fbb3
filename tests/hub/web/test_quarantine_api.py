"""What was put aside, over the API."""

from typing import Any

import httpx

from contract.positions import Lineage
from hub.devices import DeviceKey
from hub.storage.timeseries import Batch, Quarantined

PROBE = DeviceKey("g", "n-01", "probe")
LINEAGE = Lineage("log", 1, "probe")


async def test_it_is_listed_and_looked_at_again_over_the_api(hub: Any, client: httpx.AsyncClient) -> None:
    row = Quarantined(
        key=PROBE,
        reason="not_a_number",
        payload=b"",
        received_at=5,
        samples=1,
        metric="Water/pH",
        at=4,
        lineage=LINEAGE,
    )
    hub.state.hub.store.commit(Batch(quarantined=[row, row]), 5)
    page = (await client.get("/api/quarantine", params={"most": 1})).json()
    (one,) = page["rows"]
    assert (one["node"], one["words"], one["log"]) == ("n-01", "the value is no number", "log")
    page = (await client.get("/api/quarantine", params={"after": page["next"], "group": "g", "node": "n-01"})).json()
    assert (len(page["rows"]), page["next"]) == (1, None)
    assert (await client.get("/api/quarantine", params={"group": "g"})).status_code == 422
    origin = {"Origin": str(client.base_url).rstrip("/")}
    told = (await client.post("/api/quarantine/retry", json={}, headers=origin)).json()
    assert told == {"looked": 2, "released": 0, "samples": 0, "still": {"not_a_number": 2}}
    assert (await client.post("/api/quarantine/retry", json={})).status_code == 403, "no other site may"
