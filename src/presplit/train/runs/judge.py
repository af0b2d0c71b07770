"""What a trained net is worth: accuracies, thresholds, temperatures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from presplit.core.types import Floats
from presplit.train.judging.calibration import reliability
from presplit.train.judging.classes import confusion, per_class
from presplit.train.judging.curve import curve
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

    ``samples``: how many there are to train with, held out of these, and to test with.
    ``balanced_accuracy`` counts every class alike; ``is_uneven``: the commonest class of the
    test set has more than twice the samples of the rarest. ``validation_accuracy`` is that of the
    held-out part. ``exit_macs``: what an answer costs at each exit, if there are several.

    ``per_class``: a row for each class, in the order of the net's outputs, as
    `presplit.train.judging.classes.per_class` gives it for the test set, and how many samples there
    are to ``train`` with and ``held_out``. ``confusion``: for each exit, rows of counts: how many
    test samples of each class (row) got each answer (column).

    ``temperatures``: what each exit's logits are to be divided by to be as sure as they are right;
    ``calibration``: for each exit ``before`` and ``after`` that, how sure it is and how often right
    on the test set, as `presplit.train.judging.calibration.reliability` gives it.

    ``goal``: one of those of `choose_thresholds`; without it, several losses of accuracy.
    ``thresholds`` lists for each goal every early exit's threshold, the accuracy with them on the
    held-out part and on the test set, and the share of test samples that leave at each exit, and
    the mean ``macs`` of their answers. ``curve``: what thresholds give from "all leave early" to
    "none does", as `presplit.train.judging.curve.curve` gives it; empty without early exits.
    ``notes``: sentences on what differs from what was asked, and on what is probably not meant.
    ``policy`` is the spec's if not given. Raises `SpecError` if no thresholds reach the goal.
    """
    names, early = run.exit_names, run.exit_names[:-1]
    held, test = (evaluate(run.model, part) for part in (run.held_out, run.data.test))
    score = policy or (run.spec.exits.policy if run.spec.exits else "confidence")
    goals: list[tuple[Goal, float]] = [goal] if goal else [("max_drop", drop) for drop in DROPS]
    macs = exit_macs(run.model, torch.from_numpy(run.train.x[:1].copy())) if early else []
    cold = [temperature(own, run.held_out.y) for own in held]
    return {
        "name": run.spec.name,
        "data": run.data.name,
        "padding": run.padding,
        "left_out": len(run.data.left_out),
        "classes": len(run.data.labels),
        "outputs": test.shape[-1],
        "samples": {
            "train": len(run.train),
            "held_out": len(run.held_out),
            "test": len(run.data.test),
        },
        "weights": count_weights(run.model),
        "accuracy": dict(zip(names, accuracies(test, run.data.test.y), strict=True)),
        "balanced_accuracy": {
            name: balanced_accuracy(own.argmax(-1), run.data.test.y)
            for name, own in zip(names, test, strict=True)
        },
        "is_uneven": is_uneven(run.data.test.y),
        "validation_accuracy": dict(zip(names, accuracies(held, run.held_out.y), strict=True)),
        "exit_macs": dict(zip(names, macs, strict=bool(early))),
        "temperatures": dict(zip(names, cold, strict=True)),
        "policy": score,
        "thresholds": [_row(run, held, test, each, score, macs) for each in goals if early],
        "per_class": _per_class(run, test),
        "confusion": {
            name: confusion(
                own.argmax(-1),
                run.data.test.y,
                classes=len(run.data.labels),
                outputs=test.shape[-1],
            )
            for name, own in zip(names, test, strict=True)
        },
        "calibration": {
            name: {
                "before": reliability(own, run.data.test.y),
                "after": reliability(own, run.data.test.y, temperature=each),
            }
            for name, own, each in zip(names, test, cold, strict=True)
        },
        "curve": _curve(run, held, test, score, macs),
        "notes": [*run.notes, *run.doubts],
    }


def _per_class(run: Run, test: Floats) -> list[dict[str, Any]]:
    """What the net is worth for each class, and on how many samples that rests."""
    names = run.data.labels
    rows = per_class(test, run.data.test.y, names=names, exit_names=run.exit_names)
    seen = np.bincount(run.train.y, minlength=len(names)).tolist()
    held = np.bincount(run.held_out.y, minlength=len(names)).tolist()
    return [
        {"name": row["name"], "train": trained, "held_out": out, **row}
        for row, trained, out in zip(rows, seen, held, strict=True)
    ]


def _curve(
    run: Run, held: Floats, test: Floats, policy: str, macs: Sequence[float]
) -> list[dict[str, Any]]:
    """The line of thresholds, if there are any to set."""
    if len(run.exit_names) == 1:
        return []
    return curve(
        (held, run.held_out.y),
        (test, run.data.test.y),
        exit_macs=macs,
        exit_names=run.exit_names,
        policy=policy,
    )


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
    macs: Sequence[float],
) -> dict[str, Any]:
    """The thresholds for one goal, and what they give."""
    asked = {goal[0]: goal[1]}
    chosen = choose_thresholds(held, run.held_out.y, exit_macs=macs, policy=policy, **asked)
    routed = route(test, run.data.test.y, chosen.thresholds, policy=policy)
    return {
        "goal": asked,
        "thresholds": dict(zip(run.exit_names[:-1], chosen.thresholds, strict=True)),
        "accuracy": routed.accuracy,
        "shares": dict(zip(run.exit_names, routed.shares, strict=True)),
        "validation_accuracy": chosen.accuracy,
        "macs": sum(share * cost for share, cost in zip(routed.shares, macs, strict=True)),
    }
