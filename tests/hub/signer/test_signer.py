"""What the signer signs for a web process that may have been broken into, and what it remembers."""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from contract.broadcast import Class, Envelope, Order, as_key, read, verified
from contract.dsse import public_bytes
from hub.signer.ceremony import write_key
from hub.signer.config import SAMPLE, SignerConfigRefused, load
from hub.signer.process import Signer, load_key

KEY = Ed25519PrivateKey.from_private_bytes(b"s" * 32)
PLAY = {
    "do": "make",
    "action": "play",
    "issuer": "local",
    "why": "a test",
    "program": [{"step": "speech", "sha256": "0" * 64, "bytes": 9, "media_type": "audio/flac", "duration_ms": 4000}],
    "text": "Xin chào",
    "targets": ["n-01", "n-02"],
    "volume": 60,
    "expires_in_s": 600,
    "start_within_s": 600,
}
STOP = {
    "do": "make",
    "action": "stop",
    "issuer": "local",
    "stops": ["a" * 32],
    "targets": ["n-01"],
    "volume": 0,
    "expires_in_s": 600,
    "start_within_s": 600,
}


@pytest.fixture
def start(tmp_path: Path, clock: Any) -> Callable[[], Signer]:
    """Return a starter of signers that share key and log, as one does across restarts."""
    write_key(tmp_path / "signer.pem", KEY)
    (tmp_path / "signer.toml").write_text(SAMPLE, encoding="utf-8")
    config = load(tmp_path / "signer.toml")
    return lambda: Signer(config, load_key(config.key), clock)


def ask(signer: Signer, request: dict[str, Any] | bytes) -> dict[str, Any]:
    return signer.answer(request if isinstance(request, bytes) else json.dumps(request).encode())


def wrap(order: str, **change: Any) -> dict[str, Any]:
    told = {"do": "wrap", "order": order, "node": "n-01", "speakers": ["loa-1"], "challenge": None, "min_bundle": 1}
    return {**told, **change}


def log(tmp_path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tmp_path / "signer.log").read_text(encoding="utf-8").splitlines()]


def test_it_makes_the_order_itself_and_only_for_the_normal_class(start: Callable[[], Signer], clock: Any) -> None:
    answer = ask(start(), PLAY)
    order = read(Order, base64.b64decode(answer["order"]))
    assert order.id == answer["id"]
    assert order.class_ is Class.NORMAL
    assert order.deployment == "smart-hamlet-demo"
    assert order.expires_at == clock.now_ms() + 600_000


def test_an_envelope_carries_the_very_bytes_that_were_made(start: Callable[[], Signer]) -> None:
    signer = start()
    made = ask(signer, PLAY)
    envelope = verified(
        Envelope, ask(signer, wrap(made["id"], challenge="c" * 32))["envelope"], [as_key(public_bytes(KEY))]
    )
    assert envelope.order == made["order"]
    assert (envelope.node, envelope.speakers, envelope.challenge) == ("n-01", ("loa-1",), "c" * 32)


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        ({**PLAY, "class": "emergency"}, "class"),
        ({**PLAY, "deployment": "other"}, "deployment"),
        ({**PLAY, "id": "a" * 32}, "id"),
        ({**PLAY, "volume": 81}, "volume 81 is over 80"),
        ({**PLAY, "expires_in_s": 601}, "expires_in_s 601 is over 600"),
        ({**PLAY, "program": [{**PLAY["program"][0], "duration_ms": 600_001}]}, "are over 600 s"),  # type: ignore[index]  # a list
        ({**PLAY, "program": []}, "needs a programme"),
        ({**PLAY, "stops": ["a" * 32]}, "needs a programme"),
        ({**STOP, "stops": []}, "needs orders to stop"),
        ({**PLAY, "volume": "60"}, "volume"),
        (json.dumps(PLAY).encode().replace(b'"volume": 60', b'"volume": 60, "volume": 80'), "stands twice"),
        (json.dumps(PLAY).encode().replace(b'"volume": 60', b'"volume": NaN'), "NaN"),
        (b"[" * 10_000, "not JSON"),
        ({"do": "reveal"}, "do"),
        (wrap("b" * 32), "was not made here"),
    ],
)
def test_what_goes_beyond_is_refused_with_a_sentence(
    start: Callable[[], Signer], request_: dict[str, Any] | bytes, reason: str
) -> None:
    answer = ask(start(), request_)
    assert reason in answer["error"]


