"""The line to an InfluxDB 2.x server: writes, questions, buckets. The one file that knows its client library.

Every request has a deadline. What server or network do becomes an Answer, or StoreUnavailable with a sentence that says
what to do; the token is in none of them.
"""

import json
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import urllib3
from influxdb_client import BucketRetentionRules, Dialect, InfluxDBClient, WritePrecision
from influxdb_client.client.exceptions import InfluxDBError
from influxdb_client.client.write_api import SYNCHRONOUS
from influxdb_client.rest import ApiException

from hub.storage.influx_answers import Answer, Verdict, read_answer
from hub.storage.timeseries import StoreUnavailable

log = logging.getLogger(__name__)

MILLISECONDS, NANOSECONDS = WritePrecision.MS, WritePrecision.NS

_DIALECT = Dialect(header=True, annotations=["datatype"], delimiter=",", comment_prefix="#")
_DISK = re.compile(r'^storage_shard_disk_size\{bucket="(\w+)".*\} ([0-9.e+]+)$', re.MULTILINE)


class InfluxServer:
    """One organisation of a server, through two clients: one that writes, and one that may wait longer for answers."""

    def __init__(self, *, url: str, org: str, token: str, write_seconds: float, query_seconds: float) -> None:
        self.url = url
        self._org = org
        self._writer, self._asker = (
            InfluxDBClient(url=url, token=token, org=org, timeout=int(seconds * 1000), retries=False)
            for seconds in (write_seconds, query_seconds)
        )
        self._write = self._writer.write_api(write_options=SYNCHRONOUS)
        self._query = self._asker.query_api()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._write.close()
        self._writer.close()
        self._asker.close()

    def version(self) -> str:
        """Return the server's version, such as "2.9.1"; raise StoreUnavailable."""
        with self._said():
            return str(self._writer.version()).removeprefix("v")

    def write(self, bucket: str, lines: str, precision: str = MILLISECONDS) -> Answer:
        """Write lines and return what became of them; raise StoreUnavailable where nothing can be written now."""
        try:
            with self._said(bucket):
                self._write.write(bucket, self._org, lines.encode(), write_precision=precision)  # type: ignore[arg-type]  # constants, no enum
        except _Told as told:
            return told.answer
        return Answer(verdict=Verdict.STORED)

    def ask(self, question: str) -> bytes:
        """Return the answer to a question in Flux as annotated CSV; raise StoreUnavailable."""
        try:
            with self._said():
                answer: bytes = self._query.query_raw(question, self._org, _DIALECT).data
        except _Told as told:
            raise StoreUnavailable(f"{self.url} does not answer a question: {told.answer.message}") from told
        return answer

    def provide(self, retention_seconds: Mapping[str, int]) -> None:
        """Make each bucket that is missing and set how long it keeps, 0 being for ever; raise StoreUnavailable.

        A token that may not is no fault here: what is written to a bucket that is not there says so itself.
        """
        for name, seconds in retention_seconds.items():
            try:
                with self._said(name):
                    self._provide(name, seconds)
            except _Told as told:
                raise StoreUnavailable(f"{self.url}: bucket {name!r}: {told.answer.message}") from told
            except Misconfigured as exc:
                if exc.status != 403:
                    raise
                log.warning("InfluxDB: the token may not look after bucket %r: %s", name, exc)

    def _provide(self, name: str, seconds: int) -> None:
        buckets = self._writer.buckets_api()
        rules = [BucketRetentionRules(type="expire", every_seconds=seconds)]
        try:
            (found,) = buckets.find_buckets(name=name, org=self._org).buckets
        except ApiException as exc:
            if exc.status != 404:
                raise
            buckets.create_bucket(bucket_name=name, retention_rules=rules, org=self._org)
            log.info("InfluxDB: made bucket %r", name)
            return
        if (found.retention_rules[0].every_seconds if found.retention_rules else 0) != seconds:
            found.retention_rules = rules
            buckets.update_bucket(found)
            log.info("InfluxDB: bucket %r now keeps %d s (0: for ever)", name, seconds)

    def bytes_on_disk(self, *buckets: str) -> int:
        """Return what the server says its files of these buckets take, 0 where it does not say."""
        try:
            with self._said():
                ids = {one.id for name in buckets for one in self._writer.buckets_api().find_buckets(name=name).buckets}
                told = self._writer.api_client.call_api(
                    "/metrics", "GET", response_type="str", _return_http_data_only=True
                )
        except (_Told, StoreUnavailable):
            return 0
        return sum(int(float(size)) for bucket, size in _DISK.findall(told) if bucket in ids)

    @contextmanager
    def _said(self, bucket: str = "") -> Iterator[None]:
        """Turn what the client raises into _Told, Misconfigured or StoreUnavailable."""
        try:
            yield
        except ApiException as exc:
            answer = read_answer(exc.status or 0, _message(exc))
            match answer.verdict:
                case Verdict.MISCONFIGURED:
                    raise Misconfigured(_advice(exc.status, self.url, bucket, answer.message), exc.status) from None
                case Verdict.LATER:
                    raise StoreUnavailable(f"{self.url} does not take anything now: {answer.message}") from None
            raise _Told(answer) from None
        except InfluxDBError as exc:  # without an answer it is the organisation that the client did not find
            raise Misconfigured(_advice(404, self.url, bucket, _short(exc)), 404) from None
        except (urllib3.exceptions.HTTPError, OSError) as exc:
            raise StoreUnavailable(f"{self.url}: {_short(exc)}") from exc


class Misconfigured(StoreUnavailable):
    """Nothing is stored until somebody changes a setting; the text says which."""

    def __init__(self, sentence: str, status: int) -> None:
        super().__init__(sentence)
        self.status = status


class _Told(Exception):
    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.message)
        self.answer = answer


def _message(exc: ApiException) -> str:
    """Return what the server said; never a header, for those may come from anywhere on the way."""
    try:
        told = json.loads(exc.body or "")
        return str(told["message"])
    except (KeyError, TypeError, ValueError):
        return str(exc.reason or "")


def _advice(status: int, url: str, bucket: str, message: str) -> str:
    if status == 401:
        return f"{url} does not know the token ({message}); put a valid one into the file named by influx.token_file"
    if status == 403:
        return f"{url}: the token may not do this to bucket {bucket!r} ({message}); give it read and write rights"
    if status == 404:
        return f"{url} has no such bucket or organisation ({message}); look at influx.org and the bucket names"
    return f"{url} does not answer as InfluxDB 2.x does ({message}); look at influx.url"


def _short(exc: Exception) -> str:
    """Return the cause in a line, without the address in memory that urllib3 puts before it."""
    return " ".join(str(exc).split())[:200]
