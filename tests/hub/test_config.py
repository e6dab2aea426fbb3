"""What the hub's file may say, and how it is refused: golden folders under tests/cases/config/hub."""

import os
import sqlite3
from pathlib import Path

import pytest

from contract.catalog import Kind
from hub import chosen
from hub.config import SAMPLE, ConfigRefused, load, problems
from hub.devices import DeviceKey
from hub.storage.embedded import EmbeddedStore
from hub.storage.influxdb import InfluxStore

CASES = sorted((Path(__file__).parents[1] / "cases" / "config" / "hub").iterdir())

HUB = """
[hub]
host_id = "hub"
state_dir = "state"
"""

INFLUX = """
[store]
kind = "influxdb"
[store.influx]
url = "http://127.0.0.1:1"
org = "hamlet"
token_file = "influx.token"
"""


def _do(books: sqlite3.Connection, sql: str) -> None:
    books.execute(sql)


def kind_of(key: DeviceKey) -> Kind | None:
    return None


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_wrong_file_is_refused_naming_key_value_and_way_out(case: Path) -> None:
    with pytest.raises(ConfigRefused) as caught:
        load(case / "hub.toml")
    said = str(caught.value).replace(str(case) + os.sep, "")
    assert said.splitlines() == (case / "error.txt").read_text(encoding="utf-8").splitlines()


def test_the_commented_server_of_the_sample_is_good(tmp_path: Path) -> None:
    file = tmp_path / "hub.toml"
    begin = SAMPLE.index("# [store.influx]")
    end = SAMPLE.index("[broadcast]")
    file.write_text(HUB + '[store]\nkind = "influxdb"\n' + SAMPLE[begin:end].replace("# ", "", 1).replace("\n# ", "\n"))
    influx = load(file).store.influx
    assert influx is not None
    assert influx.token_file == tmp_path / "influx.token"
    assert any("influx.token" in one for one in problems(load(file)))


def test_an_empty_token_is_named_by_its_file(tmp_path: Path) -> None:
    (tmp_path / "hub.toml").write_text(HUB + INFLUX)
    (tmp_path / "influx.token").write_text(" \n")
    with pytest.raises(ConfigRefused, match=r"influx\.token is empty"):
        chosen.store(load(tmp_path / "hub.toml"), kind_of)


def test_a_token_is_in_no_settings_that_are_printed(tmp_path: Path) -> None:
    (tmp_path / "hub.toml").write_text(HUB + INFLUX)
    (tmp_path / "influx.token").write_text("a-secret\n")
    store = chosen.store(load(tmp_path / "hub.toml"), kind_of)
    assert isinstance(store, InfluxStore)
    assert "a-secret" not in repr(store._settings)


def test_no_store_opens_the_books_of_the_other_kind(tmp_path: Path) -> None:
    (tmp_path / "influx.token").write_text("token")
    embedded, influxdb = tmp_path / "embedded.toml", tmp_path / "influxdb.toml"
    embedded.write_text(HUB)
    influxdb.write_text(HUB + INFLUX)
    one = chosen.store(load(embedded), kind_of)
    assert isinstance(one, EmbeddedStore)
    with one:
        one._books.write(lambda books: _do(books, "INSERT INTO inbox VALUES (1, 1, 0, x'00')"))
    with pytest.raises(ConfigRefused, match="holds what the embedded store acknowledged"):
        chosen.store(load(influxdb), kind_of)
    with EmbeddedStore(tmp_path / "other") as store:
        store._books.write(lambda books: _do(books, "INSERT INTO marks VALUES ('influxdb', 1)"))
    (tmp_path / "state").rename(tmp_path / "aside")
    (tmp_path / "other").rename(tmp_path / "state")
    with pytest.raises(ConfigRefused, match="holds what the influxdb store acknowledged"):
        chosen.store(load(embedded), kind_of)
