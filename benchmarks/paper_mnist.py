"""The paper's own experiment: 2,360 predefined-sparse weights against a dense net of that size.

arXiv 2407.11763's shipped configurations on MNIST, padded to 800 inputs: a dense 800-3-3-10, the
sparse 800-40-40-10 with out-degrees 2, 9, 10, and its dense parent, in the paper's recipe; then the
same sparse net in our default recipe. A tenth of the training set is held out of every training;
accuracies are on the test set.
"""

from __future__ import annotations

import statistics
import tempfile
from typing import Any

from presplit.core.spec import spec_from
from presplit.train import runs

SMALL, WIDE, FAN_OUT = (800, 3, 3, 10), (800, 40, 40, 10), (2, 9, 10)
ROWS: dict[str, tuple[tuple[int, ...], tuple[int, ...], str, float, float]] = {
    "dense of the same size, paper's recipe": (SMALL, (), "paper", 0.67, 0.82),
    "sparse, paper's recipe": (WIDE, FAN_OUT, "paper", 0.93, 0.945),
    "dense parent, paper's recipe": (WIDE, (), "paper", 0.965, 0.975),
    "sparse, default recipe": (WIDE, FAN_OUT, "default", 0.945, 1.0),
}
"""Layers, out-degrees, recipe, and between which accuracies the mean is expected."""


def run(quick: bool, *, seeds: tuple[int, ...] = (0, 1, 2)) -> dict[str, Any]:
    """Mean and spread over ``seeds``.

    ``quick`` trains one seed for 5 epochs, and checks only that sparse wins.
    """
    rows = [
        _row(name, *row[:3], seeds=seeds[:1] if quick else seeds, quick=quick)
        for name, row in ROWS.items()
    ]
    small, sparse = rows[0]["accuracy"], rows[1]["accuracy"]
    checks = [
        {
            "name": "sparse beats dense of its size",
            "value": sparse - small,
            "target": "> 0",
            "ok": sparse > small,
        }
    ]
    for row, (*_, least, most) in [] if quick else zip(rows, ROWS.values(), strict=True):
        ok = least <= row["accuracy"] <= most
        checks.append(
            {"name": row["row"], "value": row["accuracy"], "target": f"{least} to {most}", "ok": ok}
        )
    return {"rows": rows, "checks": checks}


def _row(
    name: str,
    layers: tuple[int, ...],
    fan_out: tuple[int, ...],
    recipe: str,
    *,
    seeds: tuple[int, ...],
    quick: bool,
) -> dict[str, Any]:
    results = [_train(layers, fan_out, recipe, seed, quick) for seed in seeds]
    found = [result["accuracy"]["final"] for result in results]
    return {
        "row": name,
        "layers": "-".join(map(str, layers)),
        "recipe": recipe,
        "weights": results[0]["weights"],
        "accuracy": statistics.mean(found),
        "spread": max(found) - min(found),
        "seeds": len(found),
        "each": " ".join(f"{100 * share:.2f}" for share in found),
    }


def _train(
    layers: tuple[int, ...], fan_out: tuple[int, ...], recipe: str, seed: int, quick: bool
) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "name": "paper-mnist",
        "seed": seed,
        "data": {"name": "mnist", "pad_to": layers[0]},
        "model": {"kind": "mlp", "layers": list(layers)},
        "training": {"recipe": recipe, **({"epochs": 5} if quick else {})},
    }
    if fan_out:
        spec["sparsity"] = {"family": "biregular", "fan_out": list(fan_out)}
    with tempfile.TemporaryDirectory() as directory:
        return runs.train(spec_from(spec), directory)
