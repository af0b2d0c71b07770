"""A user's own model, named on the command line, is trained, evaluated and exported.

It is trained sparse and with exits.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from presplit.cli.own_model import load
from presplit.cli.train import text
from presplit.core.errors import DataError, PresplitError, SpecError
from presplit.core.spec import OwnModel, read_spec, spec_from
from presplit.runtime import Local
from presplit.train import Recipe, SparseLinear, evaluate, fit, runs
from presplit.train.data import Samples, digits
from presplit.train.zoo import mlp

Command = Callable[..., tuple[int, str, str]]

CODE = """
from torch import nn

from presplit.train.zoo import mlp


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU())
        self.middle = nn.Sequential(nn.Linear(64, 64), nn.ReLU())
        self.classifier = nn.Linear(64, 10)

    def forward(self, x):
        return self.classifier(self.middle(self.body(x)))


def narrow():
    return nn.Sequential(nn.Flatten(), mlp([64, 16, 4]))


class Two(Net):
    def forward(self, x):
        return super().forward(x), x


class OneAtATime(Net):
    def forward(self, x):
        return super().forward(x.reshape(1, 64))


def many():
    return nn.Sequential(nn.Flatten(), mlp([64, 16, 12]))


def wide():
    return mlp([80, 16, 10])


class Loud(Net):
    def forward(self, x):
        print("a net speaks")
        return super().forward(x)


def loud():
    print("a factory speaks")
    return Loud()


class Deaf(Net):
    def forward(self, x):
        return super().forward(x).detach()


def leaves():
    raise SystemExit("no weights here")
