"""However much is asked of the store, what comes in is committed meanwhile."""

import asyncio
import threading
from typing import Any

import pytest

from contract.metrics import DataType
from hub.asking import AT_A_TIME
from hub.devices import DeviceKey, device_id
from hub.storage.timeseries import Batch

PROBE = DeviceKey("g", "n-01", "probe-01")


async def test_questions_that_never_end_keep_no_commit_waiting(
    hub: Any, client: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, may_end, begun = hub.state.hub, threading.Event(), 0

    def raw(*_: object) -> Any:
        nonlocal begun
        begun += 1
        may_end.wait(30)
        return as_it_is(*_)

    as_it_is = inside.store.raw
    monkeypatch.setattr(type(inside.store), "raw", lambda self, *asked: raw(*asked))
    path = f"/api/devices/{device_id(PROBE)}/history?metric=Water/pH"
    asking = [asyncio.create_task(client.get(path)) for _ in range(40)]
    try:
        await eventually(lambda: begun == AT_A_TIME)
        batch = Batch()
        batch.numbers.put(inside.store.series(PROBE, "Water/pH", DataType.DOUBLE), 1000, 7.0, 192 << 8)
        await asyncio.wait_for(asyncio.to_thread(inside.store.commit, batch, 5), 5)
        assert (await client.get("/healthz")).status_code == 200
        assert begun == AT_A_TIME
    finally:
        may_end.set()
    answers = await asyncio.gather(*asking)
    assert {one.status_code for one in answers} == {200}
