"""What a trained net is worth: accuracies, thresholds, temperatures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from presplit.core.types import Floats
from presplit.train.judging.evaluate import accuracies, balanced_accuracy, evaluate, route
from presplit.train.judging.thresholds import Goal, choose_thresholds, temperature
from presplit.train.nets.add_exits import exit_macs
from presplit.train.nets.summary import count_weights
from presplit.train.runs.build import Run

DROPS = (0.0, 0.001, 0.002, 0.005, 0.01)
"""Losses of accuracy for which thresholds are told."""


def judge(
    run: Run, *, policy: str | None = None, goal: tuple[Goal, float] | None = None
) -> dict[str, Any]:
    """Accuracies of every exit on the test set, weights, and thresholds from the held-out part.

    ``balanced_accuracy`` counts every class alike; ``is_uneven``: the commonest class of the
    test set has more than twice the samples of the rarest.

    ``goal``: one of those of `choose_thresholds`; without it, several losses of accuracy.
    ``thresholds`` lists for each goal every early exit's threshold, the accuracy with them on the
    held-out part and on the test set, and the share of test samples that leave at each exit; with a
    goal or several early exits also the mean ``macs`` of their answers. ``temperatures``: what each
    exit's logits are to be divided by to be as sure as they are right. ``policy`` is the spec's if
    not given. Raises `SpecError` if no thresholds reach the goal.
    """
    names, early = run.exit_names, run.exit_names[:-1]
    held, test = (evaluate(run.model, part) for part in (run.held_out, run.data.test))
    score = policy or (run.spec.exits.policy if run.spec.exits else "confidence")
    goals: list[tuple[Goal, float]] = [goal] if goal else [("max_drop", drop) for drop in DROPS]
    macs = None
    if early and (len(early) > 1 or goal):  # one exit is chosen alike whatever it costs
        macs = exit_macs(run.model, torch.from_numpy(run.train.x[:1].copy()))
    rows = [_row(run, held, test, each, score, macs) for each in goals if early]
    return {
        "name": run.spec.name,
        "data": run.data.name,
        "padding": run.padding,
        "left_out": len(run.data.left_out),
        "classes": len(run.data.labels),
        "outputs": test.shape[-1],
        "weights": count_weights(run.model),
        "accuracy": dict(zip(names, accuracies(test, run.data.test.y), strict=True)),
        "balanced_accuracy": {
            name: balanced_accuracy(own.argmax(-1), run.data.test.y)
            for name, own in zip(names, test, strict=True)
        },
        "is_uneven": is_uneven(run.data.test.y),
        "validation_accuracy": dict(zip(names, accuracies(held, run.held_out.y), strict=True)),
        "temperatures": {
            name: temperature(own, run.held_out.y) for name, own in zip(names, held, strict=True)
        },
        "policy": score,
        "thresholds": rows,
    }


def is_uneven(labels: npt.NDArray[np.int64]) -> bool:
    """Whether the commonest class has more than twice the samples of the rarest.

    >>> is_uneven(np.array([0, 0, 0, 1])), is_uneven(np.array([0, 0, 1]))
    (True, False)
    """
    _, counts = np.unique(labels, return_counts=True)
    return bool(counts.max() > 2 * counts.min())


def _row(
    run: Run,
    held: Floats,
    test: Floats,
    goal: tuple[Goal, float],
    policy: str,
    macs: Sequence[float] | None,
) -> dict[str, Any]:
    """The thresholds for one goal, and what they give."""
    asked = {goal[0]: goal[1]}
    chosen = choose_thresholds(held, run.held_out.y, exit_macs=macs, policy=policy, **asked)
    routed = route(test, run.data.test.y, chosen.thresholds, policy=policy)
    row = {
        "goal": asked,
        "thresholds": dict(zip(run.exit_names[:-1], chosen.thresholds, strict=True)),
        "accuracy": routed.accuracy,
        "shares": dict(zip(run.exit_names, routed.shares, strict=True)),
        "validation_accuracy": chosen.accuracy,
    }
    if macs:
        row["macs"] = sum(share * cost for share, cost in zip(routed.shares, macs, strict=True))
    return row
