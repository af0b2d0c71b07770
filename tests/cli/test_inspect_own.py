"""A user's own model is looked at before any training.

Its layers, boundaries and exits are shown, and what a density saves.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from presplit.train import decide, sparsify, summary
from presplit.train.nets.add_exits import places
from presplit.train.zoo import resnet8, waveform_cnn

Command = Callable[..., tuple[int, str, str]]

CODE = """
from functools import partial

from torch import nn

from presplit.train import add_exits
from presplit.train.zoo import *

resnet8 = partial(resnet8, width=8)
two_layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
narrow = partial(mlp, [8, 4, 4])
number = 3


def perceptron():
    return mlp([64, 128, 64, 10])


def with_exit():
    return add_exits(mlp([64, 128, 64, 10]), ["relu1"])


def transformer():
    from transformers import ViTConfig, ViTForImageClassification

    sizes = dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128)
    return ViTForImageClassification(ViTConfig(**sizes, image_size=32, patch_size=8, num_labels=10))


def needs(width):
    return mlp([width, 10])


def fails():
    raise RuntimeError("the weights are\\nnowhere")


def gives_a_number():
    return 3
"""
IMAGE = "3,32,32"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("own")
    (path / "own_nets.py").write_text(CODE)
    (path / "broken_net.py").write_text("import no_such_library\n")
    return path


def in_a_process(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command as a user runs it, in the folder of the model."""
    line = "import sys; from presplit.cli.main import main; sys.exit(main(sys.argv[1:]))"
    # Neither -c nor -m: a script that lies elsewhere, as an installed command does, does not see
    # the working folder.
    command = [sys.executable, "-P", "-c", line, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)


def facts(said: tuple[int, str, str]) -> dict[str, Any]:
    code, out, problem = said
    assert (code, problem) == (0, ""), problem
    return json.loads(out)


@pytest.mark.long
def test_a_model_in_the_working_folder_is_found_and_shown(folder: Path) -> None:
    done = in_a_process(folder, "inspect", "own_nets:perceptron", "--input", "64")
    assert (done.returncode, done.stderr) == (0, "")
    for part in (
        "Sequential: 17,024 MACs, 17,024 weights, one sample 64",
        "fc1    64 -> 128  128      8,192  8,192",
        "2  relu2   64       256 B   64 B       16,384  exit possible",
        "Exits can hang after: relu1, relu2",
        "Recommended: relu1",
        "With density 0.25:",
        "the classifier stays dense unless it is named",
    ):
        assert part in done.stdout, done.stdout


ZOO = {"resnet8": (resnet8(width=8), (3, 16, 16)), "waveform_cnn": (waveform_cnn(), (1, 2000))}


@pytest.fixture(scope="module")
def looked(command: Command, folder: Path) -> dict[str, dict[str, Any]]:
    """What the command says of each net of `ZOO`."""
    found = {}
    for name, (_, shape) in ZOO.items():
        sample = ",".join(map(str, shape))
        said = command("inspect", f"{folder}/own_nets.py:{name}", "--input", sample, "--json")
        found[name] = facts(said)
    return found


@pytest.mark.parametrize("name", ZOO)
def test_what_is_said_is_what_the_library_finds(
    looked: dict[str, dict[str, Any]], name: str
) -> None:
    (model, shape), found = ZOO[name], looked[name]
    example = torch.zeros(1, *shape)
    assert [(r["name"], r["weights"], r["macs"]) for r in found["layers"]] == [
        (r.name, r.weights, r.macs) for r in summary(model, example)
    ]
    assert found["recommended_exits"] == places(model, example)
    assert (
        set(found["recommended_exits"])
        <= set(found["can_exit_after"])
        <= {n for n, _ in model.named_modules()}
    )
    sparse = found["sparse"]
    decided = decide(model, density=0.25)
    expected = summary(sparsify(model, density=0.25), example, decided=decided)
    assert [
        (r["pattern"], r["weights"], r["macs"], tuple(r["faster_in"]), r["note"])
        for r in sparse["layers"]
    ] == [(r.pattern, r.weights, r.macs, r.faster_in, r.note) for r in expected]
    assert (
        sparse["weights"] < sparse["weights_before"] == sum(r["weights"] for r in found["layers"])
    )


