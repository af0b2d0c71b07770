"""What thresholds give, from "all leave early" to "none does": the line that a report draws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from presplit.core import routing
from presplit.core.protocols import ExitPolicy
from presplit.core.types import Floats
from presplit.policies import EXITS
from presplit.train.judging.evaluate import Routed
from presplit.train.judging.thresholds import grids, never

MOST = 40
"""Points of a curve."""

Labels = npt.NDArray[np.int64]


def curve(
    held: tuple[Floats, Labels],
    test: tuple[Floats, Labels],
    *,
    exit_macs: Sequence[float],
    exit_names: Sequence[str],
    policy: str | ExitPolicy = "confidence",
) -> list[dict[str, Any]]:
    """Rows of rising ``macs``, at most `MOST`, one for each way to set the early exits.

    ``held`` and ``test``: logits ``(exits, n, classes)`` and labels ``(n,)`` of the held-out part
    and of the test set; ``exit_macs``: what an answer costs at each exit. A row has the
    ``thresholds`` of the early exits, the share of held-out samples that leave at each exit as
    ``shares``, the mean ``macs`` of their answers, and their accuracy as ``validation_accuracy``;
    ``accuracy`` is that of the test set. With one early exit the rows are thresholds at evenly
    spaced ranks of its scores; with several they are the best: no combination of thresholds tried
    is both cheaper and more often right on the held-out samples.

    >>> logits = np.array([[[9, 0], [1, 0]], [[9, 0], [0, 9]]], np.float32)
    >>> both = logits, np.array([0, 1])
    >>> rows = curve(both, both, exit_macs=[10, 30], exit_names=["early", "final"])
    >>> [(row["macs"], row["accuracy"]) for row in rows]
    [(10.0, 0.5), (20.0, 1.0), (30.0, 1.0)]
    """
    score = EXITS.find(policy) if isinstance(policy, str) else policy
    scores = [np.stack([score(each) for each in logits[:-1]]) for logits, _ in (held, test)]
    rows: list[dict[str, Any]] = []
    for thresholds in _tried(scores[0], held, exit_macs):
        seen, judged = (
            _routed(own, logits, labels, thresholds)
            for own, (logits, labels) in zip(scores, (held, test), strict=True)
        )
        rows.append(
            {
                "thresholds": dict(zip(exit_names[:-1], thresholds, strict=True)),
                "shares": dict(zip(exit_names, seen.shares, strict=True)),
                "macs": float(np.dot(seen.shares, exit_macs)),
                "validation_accuracy": seen.accuracy,
                "accuracy": judged.accuracy,
            }
        )
    return sorted(rows, key=lambda row: row["macs"])


def _tried(
    scores: Floats, held: tuple[Floats, Labels], exit_macs: Sequence[float]
) -> list[tuple[float, ...]]:
    """The thresholds of each point."""
    if len(scores) == 1:
        rising = routing.grid(scores[0], MOST - 1)
        return [(float(least),) for least in (*rising, never(rising))]
    logits, labels = held
    rising = grids(scores)
    found = routing.weigh(scores, logits.argmax(-1) == labels, rising)
    cost = sum(share * each for share, each in zip(found.shares, exit_macs, strict=True))
    front = _front(np.asarray(cost, float).ravel(), found.right.ravel())
    spread = np.unique(np.linspace(0, len(front) - 1, min(MOST, len(front))).round().astype(int))
    places = (np.unravel_index(front[at], found.right.shape) for at in spread)
    all_of = [np.append(each, never(each)) for each in rising]
    return [
        tuple(float(own[at]) for own, at in zip(all_of, place, strict=True)) for place in places
    ]


def _front(cost: npt.NDArray[np.float64], right: npt.NDArray[np.float64]) -> Labels:
    """The places, rising in ``cost``, that are right more often than all that cost less."""
    order = np.lexsort((-right, np.round(cost, 6)))
    best = np.maximum.accumulate(right[order])
    before = np.concatenate([[-1.0], best[:-1]])
    return order[right[order] > before + 1e-12]


def _routed(scores: Floats, logits: Floats, labels: Labels, thresholds: Sequence[float]) -> Routed:
    """What one setting of the thresholds gives."""
    leaves = routing.route(scores, thresholds)
    hits = logits.argmax(-1)[leaves, np.arange(len(labels))] == labels
    shares = np.bincount(leaves, minlength=len(logits)) / len(labels)
    return Routed(float(hits.mean()), tuple(shares.tolist()))
