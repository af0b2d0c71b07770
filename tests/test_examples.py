"""Every example is short, runs and shows something, and every spec among them is read."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from presplit.core.spec import read_spec

ROOT = Path(__file__).parents[1]
PROGRAMS = sorted(ROOT.glob("examples/*.py"))
SPECS = sorted(ROOT.glob("examples/*.toml"))
MAX_LINES = 50


@pytest.mark.long
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.name)
def test_an_example_runs_and_prints_a_result(
    program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(program), run_name="__main__")
    said = capsys.readouterr()
    assert said.out.strip() and not said.err


def test_every_example_is_at_most_50_lines():
    assert [file.name for file in PROGRAMS if len(file.read_text().splitlines()) > MAX_LINES] == []


def test_every_spec_among_the_examples_is_read():
    assert all(read_spec(file).name for file in SPECS)
