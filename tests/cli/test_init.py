"""`presplit init` looks at data, and what it writes trains as it is."""

from __future__ import annotations

import json
import tomllib
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Command = Callable[..., tuple[int, str, str]]


def photos(folder: Path) -> Path:
    """Twelve and six small photos of two classes, in a folder for each, and two bad files."""
    random = np.random.default_rng(0)
    for name, count, level in (("bright", 18, 200), ("dark", 6, 40)):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = random.integers(level, level + 40, (20 + number % 3, 24, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    (folder / "dark" / "cut.png").write_bytes(b"\x89PNG")
    (folder / "dark" / "notes.txt").write_text("text")
    return folder


@pytest.mark.long
def test_photos_are_looked_at_and_the_spec_and_the_code_train_as_they_are(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    photos(tmp_path / "My Photos")
    code, out, problem = command("init", "My Photos/")
    assert code == 0, problem
    assert "bright  14     4" in out and "2 bad files, which the spec leaves out" in out
    assert "cut.png: not a readable image" in out and "from 24 x 20 to 24 x 22 pixels" in out
    assert out.splitlines()[-1] == "Next: presplit train spec.toml"
    spec = tomllib.loads(Path("spec.toml").read_text())
    assert (spec["name"], spec["data"]["name"]) == ("my-photos", "My Photos")
    assert spec["data"]["skip_bad"] is True and spec["data"]["size"] == 21
    assert 'class_weights = "balanced"' in Path("spec.toml").read_text()
    before = Path("spec.toml").read_bytes()
    code, out, problem = command("init", "My Photos")
    assert (code, out) == (2, "") and "spec.toml is there already" in problem
    assert Path("spec.toml").read_bytes() == before
    for number in range(12):
        (tmp_path / "My Photos" / "bright" / f"cut{number}.png").write_bytes(b"\x89PNG")
    code, out, problem = command("train", "--data", "My Photos", "--set", "data.size=21", "--json")
    assert code == 2 and len(problem.splitlines()) == 12 and "\n  and 4 more" in problem
    assert json.loads(out)["error"].count("not a readable image") == 13, "programs are told all"
    code, out, problem = command("train", "spec.toml", "--epochs", 1, "--json")
    assert code == 0, problem
    assert "\nand 4 more\n14 bad files are left out" in problem
    built_in = json.loads(out)
    code, out, problem = command(
        "train", "spec.toml", "--model", "model.py:make", "--epochs", 1, "--json"
    )
    assert code == 0, problem
    assert json.loads(out)["weights"] == built_in["weights"], "the same net as code"


def test_rows_images_and_a_template_get_a_net_that_fits(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    rows = random.normal(size=(40, 3))
    lines = [f"{a},{b},{c},{'high' if a > 0 else 'low'}" for a, b, c in rows]
    Path("table.csv").write_text("a,b,c,what\n" + "\n".join(lines) + "\n")
    x, y = random.integers(0, 256, (60, 8, 9), np.uint8), np.arange(60) % 3
    np.savez("odd.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    for words, kind in ((["table.csv"], "rows"), (["odd.npz"], "rows"), ([], "images")):
        place = Path("for-" + (words[0] if words else "digits"))
        code, out, problem = command("init", *words, "--out", place, "--json")
        assert code == 0 and json.loads(out)["kind"] == kind, problem
    for words in (["for-table.csv/spec.toml"], ["for-odd.npz/spec.toml", "--model"]):
        code_of = ["for-odd.npz/model.py:make"] if "--model" in words else []
        code, _, problem = command("train", *words, *code_of, "--epochs", 1)
        assert code == 0, problem


@pytest.mark.long
def test_sounds_of_several_rates_are_brought_to_one(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("low", "high"):
        Path("sounds", name).mkdir(parents=True)
        for number in range(6):
            rate = 22_050 if number else 8000
            with wave.open(f"sounds/{name}/{number}.wav", "wb") as file:
                file.setnchannels(1)
                file.setsampwidth(2)
                file.setframerate(rate)
                tone = np.sin(np.arange(rate // 2) * (0.1 if name == "low" else 0.6))
                file.writeframes((tone * 8000).astype("<i2").tobytes())
    code, out, problem = command("init", "sounds")
    assert code == 0, problem
    assert "rate = 16000" in Path("spec.toml").read_text()
    for words in ([], ["--model", "model.py:make"]):
        code, _, problem = command("train", "spec.toml", "--epochs", 1, *words)
        assert code == 0, problem


@pytest.mark.long
def test_a_data_set_of_photos_of_several_sizes_gets_one_size(
    command: Command, tmp_path: Path
) -> None:
    code, _, problem = command("init", "clothing", "--out", tmp_path)
    if "is not in" in problem:
        pytest.skip(problem)
    assert code == 0, problem
    spec = tomllib.loads((tmp_path / "spec.toml").read_text())
    assert spec["data"] == {"name": "clothing", "size": 48, "validation": 0.1}
