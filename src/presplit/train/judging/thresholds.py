"""Thresholds for all early exits at once.

They serve a target accuracy, a budget of multiplications, or a share of offloads.

They are chosen on logits of a held-out part of the training set, by the rule of
`presplit.core.routing`. Every combination of a grid of thresholds is tried: all distinct scores for
one exit, so many quantiles of them for several that about 20,000 combinations remain. So for one
exit the choice is the best there is on these samples; for several it is that of the grid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from presplit.core import routing
from presplit.core.errors import DataError, SpecError
from presplit.core.protocols import ExitPolicy
from presplit.core.types import Floats
from presplit.policies import EXITS

COMBINATIONS = 20_000
ROUNDING = 1e-9
"""Shares of samples are sums of float64: 0.29 of 100 samples is a little less than 29."""

Goal = Literal["accuracy", "max_drop", "macs", "offload"]
Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Chosen:
    """Thresholds, one for each early exit, and what they give on the samples they are chosen on.

    ``shares`` leave at each exit, the last one included; ``macs``: multiply-accumulates of one
    answer on average, None if it was not said what an exit costs.
    """

    thresholds: tuple[float, ...]
    accuracy: float
    shares: tuple[float, ...]
    macs: float | None


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
    exit, at most), reached at the least cost; or ``macs`` (of one answer on average, at most) and
    ``offload`` (0..1, the share that may reach the last exit), with which as many answers as
    possible are right. ``exit_macs``: what an answer at each exit costs; without it, an earlier
    exit is a cheaper one. Raises `SpecError` if no thresholds reach the goal, with the best that
    any do, `DataError` for no samples or logits that are not finite.

    >>> logits = np.array([[[9, 0], [1, 0]], [[9, 0], [0, 9]]], np.float32)
    >>> chosen = choose_thresholds(logits, np.array([0, 1]), max_drop=0)
    >>> chosen.shares, chosen.macs
    ((0.5, 0.5), None)
    """
    name, goal = _goal(accuracy=accuracy, max_drop=max_drop, macs=macs, offload=offload)
    _refuse_samples(logits, labels)
    if exit_macs is not None and len(exit_macs) != len(logits):
        raise SpecError(
            f"exit_macs: expected one for each of {len(logits)} exits, got {len(exit_macs)}"
        )
    if name == "macs" and exit_macs is None:
        raise SpecError("macs is a budget: give exit_macs, what an answer at each exit costs")
    score = EXITS.find(policy) if isinstance(policy, str) else policy
    scores = (
        np.stack([score(each) for each in logits[:-1]]) if len(logits) > 1 else logits[:0, :, 0]
    )
    hits = logits.argmax(-1) == labels
    tried = grids(scores)
    found = routing.weigh(scores, hits, tried)
    costs = range(len(logits)) if exit_macs is None else exit_macs
    cost = sum(share * each for share, each in zip(found.shares, costs, strict=True))
    taken = _best(name, goal, found, np.asarray(cost, float), float(hits[-1].mean()))
    thresholds = tuple(
        float(np.append(rising, never(rising))[at]) for at, rising in zip(taken, tried, strict=True)
    )
    shares = tuple(float(share[taken]) for share in found.shares)
    mean = None if exit_macs is None else float(np.dot(shares, exit_macs))
    return Chosen(thresholds, float(found.right[taken]), shares, mean)


def _goal(**goals: float | None) -> tuple[str, float]:
    """The one goal that is given; raises `SpecError` for none, several, or one out of range."""
    given = [(name, value) for name, value in goals.items() if value is not None]
    if len(given) != 1:
        raise SpecError(
            f"thresholds are chosen for one of {', '.join(goals)}, got {len(given)} of them"
        )
    name, value = given[0]
    if name == "macs" and not 0 < value < math.inf:
        raise SpecError(f"macs must be a positive number, got {value:g}")
    if name != "macs" and not 0 <= value <= 1:
        raise SpecError(f"{name} must be in 0..1, got {value:g}")
    return name, value


def _refuse_samples(logits: Floats, labels: npt.NDArray[np.int64]) -> None:
    if np.shape(labels) != logits.shape[1:2]:
        raise DataError(
            f"expected one label for each of {logits.shape[1]} samples, got {np.shape(labels)}"
        )
    if not len(labels) or not np.isfinite(logits).all():
        raise DataError(
            f"thresholds are chosen on finite logits of at least one sample, got {len(labels)} "
            "samples"
        )


def grids(scores: Floats) -> list[Floats]:
    """The thresholds to try for each early exit: rising scores, "never" not among them.

    ``scores``: ``(early exits, n)``.
    """
    early, n = scores.shape
    most = n if early == 1 else max(1, int(COMBINATIONS ** (1 / max(1, early))) - 1)
    return [routing.grid(of_exit, most) for of_exit in scores]


def never(rising: Floats) -> float:
    """The threshold above all those that are ``rising`` to it: no sample reaches it."""
    return float(np.nextafter(rising[-1], np.float32(2)))


def _best(
    name: str, goal: float, found: routing.Weighed, cost: Numbers, last: float
) -> tuple[int, ...]:
    """The place of the best combination that reaches the goal.

    ``last``: the accuracy of the last exit alone.
    """
    late = found.shares[-1]
    room = {
        "accuracy": found.right - goal,
        "max_drop": found.right - (last - goal),
        "macs": (goal - cost) / max(1.0, goal),
        "offload": goal - late,
    }[name]
    fits = np.flatnonzero(room.ravel() >= -ROUNDING)
    if not len(fits):
        best = {"macs": cost.min(), "offload": late.min()}.get(name, found.right.max())
        raise SpecError(
            f"{name}: no thresholds reach {goal:g} on these samples, the best is {best:g}"
        )
    right, spent = found.right.ravel()[fits], cost.ravel()[fits] / max(1.0, cost.max())
    keys = (spent, -right) if name in ("macs", "offload") else (-right, spent)
    taken = fits[np.lexsort(np.round(keys, 9))[0]]  # the last key weighs most; ties stay ties
    return tuple(int(at) for at in np.unravel_index(taken, found.right.shape))


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
