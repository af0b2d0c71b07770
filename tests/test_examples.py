"""Every example is short, runs as a user would run it, and every spec among them is read."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from presplit.core.spec import read_spec

ROOT = Path(__file__).parents[1]
PROGRAMS = sorted(ROOT.glob("examples/*.py"))
SPECS = sorted(ROOT.glob("examples/*.toml"))
MAX_LINES = 50


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.name)
def test_an_example_runs_and_prints_a_result(program, tmp_path):
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(
        [sys.executable, program],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_every_example_is_at_most_50_lines():
    assert [file.name for file in PROGRAMS if len(file.read_text().splitlines()) > MAX_LINES] == []


def test_every_spec_among_the_examples_is_read():
    assert all(read_spec(file).name for file in SPECS)
