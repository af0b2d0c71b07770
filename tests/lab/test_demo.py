"""The main job, end to end, in a small form: both trainings short, few images, a short outage.

The device is a fast one with little memory, so that the ways are over soon and a split is needed.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from presplit.bundle import read
from presplit.cli.demo import text
from presplit.core.costs import Device
from presplit.core.errors import PresplitError
from presplit.lab.demo import DIGITS, Shown, agreement, show
from presplit.lab.demo_page import write_demo_page
from presplit.lab.demo_ways import DENSE, WAYS, too_large, verdict
from presplit.profiles import LINKS
from presplit.train import runs

ROW = {
    *("way", "accuracy", "edge_share", "mean_s", "p50_s", "p99_s", "up_bytes"),
    *("edge_bytes", "edge_macs"),
}
SMALL = dataclasses.replace(
    DIGITS,
    epochs=3,
    width=16,
    tail=128,
    layers={**DIGITS.layers, "block4.conv": 0.125},
    outage_run_s=6.0,  # a busy machine takes 2 s to start a server
    max_drop=0.05,
    timed=10,
    measured_s=0.5,
)
BOARD = Device("small board", macs_per_s=2e8, memory_bytes=25_000, power_w=1.0)
STALL_S = 0.25
"""How long a machine that is busy with other things may stall one answer out of many."""


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Shown, list[str], Path]:
    """What one demo did, the lines it said, and its directory."""
    out, said = tmp_path_factory.mktemp("demo") / "with space", []
    shown = show(
        SMALL,
        out,
        device=BOARD,
        link=LINKS.find("10mbit"),
        deadline_s=0.1,
        images=20,
        tell=said.append,
    )
    return shown, said, out


def test_each_way_does_what_it_says(demo: tuple[Shown, list[str], Path]) -> None:
    shown, *_ = demo
    assert [row["way"] for row in shown.rows] == list(WAYS)
    assert all(set(row) == ROW for row in shown.rows)
    dense, int8, sent, edge, server, split, early, outage = shown.rows
    assert all((row["edge_share"], row["up_bytes"]) == (1, 0) for row in (dense, int8, edge))
    assert dense["accuracy"] > 0.7 and edge["accuracy"] > 0.7
    # A busy machine may make an answer late, so that the edge gives it.
    assert all(row["edge_share"] < 0.1 for row in (sent, server, split))
    assert sent["up_bytes"] == server["up_bytes"] == 64 and split["up_bytes"] == 32
    assert early["up_bytes"] < split["up_bytes"]
    assert early["edge_macs"] < edge["edge_macs"] < dense["edge_macs"]
    assert min(sent["p50_s"], server["p50_s"], split["p50_s"]) > 0.02  # the link's round trip
    assert outage["edge_share"] >= early["edge_share"]


def test_the_edge_is_as_slow_as_its_device(demo: tuple[Shown, list[str], Path]) -> None:
    shown, *_ = demo
    dense = shown.rows[0]
    assert shown.slow.factor > 1
    assert dense["p50_s"] == pytest.approx(dense["edge_macs"] / BOARD.macs_per_s, rel=0.5)


def test_the_plan_fits_the_device_and_the_others_are_named(
    demo: tuple[Shown, list[str], Path],
) -> None:
    shown, *_ = demo
    large = too_large(shown.rows, BOARD)
    assert {"dense-edge", "dense-int8-edge", "edge"} <= set(large)
    assert shown.planned == "split+exit" and shown.planned not in large
    assert shown.plan.thresholds and shown.plan.expected is not None
    assert shown.plan.expected.how == "measured"


def test_the_last_sentence_is_what_the_table_says() -> None:
    def way(name: str, mean_s: float, sent: float, held: float = 0) -> dict[str, object]:
        same = {"p50_s": mean_s / 2, "accuracy": 0.98}
        return {"way": name, "mean_s": mean_s, "up_bytes": sent, "edge_bytes": held, **same}

    # The fastest of the dense ways does not fit.
    dense = [way(DENSE[0], 0.2, 0), way(DENSE[1], 0.002, 0, 90_000), way(DENSE[2], 0.024, 64)]
    won = verdict([*dense, way("split+exit", 0.008, 4)], "split+exit", BOARD)
    assert "3.0x as fast on average as the best dense way that fits, dense-server" in won
    assert "16x fewer bytes sent; accuracy 98.00 % against 98.00 %." in won
    lost = verdict([*dense, way("split+exit", 0.048, 4)], "split+exit", BOARD)
    assert "it does not pay here: dense-server is 2.0x as fast" in lost


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
    before = {"dense_accuracy", "dense_weights", "sparse_weights", "table", "outage"}
    assert set(result) == before | {"device", "factor", "link", "planned", "plan", "verdict"}
    assert set(result["outage"]) == {"lost", "longest_s", "deadline_s"}
    lines = text(shown, "report.html").splitlines()
    assert len(lines) == 2 + len(WAYS) + 9
    assert lines[-4].startswith("Outage: 0 answers lost; longest answer ")
    assert lines[-2] == shown.verdict


def test_the_page_stands_alone_with_its_three_plots(demo: tuple[Shown, list[str], Path]) -> None:
    shown, _, out = demo
    page = write_demo_page(out / "report.html", shown).read_text(encoding="utf-8")
    assert page.count("<svg") == 3 and "<script" not in page
    assert "http" not in page.replace("http://www.w3.org", "")
    assert "server not reached" in page and "this machine slowed" in page
    assert "link_down" not in page and "does not fit in" in page


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