"""


@pytest.fixture(scope="module")
def nets(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("nets") / "some_nets.py"
    file.write_text(CODE)
    return str(file)


@pytest.fixture(scope="module")
def own_run(command: Command, nets: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "own"
    options = (
        "--density",
        "0.25",
        "--after",
        "auto",
        "--epochs",
        "8",
        "--set",
        "training.distil=0.5",
        "--out",
        path,
    )
    code, _, problem = command("train", "--model", f"{nets}:Net", *options)
    assert code == 0, problem
    return path


def test_it_becomes_sparse_gets_exits_and_learns(own_run: Path, nets: str) -> None:
    spec = read_spec(own_run / "spec.json")
    assert spec.model == OwnModel(f"{nets}:Net")
    result = json.loads((own_run / "result.json").read_text())
    assert list(result["accuracy"]) == ["body.2", "final"] and result["accuracy"]["final"] > 0.8
    assert result["weights"] == 2 * 64 * 64 / 4 + 2 * 640
    teacher = json.loads((own_run / "teacher" / "result.json").read_text())
    assert teacher["weights"] == 2 * 64 * 64 + 640


def test_a_run_of_it_is_evaluated_and_becomes_a_bundle(
    command: Command, own_run: Path, nets: str
) -> None:
    trust = ("--model", f"{nets}:Net")
    words = ("evaluate", own_run, *trust, "--max-drop", "0.01", "--policy", "margin")
    code, out, problem = command(*words)
    assert code == 0, problem
    assert (
        "at most 1 points lost on held-out samples (" in out
        and "leave at body.2 (margin from " in out
    )
    assert "These are scores of margin; the run's bundle decides by exits.policy, confidence" in out
    code, out, problem = command("evaluate", own_run, *trust, "--max-drop", "0.01")
    row = json.loads((own_run / "result.json").read_text())["thresholds"][-1]
    (hint,) = (word for word in out.split() if word.startswith("body.2="))
    assert np.float32(hint.removeprefix("body.2=")) == np.float32(row["thresholds"]["body.2"])
    code, _, problem = command("export", own_run, *trust, "--out", own_run / "own.bundle")
    assert code == 0, problem
    run = runs.read_run(own_run, load)
    expected = evaluate(run.model, run.data.test)[-1]
    np.testing.assert_allclose(
        Local.open(own_run / "own.bundle").answer(run.data.test.x).scores, expected, atol=1e-4
    )


def test_its_dense_layers_keep_the_values_that_it_draws_itself(own_run: Path) -> None:
    def ones(word: str) -> torch.nn.Module:
        net = torch.nn.Sequential(torch.nn.Flatten(), mlp([64, 64, 10]))
        for value in net.parameters():
            torch.nn.init.ones_(value)
        return net

    spec = read_spec(own_run / "spec.json", set=["exits.after=['1.relu1']"])
    model = runs.build(spec, ones).model
    assert any(isinstance(part, SparseLinear) for part in model.modules())
    assert torch.all(model.get_submodule("model.1.fc2").weight == 1)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["--model", "{nets}:narrow"],
            "digits has 10 classes, Sequential gives logits of shape (2, 4)",
        ),
        (
            ["--model", "{nets}:wide"],
            "Sequential does not take a sample of digits, float32 (1, 8, 8): ",
        ),
        (["--model", "{nets}:Two"], "a classifier returns logits, Two returns 2 things"),
        (["--model", "{nets}:OneAtATime"], "OneAtATime does not take a sample of digits"),
        (
            ["--model", "{nets}:leaves"],
            "calling it without arguments raised SystemExit: no weights here",
        ),
        (["--model", "{nets}:absent"], "some_nets has no 'absent'"),
        (
            ["--model", "nowhere.onnx"],
            "expected module:factory, as cats:make or models/cats.py:make",
        ),
        (
            ["--set", "model.kind='own'"],
            "model: missing required field `factory`",
        ),
        (
            ["--model", "{nets}:Net", "--set", "model.width=4"],
            "model.width: only kind 'cnn' has it, and model.kind is 'own'",
        ),
    ],
)
def test_what_does_not_fit_is_said_before_training(
    command: Command, nets: str, tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    words = [word.replace("{nets}", nets) for word in arguments]
    code, out, problem = command("train", *words, "--out", tmp_path / "run")
    assert code == 2 and out == ""
    assert sentence in problem
    assert not (tmp_path / "run" / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("option", "value", "goal"),
    [
        ("--max-drop", "0.0004", "at most 0.04 points lost on held-out samples ("),
        pytest.param(
            *("--accuracy", "0.3", "at least 30 % right on held-out samples ("),
            marks=pytest.mark.long,
        ),
        pytest.param(
            *("--macs", "6000", "at most 6,000 MACs an answer on held-out samples ("),
            marks=pytest.mark.long,
        ),
        ("--offload", "0.5", "at most 50 % to the last exit on held-out samples ("),
    ],
)
def test_every_goal_is_told_as_it_was_asked(
    command: Command, own_run: Path, nets: str, option: str, value: str, goal: str
) -> None:
    words = ("evaluate", own_run, "--model", f"{nets}:Net", option, value, "--json")
    code, out, problem = command(*words)
    assert code == 0, problem
    found = json.loads(out)
    (row,) = found["thresholds"]
    said = text(found, own_run, "presplit export")
    assert goal in said and row["macs"] < 6400
    assert f"right on the test set for {row['macs']:,.0f} MACs an answer" in said
    assert row["goal"] == {option.removeprefix("--").replace("-", "_"): float(value)}


def test_what_a_factory_prints_is_no_result(command: Command, nets: str, tmp_path: Path) -> None:
    code, out, problem = command(
        "train", "--model", f"{nets}:loud", "--epochs", 1, "--out", tmp_path / "run", "--json"
    )
    assert code == 0 and "a factory speaks" in problem and "a net speaks" in problem
    assert json.loads(out)["weights"] == 2 * 64 * 64 + 640
    trust = ("--model", f"{nets}:loud")
    for verb in (("evaluate",), ("export", "--out", tmp_path / "net.bundle")):
        assert json.loads(command(*verb, *trust, tmp_path / "run", "--json")[1])


def otherwise(word: str) -> torch.nn.Module:
    """The code of `plainly` after a change: all shapes are the same."""
    net = plainly(word)
    net.get_submodule("1").relu1 = torch.nn.Tanh()
    return net


def plainly(word: str) -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Flatten(), mlp([64, 32, 10]))


def test_values_whose_code_has_changed_are_neither_evaluated_nor_trained_on(tmp_path: Path) -> None:
    spec = spec_from(
        {"model": {"kind": "own", "factory": "nets:plainly"}, "training": {"epochs": 2}}
    )
    runs.train(spec, tmp_path / "whole", own=plainly)
    assert runs.read_run(tmp_path / "whole", plainly).exit_names == ("final",)
    with pytest.raises(
        DataError,
        match=(
            r"model.safetensors: its values give other answers .* "
            r"the net's code has changed since"
        ),
    ):
        runs.read_run(tmp_path / "whole", otherwise)

    def stop(epoch: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runs.train(spec, tmp_path / "half", own=plainly, on_epoch=stop)
    with pytest.raises(DataError, match=r"state.safetensors: .* the net's code has changed since"):
        runs.train(spec, tmp_path / "half", own=otherwise, resume=True)
    assert runs.train(spec, tmp_path / "half", own=plainly, resume=True)["accuracy"]


@pytest.mark.parametrize("refused", ["frozen", "detached", "no teacher"])
def test_what_cannot_be_trained_leaves_the_run_that_is_there(refused: str, tmp_path: Path) -> None:
    def changed(word: str) -> torch.nn.Module:
        net = plainly(word)
        if refused == "detached":
            net.append(Detached())
        return net.requires_grad_(refused != "frozen")

    spec = spec_from(
        {"model": {"kind": "own", "factory": "nets:plainly"}, "training": {"epochs": 1}}
    )
    runs.train(spec, tmp_path, own=plainly)
    before = (tmp_path / "model.safetensors").read_bytes()
    if refused == "no teacher":
        spec = spec_from(
            {
                "model": spec.model,
                "training": {"epochs": 1, "distil": 0.5, "teacher": str(tmp_path.parent / "none")},
            }
        )
    with pytest.raises(PresplitError, match="requires_grad|detaches|not a finished run"):
        runs.train(spec, tmp_path, own=changed, replace=True)
    assert (tmp_path / "model.safetensors").read_bytes() == before


def test_training_anew_trains_the_teacher_anew(command: Command, nets: str, tmp_path: Path) -> None:
    options = (
        "--model",
        f"{nets}:Net",
        "--density",
        "0.25",
        "--set",
        "training.distil=0.5",
        "--out",
        tmp_path / "run",
        "--force",
    )
    for epochs in (1, 2):
        code, _, problem = command("train", *options, "--epochs", epochs)
        assert code == 0, problem
        lines = (tmp_path / "run" / "teacher" / "metrics.jsonl").read_text().splitlines()
        assert len(lines) == epochs
    code, _, problem = command(
        "train", *options, "--set", f"training.teacher={tmp_path / 'run' / 'teacher'}"
    )
    assert code == 2 and "teacher: it is in the run that this one replaces" in problem
    assert (tmp_path / "run" / "model.safetensors").exists()


def test_other_samples_are_not_trained_on_further(tmp_path: Path) -> None:
    def stop(epoch: object) -> None:
        raise KeyboardInterrupt

    some = digits().train
    asked = {"recipe": Recipe(epochs=2), "state": tmp_path / "state.safetensors"}
    with pytest.raises(KeyboardInterrupt):
        fit(plainly(""), some, on_epoch=stop, **asked)
    with pytest.raises(DataError, match="it is of another training: samples was"):
        fit(plainly(""), Samples(1 - some.x, some.y), **asked)


def test_early_exits_do_not_hide_logits_that_are_detached(
    command: Command, nets: str, tmp_path: Path
) -> None:
    code, _, problem = command(
        "train", "--model", f"{nets}:Deaf", "--after", "body", "--out", tmp_path / "run"
    )
    assert (
        code == 2 and "no gradient flows back from the logits of Deaf: it detaches them" in problem
    )


class Detached(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.detach()


def test_outputs_without_a_class_are_told(command: Command, nets: str, tmp_path: Path) -> None:
    code, out, problem = command(
        "train", "--model", f"{nets}:many", "--epochs", "1", "--out", tmp_path / "run"
    )
    assert code == 0 and out.startswith(
        "The net has 12 outputs for 10 classes; the others are idle.\n"
    ), problem


MARKED = """from pathlib import Path
from torch import nn
Path(__file__).with_suffix(".ran").touch()
def make():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
"""


@pytest.fixture(scope="module")
def marked_run(command: Command, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run whose spec names a file in its own folder, and the word for the user's own file."""
    folder = tmp_path_factory.mktemp("marked")
    (folder / "mine.py").write_text(MARKED)
    words = ("train", "--model", f"{folder}/mine.py:make", "--epochs", "2")
    assert command(*words, "--out", folder / "run")[0] == 0
    spec = json.loads((folder / "run" / "spec.json").read_text())
    spec["model"]["factory"] = f"{folder}/run/theirs.py:make"
    (folder / "run" / "theirs.py").write_text(MARKED)
    (folder / "run" / "spec.json").write_text(json.dumps(spec))
    return folder / "run", f"{folder}/mine.py:make"


