"""No run is lost unasked: where a new one goes, which one is gone on with, and by which command."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Command = Callable[..., tuple[int, str, str]]
WORDS = ("--layers", 64, 10, "--epochs", 1)


def accuracy(run: Path) -> float:
    return json.loads((run / "result.json").read_text())["accuracy"]["final"]


def test_a_finished_run_stays_unless_force_says_that_it_may_go(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first, second = Path("runs/net"), Path("runs/net-2")
    assert command("train", *WORDS, "--seed", 1)[0] == 0
    before = (first / "model.safetensors").read_bytes()
    code, out, problem = command("train", *WORDS)
    assert code == 0 and "runs/net holds a finished run, which stays" in problem
    assert "this one goes to runs/net-2" in problem and "Run: runs/net-2\n" in out
    assert (first / "model.safetensors").read_bytes() == before and second.is_dir()
    code, out, problem = command("train", *WORDS, "--out", first)
    assert (code, out) == (2, "") and "--force replaces it" in problem
    assert (first / "model.safetensors").read_bytes() == before
    code, _, problem = command("train", *WORDS, "--out", first, "--force")
    assert code == 0 and (first / "model.safetensors").read_bytes() != before
    assert (first / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()
    code, _, problem = command("train", *WORDS, "--out", first, "--force", "--resume")
    assert code == 2 and "give one of them" in problem
    code, _, problem = command("train", "--resume")
    assert code == 2 and "no run in runs/ was interrupted" in problem


def test_a_demo_replaces_no_run_of_one_s_own(command: Command, tmp_path: Path) -> None:
    own = tmp_path / "dense"
    assert command("train", *WORDS, "--out", own)[0] == 0
    before = (own / "model.safetensors").read_bytes()
    code, out, problem = command("demo", "--out", tmp_path)
    assert (code, out) == (2, "") and "holds a run of your own, net" in problem
    assert (own / "model.safetensors").read_bytes() == before


@pytest.mark.long
def test_an_interrupted_training_says_the_command_that_goes_on_and_it_does(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [str(word) for word in (*WORDS[:3], "--epochs", "5000", "--set", "name=long")]
    layers = [word for size in ("64", "10") for word in ("--layers", size)]
    process = subprocess.Popen(
        [sys.executable, "-m", "presplit", "train", *layers, *words[3:], "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    state = Path("runs/long/unfinished/metrics.jsonl")
    while process.poll() is None and not (state.is_file() and state.stat().st_size):
        pass
    process.send_signal(signal.SIGINT)
    out, problem = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in problem
    assert json.loads(out) == {"error": "interrupted", "kind": "Interrupted", "exit_code": 130}
    hint = problem.splitlines()[-1].partition("to go on after the last epoch: ")[2]
    assert shlex.split(hint) == ["presplit", "train", "--resume", "--out", "runs/long"]
    code, _, problem = command("train", *words, "--out", "runs/long")
    assert code == 2 and f"{hint} goes on with it, --force begins anew" in problem
    spec = Path("runs/long/unfinished/spec.json")
    spec.write_text(spec.read_text().replace("5000", "1"))  # so that going on is short
    for given in (shlex.split(hint)[1:], ["train", "--resume"]):
        code, _, problem = command(*given, "--epochs", 2)
        assert code == 2 and "epochs was 1, now it is 2" in problem, "its own spec was read"
