"""A wrong request is refused with exit code 2 and one line on standard error, none on output."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

Command = Callable[..., tuple[int, str, str]]


def in_a_process(*arguments: object, **environment: str) -> tuple[int, str, str]:
    """The command as a user runs it."""
    done = subprocess.run(
        [sys.executable, "-m", "presplit", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    return done.returncode, done.stdout, done.stderr


def refuses(said: tuple[int, str, str], *parts: str) -> None:
    """One line that begins with the command's name and holds all ``parts``, and no traceback."""
    code, out, problem = said
    assert (code, out) == (2, ""), said
    assert (
        problem.startswith("presplit: ") and problem.count("\n") == 1 and problem.endswith("\n")
    ), problem
    assert "Traceback" not in problem
    for part in parts:
        assert part in problem, problem


# As processes: the four refusals that are promised.


def test_an_unknown_key_in_a_spec(tmp_path: Path) -> None:
    (tmp_path / "spec.toml").write_text("[training]\nepoch = 3\n")
    said = in_a_process("train", tmp_path / "spec.toml")
    refuses(said, "spec.toml: unknown key 'training.epoch' (nearest: epochs)")


def test_a_bundle_with_one_flipped_bit(bundle: Path, images: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "small.bundle"
    shutil.copytree(bundle, damaged)
    raw = bytearray((damaged / "segment-00.onnx").read_bytes())
    raw[len(raw) // 2] ^= 4
    (damaged / "segment-00.onnx").write_bytes(raw)
    refuses(in_a_process("run", damaged, images), "segment-00.onnx: damaged")


def test_a_data_set_that_is_missing(tmp_path: Path) -> None:
    """MNIST is nowhere and cannot be fetched: every proxy leads to a port where nothing listens."""
    nowhere = {
        name: "http://127.0.0.1:9/"
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")
    }
    places = {
        "PRESPLIT_DATA": str(tmp_path),
        "XDG_CACHE_HOME": str(tmp_path),
        "no_proxy": "",
        "NO_PROXY": "",
    }
    said = in_a_process("train", "--data", "mnist", "--out", tmp_path / "run", **nowhere, **places)
    refuses(
        said,
        "train-images-idx3-ubyte is neither in",
        "nor could it be fetched",
        "set PRESPLIT_DATA",
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("shape", [(3, 1, 8, 9), (3, 8, 8), (3, 64)])
def test_samples_of_a_wrong_shape(bundle: Path, tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.save(tmp_path / "x.npy", np.zeros(shape, np.float32))
    refuses(
        in_a_process("run", bundle, tmp_path / "x.npy"),
        "x.npy: expected samples of shape (n, 1, 8, 8)",
        str(shape),
    )


# In this process: everything else.


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["trian"], "No such command 'trian'"),
        (["train", "--epoch", 3], "No such option: --epoch"),
        (["train", "--epochs"], "Option '--epochs' requires an argument"),
        (["train", "--epochs", "few"], "Invalid value for '--epochs'"),
        (["train", "--layers"], "Option '--layers' requires an argument"),
        (["train", "--layers", "--seed", 1], "Invalid value for '--layers'"),
        (["train", "--layers", 64, "many", 10], "Invalid value for '--layers'"),
        (["train", "--fan-out", 2], "sparsity.fan_out: expected an mlp, got [2]"),
        (
            ["train", "--layers", 64, 10, "--fan-out", 2, 9],
            "sparsity.fan_out: expected one for each of the 1 junc",
        ),
        (["train", "--layers", 32, 10], "which is more than pad_to = 32"),
        (["train", "--density", 1.5], "sparsity.density: expected `float` <= 1.0, got 1.5"),
        (["train", "--density", "nan"], "sparsity.density: expected a finite number, got nan"),
        (
            ["train", "--family", "group"],
            "sparsity: expected the keys of one of density, budget, fan_out, got none",
        ),
        (
            ["train", "--family", "group", "--density", 0.5],
            "no pattern family named 'group' (nearest: grouped",
        ),
        (["train", "--after", "block9"], "exits.after: no submodule is called 'block9'"),
        (["train", "--data", "digit"], "no data set named 'digit' (nearest: digits)"),
        (["train", "--data", "nowhere.npz"], "nowhere.npz: not a readable .npz file"),
        (
            ["train", "--recipe", "papers"],
            "training.recipe: no recipe named 'papers' (nearest: paper)",
        ),
        (["train", "--epochs", 0], "training.epochs: expected `int` >= 1, got 0"),
        (["train", "--seed", -1], "seed: expected `int` >= 0, got -1"),
        (["train", "--set", "training.epochs"], "--set 'training.epochs': expected KEY=VALUE"),
        (["train", "--set", "trainign.epochs=3"], "unknown key 'trainign' (nearest: training)"),
        (["train", "nowhere.toml"], "nowhere.toml: cannot be read (No such file or directory)"),
        (["evaluate"], "Missing argument 'run'"),
        (["evaluate", "nowhere"], "nowhere: not a finished run"),
        (["export", "nowhere"], "nowhere: not a finished run"),
        (["inspect", "nowhere.onnx"], "nowhere.onnx: no such file"),
        (["measure", "nowhere"], "nowhere: no such bundle"),
        (["plan", "nowhere"], "nowhere: no such bundle"),
        (["serve", "nowhere"], "nowhere: no such bundle"),
        (["run", "nowhere", "x.npy"], "nowhere: no such bundle"),
    ],
)
def test_words_that_mean_nothing(command: Command, arguments: list, part: str) -> None:
    refuses(command(*arguments), part)


@pytest.mark.parametrize(
    "threshold", ["block1", "block1=", "block1=high", "=0.5", "block1=nan", "block1=inf", ""]
)
def test_a_threshold_that_is_no_number(
    command: Command, bundle: Path, images: Path, threshold: str
) -> None:
    refuses(
        command("run", bundle, images, "--threshold", threshold),
        f"--threshold {threshold!r}: expected EXIT=SCORE",
    )


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--threshold", "block9=0.5"], "no exit 'block9'"),
        (["--split", 0, "--threshold", "block1=0.5"], "no exit 'block1' at or before split 0"),
        (["--split", 99], "split must be in 0.."),
        (["--split", -1], "split"),
        (["--split", 1, "--codec", "int3"], "no codec named 'int3'"),
        (["--deadline", 0], "--deadline: expected a time above 0"),
        (["--deadline", -1], "deadline"),
        (["--deadline", "50 parsecs"], "--deadline: expected a number, plain or in one of s, ms"),
        (["--streams", 0], "Invalid value for '--streams'"),
        (["--rate", 0], "Invalid value for '--rate'"),
        (["--split", 1, "--server", "nowhere"], "HOST:PORT"),
        (["--split", 1, "--server", "127.0.0.1:x"], "HOST:PORT"),
    ],
)
def test_a_plan_that_does_not_fit_the_bundle(
    command: Command, bundle: Path, images: Path, options: list, part: str
) -> None:
    refuses(command("run", bundle, images, *options), part)


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--link", "wify"], "no link named 'wify' (nearest: wifi"),
        (["--device", "raspberry-pi"], "no device named 'raspberry-pi' (nearest: raspberry-pi-"),
        (["--server", "moon"], "no device named 'moon'"),
        (["--deadline", 0], "deadline"),
        (["--deadline", -1], "deadline"),
        (["--deadline", "nan"], "--deadline: expected a number, plain or in one of s, ms,"),
        (["--deadline", "50 parsecs"], "got '50 parsecs'"),
        (["--deadline", "1us"], "no plan answers within deadline_s = 1 µs"),
        (["--reliability", 0.999], "give deadline_s too"),
        (["--max-drop", 2], "max_drop: expected `float` <= 1.0, got 2.0"),
        (["--confidence", "high"], "--confidence: expected a number, plain or in one of %"),
        (["--max-energy", "0J", "--max-bytes", "0B"], "no plan keeps to max_energy_j = 0 J and"),
        (["--edge-costs", "nowhere.json"], "nowhere.json: not a file of measured costs"),
    ],
)
def test_a_question_that_no_plan_answers(
    command: Command, bundle: Path, options: list, part: str
) -> None:
    refuses(command("plan", bundle, *options), part)


