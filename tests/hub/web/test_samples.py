"""The export: every sample once, whatever it holds; a reader that is slow or gone costs the hub nothing."""

import asyncio
import csv
import io
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import uvicorn

from contract.metrics import DataType, Value
from hub.api import streamed
from hub.devices import DeviceKey
from hub.exports import MOST_AT_A_TIME
from hub.storage.timeseries import Batch, StoreUnavailable

PROBE = DeviceKey("g", "n-01", "probe-01")
HEADER = ["group", "node", "device", "metric", "at", "value", "quality", "instrument", "time"]


def store(hub: Any, key: DeviceKey, metric: str, *given: tuple[int, Value, int]) -> None:
    inside, batch = hub.state.hub.store, Batch()
    for at, value, mark in given:
        match value:
            case float():
                batch.numbers.put(inside.series(key, metric, DataType.DOUBLE), at, value, mark)
            case int():
                batch.integers.put(inside.series(key, metric, DataType.INT64), at, value, mark)
            case _:
                batch.texts.put(inside.series(key, metric, DataType.STRING), at, value, mark)
    inside.commit(batch, 1)


def read(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline="")))


GOOD = 192 << 8


async def exported(client: Any, **asked: object) -> list[list[str]]:
    answer = await client.get("/api/samples.csv", params={"from": 0, "to": 200 * 86_400_000, **asked})
    assert answer.status_code == 200, answer.text
    rows = read(answer.text)
    assert rows[0] == HEADER
    return rows[1:]


async def test_every_sample_comes_once_in_order_with_what_is_known_of_it(hub: Any, client: Any) -> None:
    store(hub, PROBE, "Water/pH", (2000, 7.25, GOOD), (1000, -0.1, (0 << 8) | 2 | 2 << 3), (1000, 6.5, GOOD | 1 << 3))
    store(hub, DeviceKey("g", "n-01", ""), "Node/Boot", (1500, 2**60 + 1, GOOD))
    assert await exported(client) == [
        ["g", "n-01", "", "Node/Boot", "1500", str(2**60 + 1), "192", "0", "0"],
        ["g", "n-01", "probe-01", "Water/pH", "1000", "6.5", "192", "0", "1"],
        ["g", "n-01", "probe-01", "Water/pH", "2000", "7.25", "192", "0", "0"],
    ]


async def test_filters_take_away_and_nothing_else(hub: Any, client: Any) -> None:
    keys = [DeviceKey(group, node, device) for group in "ab" for node in ("n-1", "n-2") for device in ("", "p")]
    for key in keys:
        store(hub, key, "M", (1000, 1.0, GOOD))
        store(hub, key, "N", (1000, 2.0, GOOD))
    assert len(await exported(client)) == 16
    assert {row[0] for row in await exported(client, group="b")} == {"b"}
    assert len(await exported(client, group=["a", "b"], metric="N")) == 8
    assert [row[:4] for row in await exported(client, group="a", node="n-2", device="", metric="M")] == [
        ["a", "n-2", "", "M"]
    ]
    assert await exported(client, group="nobody") == []


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("+84", "'+84"),
        ("-5", "'-5"),
        ("@x", "'@x"),
        ("\tx", "'\tx"),
        ("\r=1", "'\r=1"),
        ("＝1", "'＝1"),
        ("'x", "''x"),
        ('đủ, "quá"\nđủ', 'đủ, "quá"\nđủ'),
        ("", ""),
        (None, ""),
    ],
)
async def test_no_text_becomes_a_formula_and_each_comes_back(hub: Any, client: Any, text: str, cell: str) -> None:
    store(hub, PROBE, "Note", (1000, text, GOOD))
    ((*_, value, _, _, _),) = await exported(client)
    assert value == cell
    assert (value.removeprefix("'")) == (text or "")


async def test_numbers_are_never_touched_and_names_may_be_hostile(hub: Any, client: Any) -> None:
    store(hub, DeviceKey("g", "n-01", "=cmd"), 'a "b", c', (1000, -1.5, GOOD), (2000, -2.0, GOOD))
    assert [row[2:6] for row in await exported(client)] == [
        ["'=cmd", 'a "b", c', "1000", "-1.5"],
        ["'=cmd", 'a "b", c', "2000", "-2.0"],
    ]


