"""`presplit train --from`: a trained dense net is where training begins."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from presplit.core.spec import read_spec
from presplit.train import runs
from presplit.train.zoo import mlp

Command = Callable[..., tuple[int, str, str]]

CODE = """
from torch import nn
from presplit.train.zoo import mlp

def make():
    return nn.Sequential(nn.Flatten(), mlp([64, 32, 10]))
"""


@pytest.fixture(scope="module")
def dense(command: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "dense"
    words = ("--layers", 64, 32, 10, "--epochs", 8, "--set", "data.validation=0.2")
    code, _, problem = command("train", *words, "--out", path)
    assert code == 0, problem
    return path


def accuracy(run: Path) -> float:
    return json.loads((run / "result.json").read_text())["accuracy"]["final"]


def test_a_run_gives_its_net_and_data_and_what_is_said_lies_over_them(
    command: Command, dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(dense, "runs/dense")
    words = ("--from", "runs/dense", "--density", 0.5, "--after", "relu1")
    more = ("--epochs", 1, "--set", "training.distil=0.5", "--set", "training.rate=3e-3")
    code, out, problem = command("train", *words, *more)
    assert code == 0 and "Run: runs/dense-sparse\n" in out, problem
    assert "training begins with the net of runs/dense; connections chosen, values taken" in problem
    assert "the net of runs/dense is the teacher too" in problem
    assert "held out other samples" not in problem
    run, parent = Path("runs/dense-sparse"), read_spec("runs/dense/spec.json")
    spec = read_spec(run / "spec.json")
    assert (spec.model, spec.data, spec.seed) == (parent.model, parent.data, parent.seed)
    assert (spec.training.epochs, spec.training.rate, spec.name) == (1, 3e-3, "dense-sparse")
    assert accuracy(run) > 0.6, "an epoch from nothing gives 0.1"
    shutil.rmtree("runs/dense")
    for verb in ("evaluate", "export"):
        code, _, problem = command(verb, run)
        assert code == 0, problem
    code, out, problem = command("train", "--resume", "--out", run)
    assert code == 0 and "Run: runs/dense-sparse\n" in out, problem


def test_a_spec_says_the_same_and_its_own_sections_are_its_own(
    command: Command, dense: Path, tmp_path: Path
) -> None:
    text = f"[start]\nnet = '{dense}'\n[sparsity]\ndensity = 0.5\n[training]\nepochs = 1\n"
    (tmp_path / "spec.toml").write_text(text)
    code, _, problem = command("train", tmp_path / "spec.toml", "--out", tmp_path / "one")
    assert code == 0, problem
    (tmp_path / "same.toml").write_text("[sparsity]\ndensity = 0.5\n[training]\nepochs = 1\n")
    words = ("train", tmp_path / "same.toml", "--set", f"start.net={dense}")
    assert command(*words, "--out", tmp_path / "two")[0] == 0
    one, two = (tmp_path / name / "spec.json" for name in ("one", "two"))
    assert one.read_text() == two.read_text()
    code, _, problem = command(
        "train", "--from", dense, "--seed", 3, "--epochs", 1, "--out", tmp_path / "tuned"
    )
    assert code == 0 and "held out other samples (seed or data.validation differ)" in problem
    assert accuracy(tmp_path / "tuned") > 0.8


def test_weights_that_others_trained_fill_the_net_of_the_user_s_code(
    command: Command, dense: Path, tmp_path: Path
) -> None:
    (tmp_path / "nets.py").write_text(CODE)
    values = dict(runs.read_run(dense).model.state_dict())
    wrapped = {f"module.1.{name}": value for name, value in values.items()}
    torch.save({"state_dict": wrapped, "epoch": 90}, tmp_path / "net.pt")
    words = ("--model", f"{tmp_path}/nets.py:make", "--epochs", 1, "--set", "training.rate=1e-9")
    run = tmp_path / "run"
    code, _, problem = command("train", "--from", tmp_path / "net.pt", *words, "--out", run)
    assert code == 0, problem
    assert accuracy(run) == pytest.approx(accuracy(dense), abs=0.01)
    torch.save({"state_dict": mlp([64, 32, 10]), "epoch": 90}, tmp_path / "module.pt")
    words = (*words, "--out", run, "--force")
    code, out, problem = command("train", "--from", tmp_path / "module.pt", *words)
    assert (code, out) == (2, "") and "reading that would run code; save only values" in problem


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["--from", "{dense}", "--out", "{dense}", "--force"],
            "it is in the run that this one replaces",
        ),
        (["--from", "nowhere"], "start.net: nowhere: no such run or file"),
        (["--from", "{empty}"], "start.net: {empty}: not a finished run"),
        (["--from", "{dense}/spec.json"], "neither a .safetensors file nor what torch.save writes"),
        (["--from", "{dense}", "--layers", "64", "16", "10"], "its fc1.weight is (32, 64), exp"),
        (["--from", "{dense}", "--set", "start.values=fresh"], "start.values: 'fresh' is said of"),
        (["--from", "{dense}", "--set", "start.value=fresh"], "unknown key 'start.value'"),
        (["--set", "start.values=fresh"], "start: missing required field `net`"),
        (["--from", ""], "start.net: expected `str` of length >= 1, got ''"),
    ],
)
def test_a_start_that_does_not_fit_is_said_before_training(
    command: Command, dense: Path, tmp_path: Path, words: list[str], sentence: str
) -> None:
    (tmp_path / "empty").mkdir()
    says = {"{dense}": str(dense), "{empty}": str(tmp_path / "empty")}
    for key, value in says.items():
        words = [word.replace(key, value) for word in words]
        sentence = sentence.replace(key, value)
    before = (dense / "model.safetensors").read_bytes()
    code, out, problem = command("train", "--out", tmp_path / "new", *words)
    assert (code, out) == (2, "") and sentence in problem, problem
    assert problem.splitlines()[-1].startswith("presplit: ") and "Traceback" not in problem
    assert not (tmp_path / "new").exists()
    assert (dense / "model.safetensors").read_bytes() == before
