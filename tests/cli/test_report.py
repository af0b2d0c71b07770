"""``presplit report`` from the command line: it knows what it is given, and writes one file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from presplit.cli.main import main

SPEC = """
name = "tiny"
[model]
layers = [64, 64, 32, 10]
[sparsity]
density = 0.25
[exits]
after = ["relu1"]
[training]
epochs = 1
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    (folder / "spec.toml").write_text(SPEC)
    assert main(["train", str(folder / "spec.toml"), "--out", str(folder / "run")]) == 0
    return folder / "run"


def test_a_run_is_shown_with_its_net_its_patterns_and_how_it_was_made(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["report", str(run), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["kind"] == "run" and said["notes"] == []
    page = (run / "report.html").read_text()
    assert said["report"] == str(run / "report.html") and said["bytes"] == len(page.encode())
    for words in ("relu1", "exit final", "What is taken for what", "<img", "density 0.25"):
        assert words in page
    versions = json.loads((run / "versions.json").read_text())
    assert {"command", "machine", "date"} < set(versions) and versions["machine"] in page


def test_a_result_of_an_older_run_is_completed(run: Path, tmp_path: Path) -> None:
    file = run / "result.json"
    before = file.read_bytes()
    old = {k: v for k, v in json.loads(before).items() if k not in ("per_class", "calibration")}
    file.write_text(json.dumps(old))
    try:
        assert main(["report", str(run), "--out", str(tmp_path / "r.html")]) == 0
    finally:
        file.write_bytes(before)
    page = (tmp_path / "r.html").read_text()
    assert "Class by class" in page and "Calibration of final" in page


def test_a_run_whose_net_cannot_be_built_is_shown_by_its_files(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = (run / "model.safetensors").read_bytes()
    (run / "model.safetensors").write_bytes(b"torn")
    try:
        assert main(["report", str(run), "--out", str(tmp_path / "r.html")]) == 0
    finally:
        (run / "model.safetensors").write_bytes(weights)
    assert "not a safetensors file" in capsys.readouterr().out
    assert "Class by class" in (tmp_path / "r.html").read_text()


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ([], "expected the directory of a run (spec.json, result.json), of a sweep"),
        (["unfinished/spec.json"], "this run is not finished; presplit train --resume"),
        (None, "there is no such directory"),
    ],
)
def test_any_other_directory_is_refused_in_a_sentence(
    files: list[str] | None, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "some"
    for name in files or []:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    if files == []:
        folder.mkdir()
    assert main(["report", str(folder)]) == 2
    assert words in capsys.readouterr().err