@pytest.mark.parametrize("raw", [b"", b"junk", b"{}", b"PK\x03\x04", b"\x93NUMPY\x01\x00"])
def test_samples_that_are_no_array(
    command: Command, bundle: Path, tmp_path: Path, raw: bytes
) -> None:
    (tmp_path / "x.npy").write_bytes(raw)
    refuses(
        command("run", bundle, tmp_path / "x.npy"), "x.npy: not a readable .npy file of samples"
    )


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros(3, np.float32), "x.npy: expected samples of shape (n, 1, 8, 8), got (3,)"),
        (
            np.zeros((2, 1, 8, 8), int),
            "expected float32, or uint8 which is scaled to 0..1",
        ),
        (np.array([["a"]]), "an array (n, *shape) of numbers is expected, got <U1"),
    ],
)
def test_samples_of_another_kind(
    command: Command, bundle: Path, tmp_path: Path, array: np.ndarray, said: str
) -> None:
    np.save(tmp_path / "x.npy", array)
    refuses(command("run", bundle, tmp_path / "x.npy"), said)


def test_an_archive_of_samples(command: Command, bundle: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.zeros((2, 1, 8, 8), np.float32))
    refuses(
        command("run", bundle, tmp_path / "x.npz"),
        "an array (n, *shape) of numbers is expected, got an archive of several",
    )


