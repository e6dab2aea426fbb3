"""Servers to try the InfluxDB store on: a real one, and a double that answers like it, or as a test says."""

import json
import re
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from contract.catalog import Kind
from hub.storage.influxdb import InfluxStore, Settings

EMPTY = b"\r\n"
_LINE = re.compile(rb'((?:\\.|[^ \\])+) ((?:"(?:\\.|[^"\\])*"|\\.|[^ "\\])+) (-?\d+)')
_FIELD = re.compile(rb'((?:\\.|[^,=\\])+)=("(?:\\.|[^"\\])*"|[^,]+)')
_KINDS = ((rb"-?\d+i", "integer"), (rb"\d+u", "unsigned"), (rb"true|false", "boolean"), (rb'".*"', "string"))
_FLOAT = rb"-?\d+(\.\d+)?([eE][+-]?\d+)?"


@dataclass
class Double:
    """Answers writes as InfluxDB 2.x does, keeps what it took, and answers every question with nothing."""

    token: str = "token"
    org: str = "hamlet"
    url: str = ""
    buckets: dict[str, dict[tuple[bytes, bytes, int], bytes]] = field(default_factory=dict)
    types: dict[tuple[str, bytes, bytes], str] = field(default_factory=dict)
    retention: dict[str, int] = field(default_factory=dict)
    script: dict[str, list[int]] = field(default_factory=dict)
    """Statuses with which the next writes to a bucket are answered; 0: with nothing at all."""
    writes: dict[str, int] = field(default_factory=dict)
    may_make: bool = True

    def bucket(self, name: str) -> dict[tuple[bytes, bytes, int], bytes]:
        """Return what a bucket holds: by series, field and time, the value as written."""
        return self.buckets[name]

    def write(self, name: str, body: bytes, factor: int) -> tuple[int, str]:
        """Return status and message of a write."""
        self.writes[name] = self.writes.get(name, 0) + 1
        if self.script.get(name):
            return self.script[name].pop(0), "as the test said"
        if name not in self.buckets:
            return 404, f'bucket "{name}" not found'
        points, dropped, first = [], 0, ""
        for line in body.splitlines():
            match = _LINE.fullmatch(line)
            fields = [(one[1], one[2]) for one in _FIELD.finditer(match[2])] if match else []
            kinds = [_kind(value) for _, value in fields]
            if match is None or None in kinds:
                return 400, f"unable to parse '{line.decode()}': invalid number"
            points.append((match[1], int(match[3]) * factor, fields, kinds))
        for series, at, fields, kinds in points:
            measurement = series.partition(b",")[0]
            keep = self.retention.get(name, 0)
            if keep and at < (time.time() - keep) * 1e9:
                dropped += 1
                first = first or "partial write: dropped points outside retention policy"
                continue
            known = [
                self.types.get((name, measurement, one), kind) for (one, _), kind in zip(fields, kinds, strict=True)
            ]
            if known != kinds:
                dropped += 1
                first = first or f"partial write: field type conflict: on measurement {measurement.decode()!r}"
                continue
            for (one, value), kind in zip(fields, kinds, strict=True):
                self.types[name, measurement, one] = kind or ""
                self.buckets[name][series, one, at] = value
        return (422, f"failure writing points to database: {first} dropped={dropped}") if dropped else (204, "")


def _kind(value: bytes) -> str | None:
    known = next((name for pattern, name in _KINDS if re.fullmatch(pattern, value, re.DOTALL)), None)
    return known or ("float" if re.fullmatch(_FLOAT, value) else None)


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    double: Double
    ended: threading.Event

    def do_GET(self) -> None:
        path = urllib.parse.urlsplit(self.path)
        asked = dict(urllib.parse.parse_qsl(path.query))
        if path.path == "/ping":
            self._answer(204, b"")
        elif path.path == "/api/v2/orgs":
            self._answer(200, {"orgs": [{"id": "0", "name": self.double.org}]})
        elif path.path == "/api/v2/buckets" and self._known():
            name = asked["name"]
            if name not in self.double.buckets:
                self._answer(404, {"message": f'bucket "{name}" not found'})
            else:
                rules = [{"type": "expire", "everySeconds": self.double.retention.get(name, 0)}]
                self._answer(200, {"buckets": [{"id": name, "name": name, "retentionRules": rules}]})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        path = urllib.parse.urlsplit(self.path)
        asked = dict(urllib.parse.parse_qsl(path.query))
        if not self._known():
            return
        if path.path == "/api/v2/write":
            status, message = self.double.write(asked["bucket"], body, 1 if asked["precision"] == "ns" else 1_000_000)
            if status == 0:
                self.ended.wait(30)
                self.close_connection = True
                return
            self._answer(status, {"message": message} if message else b"")
        elif path.path == "/api/v2/query":
            self._answer(200, EMPTY)
        elif path.path == "/api/v2/buckets":
            if not self.double.may_make:
                self._answer(403, {"message": "insufficient permissions"})
                return
            told = json.loads(body)
            self.double.buckets[told["name"]] = {}
            self.double.retention[told["name"]] = told["retentionRules"][0]["everySeconds"]
            self._answer(201, {"id": told["name"], "name": told["name"], "retentionRules": told["retentionRules"]})

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""

    def _known(self) -> bool:
        if self.headers["Authorization"] == f"Token {self.double.token}":
            return True
        self._answer(401, {"message": "unauthorized access"})
        return False

    def _answer(self, status: int, body: object) -> None:
        told = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("X-Influxdb-Version", "v2.9.1")
        self.send_header("Content-Type", "application/json")
        if status != 204:
            self.send_header("Content-Length", str(len(told)))
        self.end_headers()
        if status != 204:
            self.wfile.write(told)


