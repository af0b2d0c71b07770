"""What is handed out is built from the last commit, twice to the same bytes, and is complete."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.long
def test_source_and_wheel_are_the_same_when_they_are_built_again(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    if not (ROOT / ".git").exists():
        pytest.skip("not a clone of the repository")
    command = [sys.executable, ROOT / "scripts" / "dist", "--out", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("the same twice") == 2
    sums = (tmp_path / "SHA256SUMS").read_text().splitlines()
    assert {Path(line.split()[1]).suffix for line in sums} == {".gz", ".whl"}
