"""Every promise of reliability with its fault, as ``python -m benchmarks faults`` shows it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def faults(*words: str) -> subprocess.CompletedProcess[str]:
    """The command as a user gives it."""
    command = [sys.executable, "-m", "benchmarks", "faults", *words]
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=900)


@pytest.mark.long
def test_every_promise_has_a_row_and_every_row_holds(tmp_path: Path) -> None:
    done = faults("--quick", "--json", str(tmp_path / "faults.json"))
    rows = json.loads((tmp_path / "faults.json").read_text())["rows"]
    assert {row["promise"] for row in rows} == set(range(1, 23))
    assert [row for row in rows if not row["ok"]] == []
    assert done.returncode == 0


@pytest.mark.long
def test_a_promise_that_does_not_exist_is_refused() -> None:
    done = faults("--only", "4,23")
    assert done.returncode == 2
    assert done.stderr == "faults: --only: promises are 1..22, as in 4,15; got '23'\n"
