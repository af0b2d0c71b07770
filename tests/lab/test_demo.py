"""The main job, end to end, in a small form: both trainings short, few images, a short outage."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from presplit.bundle import read
from presplit.cli.demo import text
from presplit.core.errors import PresplitError
from presplit.lab.demo import DIGITS, WAYS, Shown, agreement, show
from presplit.lab.demo_page import write_demo_page
from presplit.profiles import LINKS
from presplit.train import runs

ROW = {"way", "accuracy", "edge_share", "p50_s", "p99_s", "up_bytes", "edge_macs"}
SMALL = dataclasses.replace(DIGITS, epochs=3, width=16, outage_run_s=4.0)
STALL_S = 0.25
"""How long a machine that is busy with other things may stall one answer out of many."""


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Shown, list[str], Path]:
    """What one demo did, the lines it said, and its directory."""
    out, said = tmp_path_factory.mktemp("demo") / "with space", []
    shown = show(SMALL, out, link=LINKS.find("10mbit"), deadline_s=0.1, images=60, tell=said.append)
    return shown, said, out


def test_each_way_does_what_it_says(demo: tuple[Shown, list[str], Path]) -> None:
    shown, *_ = demo
    assert [row["way"] for row in shown.rows] == list(WAYS)
    assert all(set(row) == ROW for row in shown.rows)
    edge, server, split, early, outage = shown.rows
    assert (edge["edge_share"], edge["up_bytes"]) == (1, 0)
    assert edge["accuracy"] > 0.7
    # A busy machine may make an answer late, so that the edge gives it.
    assert server["edge_share"] < 0.1 and split["edge_share"] < 0.1
    assert server["up_bytes"] == 64 and split["up_bytes"] == 32
    assert early["up_bytes"] < split["up_bytes"]
    assert early["edge_macs"] < split["edge_macs"] < edge["edge_macs"]
    assert min(server["p50_s"], split["p50_s"]) > 0.02  # the round trip of the shaped link
    assert outage["edge_share"] >= early["edge_share"]


def test_the_server_died_and_no_answer_was_lost(demo: tuple[Shown, list[str], Path]) -> None:
    shown, *_ = demo
    assert shown.lost == 0
    assert shown.longest_s <= shown.deadline_s + STALL_S
    assert 0 < shown.broken[0] < shown.broken[1] < SMALL.outage_run_s


def test_a_sparse_net_is_smaller_by_what_was_asked(demo: tuple[Shown, list[str], Path]) -> None:
    shown, *_ = demo
    assert shown.sparse["weights"] < 0.26 * shown.dense["weights"]


def test_it_is_told_step_by_step_and_as_one_object(demo: tuple[Shown, list[str], Path]) -> None:
    shown, said, _ = demo
    assert [line[:5] for line in said if line.startswith("[")] == [f"[{k}/5]" for k in range(1, 6)]
    result = json.loads(json.dumps(shown.to_builtins()))
    assert set(result) == {"dense_accuracy", "dense_weights", "sparse_weights", "table", "outage"}
    assert set(result["outage"]) == {"lost", "longest_s", "deadline_s"}
    lines = text(shown, "report.html").splitlines()
    assert len(lines) == 2 + len(WAYS) + 4
    assert lines[-2].startswith("Outage: 0 answers lost; longest answer ")


def test_the_page_stands_alone_with_its_two_plots(demo: tuple[Shown, list[str], Path]) -> None:
    shown, _, out = demo
    page = write_demo_page(out / "report.html", shown).read_text(encoding="utf-8")
    assert page.count("<svg") == 2 and "<script" not in page
    assert "http" not in page.replace("http://www.w3.org", "")
    assert "link_down" in page


def test_a_bundle_of_another_training_does_not_agree(
    demo: tuple[Shown, list[str], Path],
) -> None:
    """The comparison of torch with the joined segments sees weights that are not the same."""
    out = demo[2]
    bundle, run = read(out / "digits.bundle"), runs.read_run(out / "sparse")
    images = run.data.test.x
    assert agreement(bundle, run.model, images) < 1e-4
    next(iter(run.model.parameters())).data.mul_(1.01)
    with pytest.raises(PresplitError, match="differ by"):
        agreement(bundle, run.model, images)
