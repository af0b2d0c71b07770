"""The ways of the demo side by side: a dense net's, ours, as planned, and with an outage.

Does what ``presplit demo`` does, with its processes: a tail server, a shaped link of 10 Mbit/s and
20 ms, an edge without torch that is as slow as a microcontroller. It first checks that torch and
the joined segments give the same logits.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from presplit.lab.demo import DEMOS, show
from presplit.lab.demo_ways import DENSE
from presplit.profiles import LINKS, device_from

TARGETS = {
    "digits": {"drop": 0.02},
    "mnist": {"dense": 0.99, "split+exit": 0.987, "edge_share": 0.6},
}
"""What is to hold of each data set besides what always is to."""
SLACK_S = 0.01
"""What an answer may take beyond its deadline."""


def run(quick: bool, *, data: str = "digits") -> dict[str, Any]:
    """The demo's table for ``data``; ``quick`` answers 100 test images instead of all."""
    with tempfile.TemporaryDirectory() as out:
        shown = show(
            DEMOS.find(data),
            Path(out),
            device=device_from("cortex-m7,memory=128kB"),
            link=LINKS.find("10mbit"),
            deadline_s=0.1,
            images=100 if quick else None,
            tell=lambda line: print(line, file=sys.stderr, flush=True),
        )
    by_way = {row["way"]: row for row in shown.rows}
    early, targets = by_way["split+exit"], TARGETS[data]
    weights = {"dense_weights": shown.dense["weights"], "sparse_weights": shown.sparse["weights"]}
    ratio = weights["sparse_weights"] / weights["dense_weights"]
    dense = shown.dense["accuracy"]["final"]
    checks = [
        _at_most("sparse weights over dense weights", ratio, 0.25),
        _at_most("answers lost in the outage", shown.lost, 0),
        _at_most(
            "longest answer in the outage over the deadline, s",
            shown.longest_s - shown.deadline_s,
            SLACK_S,
        ),
        _at_most(
            "mean time as planned over that of the best dense way",
            by_way[shown.planned]["mean_s"] / min(by_way[way]["mean_s"] for way in DENSE),
            1.0,
        ),
    ]
    if "drop" in targets:
        lost = dense - by_way["edge"]["accuracy"]
        checks.append(_at_most("accuracy lost against the dense net", lost, targets["drop"]))
    for key, title, value in (
        ("dense", "dense accuracy", dense),
        ("split+exit", "split + exit accuracy", early["accuracy"]),
        ("edge_share", "share answered on the edge", early["edge_share"]),
    ):
        if key in targets:
            checks.append(_at_least(title, value, targets[key]))
    return {"rows": [{**row, **weights} for row in shown.rows], "checks": checks}


def _at_most(name: str, value: float, most: float) -> dict[str, Any]:
    return {"name": name, "value": value, "target": f"<= {most:g}", "ok": value <= most}


def _at_least(name: str, value: float, least: float) -> dict[str, Any]:
    return {"name": name, "value": value, "target": f">= {least:g}", "ok": value >= least}