def test_a_target_that_is_not_a_bundle(command: Command, run: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("letters")
    refuses(command("export", run, "--out", tmp_path), "exists and is not a bundle")
    assert (tmp_path / "precious").read_text() == "letters"


@pytest.mark.parametrize("name", ["costs.json", "missing/costs.json"])
def test_costs_that_cannot_be_written(
    command: Command, bundle: Path, tmp_path: Path, name: str
) -> None:
    if name == "costs.json":
        (tmp_path / name).mkdir()
    refuses(
        command("measure", bundle, "--seconds", 0.1, "--out", tmp_path / name),
        f"{name}: cannot be written",
    )


def test_a_device_without_a_profile(command: Command, bundle: Path) -> None:
    refuses(command("measure", bundle, "--device", "abacus"), "no device named 'abacus'")


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ([], "give a BUNDLE, or --link HOST:PORT, or --profiles"),
        (["--link", "nowhere"], "server must be HOST:PORT"),
        (["--link", "127.0.0.1:1", "--seconds", 0], "seconds must be a finite number above 0"),
    ],
)
def test_nothing_that_can_be_measured(command: Command, options: list, part: str) -> None:
    refuses(command("measure", *options), part)


def test_costs_to_be_brought_here_that_are_none(
    command: Command, bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "costs.json").write_text("{}")
    refuses(command("measure", bundle, "--anchor", tmp_path / "costs.json"), "not a file of measur")
    refuses(command("measure", bundle, "--seconds", -1), "seconds must be a finite number above 0")


@pytest.mark.parametrize("host", ["0.0.0.0", "example.com"])
def test_an_address_that_others_can_reach(command: Command, bundle: Path, host: str) -> None:
    refuses(command("serve", bundle, "--host", host), host)


def test_a_model_that_others_made_and_that_cannot_be_cut(command: Command, tmp_path: Path) -> None:
    (tmp_path / "spec.onnx").write_text("[training]")
    refuses(command("inspect", tmp_path / "spec.onnx"), "spec.onnx: not an ONNX file")


def test_a_costs_file_of_another_net(command: Command, bundle: Path, tmp_path: Path) -> None:
    raw = '{"device":"x","segment_s":[1],"exit_s":[0],"segment_j":[1],"how":"measured","when":""}'
    (tmp_path / "costs.json").write_text(raw)
    refuses(command("plan", bundle, "--edge-costs", tmp_path / "costs.json"), "segment")
