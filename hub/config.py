"""What the hub is told in its one TOML file: read, checked, and refused with the way out."""

import ipaddress
import re
import tomllib
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from contract.topics import valid_id
from hub.trust import identity

SAMPLE = """\
# The hub: `hamlet-hub serve hub.toml`. Paths are relative to this file.

[hub]
host_id = "hamlet-hub"           # the Sparkplug host id that edge nodes wait for
state_dir = "state"              # readings, ledger, announcements, audit
listen = "127.0.0.1"             # beyond loopback only with TLS, or behind proxies named below
port = 8080                      # 0: a free one, told in the status file
# names = ["loa.anthanh.vn"]     # the names people and boxes reach it by, besides localhost
# tls_certificate = "hub.crt"    # with its chain; both or neither
# tls_key = "hub.key"
# trusted_proxies = ["10.0.0.2"] # whose word counts for where a request came from, and whether by TLS
loopback_metrics = true          # /metrics without a token, from this machine only
clock = "ntp"                    # "ntp": acknowledge only while the kernel is synchronised; "trusted": always
language = "vi"                  # "vi" or "en", for people whose browser does not say
status_file = "status.json"      # optional: the address, once ready

[broker]
host = "127.0.0.1"
port = 1883
keep_alive_seconds = 30
reorder_seconds = 5              # how long a gap in a node's messages may stay open before a rebirth is asked for
# username = "hub"
# password_file = "broker.password"

[store]
kind = "embedded"                # "embedded": files in state_dir; "influxdb": an InfluxDB 2.x server
retention_days = 1100            # older readings are let go

# [store.influx]                 # with kind = "influxdb"
# url = "http://127.0.0.1:8086"
# org = "hamlet"
# token_file = "influx.token"    # may read and write these buckets, and make them where they are not there yet
# bucket = "readings"
# rollup_bucket = "rollups"      # what readings amount to in each hour
# delivery_bucket = "delivery"   # what was acknowledged: keeps for ever, and is backed up together with the others
# write_seconds = 10             # how long a write, or a question, may take
# query_seconds = 60

[broadcast]                      # without it nothing can be announced
signer_socket = "signer.sock"    # of `hamlet-hub signer`
roots = ["root.json"]            # the province's root and its successors, oldest first
bundle = "bundle.json"           # the signed trust bundle, passed on to edge nodes

[audit]
heads_file = "audit-heads.jsonl" # optional: each hour the newest hash of the audit; let another machine keep a copy

[[edge_nodes]]
group = "c7k2m"
id = "c7k2m-01"
commune = "Xã An Thạnh"
hamlet = "Ấp Bình Hòa"
identity = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="   # the box's public identity key
"""