@pytest.mark.parametrize(
    "words",
    [
        ("evaluate", "{run}"),
        ("export", "{run}", "--out", "{new}"),
        ("train", "--resume", "--out", "{run}"),
        ("train", "{run}/spec.json", "--out", "{new}"),
        ("train", "--from", "{run}", "--out", "{new}"),
        ("train", "--out", "{new}", "--set", "training.distil=0.5", "--set", "{teacher}"),
    ],
)
def test_no_code_runs_because_a_run_names_it(
    command: Command, marked_run: tuple[Path, str], words: tuple[str, ...], tmp_path: Path
) -> None:
    run, mine = marked_run
    says = {"{run}": str(run), "{teacher}": f"training.teacher={run}", "{new}": f"{tmp_path}/new"}
    given = [says.get(word, word.replace("{run}", str(run))) for word in words]
    code, out, problem = command(*given)
    assert (code, out) == (2, "") and not (run / "theirs.ran").exists()
    assert f"{run}/theirs.py:make" in problem and "--model" in problem
    assert not (tmp_path / "new").exists()
    option = "--teacher-model" if "{teacher}" in words else "--model"
    epochs = ("--epochs", "1") if words[0] == "train" and "{new}" in words else ()
    code, out, problem = command(*given, option, mine, *epochs)
    assert code == 0 and not (run / "theirs.ran").exists(), problem


