"""A newcomer's first command, whole: what it promises of accuracy, size and the outage."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.long
def test_the_demo_keeps_its_promises(tmp_path: Path) -> None:
    words = ("demo", "--json", "--images", "150", "--out", str(tmp_path / "demo"))
    command = [sys.executable, "-m", "presplit", *words]
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1
    result = json.loads(done.stdout)
    assert result["sparse_weights"] <= result["dense_weights"] / 4
    by_way = {row["way"]: row for row in result["table"]}
    lost = result["dense_accuracy"] - by_way["edge"]["accuracy"]
    assert lost <= 0.03  # 2 points, and a little for 150 images
    assert result["outage"]["lost"] == 0
    assert by_way[result["planned"]]["mean_s"] < by_way["dense-edge"]["mean_s"]
    assert (tmp_path / "demo" / "report.html").exists()


def test_a_data_set_that_the_demo_does_not_know_is_refused(command) -> None:
    code, out, problem = command("demo", "--data", "mnits")
    assert (code, out) == (2, "")
    assert "--data: no data set of the demo named 'mnits' (nearest: mnist)" in problem