def test_an_order_goes_only_to_the_edge_nodes_it_was_made_for_and_only_in_its_time(
    start: Callable[[], Signer], clock: Any
) -> None:
    signer = start()
    made = ask(signer, PLAY)["id"]
    assert "is not for 'n-03'" in ask(signer, wrap(made, node="n-03"))["error"]
    clock.wall += 600_001
    assert "has expired" in ask(signer, wrap(made))["error"]


def test_too_many_orders_are_refused_and_a_stop_is_never_too_many(start: Callable[[], Signer], clock: Any) -> None:
    signer = start()
    for _ in range(20):
        assert "error" not in ask(signer, PLAY)
    assert "within a minute" in ask(signer, PLAY)["error"]
    assert "within a minute" in ask(start(), PLAY)["error"], "a restart does not reset the count"
    assert "error" not in ask(signer, STOP)
    clock.wall += 60_000
    assert "error" not in ask(signer, PLAY)


def test_a_clock_that_was_ahead_does_not_keep_it_silent(start: Callable[[], Signer], clock: Any) -> None:
    clock.wall += 10 * 365 * 86_400_000
    signer = start()
    for _ in range(20):
        ask(signer, PLAY)
    clock.wall -= 10 * 365 * 86_400_000
    made = ask(signer, PLAY)
    before = json.loads(base64.b64decode(json.loads(ask(signer, wrap(made["id"]))["envelope"])["payload"]))
    after = json.loads(base64.b64decode(json.loads(ask(start(), wrap(made["id"]))["envelope"])["payload"]))
    assert after["sequence"] > before["sequence"], "the sequence only rises, also across a restart"


def test_it_wraps_after_a_restart_what_it_made_before(start: Callable[[], Signer]) -> None:
    made = ask(start(), {**PLAY, "text": "Dòng một\u2028dòng hai\x85dòng ba"})
    assert "envelope" in ask(start(), wrap(made["id"]))


def test_every_order_is_in_its_log_with_who_and_why(start: Callable[[], Signer], tmp_path: Path) -> None:
    signer = start()
    made = ask(signer, PLAY)
    ask(signer, wrap(made["id"]))
    ask(signer, {**PLAY, "volume": 100})
    first, second, third = log(tmp_path)
    assert (first["do"], first["issuer"], first["why"], first["text"]) == ("make", "local", "a test", "Xin chào")
    assert (second["do"], second["id"], second["node"]) == ("wrap", made["id"], "n-01")
    assert (third["do"], third["why"]) == ("refused", "volume 100 is over 80")
    assert (tmp_path / "signer.log").stat().st_mode & 0o777 == 0o600


def test_a_line_torn_by_a_power_cut_costs_nothing_but_itself(start: Callable[[], Signer], tmp_path: Path) -> None:
    ask(start(), PLAY)
    with (tmp_path / "signer.log").open("ab") as out:
        out.write('{"at": 1, "do": "make", "text": "Xin chà'.encode()[:-1])
    made = ask(start(), PLAY)
    assert "envelope" in ask(start(), wrap(made["id"]))


def test_what_cannot_be_written_down_is_not_signed(
    start: Callable[[], Signer], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    signer = start()
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, signer._log)
    os.close(full)
    assert "make room on its disk" in ask(signer, PLAY)["error"]
    assert "nothing is signed" in caplog.text
    assert signer._orders == {}


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    write_key(tmp_path / "key.pem", KEY)
    assert load_key(tmp_path / "key.pem").private_bytes_raw() == KEY.private_bytes_raw()
    (tmp_path / "key.pem").chmod(0o640)
    with pytest.raises(SignerConfigRefused, match="chmod 600"):
        load_key(tmp_path / "key.pem")
    (tmp_path / "key.pem").write_text("no key")
    (tmp_path / "key.pem").chmod(0o600)
    with pytest.raises(SignerConfigRefused, match="key"):
        load_key(tmp_path / "key.pem")


def test_the_process_that_holds_the_key_loads_no_server_and_no_store() -> None:
    ask_python = (
        "import hub.__main__, sys; print(sorted({'fastapi', 'uvicorn', 'duckdb', 'paho', 'av'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", ask_python], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
