"""`presplit train --resume` after `kill -9`: the run ends as if nothing had happened.

The run of another spec is refused.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

TRAIN = [sys.executable, "-m", "presplit", "train"]
OPTIONS = [
    "--layers",
    "64",
    "--layers",
    "64",
    "--layers",
    "32",
    "--layers",
    "10",
    "--density",
    "0.25",
    "--after",
    "relu1",
]
MORE = ["--epochs", "30", "--set", "training.ema=0.9", "--set", "training.regime=mixed"]


def result(directory: Path) -> dict[str, object]:
    return json.loads((directory / "result.json").read_text())


def test_a_killed_run_is_resumed_and_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    run, whole = tmp_path / "run", tmp_path / "whole"
    process = subprocess.Popen(
        [*TRAIN, *OPTIONS, *MORE, "--out", str(run)], stderr=subprocess.DEVNULL
    )
    metrics = run / "metrics.jsonl"
    while process.poll() is None and (
        not metrics.exists() or len(metrics.read_text().splitlines()) < 3
    ):
        time.sleep(0.01)
    process.kill()
    assert (
        process.wait() == -9
        and (run / "state.safetensors").exists()
        and not (run / "result.json").exists()
    )
    subprocess.run([*TRAIN, "--resume", "--out", str(run)], check=True, capture_output=True)
    subprocess.run([*TRAIN, *OPTIONS, *MORE, "--out", str(whole)], check=True, capture_output=True)
    assert result(run) == result(whole)
    assert (run / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert len(metrics.read_text().splitlines()) == 30
    other = [*TRAIN, *OPTIONS, *MORE, "--seed", "1", "--resume", "--out", str(run)]
    refused = subprocess.run(other, capture_output=True, text=True, check=False)
    assert (
        refused.returncode == 2
        and "seed was 0, now it is 1; resume it as it was begun" in refused.stderr
    )