def test_code_that_was_named_once_need_not_be_named_again(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(PLAIN.format(number=10) + "other = make\n")
    run = tmp_path / "run"
    words = ("--model", f"{tmp_path}/mine.py:make", "--epochs", 1, "--out", run)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert command("train", *words)[0] == 0
    assert command("evaluate", run)[0] == 0
    spec = (run / "spec.json").read_text()
    (run / "spec.json").write_text(spec.replace("mine.py:make", "mine.py:other"))
    assert command("evaluate", run)[0] == 2  # the same file, and not what was named in it
    (run / "spec.json").write_text(spec)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "of somebody else"))
    code, _, problem = command("evaluate", run)
    assert code == 2 and "--model" in problem


NAMED = """from torch import nn
from sizes import NUMBER
def make():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, NUMBER))
"""
MARKS = "from pathlib import Path\nPath(__file__).with_suffix('.ran').touch()\n"


@pytest.mark.parametrize("changed", ["mine.py", "sizes.py", "mine/__init__.py"])
def test_code_that_has_changed_since_it_was_named_is_named_again(
    changed: str, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "mine.py").write_text(NAMED)
    (tmp_path / "sizes.py").write_text("NUMBER = 10\n")
    run, word = tmp_path / "run", f"{tmp_path}/mine.py:make"
    assert command("train", "--model", word, "--epochs", 1, "--out", run)[0] == 0
    assert command("evaluate", run)[0] == 0
    other = tmp_path / changed
    other.parent.mkdir(exist_ok=True)
    was = other.read_text() if other.exists() else NAMED
    other.write_text(MARKS + was)  # a package goes before a module of the same name
    code, _, problem = command("evaluate", run)
    assert code == 2 and "has changed since you named it" in problem
    assert f"--model {word}" in problem and not other.with_suffix(".ran").exists()
    assert command("evaluate", run, "--model", word)[0] == 0
    assert command("evaluate", run)[0] == 0


