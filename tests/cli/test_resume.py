"""`presplit train --resume` after `kill -9`: the run ends as if nothing had happened.

The run of another spec is refused.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

Command = Callable[..., tuple[int, str, str]]
TRAIN = [sys.executable, "-m", "presplit", "train"]
LAYERS = [word for size in ("64", "64", "32", "10") for word in ("--layers", size)]
OPTIONS = [*LAYERS, "--density", "0.25", "--after", "relu1", "--set", "data.validation=0.4"]
MORE = ["--epochs", "12", "--set", "training.ema=0.9", "--set", "training.regime=mixed"]


def result(directory: Path) -> dict[str, object]:
    return json.loads((directory / "result.json").read_text())


@pytest.mark.long
def test_a_killed_run_is_resumed_and_ends_as_if_it_had_not_been(
    command: Command, tmp_path: Path
) -> None:
    """Bit for bit, because the same kernels run on one thread."""
    run, whole = tmp_path / "run", tmp_path / "whole"
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [*TRAIN, *OPTIONS, *MORE, "--out", str(run)], stderr=subprocess.DEVNULL, env=one_thread
    )
    metrics = run / "unfinished" / "metrics.jsonl"
    while process.poll() is None and (
        not metrics.exists() or len(metrics.read_text().splitlines()) < 3
    ):
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -9 and (run / "unfinished" / "state.safetensors").exists()
    assert not (run / "result.json").exists()
    code, _, problem = command("evaluate", run)
    assert code == 2 and "not a finished run" in problem and "--resume finishes it" in problem
    assert command("train", "--resume", "--out", run)[0] == 0
    assert command("train", *OPTIONS, *MORE, "--out", whole)[0] == 0
    assert result(run) == result(whole)
    assert (run / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 12
    for words, said in (
        (("--seed", "1"), "seed was 0, now it is 1"),
        (("--recipe", "paper"), "epochs was 12, now it is 50"),
    ):
        code, _, problem = command("train", *words, "--resume", "--out", run)
        assert code == 2 and said in problem and "resume it as it was begun" in problem
    code, out, _ = command("train", *OPTIONS, *MORE, "--resume", "--out", run)
    assert code == 0 and "Run: " in out, "it is finished, and of this spec"


def test_there_is_nothing_to_resume_where_no_run_is_and_nothing_says_what_to_train(
    tmp_path: Path, command: Command
) -> None:
    code, _, problem = command("train", "--resume", "--out", tmp_path / "typo")
    assert code == 2 and "typo holds no run to go on with" in problem
    assert not (tmp_path / "typo").exists()
