"""Thresholds for all early exits at once.

They serve a target accuracy, a budget of multiplications, or a share of offloads.

They are chosen on logits of a held-out part of the training set. Every combination of a grid of
thresholds is tried: all distinct scores for one exit, so many quantiles of them for several that
about 20,000 combinations remain. So for one exit the choice is the best there is on these samples;
for several it is that of the grid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from presplit.core.errors import DataError, SpecError
from presplit.core.protocols import ExitPolicy
from presplit.core.types import Floats
from presplit.policies import EXITS
from presplit.train.judging.evaluate import route

COMBINATIONS = 20_000

Goal = Literal["accuracy", "max_drop", "macs", "offload"]
Bools = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Chosen:
    """Thresholds, one for each early exit, and what they give on the samples they are chosen on.

    ``shares`` leave at each exit, the last one included; ``macs``: multiply-accumulates of one
    answer on average, or the mean number of the exit if costs were not given.
    """

    thresholds: tuple[float, ...]
    accuracy: float
    shares: tuple[float, ...]
    macs: float


def choose_thresholds(
    logits: Floats,
    labels: npt.NDArray[np.int64],
    *,
    accuracy: float | None = None,
    max_drop: float | None = None,
    macs: float | None = None,
    offload: float | None = None,
    exit_macs: Sequence[float] | None = None,
    policy: str | ExitPolicy = "confidence",
) -> Chosen:
    """The thresholds that are best for one goal.

    ``logits``: float32 ``(exits, n, classes)`` as `evaluate` gives them; ``labels``: int64
    ``(n,)``. The goal is one of ``accuracy`` (0..1, at least) and ``max_drop`` (0..1 below the last
    exit, at most), reached with the fewest multiplications; or ``macs`` (of one answer on average,
    at most) and ``offload`` (0..1, the share that may reach the last exit), with which as many
    answers as possible are right. ``exit_macs``: what an answer at each exit costs. Raises
    `SpecError` if no thresholds reach the goal, with the best that any do, `DataError` for no
    samples or logits that are not finite.

    >>> logits = np.array([[[9, 0], [1, 0]], [[9, 0], [0, 9]]], np.float32)
    >>> choose_thresholds(logits, np.array([0, 1]), max_drop=0).shares
    (0.5, 0.5)
    """
    goals = {"accuracy": accuracy, "max_drop": max_drop, "macs": macs, "offload": offload}
    (name, goal), *more = [(key, value) for key, value in goals.items() if value is not None] or [
        ("", 0.0)
    ]
    if more or not name:
        raise SpecError(
            f"thresholds are chosen for one of {', '.join(goals)}, got {len(more) + bool(name)} of "
            "them"
        )
    if not (0 <= goal <= 1 if name != "macs" else 0 < goal < math.inf):
        raise SpecError(
            f"{name} must be {'in 0..1' if name != 'macs' else 'a positive number'}, got {goal:g}"
        )
    if np.shape(labels) != logits.shape[1:2]:
        raise DataError(
            f"expected one label for each of {logits.shape[1]} samples, got {np.shape(labels)}"
        )
    if not len(labels) or not np.isfinite(logits).all():
        raise DataError(
            f"thresholds are chosen on finite logits of at least one sample, got {len(labels)} "
            "samples"
        )
    score = EXITS.find(policy) if isinstance(policy, str) else policy
    costs = (
        np.arange(len(logits), dtype=float) if exit_macs is None else np.asarray(exit_macs, float)
    )
    if len(costs) != len(logits):
        raise SpecError(
            f"exit_macs: expected one for each of {len(logits)} exits, got {len(costs)}"
        )
    if name == "macs" and exit_macs is None:
        raise SpecError("macs is a budget: give exit_macs, what an answer at each exit costs")
    hits = logits.argmax(-1) == labels
    tried, right, mean_costs, late = _combinations(
        [score(each) for each in logits[:-1]], hits, costs
    )
    reached = {
        "accuracy": right - (accuracy or 0) * len(labels),
        "max_drop": right - hits[-1].sum() + (max_drop or 0) * len(labels),
        "macs": (macs or 0) - mean_costs,
        "offload": (offload or 0) * len(labels) - late,
    }[name]
    fits = np.flatnonzero(reached >= -1e-9 * len(labels))
    if not len(fits):
        best = {"accuracy": right.max() / len(labels), "macs": mean_costs.min()}.get(
            name, late.min() / len(labels)
        )
        raise SpecError(
            f"{name}: no thresholds reach {goal:g} on these samples, the best is {best:g}"
        )
    order = (-right, mean_costs) if name in ("macs", "offload") else (mean_costs, -right)
    taken = fits[np.lexsort((order[1][fits], order[0][fits]))[0]]
    thresholds = tuple(tried[taken].tolist())
    routed = route(logits, labels, thresholds, policy=score)
    return Chosen(thresholds, routed.accuracy, routed.shares, float(mean_costs[taken]))


def _combinations(
    scores: Sequence[Floats], hits: Bools, costs: Numbers
) -> tuple[Numbers, Numbers, Numbers, Numbers]:
    """Every combination of thresholds ``(m, early exits)``.

    With it come right answers, mean cost and offloads, ``(m,)`` each.
    """
    exits, n = hits.shape
    if not scores:
        return np.empty((1, 0)), hits[-1].sum(keepdims=True), costs[-1:], np.array([n])
    most = max(2, int(COMBINATIONS ** (1 / len(scores))))
    grids = [_grid(each, len(each) + 1 if len(scores) == 1 else most) for each in scores]
    rows: list[Numbers] = []

    def after(
        number: int, thresholds: tuple[float, ...], left: Bools, right: float, cost: float
    ) -> None:
        """All combinations from exit ``number`` on, for the samples that have not left."""
        if number == exits - 2:
            rows.append(
                _last(
                    scores[number][left],
                    hits[-2:, left],
                    costs[-2:],
                    grids[number],
                    thresholds,
                    right,
                    cost,
                )
            )
            return
        for threshold in grids[number].tolist():
            leaves = left & (scores[number] >= threshold)
            gone, found = float(leaves.sum() * costs[number]), float(hits[number][leaves].sum())
            after(number + 1, (*thresholds, threshold), left & ~leaves, right + found, cost + gone)

    after(0, (), np.ones(n, bool), 0.0, 0.0)
    table = np.concatenate(rows)
    return table[:, :-3], table[:, -3], table[:, -2] / n, table[:, -1]


def _last(
    scores: Floats,
    hits: Bools,
    costs: Numbers,
    grid: Floats,
    before: tuple[float, ...],
    right: float,
    cost: float,
) -> Numbers:
    """A row for each threshold of the last early exit.

    A row holds all thresholds, right answers, cost, offloads.

    The surest samples leave, so one sort and a running sum serve the whole grid.
    """
    surest = np.argsort(-scores, kind="stable")
    leaving = np.searchsorted(-scores[surest], -grid, side="right")
    early, late = (np.concatenate([[0], np.cumsum(row[surest])]) for row in hits)
    staying = len(scores) - leaving
    return np.column_stack(
        [
            np.tile(before, (len(grid), 1)),
            grid,
            right + early[leaving] + late[-1] - late[leaving],
            cost + leaving * costs[0] + staying * costs[1],
            staying,
        ]
    )


def _grid(scores: Floats, most: int) -> Floats:
    """At most so many thresholds from the lowest score up, and one above every score.

    With that one the exit never answers.
    """
    distinct = np.unique(scores)
    places = np.unique(
        np.linspace(0, len(distinct) - 1, min(len(distinct), most - 1)).round().astype(int)
    )
    return np.append(distinct[places], np.nextafter(distinct[-1], np.float32(2)))


def temperature(logits: Floats, labels: npt.NDArray[np.int64]) -> float:
    """What logits ``(n, classes)`` of one exit are divided by to be as sure as they are right.

    It minimises the cross-entropy on held-out samples (temperature scaling, arXiv 1706.04599),
    found in 0.05..20 by golden-section search: the cross-entropy has one minimum in 1 /
    temperature. Accuracy stays as it is.

    >>> round(temperature(np.array([[2.0, 0.0]] * 4, np.float32), np.array([0, 0, 0, 1])), 2)
    1.82
    """
    rows = np.arange(len(labels))

    def loss(cold: float) -> float:
        scaled = logits.astype(np.float64) * cold
        scaled -= scaled.max(1, keepdims=True)
        return float((np.log(np.exp(scaled).sum(1)) - scaled[rows, labels]).mean())

    low, high, ratio = 0.05, 20.0, (5**0.5 - 1) / 2
    for _ in range(60):
        first, second = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, second) if loss(first) < loss(second) else (first, high)
    return 2 / (low + high)
