"""Which way helps most where classes are uneven, chosen on held-out samples.

A small net with an early exit on the clothing photographs at 32 pixels (quick: digits), of which
500 of the commonest class down to 20 of the rarest are trained on, evenly spread on a logarithmic
scale. Ways are compared by the balanced accuracy of the last exit on samples that are held out, 60
of each class; the test set's accuracies stand beside it.
"""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np
import torch

from presplit.core.errors import SpecError
from presplit.train import Recipe, add_exits, evaluate, fit
from presplit.train.data import Samples, load
from presplit.train.judging.evaluate import balanced_accuracy
from presplit.train.zoo import small_cnn


def run(quick: bool, *, seeds: int = 3, epochs: int = 15) -> dict[str, Any]:
    """A row for each way."""
    if seeds < 1 or epochs < 1:
        raise SpecError(f"seeds and epochs: expected 1 at least, got {seeds} and {epochs}")
    data = load("digits") if quick else load("clothing", size=32)
    commonest, rarest, held_out = (60, 6, 20) if quick else (500, 20, 60)
    found: dict[str, list[tuple[float, float, float]]] = {}
    for seed in range(1 if quick else seeds):
        train, held = _uneven(data.train, commonest, rarest, held_out, seed)
        for way, more in _ways(np.bincount(train.y)).items():
            torch.manual_seed(seed)
            channels, size = train.x.shape[1:3]
            net = small_cnn(width=16, channels=channels, size=size, classes=len(data.labels))
            net = add_exits(net, ["block1"])
            augment = "none" if quick else "crop+flip"
            recipe = Recipe(epochs=2 if quick else epochs, batch=64, augment=augment, **more)
            fit(net, train, recipe=recipe, seed=seed)
            answers = [evaluate(net, part)[-1].argmax(1) for part in (held, data.test)]
            row = (
                balanced_accuracy(answers[0], held.y),
                balanced_accuracy(answers[1], data.test.y),
                float((answers[1] == data.test.y).mean()),
            )
            found.setdefault(way, []).append(row)
    rows = [_row(way, each) for way, each in found.items()]
    best = {row["way"]: row["balanced_held_out"] for row in rows}
    gain = best["sampling"] - best["neither"]
    check = {"name": "sampling gains", "value": gain, "target": "> 0", "ok": quick or gain > 0}
    return {"rows": rows, "checks": [check]}


def _uneven(
    samples: Samples, commonest: int, rarest: int, held_out: int, seed: int
) -> tuple[Samples, Samples]:
    """So many of each class to train with, the commonest as in the data, and those held out."""
    random = np.random.default_rng(seed)
    counts = np.bincount(samples.y)
    wanted = np.geomspace(commonest, rarest, len(counts)).astype(int)
    kept: list[int] = []
    held: list[int] = []
    for label, most in zip(np.argsort(-counts), wanted, strict=True):
        places = random.permutation(np.flatnonzero(samples.y == label))
        count = min(most, len(places) - held_out)
        kept += places[:count].tolist()
        held += places[count : count + held_out].tolist()
    return samples.take(np.sort(kept)), samples.take(np.sort(held))


def _ways(counts: np.ndarray) -> dict[str, dict[str, Any]]:
    return {
        "neither": {},
        "weights, balanced": {"class_weights": "balanced"},
        "weights, root": {"class_weights": "root"},
        "weights, effective, 0.99": {"class_weights": _effective(counts, 0.99)},
        "weights, effective, 0.999": {"class_weights": _effective(counts, 0.999)},
        "sampling": {"sampling": "balanced"},
    }


def _effective(counts: np.ndarray, beta: float) -> tuple[float, ...]:
    """Weights by effective numbers of samples (arXiv 1901.05555), of mean 1 over the samples."""
    weights = (1 - beta) / (1 - beta**counts)
    return tuple((weights * counts.sum() / (weights @ counts)).tolist())


def _row(way: str, rows: list[tuple[float, float, float]]) -> dict[str, Any]:
    names = ("balanced_held_out", "balanced_test", "plain_test")
    row: dict[str, Any] = {"way": way}
    for name, values in zip(names, zip(*rows, strict=True), strict=True):
        row[name] = statistics.mean(values)
        row[f"{name}_deviation"] = statistics.stdev(values) if len(values) > 1 else 0.0
    return row
