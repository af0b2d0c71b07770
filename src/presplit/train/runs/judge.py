"""What a trained net is worth: accuracies, thresholds, temperatures."""

from __future__ import annotations

from typing import Any

import torch

from presplit.train.judging.evaluate import accuracies, evaluate, route
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
    costed = len(early) > 1 or goal is not None  # one exit is chosen alike whatever it costs
    macs = (
        exit_macs(run.model, torch.from_numpy(run.train.x[:1].copy())) if early and costed else None
    )
    rows: list[dict[str, Any]] = []
    for name, value in goals if early else ():
        asked = {name: value}
        chosen = choose_thresholds(held, run.held_out.y, exit_macs=macs, policy=score, **asked)
        routed = route(test, run.data.test.y, chosen.thresholds, policy=score)
        thresholds = dict(zip(early, chosen.thresholds, strict=True))
        shares = dict(zip(names, routed.shares, strict=True))
        row = {
            "goal": asked,
            "thresholds": thresholds,
            "accuracy": routed.accuracy,
            "shares": shares,
        }
        row["validation_accuracy"] = chosen.accuracy
        if macs:
            row["macs"] = sum(share * cost for share, cost in zip(routed.shares, macs, strict=True))
        rows.append(row)
    return {
        "name": run.spec.name,
        "data": run.data.name,
        "padding": run.padding,
        "classes": len(run.data.labels),
        "outputs": test.shape[-1],
        "weights": count_weights(run.model),
        "accuracy": dict(zip(names, accuracies(test, run.data.test.y), strict=True)),
        "validation_accuracy": dict(zip(names, accuracies(held, run.held_out.y), strict=True)),
        "temperatures": {
            name: temperature(own, run.held_out.y) for name, own in zip(names, held, strict=True)
        },
        "policy": score,
        "thresholds": rows,
    }
