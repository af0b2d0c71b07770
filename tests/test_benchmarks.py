"""The benchmarks' runner, run as a user runs it, over a folder of the test's own benchmarks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

TOY = '''"""Is one less than two?

More words.
"""


def run(quick, *, rows=("a", "b"), bound=2):
    table = [{"name": name, "value": 1.23456} for name in rows]
    check = {"name": "one", "value": 1, "target": f"< {bound}", "ok": 1 < bound}
    return {"rows": table, "checks": [check]}
'''
BROKEN = '''"""Does a refusal stay one sentence?"""
from presplit.core.errors import DataError


def run(quick):
    raise DataError("no data set")
'''


@pytest.fixture
def folder(tmp_path):
    """A folder in which ``python -m benchmarks`` finds the toys instead of the real benchmarks."""
    (tmp_path / "benchmarks").mkdir()
    for name in ("__init__", "__main__", "runner"):
        shutil.copy(ROOT / "benchmarks" / f"{name}.py", tmp_path / "benchmarks")
    (tmp_path / "benchmarks" / "toy.py").write_text(TOY)
    (tmp_path / "benchmarks" / "broken.py").write_text(BROKEN)
    return tmp_path


def benchmarks(folder, *arguments):
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-W", "error", "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=60)


def test_without_a_name_the_benchmarks_are_listed_with_their_questions(folder):
    done = benchmarks(folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert "toy     Is one less than two?" in done.stdout
    assert "More words" not in done.stdout


def test_a_result_is_printed_and_written_with_machine_and_versions(folder):
    done = benchmarks(folder, "toy", "--json", "toy.json")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(
        "name  value\n----  -----\na     1.235\nb     1.235\n\nok   one: 1 (< 2)\n"
    )
    result = json.loads((folder / "toy.json").read_text())
    assert list(result) == ["benchmark", "machine", "versions", "rows", "checks"]
    assert result["rows"] == [{"name": "a", "value": 1.23456}, {"name": "b", "value": 1.23456}]
    assert result["checks"] == [{"name": "one", "value": 1, "target": "< 2", "ok": True}]
    assert result["machine"]["cores"] >= 1
    assert {"python", "numpy"} <= set(result["versions"])


def test_a_check_that_does_not_hold_exits_with_1_and_still_writes(folder):
    done = benchmarks(folder, "toy", "--bound", "1", "--json", "toy.json")
    assert done.returncode == 1
    assert "FAIL one: 1 (< 1)" in done.stdout
    assert json.loads((folder / "toy.json").read_text())["checks"][0]["ok"] is False


def test_an_option_that_the_benchmark_declares_reaches_it(folder):
    assert "\nc  " in benchmarks(folder, "toy", "--rows", "c", "d").stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["toys"], "no benchmark named 'toys'; there are: broken, toy\n"),
        (["broken"], "broken: no data set\n"),
        (
            ["toy", "--json", "nowhere/toy.json"],
            "toy: [Errno 2] No such file or directory: 'nowhere/toy.json'\n",
        ),
    ],
)
def test_what_cannot_run_is_one_sentence_and_exits_with_2(folder, arguments, sentence):
    done = benchmarks(folder, *arguments)
    assert (done.returncode, done.stderr) == (2, sentence)


def test_an_option_that_the_benchmark_does_not_declare_is_refused(folder):
    done = benchmarks(folder, "broken", "--rows", "a")
    assert done.returncode == 2
    assert "unrecognized arguments: --rows a" in done.stderr


def test_a_peer_that_was_not_measured_does_not_pass() -> None:
    from benchmarks._serving import Asked, Found
    from benchmarks._serving_wire import HTTP_PEERS, _rates

    seen = {who: [(2000.0, 1.0)] for who in ("presplit, lane", "presplit, unary gRPC", "FastAPI")}
    for quick in (True, False):
        found = Found()
        _rates(found, seen, Asked(quick))
        failed = {check["name"] for check in found.checks if check["value"] == "not measured"}
        assert not any(check["ok"] for check in found.checks if check["name"] in failed)
        missing = set() if quick else set(HTTP_PEERS) - {"FastAPI"}
        assert {name.partition(" over ")[2] for name in failed} == missing
