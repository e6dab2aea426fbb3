"""The stores that are held to the promises: each test of a store runs against every one that can be had."""

import hashlib
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from contract.catalog import Kind
from hub.storage.embedded import EmbeddedStore
from hub.storage.influxdb import InfluxStore, Settings
from hub.storage.timeseries import TimeSeries


@dataclass(frozen=True, slots=True, kw_only=True)
class Opener:
    """Opens one kind of store; what was committed in a place is there when it is opened again."""

    kind: str
    server: Any
    folder: Path

    def fresh(self) -> "Opener":
        """Return an opener of a place where nothing is yet."""
        return replace(self, folder=self.folder / uuid.uuid4().hex)

    def __call__(self) -> AbstractContextManager[TimeSeries]:
        if self.kind == "embedded":
            return EmbeddedStore(self.folder)
        name = hashlib.sha256(str(self.folder).encode()).hexdigest()[:16]
        settings = Settings(
            url=self.server.url,
            org=self.server.org,
            token=self.server.token,
            bucket=f"readings-{name}",
            rollup_bucket=f"rollups-{name}",
            delivery_bucket=f"delivery-{name}",
        )
        return InfluxStore(self.folder, settings, lambda key: Kind.WATER_PROBE)


@pytest.fixture(params=["embedded", "influxdb"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    server = request.getfixturevalue("influx") if request.param == "influxdb" else None
    return Opener(kind=request.param, server=server, folder=tmp_path)


@pytest.fixture
def store(opened: Opener) -> Iterator[TimeSeries]:
    with opened() as one:
        yield one