def test_code_for_a_net_that_needs_none_is_refused(command: Command, tmp_path: Path) -> None:
    assert command("train", "--layers", 64, 10, "--epochs", 1, "--out", tmp_path)[0] == 0
    code, _, problem = command("evaluate", tmp_path, "--model", "nets.py:make")
    assert code == 2 and "--model nets.py:make: the net of" in problem
    code, _, problem = command("train", "--model", "nets.py:make", "--layers", 64, 10)
    assert code == 2 and "--model and --layers name two nets" in problem


PLAIN = "from torch import nn\nNUMBER = {number}\n"
PLAIN += "def make():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, NUMBER))\n"


@pytest.mark.parametrize("name", ["json", "types", "test", "numpy", "model", "presplit"])
def test_a_module_called_like_a_loaded_one_is_the_one_that_is_run(
    name: str, tmp_path: Path
) -> None:
    before, path = dict(sys.modules), list(sys.path)
    for number, folder in ((10, tmp_path / "a"), (11, tmp_path / "b")):
        folder.mkdir()
        (folder / f"{name}.py").write_text(PLAIN.format(number=number))
        assert load(f"{folder}/{name}.py:make")[1].out_features == number
    assert sys.path == path
    assert all(sys.modules[key] is module for key, module in before.items())


def test_modules_of_a_folder_find_each_other_and_nobody_else_finds_them(tmp_path: Path) -> None:
    for number, folder in ((10, tmp_path / "a"), (11, tmp_path / "b")):
        (folder / "parts" / "deep").mkdir(parents=True)
        (folder / "sizes.py").write_text(f"NUMBER = {number}\nimport model\n")
        (folder / "parts" / "__init__.py").write_text("from parts.deep.ends import flat\n")
        (folder / "parts" / "deep" / "ends.py").write_text(
            "from torch import nn\nflat = nn.Flatten\n"
        )
        lines = "import types, json, sizes, parts.deep.ends as ends\nfrom torch import nn\n"
        lines += "assert types.ModuleType and json.dumps\nclass Net(nn.Sequential):\n"
        lines += "    def __init__(self):\n        from sizes import NUMBER\n"
        lines += "        super().__init__(ends.flat(), nn.Linear(64, NUMBER))\n"
        (folder / "model.py").write_text(lines)
        (folder / "types.py").write_text("raise ImportError('not asked for')\n")
        assert load(f"{folder}/model.py:Net")[1].out_features == number
        assert load(f"{folder}/parts.deep.ends:flat")
    assert not {"sizes", "parts", "parts.deep", "model"} & set(sys.modules)
    with pytest.raises(SpecError, match="no module 'parts.absent' in .*/a or among what is inst"):
        load(f"{tmp_path}/a/parts.absent:make")
    with pytest.raises(SpecError, match="no module 'json' in .*/a$"):
        load(f"{tmp_path}/a/json:dumps")


def test_one_goal_at_a_time(command: Command, own_run: Path) -> None:
    code, _, problem = command("evaluate", own_run, "--macs", "6000", "--offload", "0.5")
    assert code == 2 and "thresholds are chosen for one goal, got macs, offload" in problem


def test_what_is_refused_leaves_the_run_that_is_there(
    command: Command, nets: str, tmp_path: Path
) -> None:
    options = ("--model", f"{nets}:Net", "--epochs", "1", "--out", tmp_path / "run")
    assert command("train", *options)[0] == 0
    words = ("--force", "--set", "training.self_distil=0.5")
    code, _, problem = command("train", *options, *words)
    assert code == 2 and "self_distil teaches early exits, and the net has none" in problem
    assert command("evaluate", tmp_path / "run", "--model", f"{nets}:Net")[0] == 0
