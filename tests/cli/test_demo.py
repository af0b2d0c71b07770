"""The main job, end to end: what a newcomer's first command prints, writes and does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

WAYS = ["edge", "server", "split", "split+exit", "split+exit+outage"]
ROW = {"way", "accuracy", "edge_share", "p50_s", "p99_s", "up_bytes", "edge_macs"}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, str, Path]:
    """Result, what was said meanwhile, and the directory of one run on 150 images."""
    out = tmp_path_factory.mktemp("demo") / "with space"
    command = [
        sys.executable,
        "-m",
        "presplit",
        "demo",
        "--json",
        "--images",
        "150",
        "--out",
        str(out),
    ]
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=600, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1
    return json.loads(done.stdout), done.stderr, out


def test_one_json_object_says_everything(demo: tuple[dict, str, Path]) -> None:
    result, *_ = demo
    assert set(result) == {"dense_accuracy", "dense_weights", "sparse_weights", "table", "outage"}
    assert [row["way"] for row in result["table"]] == WAYS
    assert all(set(row) == ROW for row in result["table"])
    assert set(result["outage"]) == {"lost", "longest_s", "deadline_s"}


def test_a_quarter_of_the_weights_keeps_the_accuracy(demo: tuple[dict, str, Path]) -> None:
    result, *_ = demo
    assert result["sparse_weights"] <= result["dense_weights"] / 4
    assert (
        result["table"][0]["accuracy"] >= result["dense_accuracy"] - 0.03
    )  # 2 points, and a little for 150 images


def test_each_way_does_what_it_says(demo: tuple[dict, str, Path]) -> None:
    edge, server, split, early, outage = demo[0]["table"]
    assert (edge["edge_share"], edge["up_bytes"]) == (1, 0)
    assert (
        server["edge_share"] < 0.1 and split["edge_share"] < 0.1
    )  # a busy machine may make an answer late
    assert server["up_bytes"] == 64 and split["up_bytes"] == 32
    assert (
        0 < early["up_bytes"] < split["up_bytes"]
        and early["edge_macs"] < split["edge_macs"] < edge["edge_macs"]
    )
    assert min(server["p50_s"], split["p50_s"]) > 0.02  # the round trip of the shaped link
    assert outage["edge_share"] >= early["edge_share"]


def test_the_server_died_and_no_answer_was_lost(demo: tuple[dict, str, Path]) -> None:
    result, _, out = demo
    assert result["outage"]["lost"] == 0
    assert (
        result["outage"]["longest_s"] <= result["outage"]["deadline_s"] + 0.25
    )  # 10 ms, and a stall of the machine
    assert "link_down" in (out / "report.html").read_text()


def test_the_report_stands_alone_with_its_two_plots(demo: tuple[dict, str, Path]) -> None:
    page = (demo[2] / "report.html").read_text()
    assert (
        page.count("<svg") == 2
        and "<script" not in page
        and "http" not in page.replace("http://www.w3.org", "")
    )


def test_progress_is_said_step_by_step(demo: tuple[dict, str, Path]) -> None:
    said = demo[1]
    assert [step in said for step in ("[1/5]", "[2/5]", "[3/5]", "[4/5]", "[5/5]")] == [True] * 5