@pytest.fixture
def double() -> Iterator[Double]:
    answers = type("Answers", (_Answers,), {"double": Double(), "ended": threading.Event()})
    with ThreadingHTTPServer(("127.0.0.1", 0), answers) as server:
        server.daemon_threads = True
        told: Double = answers.double  # type: ignore[attr-defined]  # set above
        told.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield told
        answers.ended.set()  # type: ignore[attr-defined]  # set above
        server.shutdown()
        thread.join()


@dataclass
class Side:
    """A server, real or double, and a pair of buckets on it."""

    server: Any
    real: bool
    bucket: str
    delivery: str

    def open(self, folder: Path, **changed: Any) -> InfluxStore:
        """Return a store on it, not opened yet."""
        told = {"url": self.server.url, "org": self.server.org, "token": self.server.token}
        settings = Settings(
            **{
                **told,
                "bucket": self.bucket,
                "rollup_bucket": f"rollups-{self.bucket[-12:]}",
                "delivery_bucket": self.delivery,
                "write_seconds": 5.0,
                **changed,
            }
        )
        return InfluxStore(folder, settings, lambda key: Kind.WATER_PROBE)

    def put(self, bucket: str, line: str) -> None:
        """Write a line past the store."""
        query = urllib.parse.urlencode({"org": self.server.org, "bucket": bucket, "precision": "ms"})
        self._ask(f"/api/v2/write?{query}", line.encode())

    def fields(self, name: str) -> dict[int, str]:
        """Return what the readings' bucket holds of a field: by instant (ms), the value as told."""
        if not self.real:
            held = self.server.bucket(self.bucket)
            return {at // 1_000_000: value.decode() for (_, one, at), value in held.items() if one.decode() == name}
        question = f'from(bucket: "{self.bucket}") |> range(start: 0) |> filter(fn: (r) => r._field == "{name}")'
        query = urllib.parse.urlencode({"org": self.server.org})
        told = self._ask(
            f"/api/v2/query?{query}",
            f"{question} |> map(fn: (r) => ({{at: int(v: r._time), value: string(v: r._value)}}))".encode(),
            {"Content-Type": "application/vnd.flux", "Accept": "application/csv"},
        )
        rows = [one.split(",") for one in told.decode().split("\r\n") if one.startswith(",_result")]
        return {int(at) // 1_000_000: value for *_, at, value in rows}

    def drop(self, bucket: str) -> None:
        """Take a bucket away."""
        if not self.real:
            del self.server.buckets[bucket]
            return
        told = json.loads(self._ask(f"/api/v2/buckets?{urllib.parse.urlencode({'name': bucket})}"))
        self._ask(f"/api/v2/buckets/{told['buckets'][0]['id']}", method="DELETE")

    def _ask(
        self, path: str, body: bytes | None = None, headers: dict[str, str] | None = None, method: str | None = None
    ) -> bytes:
        request = urllib.request.Request(self.server.url + path, body, method=method)
        for name, value in {"Authorization": f"Token {self.server.token}", **(headers or {})}.items():
            request.add_header(name, value)
        with urllib.request.urlopen(request, timeout=10) as answer:
            told: bytes = answer.read()
            return told


@pytest.fixture(params=["influxdb", "double"])
def side(request: pytest.FixtureRequest) -> Side:
    """Each of both in turn: what a test says of one must be true of the other."""
    real = request.param == "influxdb"
    server = request.getfixturevalue("influx" if real else "double")
    names = (server.bucket(), server.bucket()) if real else ("readings", "delivery")
    return Side(server=server, real=real, bucket=names[0], delivery=names[1])


@pytest.fixture
def double_side(double: Double) -> Side:
    return Side(server=double, real=False, bucket="readings", delivery="delivery")


@pytest.fixture
def real_side(influx: Any) -> Side:
    return Side(server=influx, real=True, bucket=influx.bucket(), delivery=influx.bucket())


@pytest.fixture
def on() -> Callable[[Any], Side]:
    """Return a maker of sides for a server of a test's own."""
    return lambda server: Side(server=server, real=True, bucket="readings", delivery="delivery")