def test_boundaries_add_up_and_bottlenecks_are_marked(looked: dict[str, dict[str, Any]]) -> None:
    found = looked["resnet8"]
    rows = found["boundaries"]
    assert rows[0]["macs_before"] == 0 and rows[-1]["macs_before"] == found["macs"]
    assert all(
        row["codec_bytes"] == {"float32": row["bytes"], "int8": row["bytes"] // 4} for row in rows
    )
    smallest = [min(row["bytes"] for row in rows[: k + 1]) for k in range(len(rows))]
    for before, row in zip(smallest, rows[1:-1], strict=False):
        assert row["bottleneck"] == (row["bytes"] < before)
    assert any(row["bottleneck"] for row in rows)


def test_a_density_of_one_s_own_is_shown(command: Command, folder: Path) -> None:
    word = f"{folder}/own_nets.py:two_layers"
    found = facts(command("inspect", word, "--input", "64", "--density", 0.5, "--json"))
    assert [(row["weights_before"], row["weights"]) for row in found["sparse"]["layers"]] == [
        (4096, 2048),
        (640, 640),
    ]
    odd = ("inspect", word, "--input", "64", "--density", 0.3, "--json")
    assert "density 0.3" in facts(command(*odd))["sparse"]["refused"]
    found = facts(command(*odd, "--nearest"))
    assert found["sparse"]["refused"] == ""
    assert 0.2 < found["sparse"]["layers"][0]["weights"] / 4096 < 0.4


def test_a_density_that_no_layer_can_have_says_why(command: Command, folder: Path) -> None:
    code, out, _ = command("inspect", f"{folder}/own_nets.py:narrow", "--input", "8")
    assert (
        code == 0
        and "Density 0.25 saves nothing: no layer of Sequential can have density 0.25 (fc1: " in out
    )


def test_a_model_with_exits_shows_them(command: Command, folder: Path) -> None:
    found = facts(command("inspect", f"{folder}/own_nets.py:with_exit", "--input", "64", "--json"))
    assert [row["exits"] for row in found["boundaries"]] == [[], ["relu1"], [], ["final"]]
    assert "call sparsify before add_exits" in found["sparse"]["refused"]


@pytest.mark.long
def test_a_model_of_transformers_is_shown(folder: Path) -> None:
    pytest.importorskip("transformers", exc_type=(ImportError, RuntimeError))
    done = in_a_process(folder, "inspect", "own_nets:transformer", "--input", IMAGE, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["name"] == "ViTForImageClassification"
    assert {"vit.layers.0", "vit.layers.1"} <= set(found["can_exit_after"])
    assert next(r["shape"] for r in found["layers"] if r["name"] == "vit.layers.0.mlp.fc1") == [
        17,
        128,
    ]
    assert found["sparse"]["weights"] < found["sparse"]["weights_before"]


# What is refused.


@pytest.mark.parametrize(
    ("word", "options", "part"),
    [
        ("own_nets.py:perceptron", [], "give its shape without the batch, as --input 3,32,32"),
        (
            "own_nets.py:perceptron",
            ["--input", "3,,2"],
            "--input '3,,2': expected the shape of one sample",
        ),
        (
            "own_nets.py:perceptron",
            ["--input", "0"],
            "--input '0': expected the shape of one sample",
        ),
        (
            "own_nets.py:perceptron",
            ["--input", "63"],
            "Sequential does not take a float32 sample of shape (63,): ",
        ),
        (
            "own_nets.py:perceptron",
            ["--input", "64", "--density", "0"],
            "--density: expected a share above 0",
        ),
        (
            "own_nets.py:nothing",
            ["--input", "64"],
            "own_nets has no 'nothing'; what it has that can be called: ",
        ),
        (
            "own_nets.py:number",
            ["--input", "64"],
            "a factory or a torch.nn.Module is expected, got int",
        ),
        ("own_nets.py:gives_a_number", ["--input", "64"], "a torch.nn.Module is expected, got int"),
        ("own_nets.py:needs", ["--input", "64"], "name a factory that needs none"),
        ("own_nets.py:fails", ["--input", "64"], "raised RuntimeError: the weights are nowhere"),
        ("no_such_nets:make", ["--input", "64"], "no module 'no_such_nets' in "),
        (
            "broken_net:make",
            ["--input", "64"],
            "importing it raised ModuleNotFoundError: No module named 'no_such_l",
        ),
        (
            "net.onnx",
            ["--input", "64"],
            "--input, --density and --nearest belong to your own model as module:factory, ",
        ),
    ],
)
def test_a_word_that_names_no_model(
    command: Command, folder: Path, word: str, options: list, part: str
) -> None:
    code, out, problem = command("inspect", f"{folder}/{word}", *options)
    assert (code, out) == (2, "") and problem.count("\n") == 1
    assert part in problem, problem


def test_a_file_whose_name_has_a_colon_is_still_a_file(command: Command, tmp_path: Path) -> None:
    (tmp_path / "cats:v2").write_bytes(b"junk")
    assert "not an ONNX file" in command("inspect", tmp_path / "cats:v2")[2]
