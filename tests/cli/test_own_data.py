"""Data of one's own go from a path through training, evaluation and export to answers."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from presplit.bundle import read
from presplit.core.plans import Plan
from presplit.runtime import Edge

Command = Callable[..., tuple[int, str, str]]


def table(folder: Path) -> Path:
    """Two classes that one column of large numbers tells apart."""
    with (folder / "own.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["height", "noise", "label"])
        rows.writerows([1000 + 50 * (k % 2), k * 7 % 5, ("low", "high")[k % 2]] for k in range(200))
    return folder / "own.csv"


def pictures(folder: Path) -> Path:
    """Two classes of 8 x 8 in colour: dark and bright."""
    for part, count in (("train", 40), ("test", 10)):
        for number, name in enumerate(("bright", "dark")):
            (folder / "own" / part / name).mkdir(parents=True)
            for k in range(count):
                value = (200 - 150 * number + k, 90, 90)
                Image.new("RGB", (8, 8), value).save(folder / "own" / part / name / f"{k}.png")
    return folder / "own"


@pytest.mark.parametrize(
    ("make", "options", "sample", "label"),
    [
        (
            table,
            ["--layers", 2, 16, 2, "--set", "data.standardise=true"],
            np.array([[1000, 2]], np.float32),
            "low",
        ),
        (pictures, ["--set", "model.width=8"], np.full((1, 3, 8, 8), 0.3, np.float32), "dark"),
    ],
)
def test_a_path_is_trained_evaluated_exported_and_answered(
    make: Callable[[Path], Path],
    options: list,
    sample: np.ndarray,
    label: str,
    command: Command,
    tmp_path: Path,
) -> None:
    def said(*words: object) -> dict[str, Any]:
        code, out, problem = command(*words, "--json")
        assert code == 0, problem
        return json.loads(out)

    options = [*options, "--epochs", 8, "--set", "training.batch=16", "--out", tmp_path / "run"]
    trained = said("train", "--data", make(tmp_path), *options)
    assert trained["data"] == "own" and trained["accuracy"]["final"] == 1.0
    assert said("evaluate", tmp_path / "run")["accuracy"] == trained["accuracy"]
    said("export", tmp_path / "run", "--out", tmp_path / "own.bundle")
    bundle = read(tmp_path / "own.bundle")
    with Edge.open(bundle, plan=Plan(bundle.net.last)) as edge:
        assert bundle.manifest.labels[edge.answer(sample[0]).label] == label


def test_a_path_that_is_no_data_is_refused_in_one_sentence(
    command: Command, tmp_path: Path
) -> None:
    for path in (tmp_path / "nowhere", tmp_path / "nowhere.csv"):
        code, out, problem = command("train", "--data", path, "--out", tmp_path / "run")
        assert (code, out) == (2, "") and f"{path}: no" in " ".join(problem.split())


def test_bad_photos_are_told_by_lines_and_left_out_from_training_to_answers(
    command: Command, tmp_path: Path
) -> None:
    folder = pictures(tmp_path)
    (folder / "train" / "dark" / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (folder / "test" / "dark" / "notes.txt").write_text("text")
    (folder / "test" / "dark" / "Thumbs.db").write_text("litter")
    words = ["train", "--data", folder, "--set", "model.width=8", "--epochs", 1]
    code, out, problem = command(*words, "--out", tmp_path / "run")
    assert (code, out) == (2, "")
    first, *files = problem.splitlines()
    assert first.startswith("presplit: ") and "2 of its 102 files" in first
    assert [file.split(":")[0].rpartition("/")[2] for file in files] == ["notes.txt", "cut.png"]
    code, _, problem = command(*words, "--skip-bad", "--out", tmp_path / "run")
    assert code == 0 and "2 bad files are left out of own" in problem
    assert "80 samples of 2 classes to train with" in problem and "40 of each" in problem
    assert json.loads((tmp_path / "run" / "result.json").read_text())["left_out"] == 2
    assert command("export", tmp_path / "run", "--out", tmp_path / "b")[0] == 0
    found = json.loads(command("inspect", tmp_path / "b", "--json")[1])["preparation"]
    assert (found["height"], found["width"], found["how"]) == (8, 8, "exact")
    code, out, _ = command("run", tmp_path / "b", folder / "test", folder / "train" / "dark")
    lines = [json.loads(line) for line in out.splitlines()]
    assert code == 4 and len(lines) == 61
    assert [Path(line["file"]).name for line in lines if "error" in line] == ["cut.png"]
    assert all({"class", "file", "exit"} < line.keys() for line in lines if "label" in line)
