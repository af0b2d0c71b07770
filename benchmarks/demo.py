"""The five ways of the demo side by side.

They are: all on the edge, all on the server, split, with an exit, with an outage.

Does what ``presplit demo`` does, with its processes: a tail server, a shaped link of 10 Mbit/s and
20 ms, an edge without torch. It first checks that torch and the joined segments give the same
logits.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from presplit.lab.demo import DEMOS, show
from presplit.profiles import LINKS

TARGETS = {
    "digits": {"dense": None, "drop": 0.02, "split+exit": None, "edge_share": None},
    "mnist": {"dense": 0.99, "drop": None, "split+exit": 0.987, "edge_share": 0.6},
}


def run(quick: bool, *, data: str = "digits") -> dict[str, Any]:
    """The demo's table for ``data``; ``quick`` answers 100 test images instead of all."""
    with tempfile.TemporaryDirectory() as out:
        shown = show(
            DEMOS.find(data),
            Path(out),
            link=LINKS.find("10mbit"),
            deadline_s=0.1,
            images=100 if quick else None,
            tell=lambda line: print(line, file=sys.stderr, flush=True),
        )
    found = shown.to_builtins()
    by_way = {row["way"]: row for row in found["table"]}
    outage, wanted, early = found["outage"], TARGETS[data], by_way["split+exit"]
    ratio = found["sparse_weights"] / found["dense_weights"]
    checks = [
        _check("sparse weights over dense weights", ratio, "<= 0.25", ratio <= 0.25),
        _check("answers lost in the outage", outage["lost"], "0", outage["lost"] == 0),
        _check(
            "longest answer in the outage over the deadline, s",
            outage["longest_s"] - outage["deadline_s"],
            "<= 0.01",
            outage["longest_s"] - outage["deadline_s"] <= 0.01,
        ),
    ]
    if wanted["drop"] is not None:
        lost = found["dense_accuracy"] - by_way["edge"]["accuracy"]
        checks.append(
            _check(
                "accuracy lost against the dense net",
                lost,
                f"<= {wanted['drop']}",
                lost <= wanted["drop"],
            )
        )
    if wanted["dense"] is not None:
        value = found["dense_accuracy"]
        checks.append(
            _check("dense accuracy", value, f">= {wanted['dense']}", value >= wanted["dense"])
        )
    for name, value in (("split+exit", early["accuracy"]), ("edge_share", early["edge_share"])):
        if wanted[name] is not None:
            title = (
                "split + exit accuracy" if name == "split+exit" else "share answered on the edge"
            )
            checks.append(_check(title, value, f">= {wanted[name]}", value >= wanted[name]))
    extra = {"dense_weights": found["dense_weights"], "sparse_weights": found["sparse_weights"]}
    return {"rows": [{**row, **extra} for row in found["table"]], "checks": checks}


def _check(name: str, value: float, target: str, ok: bool) -> dict[str, Any]:
    return {"name": name, "value": value, "target": target, "ok": ok}