_LOGIN = re.compile(r"//[^/@]*@")
"""A login in an address: not to be said again in an error."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class HubConfig(_Strict):
    """The server itself."""

    host_id: Annotated[str, Field(min_length=1, max_length=40)]
    state_dir: Path
    listen: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65_535)
    names: list[Annotated[str, Field(pattern=r"^[A-Za-z0-9.\-\[\]:]{1,253}$")]] = []
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    trusted_proxies: list[str] = []
    loopback_metrics: bool = True
    clock: Literal["ntp", "trusted"] = "ntp"
    language: Literal["vi", "en"] = "vi"
    status_file: Path | None = None

    @field_validator("host_id")
    @classmethod
    def _may_stand_in_a_topic(cls, text: str) -> str:
        if not valid_id(text):
            raise ValueError("must not contain blanks, '/', '+' or '#'")
        return text

    @field_validator("trusted_proxies")
    @classmethod
    def _are_addresses(cls, addresses: list[str]) -> list[str]:
        for one in addresses:
            try:
                ipaddress.ip_network(one)
            except ValueError as exc:
                raise ValueError(f'{one!r} is no address or network such as "10.0.0.2" or "10.0.0.0/24"') from exc
        return addresses

    @model_validator(mode="after")
    def _passwords_never_travel_in_the_clear(self) -> "HubConfig":
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("hub: tls_certificate and tls_key belong together; name both or neither")
        try:
            loopback = ipaddress.ip_address(self.listen).is_loopback
        except ValueError as exc:
            raise ValueError(f'hub listen: {self.listen!r} is no address such as "127.0.0.1"') from exc
        if not loopback and self.tls_certificate is None and not self.trusted_proxies:
            raise ValueError(
                f"hub listen: {self.listen} is reachable from outside, where passwords need TLS; name tls_certificate"
                ' and tls_key, or trusted_proxies that bring TLS, or listen on "127.0.0.1"'
            )
        return self


class BrokerConfig(_Strict):
    """The MQTT broker."""

    host: str = "127.0.0.1"
    port: int = Field(default=1883, ge=1, le=65_535)
    keep_alive_seconds: int = Field(default=30, ge=5, le=600)
    reorder_seconds: float = Field(default=5, ge=0, le=60)
    username: str | None = None
    password_file: Path | None = None


class InfluxConfig(_Strict):
    """An InfluxDB 2.x server."""

    url: str
    org: Annotated[str, Field(min_length=1, max_length=100)]
    token_file: Path
    bucket: Annotated[str, Field(min_length=1, max_length=100)] = "readings"
    rollup_bucket: Annotated[str, Field(min_length=1, max_length=100)] = "rollups"
    delivery_bucket: Annotated[str, Field(min_length=1, max_length=100)] = "delivery"
    write_seconds: float = Field(default=10, ge=1, le=300)
    query_seconds: float = Field(default=60, ge=1, le=3600)

    @field_validator("url")
    @classmethod
    def _is_an_address(cls, text: str) -> str:
        told = urlsplit(text)
        if told.scheme not in {"http", "https"} or not told.hostname or told.path.strip("/") or told.query:
            raise ValueError('must be an address such as "http://127.0.0.1:8086"')
        if "@" in told.netloc:
            raise ValueError("must have no password in it; the token goes into the file named by token_file")
        return text.rstrip("/")

    @field_validator("bucket", "rollup_bucket", "delivery_bucket")
    @classmethod
    def _may_be_a_bucket(cls, text: str) -> str:
        if text.startswith("_") or '"' in text:
            raise ValueError("must not begin with '_' or contain '\"'")
        return text

    @model_validator(mode="after")
    def _three_buckets(self) -> "InfluxConfig":
        names = [self.bucket, self.rollup_bucket, self.delivery_bucket]
        twice = [one for one in names if names.count(one) > 1]
        if twice:
            raise ValueError(f"bucket, rollup_bucket and delivery_bucket must differ; {twice[0]!r} is named twice")
        return self


class StoreConfig(_Strict):
    """Where readings are kept, and for how long."""

    kind: Literal["embedded", "influxdb"] = "embedded"
    retention_days: int = Field(default=1100, ge=60, le=36_500)
    influx: InfluxConfig | None = None

    @model_validator(mode="after")
    def _names_its_server(self) -> "StoreConfig":
        if self.kind == "influxdb" and self.influx is None:
            raise ValueError('kind = "influxdb" needs a section [store.influx]; `hamlet-hub sample-config` shows one')
        if self.kind == "embedded" and self.influx is not None:
            raise ValueError('[store.influx] is there but kind is "embedded": say kind = "influxdb", or remove it')
        return self


class BroadcastConfig(_Strict):
    """The signer, and the trust that is passed on."""

    signer_socket: Path
    roots: list[Path] = Field(min_length=1)
    bundle: Path


class AuditConfig(_Strict):
    """The record of acts."""

    heads_file: Path | None = None


class EdgeNodeConfig(_Strict):
    """An edge node and the place it stands for."""

    group: Annotated[str, Field(min_length=1, max_length=40)]
    id: Annotated[str, Field(min_length=1, max_length=40)]
    commune: Annotated[str, Field(min_length=1, max_length=100)]
    hamlet: Annotated[str, Field(min_length=1, max_length=100)]
    identity: str | None = None

    @field_validator("group", "id")
    @classmethod
    def _may_stand_in_a_topic(cls, text: str) -> str:
        if not valid_id(text):
            raise ValueError("must not contain blanks, '/', '+' or '#'")
        return text

    @field_validator("identity")
    @classmethod
    def _is_a_key(cls, text: str | None) -> str | None:
        if text is not None:
            identity(text)
        return text


class Config(_Strict):
    """A whole file; paths are absolute after `load`."""

    hub: HubConfig
    broker: BrokerConfig = BrokerConfig()
    store: StoreConfig = StoreConfig()
    broadcast: BroadcastConfig | None = None
    audit: AuditConfig = AuditConfig()
    edge_nodes: list[EdgeNodeConfig] = []

    @model_validator(mode="after")
    def _each_node_once(self) -> "Config":
        names = [one.id for one in self.edge_nodes]
        twice = sorted({one for one in names if names.count(one) > 1})
        if twice:
            raise ValueError(f"edge_nodes: id {twice[0]!r} is used twice; it must be unique in the whole deployment")
        return self


class ConfigRefused(ValueError):
    """What is wrong with a file, one line per fault."""


def load(path: Path) -> Config:
    """Return the configuration; raise ConfigRefused naming file, key, value and the way out. Opens nothing else."""
    try:
        told = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise ConfigRefused(f"{path}: {exc}") from exc
    try:
        config = Config.model_validate(told)
    except ValidationError as exc:
        raise ConfigRefused("\n".join(f"{path}: {_sentence(dict(one))}" for one in exc.errors())) from exc
    return _absolute(config, path.resolve().parent)


def problems(config: Config) -> list[str]:
    """Return what is missing on this machine for the configuration to work, a sentence each."""
    wanted: list[tuple[str, Path]] = []
    if config.broker.password_file is not None:
        wanted.append(("broker password_file", config.broker.password_file))
    if config.store.influx is not None:
        wanted.append(("store influx.token_file", config.store.influx.token_file))
    if config.broadcast is not None:
        wanted += [("broadcast roots", one) for one in config.broadcast.roots]
        wanted.append(("broadcast bundle", config.broadcast.bundle))
    for key, named in (("tls_certificate", config.hub.tls_certificate), ("tls_key", config.hub.tls_key)):
        wanted += [(f"hub {key}", named)] if named is not None else []
    missing = [f"{what}: there is no file {file}" for what, file in wanted if not file.is_file()]
    folder = config.hub.state_dir
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as exc:
        missing.append(f"hub state_dir: {folder} cannot be written ({exc.strerror}); choose another or mend its rights")
    return missing


def _absolute(config: Config, folder: Path) -> Config:
    hub, broker, broadcast = config.hub, config.broker, config.broadcast
    status = folder / hub.status_file if hub.status_file else None
    password = folder / broker.password_file if broker.password_file else None
    if broadcast is not None:
        broadcast = broadcast.model_copy(
            update={
                "signer_socket": folder / broadcast.signer_socket,
                "roots": [folder / one for one in broadcast.roots],
                "bundle": folder / broadcast.bundle,
            }
        )
    store = config.store
    if store.influx is not None:
        influx = store.influx.model_copy(update={"token_file": folder / store.influx.token_file})
        store = store.model_copy(update={"influx": influx})
    heads = folder / config.audit.heads_file if config.audit.heads_file else None
    return config.model_copy(
        update={
            "store": store,
            "audit": config.audit.model_copy(update={"heads_file": heads}),
            "hub": hub.model_copy(
                update={
                    "state_dir": folder / hub.state_dir,
                    "status_file": status,
                    "tls_certificate": folder / hub.tls_certificate if hub.tls_certificate else None,
                    "tls_key": folder / hub.tls_key if hub.tls_key else None,
                }
            ),
            "broker": broker.model_copy(update={"password_file": password}),
            "broadcast": broadcast,
        }
    )


def _sentence(error: dict[str, object]) -> str:
    location = error["loc"]
    assert isinstance(location, tuple)  # noqa: S101  # pydantic's error details
    where = ".".join(map(str, location)) or "the file"
    if error["type"] == "extra_forbidden":
        return f"{where}: no such key; `hamlet-hub sample-config` shows all"
    if error["type"] == "missing":
        return f"{where}: is missing; `hamlet-hub sample-config` shows what it looks like"
    message = str(error["msg"]).removeprefix("Value error, ")
    got = "" if isinstance(error["input"], dict) else f" (got {_LOGIN.sub('//…@', repr(error['input'])):.80})"
    return message if not location else f"{where}: {message}{got}"
