"""The store that the configuration names."""

import sqlite3
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from pathlib import Path

from contract.catalog import Kind
from hub.config import Config, ConfigRefused
from hub.devices import DeviceKey
from hub.storage.embedded import EmbeddedStore
from hub.storage.influxdb import OURS, InfluxStore, Settings
from hub.storage.timeseries import TimeSeries

_WHOSE = (
    ("embedded", "inbox", "SELECT 1 FROM inbox LIMIT 1"),
    ("embedded", "segments", "SELECT 1 FROM segments LIMIT 1"),
    ("influxdb", "marks", f"SELECT 1 FROM marks WHERE name = '{OURS}'"),  # noqa: S608  # a word of ours
)


def store(config: Config, kind_of: Callable[[DeviceKey], Kind | None]) -> AbstractContextManager[TimeSeries]:
    """Return the store, not opened yet; raise ConfigRefused where the folder holds the books of the other kind.

    `kind_of` says what a device is; InfluxDB sorts what it gets by that.
    """
    folder, told, influx = config.hub.state_dir, config.store, config.store.influx
    whose = _whose(folder / "store.db")
    if whose not in {None, told.kind}:
        raise ConfigRefused(
            f"hub state_dir: {folder} holds what the {whose} store acknowledged, store kind is {told.kind!r}; name a"
            " new folder, and the edge nodes send what they still hold"
        )
    if influx is None:
        return EmbeddedStore(folder, retention_days=told.retention_days)
    token = influx.token_file.read_text(encoding="utf-8").strip()
    if not token:
        raise ConfigRefused(f"store influx.token_file: {influx.token_file} is empty; put the token into it")
    settings = Settings(
        url=influx.url,
        org=influx.org,
        token=token,
        bucket=influx.bucket,
        rollup_bucket=influx.rollup_bucket,
        delivery_bucket=influx.delivery_bucket,
        retention_days=told.retention_days,
        write_seconds=influx.write_seconds,
        query_seconds=influx.query_seconds,
    )
    return InfluxStore(folder, settings, kind_of)


def _whose(path: Path) -> str | None:
    """Return the kind of store that a file of books has served, None where it served none yet."""
    if not path.is_file():
        return None
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
        for kind, table, question in _WHOSE:
            there = database.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchone()
            if there and database.execute(question).fetchone():
                return kind
    return None