async def test_the_file_has_a_name_and_says_how_it_is_written(client: Any) -> None:
    answer = await client.get("/api/samples.csv", params={"from": "2026-11-24T00:00:00+07:00", "to": "1795597200000"})
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == (
        'attachment; filename="samples_2026-11-23T1700Z_2026-11-25T0900Z.csv"'
    )
    assert answer.content.endswith(b"time\r\n")


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({}, "from"),
        ({"from": 5, "to": 5}, "must be before"),
        ({"from": "1970-01-01", "to": "9999-12-31"}, "more than a day ahead"),
        ({"from": "1970-01-01"}, "at most 400 days"),
        ({"from": "-1"}, "outside 1970"),
        ({"from": "9" * 400}, "outside"),
        ({"from": "soon"}, "neither ISO 8601"),
        ({"from": 0, "to": 1, "group": "a/b"}, "nobody's id"),
        ({"from": 0, "to": 1, "metric": ["x"] * 201}, "metric"),
    ],
)
async def test_an_absurd_question_is_a_clear_problem(client: Any, asked: dict[str, Any], words: str) -> None:
    answer = await client.get("/api/samples.csv", params=asked)
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    assert words in answer.json()["detail"]


async def test_a_store_that_does_not_answer_is_a_problem_and_not_an_empty_file(
    hub: Any, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> Any:
        raise StoreUnavailable("the disk is gone")

    def export(*_: object) -> Iterator[Any]:
        yield gone()

    monkeypatch.setattr(hub.state.hub.store.__class__, "export", export)
    answer = await client.get("/api/samples.csv", params={"from": 0, "to": 1})
    assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")
    assert not hub.state.hub.exports.under_way


class Endless:
    """Stands where a store's export would, with more than anybody can read; counts, and knows when it is let go."""

    def __init__(self, hub: Any) -> None:
        store(hub, PROBE, "Water/pH", *((at, 7.0, GOOD) for at in range(20_000)))
        inside = hub.state.hub.store
        [self.rows] = list(inside.export(0, 1 << 40))
        self.asked, self.ended = 0, threading.Event()

    def export(self, *_: object) -> Iterator[Any]:
        try:
            while True:
                self.asked += 1
                yield self.rows
        finally:
            self.ended.set()


@pytest.fixture
async def served(hub: Any) -> AsyncIterator[int]:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(hub, lifespan="off", log_level="critical", timeout_graceful_shutdown=1, ws="none")
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:
        await asyncio.sleep(0.01)
    yield int(listener.getsockname()[1])
    server.should_exit = True
    await running


async def ask(port: int, cookie: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=4096)
    head = f"GET /api/samples.csv?from=0&to=1 HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nCookie: {cookie}\r\n\r\n"
    writer.write(head.encode())
    await reader.readuntil(b"\r\n\r\n")
    return reader, writer


async def test_a_reader_that_goes_away_ends_the_query(
    hub: Any, served: int, cookie: str, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    endless = Endless(hub)
    monkeypatch.setattr(hub.state.hub.store.__class__, "export", endless.export)
    reader, writer = await ask(served, cookie)
    await reader.readexactly(1_000_000)
    assert not endless.ended.is_set()
    writer.close()
    await eventually(endless.ended.is_set)
    assert not hub.state.hub.exports.under_way


async def test_a_slow_reader_is_worked_for_as_it_reads_and_slows_nobody(
    hub: Any, client: Any, served: int, cookie: str, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    endless = Endless(hub)
    monkeypatch.setattr(hub.state.hub.store.__class__, "export", endless.export)
    readers = [await ask(served, cookie) for _ in range(MOST_AT_A_TIME)]
    before = -1
    while before != endless.asked:  # until the sockets are full
        before = endless.asked
        await asyncio.sleep(0.2)
    assert endless.asked < 100
    assert (await client.get("/api/stats")).status_code == 200
    refused = await client.get("/api/samples.csv", params={"from": 0, "to": 1})
    assert (refused.status_code, refused.json()["code"]) == (503, "too_many_exports")
    for _, writer in readers:
        writer.close()
    await eventually(lambda: not hub.state.hub.exports.under_way)


async def test_a_reader_that_takes_nothing_for_long_is_given_up(
    hub: Any, served: int, cookie: str, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    endless = Endless(hub)
    monkeypatch.setattr(hub.state.hub.store.__class__, "export", endless.export)
    monkeypatch.setattr(streamed, "PATIENCE_SECONDS", 0.3)
    _, writer = await ask(served, cookie)
    await eventually(endless.ended.is_set)
    writer.close()


async def test_a_store_that_breaks_half_way_breaks_the_answer_off(
    hub: Any, served: int, cookie: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    endless = Endless(hub)

    def export(*_: object) -> Iterator[Any]:
        yield endless.rows
        raise StoreUnavailable("the disk is gone")

    monkeypatch.setattr(hub.state.hub.store.__class__, "export", export)
    reader, writer = await ask(served, cookie)
    told = await reader.read(-1)
    assert len(told) > 100_000
    assert not told.endswith(b"\r\n0\r\n\r\n"), "a chunked body that was ended is taken for whole"
    writer.close()
