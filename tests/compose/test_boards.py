"""Grafana's boards: their questions find what the store writes in a real InfluxDB, by names of the catalogue."""

import json
import re
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

from contract.catalog import CATALOG, ONLINE, PRESENCE, Kind
from contract.metrics import FLOATS, TEXTS, DataType
from contract.positions import Lineage
from hub.devices import DeviceKey, NodeKey
from hub.storage.influxdb import InfluxStore, Settings
from hub.storage.timeseries import HISTORICAL_BIT, Batch, EventRow, FloorRaised, Quarantined, Void

ROOT = Path(__file__).parents[2]
BOARDS = {one.stem: json.loads(one.read_text(encoding="utf-8")) for one in (ROOT / "dashboards/boards").glob("*.json")}
PANELS = {
    f"{name}: {panel['title']}": panel["targets"][0]["query"]
    for name, board in sorted(BOARDS.items())
    for panel in board["panels"]
}
GOOD = 192 << 8
NOW = int(time.time() * 1000)


def test_boards_are_shown_by_the_source_and_the_folder_that_compose_gives() -> None:
    provisioning = ROOT / "dashboards" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "influxdb.yaml").read_text())["datasources"]
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "hamlet.yaml").read_text())["providers"]
    grafana = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["grafana"]
    assert f"./dashboards/boards:{provider['options']['path']}:ro" in grafana["volumes"]
    assert "./dashboards/provisioning:/etc/grafana/provisioning:ro" in grafana["volumes"]
    assert source["url"] == "http://influxdb:8086"
    for name, board in BOARDS.items():
        assert board["uid"] == name
        assert {panel["datasource"]["uid"] for panel in board["panels"]} == {source["uid"]}
        assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


def test_no_two_panels_lie_on_one_another() -> None:
    for name, board in BOARDS.items():
        taken: set[tuple[int, int]] = set()
        for panel in board["panels"]:
            at = panel["gridPos"]
            assert at["x"] + at["w"] <= 24, name
            cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
            assert not cells & taken, f"{name}: {panel['title']}"
            taken |= cells


def test_every_name_in_a_question_is_the_catalogues() -> None:
    kinds = {kind.value for kind in Kind}
    books = {"ledger", "floors", "voids", "events", "quarantine", "conflict"}
    seen = 0
    for title, question in PANELS.items():
        measurements = set(re.findall(r'r\._measurement == "([^"]*)"', question))
        assert measurements <= kinds | books, title
        fields = set(re.findall(r'r\._field == "([^"]*)"', question)) - {"row"}
        allowed = [one.name for kind in measurements & kinds for one in CATALOG[Kind(kind)].metrics]
        if not measurements:
            allowed = [one.name for row in CATALOG.values() for one in row.metrics]
        assert fields <= set(allowed), title
        seen += len(fields)
    assert seen > 20


@pytest.fixture(scope="module")
def filled(influx: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a server with an hour of everything the catalogue has, written by the store."""
    names = influx.bucket(), influx.bucket()
    settings = Settings(
        url=influx.url,
        org=influx.org,
        token=influx.token,
        bucket=names[0],
        rollup_bucket=influx.bucket(),
        delivery_bucket=names[1],
    )
    kinds: dict[str, Kind] = {kind.value: kind for kind in Kind if kind is not Kind.EDGE_NODE}
    with InfluxStore(tmp_path_factory.mktemp("hub"), settings, lambda key: kinds.get(key.device)) as store:
        made = Batch()
        for kind, row in CATALOG.items():
            key = DeviceKey("g", "n", "" if kind is Kind.EDGE_NODE else kind.value)
            named = [(one.name, one.datatype) for one in row.metrics]
            if kind is Kind.EDGE_NODE:
                named.append((f"{PRESENCE}camera", DataType.STRING))
            for name, datatype in named:
                series = store.series(key, name, datatype)
                for minute in range(60):
                    words = (ONLINE, "silent") if name.startswith(PRESENCE) else ("ok", "stuck")
                    value: Any = words[minute % 2] if datatype in TEXTS else minute % 2
                    column = made.texts if datatype in TEXTS else made.numbers if datatype in FLOATS else made.integers
                    mark = GOOD | (HISTORICAL_BIT if minute < 30 else 0)
                    column.put(
                        series, NOW - 60_000 * (60 - minute), float(value) if datatype in FLOATS else value, mark
                    )
        node, lineage = NodeKey("g", "n"), Lineage("log", 2, "camera")
        made.committed += [(node, lineage, 0, 9)]
        made.voids.append(Void(node=node, lineage=lineage, first=10, last=12, at=NOW))
        made.floors.append(FloorRaised(node=node, log="log", floor=1, over=(1,)))
        made.events.append(EventRow(key=DeviceKey("g", "n", "camera"), metric="e", at=1, received_at=2, value="on"))
        made.quarantined.append(
            Quarantined(key=DeviceKey("g", "n", "camera"), reason="bad", payload=b"x", received_at=2, samples=1)
        )
        store.commit(made, NOW)
        again = Batch()
        series = store.series(DeviceKey("g", "n", "water_probe"), "Water/pH", DataType.DOUBLE)
        again.numbers.put(series, NOW - 60_000 * 60, 99.0, GOOD)
        store.commit(again, NOW)
    return influx, names


@pytest.mark.parametrize("title", PANELS)
def test_a_panels_question_finds_something(filled: Any, title: str) -> None:
    server, (readings, delivery) = filled
    question = PANELS[title].replace('"readings"', f'"{readings}"').replace('"delivery"', f'"{delivery}"')
    for name, value in (("v.timeRangeStart", "-2h"), ("v.timeRangeStop", "now()"), ("v.windowPeriod", "5m")):
        question = question.replace(name, value)
    assert "v." not in question
    query = urllib.parse.urlencode({"org": server.org})
    request = urllib.request.Request(f"{server.url}/api/v2/query?{query}", question.encode())
    request.add_header("Authorization", f"Token {server.token}")
    request.add_header("Content-Type", "application/vnd.flux")
    request.add_header("Accept", "application/csv")
    with urllib.request.urlopen(request, timeout=20) as answer:
        told = answer.read().decode()
    assert "error" not in told.split("\r\n")[0], told
    rows = [one for one in told.split("\r\n") if one.startswith(",_result")]
    assert rows, title
