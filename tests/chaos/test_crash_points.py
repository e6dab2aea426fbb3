"""The embedded store killed at its own calls to the kernel, and cut from power between them: a part of all points.

`python -m tests.chaos.crash_points` and `python -m tests.chaos.power_loss` go through all of them.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def may_trace() -> bool:
    command = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "inject=fsync:retval=0:when=1", "true"]
    return (
        shutil.which("strace") is not None and subprocess.run(command, check=False, capture_output=True).returncode == 0
    )


pytestmark = [
    pytest.mark.skipif(not may_trace(), reason="crash points: strace is missing, or may not trace here"),
    pytest.mark.timeout(240),
]


def told(*arguments: str) -> tuple[int, Any]:
    command = [sys.executable, "-m", *arguments]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True, timeout=200)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_killed_at_any_sync_rename_or_unlink_the_store_keeps_what_it_acknowledged_once_and_unaltered() -> None:
    code, found = told("tests.chaos.crash_points", "--every", "13")
    assert found["wrong"] == []
    assert code == 0
    assert found["points"] > 150
    assert found["recoveries"] >= 5


def test_cut_from_power_at_any_sync_the_store_has_what_it_acknowledged() -> None:
    code, found = told("tests.chaos.power_loss", "--every", "9")
    assert found["first"] == []
    assert code == 0
    assert found["moments"] > 80


def test_the_power_loss_test_sees_a_store_that_does_not_sync() -> None:
    code, found = told("tests.chaos.power_loss", "--every", "9", "--without-sync")
    assert code == 1
    assert "not in the ledger" in found["first"][0]
